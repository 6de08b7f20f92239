"""The dashboard in a real Chromium, on a scripted gateway: what people see when messages arrive, connections break and strangers try tricks."""

import json
import random
from typing import Any

import msgspec
import pytest
import trio

from protocol.commands import ContactRef
from protocol.content import (
    Contacts,
    Content,
    Context,
    Location,
    Media,
    Order,
    OrderItem,
    Problem,
    Reaction,
    Reply,
    Text,
    Unsupported,
    Welcome,
)
from protocol.events import (
    CallRecorded,
    ContactIdentified,
    MessageEdited,
    MessageRevoked,
    PreferenceSet,
    UnknownKept,
)
from tests.support.chromium import Page
from tests.support.fake_gateway import BERLIN, KEY, FakeGateway, Gate, Thread, now

pytestmark = pytest.mark.slow

FIRST_LOAD = 100_000  # bytes, uncompressed
HOUR = 3_600_000
LIVE = "document.querySelector('parley-app[data-connection=live]')"
TEXTS = "[...document.querySelectorAll('.message .text')].map((one) => one.textContent)"


@pytest.fixture
async def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def address(gateway: FakeGateway, nursery: trio.Nursery) -> str:
    return str(await nursery.start(gateway.serve))


def person(number: int, name: str | None = None) -> ContactRef:
    return ContactRef(phone=f"4915100{number:05d}", name=name)


def raw(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(value))


def many(gateway: FakeGateway, count: int) -> list[Thread]:
    """Conversations whose activity lies one minute apart, the first the newest."""
    threads = []
    for number in range(count):
        at = now() - HOUR - number * 60_000
        threads.append(gateway.conversation(person(number, f"Person {number:04d}"), at=at))
        gateway.say(threads[-1], f"Question {number}", at=at)
    return threads


async def sign_in(page: Page, address: str) -> None:
    await page.navigate(f"{address}/#key={KEY}")
    await page.wait_for(LIVE)


async def open_thread(page: Page, thread: Thread) -> None:
    await page.evaluate(f"location.hash = '#/c/{thread.id}'")
    await page.wait_for(f"document.querySelector('thread-view[data-state=ready][data-conversation={thread.id}]')")


async def wait_offset(page: Page, gateway: FakeGateway) -> None:
    """Return once all events so far are folded in and painted: rows are painted in the picture after."""
    await page.wait_for(f"document.querySelector('parley-app').dataset.offset === '{len(gateway.feed)}'")
    await page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")


def row(thread: Thread) -> str:
    return f"document.getElementById('row-{thread.id}')"


def own_problems(page: Page) -> list[str]:
    """What is wrong with the page itself: a server that refuses on purpose is not."""
    return [problem for problem in page.problems if not problem.startswith("network:")]


async def test_a_key_link_signs_in_leaves_no_key_in_the_address_and_loads_little(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    thread = gateway.conversation(person(1, "Mira Kovač"))
    gateway.say(thread, "Do you have rye bread?")
    await sign_in(page, address)
    await page.wait_for(f"{row(thread)}?.innerText.includes('Do you have rye bread?')")
    assert KEY not in await page.evaluate("location.href")
    assert await page.evaluate("[sessionStorage.length, localStorage.length]") == [1, 0]
    static = {url: size for url, size in page.loaded.items() if "/api/" not in url}
    assert 10 < len(static) < 25
    assert sum(static.values()) <= FIRST_LOAD
    await page.navigate(f"{address}/?again")  # the tab remembers
    await page.wait_for(LIVE)
    assert page.problems == []


async def test_a_wrong_key_is_refused_in_words_and_a_revoked_one_signs_out(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    await page.navigate(address)
    await page.wait_for("document.activeElement?.id === 'key'")
    await page.type("pk_wrong")
    await page.press("Enter")
    await page.wait_for("document.querySelector('#key-problem').innerText.includes('not valid')")
    await page.evaluate("document.querySelector('#key').value = ''")
    await page.type(KEY)
    await page.press("Enter")
    await page.wait_for(LIVE)
    gateway.revoked = True
    gateway.cut()
    await page.wait_for("document.querySelector('#key-problem')?.innerText.includes('no longer valid')")
    assert await page.evaluate("document.querySelector('parley-app').dataset.connection") == "refused"
    assert await page.evaluate("sessionStorage.length") == 0
    assert own_problems(page) == []


async def test_messages_arrive_and_ticks_only_move_forward(page: Page, gateway: FakeGateway, address: str) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    gateway.say(thread, "First")
    await sign_in(page, address)
    await open_thread(page, thread)
    gateway.say(thread, "Second")
    await page.wait_for(f"{TEXTS}.join() === 'First,Second'")
    await page.wait_for("document.querySelector('[aria-live=polite]').textContent === 'Mira: Second'")
    await page.wait_for(f"{row(thread)}.querySelector('.badge').textContent === '2'")
    answer = gateway.say(thread, "Answer", outbound=True)
    shown = f"document.querySelector('[data-message=\"{answer}\"]')"
    await page.wait_for(shown)
    for status, seen in [
        ("sent", "sent"),
        ("read", "read"),
        ("delivered", "read"),
        ("played", "played"),
        ("sent", "played"),
    ]:
        gateway.receipt(thread, answer, status)
        await wait_offset(page, gateway)
        assert await page.evaluate(f"{shown}.dataset.status") == seen
        assert (
            await page.evaluate(f"{shown}.querySelector('.tick svg').getAttribute('aria-label')") == seen.capitalize()
        )
        assert await page.evaluate(f"{row(thread)}.querySelector('.row-tick').dataset.status") == seen
    assert await page.evaluate(f"{row(thread)}.querySelector('.badge').textContent") == ""
    refused = gateway.say(thread, "Late", outbound=True)
    gateway.receipt(thread, refused, "failed", problems=(Problem(131047, "Re-engagement message"),))
    await page.wait_for("document.querySelector('.message .problem')?.innerText === 'Re-engagement message (131047)'")
    assert page.problems == []


async def test_a_lost_connection_resumes_without_gap_or_repeat(page: Page, gateway: FakeGateway, address: str) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    other = gateway.conversation(person(2, "Jonas"))
    await sign_in(page, address)
    await open_thread(page, thread)
    for number in range(5):
        gateway.say(thread, f"before {number}")
    answer = gateway.say(thread, "answer", outbound=True)
    await wait_offset(page, gateway)
    seen = len(gateway.feed)
    gateway.refusing = True
    gateway.cut()
    await page.wait_for(
        "document.querySelector('status-bar[data-connection=reconnecting]')?.innerText.match(/in \\d+ s/)"
    )
    for number in range(20):
        gateway.say(thread, f"away {number}")
    gateway.receipt(thread, answer, "read")
    gateway.say(other, "also here")
    gateway.refusing = False
    await page.evaluate("document.querySelector('status-bar .link:not([hidden])')?.click()")
    await page.wait_for(LIVE)
    resumed = gateway.subscriptions[-1]
    assert (tuple(resumed["topics"]), resumed["epoch"], resumed["offset"]) == (("tenant",), "e1", seen)
    gateway.say(thread, "after")
    await wait_offset(page, gateway)
    expected = [f"before {n}" for n in range(5)] + ["answer"] + [f"away {n}" for n in range(20)] + ["after"]
    assert await page.evaluate(TEXTS) == expected
    assert await page.evaluate(f"document.querySelector('[data-message=\"{answer}\"]').dataset.status") == "read"
    assert await page.evaluate(f"{row(other)}.querySelector('.row-preview').textContent") == "also here"
    assert own_problems(page) == []


async def test_what_happens_while_a_snapshot_is_on_its_way_is_not_lost(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    answer = gateway.say(thread, "answer", outbound=True)
    await sign_in(page, address)

    newcomer = gateway.conversation(person(2, "Jonas"))
    gateway.held = Gate("/conversations")
    gateway.say(newcomer, "first")
    await gateway.held.reached.wait()
    gateway.say(newcomer, "second")
    await wait_offset(page, gateway)
    gateway.held.opened.set()
    await page.wait_for(f"{row(newcomer)}?.querySelector('.row-preview').textContent === 'second'")

    gateway.held = Gate("/messages")
    await page.evaluate(f"location.hash = '#/c/{thread.id}'")
    await gateway.held.reached.wait()
    gateway.say(thread, "meanwhile")
    gateway.receipt(thread, answer, "read")
    await wait_offset(page, gateway)
    gateway.held.opened.set()
    await page.wait_for(f"{TEXTS}.join() === 'answer,meanwhile'")
    assert await page.evaluate(f"document.querySelector('[data-message=\"{answer}\"]').dataset.status") == "read"
    assert page.problems == []


async def test_without_a_network_it_says_so_and_resumes_when_it_is_back(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    gateway.say(thread, "one")
    await sign_in(page, address)
    await open_thread(page, thread)
    await page.set_offline(True)
    await page.wait_for("document.querySelector('parley-app[data-connection=offline]')")
    gateway.say(thread, "two")
    await page.set_offline(False)
    await page.wait_for(LIVE)
    await page.wait_for(f"{TEXTS}.join() === 'one,two'")
    assert own_problems(page) == []


@pytest.mark.parametrize("loss", ["too_old", "epoch_changed"])
async def test_snapshot_required_reads_list_and_thread_anew(
    page: Page, gateway: FakeGateway, address: str, loss: str
) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    for number in range(4):
        gateway.say(thread, f"old {number}")
    await sign_in(page, address)
    await open_thread(page, thread)
    gateway.refusing = True
    gateway.cut()
    await page.wait_for("document.querySelector('parley-app[data-connection=reconnecting]')")
    if loss == "too_old":
        gateway.say(thread, "missed")
        gateway.forget_feed()
        expected = ["old 0", "old 1", "old 2", "old 3", "missed", "live"]
    else:  # restored from a backup: fewer events than the page had seen, at lower versions
        gateway.begin_epoch("e2")
        thread = gateway.conversation(person(1, "Mira"))
        gateway.say(thread, "restored")
        expected = ["restored", "live"]
    newcomer = gateway.conversation(person(2, "Jonas"))
    gateway.say(newcomer, "hello")
    gateway.refusing = False
    await page.wait_for(LIVE)
    gateway.say(thread, "live")
    await wait_offset(page, gateway)
    assert await page.evaluate(TEXTS) == expected
    assert await page.evaluate(f"{row(newcomer)}.querySelector('.row-preview').textContent") == "hello"
    assert await page.evaluate(f"{row(thread)}.querySelector('.badge').textContent") == str(thread.row["unanswered"])
    assert await page.evaluate("document.querySelector('parley-app').dataset.epoch") == gateway.epoch
    assert own_problems(page) == []


async def test_what_strangers_write_is_only_ever_text(page: Page, gateway: FakeGateway, address: str) -> None:
    attack = '<img src=x onerror="window.owned=1"><script>window.owned=1</script>'
    link = "javascript:window.owned=1"
    thread = gateway.conversation(ContactRef(phone="4915100000001", name=attack, username=attack))
    contents: list[Content] = [
        Text(f'{attack} {link} https://safe.example/?q="onmouseover=1 data:text/html,{attack}'),
        Media("document", "m1", attack, caption=attack, filename=attack),
        Location(1.0, 2.0, attack, attack, link),
        Contacts((raw({"name": {"formatted_name": attack}, "emails": [{"email": attack}]}),)),
        Reply("flow", attack, attack, attack, attack),
        Order("1", (OrderItem(attack, 1, "NaN", attack),), attack),
        Unsupported(attack, raw({attack: attack}), attack),
    ]
    for content in contents:
        gateway.say(thread, content)
    gateway.say(thread, Reaction("wamid.1", attack))
    gateway.record(thread, UnknownKept(now(), attack, raw({attack: attack})))
    gateway.quarantine = [
        {
            "id": attack,
            "at": now(),
            "reason": attack,
            "detail": attack,
            "payload": attack,
            "encoding": "utf-8",
            "size": 1,
        }
        | {"truncated": False, "webhook": attack, "conversation": attack}
    ]
    await sign_in(page, address)
    await open_thread(page, thread)
    await page.click("[aria-label='Contact details']")
    await page.click("status-bar .warn")
    await page.wait_for("document.querySelector('.entry')")
    assert await page.evaluate("window.owned") is None
    assert (
        await page.evaluate("document.querySelectorAll('body script, body img:not([src=\"/static/mark.svg\"])').length")
        == 0
    )
    assert await page.evaluate("document.querySelectorAll('.message').length") == len(contents)
    links = await page.evaluate("[...document.querySelectorAll('a')].map((link) => link.href)")
    assert links == ["https://safe.example/?q=", "https://www.openstreetmap.org/?mlat=1&mlon=2#map=16/1/2"]
    assert page.problems == []


async def test_every_kind_of_content_and_event_is_shown(page: Page, gateway: FakeGateway, address: str) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    first = gateway.say(thread, "Guten Tag", at=now() - 48 * HOUR)
    gateway.say(thread, Reaction(first, "👍"), outbound=True)
    gateway.say(thread, Reaction(first, "🎉"))
    gateway.say(thread, Reaction(first, "❤️"))  # a change of mind: the newest of each side stands
    gateway.say(thread, Media("audio", "m1", "audio/ogg; codecs=opus", voice=True))
    gateway.say(thread, Location(52.5, 13.4, "Market hall", "Alexanderplatz 1"))
    gateway.say(thread, Contacts((raw({"name": {"formatted_name": "Jo Example"}, "phones": [{"wa_id": "49151"}]}),)))
    gateway.say(thread, Reply("list", "1", "Saturday", "At the counter"))
    gateway.say(thread, Order("1", (OrderItem("Rye", 3, "0.10", "EUR"), OrderItem("Roll", 1, "0.2", "EUR"))))
    gateway.say(thread, Welcome())
    gateway.say(thread, Unsupported("poll_creation", raw({"poll": {"name": "Which?"}})))
    edited = gateway.say(thread, "We open at 8", outbound=True)
    gateway.record(thread, MessageEdited(now(), "wamid.edit", edited, Text("We open at 7"), True))
    secret = gateway.say(thread, "top secret")
    gateway.record(thread, MessageRevoked(now(), "wamid.revoke", secret))
    quoting = gateway.say(thread, "שלום", context=Context(message_id=first, forwarded=True))
    gateway.record(thread, CallRecorded(now(), "wacid.1", "connect", raw({"id": "wacid.1"}), True))
    gateway.record(thread, CallRecorded(now(), "wacid.1", "terminate", raw({"id": "wacid.1", "duration": 84}), True))
    gateway.record(thread, PreferenceSet(now(), "marketing_messages", "stop"))
    gateway.record(thread, ContactIdentified(now(), thread.contact, ("phone:49222",), ("phone:49111",)))
    gateway.record(thread, UnknownKept(now(), "pin", raw({"pin": 1})))
    await sign_in(page, address)
    await open_thread(page, thread)

    async def snapshot() -> str:
        return str(await page.evaluate("document.querySelector('.log').innerText"))

    shown = await snapshot()
    for wanted in (
        "Voice message", "audio/ogg", "Market hall", "52.50000, 13.40000", "Jo Example", "+49151", "Saturday", "At the counter", "€0.50",
        "Opened the chat", "poll_creation", "We open at 7", "edited", "took this message back", "Guten Tag", "Forwarded", "שלום",
        "Incoming call: ended, 1:24 min", "stopped marketing messages", "from +49111 to +49222", "not understood yet: pin", "Conversation started",
    ):  # fmt: skip
        assert wanted in shown, wanted
    assert "top secret" not in await page.evaluate("document.body.textContent")
    assert await page.evaluate("document.querySelectorAll('.day').length") == 2
    reactions = "[...document.querySelectorAll('.reactions span')].map((one) => one.getAttribute('aria-label')).sort().join('; ')"
    assert await page.evaluate(reactions) == "❤️ from Mira; 👍 from you"
    quoted = f"document.querySelector('[data-message=\"{quoting}\"] .quote')"
    assert await page.evaluate(f"{quoted}.innerText") == "Mira\nGuten Tag"
    await page.evaluate(f"{quoted}.click()")
    await page.wait_for(f"document.querySelector('[data-message=\"{first}\"].lit')")
    lost = gateway.say(thread, "which one?", context=Context(message_id="wamid.of-long-ago"))
    await page.wait_for(
        f"document.querySelector('[data-message=\"{lost}\"] .quote:disabled')?.innerText.includes('not in this thread')"
    )
    gateway.say(thread, Reaction(first, None))
    await page.wait_for(f"{reactions} === '👍 from you'")
    assert page.problems == []


async def test_the_reader_is_not_moved_by_new_messages_nor_by_older_pages(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    thread = gateway.conversation(person(1, "Mira"))
    ids = [gateway.say(thread, f"line {number}", at=now() - HOUR + number) for number in range(180)]
    await sign_in(page, address)
    await open_thread(page, thread)
    scroller = "document.querySelector('.thread-body .scroller')"
    at_bottom = f"{scroller}.scrollHeight - {scroller}.scrollTop - {scroller}.clientHeight < 2"
    assert await page.evaluate(at_bottom)
    gateway.say(thread, "at the bottom")
    await page.wait_for(f"{TEXTS}.at(-1) === 'at the bottom' && {at_bottom}")

    top_of = f"document.querySelector('[data-message=\"{ids[140]}\"]').getBoundingClientRect().top"
    await page.evaluate(f"document.querySelector('[data-message=\"{ids[140]}\"]').scrollIntoView()")
    await page.evaluate("new Promise(requestAnimationFrame)")
    before = await page.evaluate(top_of)
    gateway.say(thread, "while reading above")
    await page.wait_for("document.querySelector('.pill-bottom:not([hidden])')?.innerText === '1 new message'")
    assert await page.evaluate(top_of) == before

    first = "document.querySelector('.message')"
    oldest, before = await page.evaluate(
        f"(({scroller}.scrollTop = 120), [{first}.dataset.message, {first}.getBoundingClientRect().top])"
    )
    await page.wait_for(f"{first}.dataset.message !== '{oldest}'")
    after = await page.evaluate(f"document.querySelector('[data-message=\"{oldest}\"]').getBoundingClientRect().top")
    assert abs(after - before) <= 1
    await page.wait_for(f"(({scroller}.scrollTop = 0), {TEXTS}[0] === 'line 0')")
    expected = [f"line {n}" for n in range(180)] + ["at the bottom", "while reading above"]
    assert await page.evaluate(TEXTS) == expected
    await page.click(".pill-bottom")
    await page.wait_for(f"{at_bottom} && document.querySelector('.pill-bottom').hidden")
    assert page.problems == []


async def test_a_long_list_keeps_few_rows_and_reaches_its_end(page: Page, gateway: FakeGateway, address: str) -> None:
    threads = many(gateway, 700)
    await sign_in(page, address)
    scroller = "document.querySelector('conversation-list .scroller')"
    await page.wait_for(f"({scroller}.scrollTop = {scroller}.scrollHeight, {row(threads[-1])})")
    assert await page.evaluate("document.querySelectorAll('.row').length") < 40
    assert await page.evaluate("document.querySelector('.rows').dataset.count") == "700"
    # far from the top, activity does not move what is read; a pill tells, and leads there
    names = "[...document.querySelectorAll('.row')].map((row) => row.querySelector('.row-name').textContent).join()"
    before = await page.evaluate(names)
    gateway.say(threads[300], "up again")
    await page.wait_for("document.querySelector('.pill-top:not([hidden])')?.innerText === '1 new'")
    assert await page.evaluate(names) == before
    await page.click(".pill-top")
    await page.wait_for(f"{row(threads[300])}?.getAttribute('aria-posinset') === '1'")
    assert await page.evaluate("document.querySelector('.pill-top').hidden")
    assert page.problems == []


async def test_rows_hold_still_under_the_pointer_and_move_once_it_leaves(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    threads = many(gateway, 6)
    await sign_in(page, address)
    place = "({id}.getAttribute('aria-posinset'))"
    await page.wait_for(row(threads[5]))
    await page.move_mouse(200, 300)
    gateway.say(threads[5], "me first")
    await page.wait_for(f"{row(threads[5])}.querySelector('.row-preview').textContent === 'me first'")
    assert await page.evaluate(place.format(id=row(threads[5]))) == "6"
    await page.move_mouse(900, 300)
    await page.wait_for(f"{place.format(id=row(threads[5]))} === '1'")
    newcomer = gateway.conversation(person(99, "Newcomer"))
    gateway.say(newcomer, "hello")
    await page.wait_for(f"{row(newcomer)} && {place.format(id=row(newcomer))} === '1'")
    assert page.problems == []


async def test_search_filters_and_keys(page: Page, gateway: FakeGateway, address: str) -> None:
    threads = many(gateway, 8)
    gateway.say(threads[2], "all done", outbound=True, at=now() - HOUR)
    nairobi = gateway.conversation(person(50, "Grace"), endpoint="300000000000002")
    gateway.say(nairobi, "Habari")
    count = "document.querySelector('.rows').dataset.count"
    await sign_in(page, address)
    await page.wait_for(f"{count} === '9'")
    assert await page.evaluate(f"{row(nairobi)}.querySelector('.tag').textContent") == "Nairobi"
    await page.evaluate("document.querySelector('.chip').click()")
    await page.wait_for(f"{count} === '8' && !{row(threads[2])}")
    gateway.say(threads[2], "one more thing")
    await page.wait_for(f"{count} === '9'")
    await page.evaluate("document.querySelector('.chip').click()")
    await page.evaluate(
        f"(() => {{ const field = document.querySelector('select'); field.value = '{BERLIN}'; field.dispatchEvent(new Event('change')); }})()"
    )
    await page.wait_for(f"{count} === '8' && !{row(nairobi)}")
    await page.press("/")
    await page.wait_for("document.activeElement.type === 'search'")
    await page.type("no such person")
    await page.wait_for("document.querySelector('conversation-list[data-state=nothing]')")
    await page.click(".list-state .button")
    await page.wait_for(f"{count} === '9'")
    await page.press("/")
    await page.type("Grace")
    await page.wait_for(f"{count} === '1'")
    await page.press("ArrowDown")
    await page.press("Enter")
    await page.wait_for("document.querySelector('thread-view[data-state=ready] h2')?.textContent === 'Grace'")
    await page.press("Escape")
    await page.wait_for("!document.querySelector('thread-view')")
    assert page.problems == []


CONTRAST = """(() => {
    const context = Object.assign(document.createElement('canvas'), {width: 1, height: 1}).getContext('2d', {willReadFrequently: true});
    const rgba = (colour) => {
        context.clearRect(0, 0, 1, 1);
        context.fillStyle = colour;
        context.fillRect(0, 0, 1, 1);
        return [...context.getImageData(0, 0, 1, 1).data].map((part) => part / 255);
    };
    const over = ([r, g, b, a], ground) => [r, g, b].map((part, index) => part * a + ground[index] * (1 - a));
    const ground = (element) => element === null ? [1, 1, 1] : over(rgba(getComputedStyle(element).backgroundColor), ground(element.parentElement));
    const luminance = (colour) => colour.map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
        .reduce((sum, part, index) => sum + part * [0.2126, 0.7152, 0.0722][index], 0);
    const contrast = (element) => {
        const behind = ground(element);
        const [low, high] = [luminance(behind), luminance(over(rgba(getComputedStyle(element).color), behind))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const speaks = (element) => [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) || element.matches('.tick');
    return [...document.querySelectorAll('body *')].filter((element) => element.checkVisibility() && speaks(element))
        .map((element) => [element.className || element.tagName, element.textContent.slice(0, 30), contrast(element)]);
})()"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_every_text_has_the_contrast_that_wcag_asks_of_small_print(
    page: Page, gateway: FakeGateway, address: str, scheme: str
) -> None:
    """WCAG 2.2, success criterion 1.4.3 (AA): 4.5 to 1."""
    threads = many(gateway, 12)
    gateway.quarantine = [
        {"id": "qrt_1", "at": now(), "reason": "bad_item", "detail": "…", "payload": "", "encoding": "utf-8"}
    ]
    thread = threads[0]
    asked = gateway.say(thread, "See https://bakery.example", outbound=True)
    gateway.say(
        thread,
        Order("1", (OrderItem("Rye", 1, "2", "EUR"),), "wrapped"),
        context=Context(message_id=asked, forwarded=True),
    )
    gateway.say(thread, Media("image", "m1", "image/jpeg", caption="this"), author="4915100000077")
    for status in ("sent", "read", "failed"):
        sent = gateway.say(thread, status, outbound=True, context=Context(message_id=asked))
        gateway.receipt(thread, sent, status, problems=(Problem(1, "Refused"),) if status == "failed" else ())
    gateway.record(thread, UnknownKept(now(), "pin", raw({"pin": 1})))
    await page.set_media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    await sign_in(page, address)
    await open_thread(page, thread)
    await page.click("[aria-label='Contact details']")
    await page.wait_for("document.querySelector('status-bar .warn:not([hidden])')")
    measured = await page.evaluate(CONTRAST)
    assert len(measured) > 60
    assert [[name, text, round(ratio, 2)] for name, text, ratio in measured if ratio < 4.5] == []


async def test_the_scheme_follows_the_system_until_it_is_switched(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    ground = "getComputedStyle(document.body).backgroundColor"
    switch = "[aria-label='Switch between light and dark']"
    await page.set_media(prefers_color_scheme="dark")
    await sign_in(page, address)
    dark = await page.evaluate(ground)
    await page.click(switch)
    light = await page.wait_for(f"{ground} !== '{dark}' && {ground}")
    await page.navigate(f"{address}/?again")
    await page.wait_for(LIVE)
    assert await page.evaluate(ground) == light
    await page.click(switch)
    await page.wait_for(f"{ground} === '{dark}'")
    await page.set_media(prefers_color_scheme="light")
    await page.wait_for(f"{ground} === '{light}'")
    assert page.problems == []


async def test_a_phone_shows_list_or_thread(page: Page, gateway: FakeGateway, address: str) -> None:
    threads = many(gateway, 3)
    await page.resize(390, 844, scale=2, mobile=True)
    await sign_in(page, address)
    visible = "['.pane-list', '.pane-thread', '.pane-contact'].filter((pane) => document.querySelector(pane).checkVisibility()).join()"
    assert await page.evaluate(visible) == ".pane-list"
    await page.click(f"#row-{threads[1].id}")
    await page.wait_for("document.querySelector('thread-view[data-state=ready]')")
    assert await page.evaluate(visible) == ".pane-thread"
    assert await page.evaluate("document.documentElement.scrollWidth") == 390
    await page.click("[aria-label='Back to the list']")
    await page.wait_for(f"{visible} === '.pane-list'")
    await page.evaluate("history.back()")
    await page.wait_for(f"{visible} === '.pane-thread'")
    assert page.problems == []


async def test_an_empty_tenant_and_a_failing_gateway_are_told_apart(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    await sign_in(page, address)
    await page.wait_for("document.querySelector('conversation-list[data-state=empty]')")
    gateway.refusing = True
    await page.evaluate("document.querySelector('.chip').click()")
    await page.wait_for("document.querySelector('conversation-list[data-state=failed]')")
    assert "The gateway is not ready" in await page.evaluate("document.querySelector('.list-state').innerText")
    gateway.refusing = False
    await page.click(".list-state .button")
    await page.wait_for("document.querySelector('conversation-list[data-state=nothing]')")
    assert own_problems(page) == []


async def test_a_row_is_folded_only_by_the_event_that_follows_it(page: Page, address: str) -> None:
    """The rules at the top of js/inbox.js, one by one."""
    await page.navigate(address)

    async def fold(row: dict[str, Any], version: int, **event: Any) -> Any:
        arguments = json.dumps([row, {"version": version, "event": event}])
        return await page.evaluate(
            f"import('/static/js/inbox.js').then(({{ foldRow }}) => foldRow(...{arguments})).then((row) => row === undefined ? 'ask' : row)"
        )

    row = {"version": 4, "last_at": 50, "unanswered": 1, "messages": 2, "last_outbound": True, "last_status": "read"}
    text = {"type": "text", "body": "a\n b"}
    said = {"type": "message_recorded", "at": 60, "message_id": "m2", "content": text}
    assert await fold(row, 4, **said) is None
    assert await fold(row, 6, **said) == "ask"
    after = {"version": 5, "last_at": 60, "unanswered": 2, "messages": 3, "last_outbound": False, "last_status": None}
    assert await fold(row, 5, **said) == after | {"preview": "a b", "last_id": "m2"}
    assert (await fold(row, 5, **said | {"at": 40}))["last_at"] == 50
    assert await fold(row, 5, **said | {"at": 40, "origin": "history"}) == row | {"version": 5, "messages": 3}
    receipt = {"type": "receipt_recorded", "at": 70, "message_id": "m1", "raw_status": "played", "current": "played"}
    assert await fold(row, 5, **receipt) == "ask"  # of which message the row's status is, only the gateway knows
    assert (await fold(row | {"last_id": "m1"}, 5, **receipt))["last_status"] == "played"
    assert (await fold(row | {"last_id": "m0"}, 5, **receipt))["last_status"] == "read"
    assert (await fold(row, 5, **receipt | {"current": "delivered"}))["last_status"] == "read"
    edit = {"type": "message_edited", "at": 70, "message_id": "e", "original_id": "m1", "content": text}
    assert await fold(row, 5, **edit) == "ask"
    assert (await fold(row | {"last_id": "m1"}, 5, **edit))["preview"] == "a b"
    assert (await fold(row, 5, type="conversation_merged", at=1, into="cnv_2"))["merged_into"] == "cnv_2"
    assert await fold(row, 5, type="of_a_later_release", at=1) == "ask"


async def test_whatever_happens_the_list_comes_to_what_the_gateway_says(
    page: Page, gateway: FakeGateway, address: str
) -> None:
    """Folding is idempotent and complete: random events, filters read meanwhile and cut connections end at the gateway's own rows."""
    chance = random.Random(20)
    threads = many(gateway, 10)
    sent: list[tuple[Thread, str]] = []
    await sign_in(page, address)
    for round_ in range(8):
        for _ in range(40):
            thread = chance.choice(threads)
            match chance.randrange(8):
                case 0 | 1:
                    gateway.say(thread, f"in {chance.random()}")
                case 2:
                    sent.append((thread, gateway.say(thread, f"out {chance.random()}", outbound=True)))
                case 3 | 4 | 5 if sent:
                    status: Any = chance.choice(["sent", "delivered", "read", "failed"])
                    gateway.receipt(*chance.choice(sent), status)
                case 6:
                    gateway.say(thread, Reaction("wamid.1", "👍"))
                case 7:
                    threads.append(gateway.conversation(person(100 + len(threads), f"New {len(threads)}")))
                    gateway.say(threads[-1], "I am new")
                case _:
                    gateway.record(thread, PreferenceSet(now(), "marketing_messages", "stop"))
            await trio.lowlevel.checkpoint()
        if round_ % 2:
            gateway.cut()
        else:
            await page.evaluate("document.querySelector('.chip').click()")
    await page.wait_for(LIVE)
    await wait_offset(page, gateway)
    await page.resize(1280, 5000)
    expected = sorted(
        [
            [thread.id, t["preview"], t["last_status"] or "", str(t["unanswered"] or ""), str(t["version"])]
            for thread in threads
            for t in [thread.row]
        ]
    )
    shown = (
        "[...document.querySelectorAll('.row')].map((row) => [row.dataset.conversation, row.querySelector('.row-preview').textContent,"
        " row.querySelector('.row-tick').dataset.status ?? '', row.querySelector('.badge').textContent, row.dataset.version])"
    )
    try:
        await page.wait_for(f"JSON.stringify({shown}.sort()) === JSON.stringify({json.dumps(expected)})", 8)
    except AssertionError:
        assert sorted(await page.evaluate(shown)) == expected
        raise
    assert own_problems(page) == []
