"""From webhook to committed events on a store in memory: ACK-AFTER-COMMIT, EFFECTIVELY-ONCE, SINGLE-WRITER, merges, crashes."""

import random
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from actors.conversation import Conversation
from actors.ports import Surrender
from protocol.commands import ContactRef
from protocol.events import (
    ContactIdentified,
    ConversationAbsorbed,
    ConversationMerged,
    MessageRecorded,
    ReceiptRecorded,
    decode,
)
from protocol.machines import conversation as machine
from store.contract import Append, Outcome, StoreUnavailable, Unstorable
from store.memory import MemoryDatabase, MemoryStore
from tests.support.spine import NUMBER, TENANT, Spine, add_tenants, change, contact, echo, spine, status, text, webhook


async def rows(made: Spine) -> dict[str, tuple[str, ...]]:
    """Every visible conversation: its messages' ids in the thread's order."""
    found = {}
    for row in await made.store.list_conversations(TENANT):
        thread = await made.store.list_messages(TENANT, row.id, limit=200)
        found[row.name] = tuple(message.message_id for message in reversed(thread))
    return found


async def test_a_message_is_committed_before_it_is_acknowledged(autojump_clock: MockClock) -> None:
    async with spine() as made:
        answer = await made.post(webhook(change([text("wamid.1")], contacts=[contact()])))
        assert answer.status == 200
        stored = await made.events()
        assert [(event.offset, event.version, event.kind) for event in stored] == [
            (1, 1, "conversation_started"),
            (2, 2, "message_recorded"),
        ]
        # the raw webhook is there, and every event names it as its cause
        [raw] = await made.store.list_webhooks(since=0, until=2**50)
        assert {event.cause for event in stored} == {raw.id}


async def test_the_same_webhook_twenty_times_at_once_is_one_event(autojump_clock: MockClock) -> None:
    async with spine() as made:
        body = webhook(change([text("wamid.1")], contacts=[contact()]))
        answers = []

        async def post() -> None:
            answers.append((await made.post(body)).status)

        async with trio.open_nursery() as nursery:
            for _ in range(20):
                nursery.start_soon(post)
        assert answers == [200] * 20
        assert sum(isinstance(event, MessageRecorded) for event in await made.decoded()) == 1
        assert made.ingress.statistics().duplicates == 19


async def test_a_duplicate_after_a_restart_is_refused_by_the_database_and_still_answered_200(
    autojump_clock: MockClock,
) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    body = webhook(change([text("wamid.1"), text("wamid.2")], contacts=[contact()]))
    async with spine(database) as made:
        assert (await made.post(webhook(change([text("wamid.1")], contacts=[contact()])))).status == 200
    async with spine(database) as made:
        assert (await made.post(body)).status == 200  # one known, one new
        assert (await rows(made)) == {"Mira": ("wamid.1", "wamid.2")}
        assert [event.offset for event in await made.events()] == [1, 2, 3]


async def test_an_album_in_parallel_opens_one_conversation(autojump_clock: MockClock) -> None:
    async with spine() as made:
        async with trio.open_nursery() as nursery:
            for n in range(12):
                nursery.start_soon(made.post, webhook(change([text(f"wamid.{n}")], contacts=[contact()])))
        [(_, thread)] = (await rows(made)).items()
        assert sorted(thread) == sorted(f"wamid.{n}" for n in range(12))


async def test_receipts_before_and_after_their_message_meet_it(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(webhook(change(statuses=[status("wamid.E1", "delivered")])))
        await made.post(webhook(change(echoes=[echo("wamid.E1")])))
        await made.post(webhook(change(statuses=[status("wamid.E1", "sent"), status("wamid.E1", "read")])))
        receipts = [event for event in await made.decoded() if isinstance(event, ReceiptRecorded)]
        assert [(each.raw_status, each.current, each.waiting) for each in receipts] == [
            ("delivered", "delivered", True),
            ("sent", "delivered", False),
            ("read", "read", False),
        ]
        [row] = await made.store.list_conversations(TENANT)
        [message] = await made.store.list_messages(TENANT, row.id)
        assert (message.status, message.outbound, row.last_status) == (40, True, 40)


async def test_a_receipt_that_names_nobody_finds_its_message(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(webhook(change(echoes=[echo("wamid.E1")])))
        await made.post(webhook(change(statuses=[status("wamid.E1", "read", recipient=None)])))
        await made.post(webhook(change(statuses=[status("wamid.NOBODY", "read", recipient=None)])))
        [row] = await made.store.list_conversations(TENANT)
        assert row.last_status == 40
        [entry] = await made.store.list_quarantine(tenant=TENANT)
        assert (entry.reason, "wamid.NOBODY" in entry.detail) == ("unrouted", True)


# --- identity


async def test_a_person_without_a_number_and_with_one_are_one_conversation(autojump_clock: MockClock) -> None:
    async with spine() as made:
        by_both = contact(user_id="DE.7")
        await made.post(webhook(change([text("wamid.1", from_user_id="DE.7")], contacts=[by_both])))
        hidden = text("wamid.2", sender=None, from_user_id="DE.7")
        await made.post(webhook(change([hidden], contacts=[contact(None, "DE.7")])))
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2")}


async def test_a_changed_number_leads_here_and_the_old_one_no_longer(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(webhook(change([text("wamid.1")], contacts=[contact()])))
        moved = {
            "from": "4915100000000",
            "id": "wamid.S",
            "timestamp": "1790000001",
            "type": "system",
            "system": {"body": "changed", "wa_id": "4915199999999", "type": "user_changed_number"},
        }
        await made.post(webhook(change([moved])))
        await made.post(webhook(change([text("wamid.2", sender="4915199999999")], contacts=[contact("4915199999999")])))
        # whoever gets the old number is somebody else
        stranger = contact("4915100000000", name="Stranger")
        await made.post(webhook(change([text("wamid.3")], contacts=[stranger])))
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2"), "Stranger": ("wamid.3",)}


@pytest.mark.parametrize("restart", [False, True])
async def test_two_conversations_of_one_person_become_one(autojump_clock: MockClock, restart: bool) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    by_phone = webhook(change([text("wamid.1")], contacts=[contact(name="Mira")]))
    by_id = webhook(change([text("wamid.2", sender=None, from_user_id="DE.7")], contacts=[contact(None, "DE.7", "M.")]))
    both = webhook(change([text("wamid.3", from_user_id="DE.7")], contacts=[contact(user_id="DE.7")]))
    async with spine(database) as made:
        await made.post(by_phone)
        await made.post(by_id)
        assert len(await rows(made)) == 2
        if not restart:
            assert (await made.post(both)).status == 200
    if restart:
        async with spine(database) as made:
            assert (await made.post(both)).status == 200
    async with spine(database) as made:
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2", "wamid.3")}
        events = await made.decoded()
        assert sum(isinstance(event, ConversationMerged) for event in events) == 1
        assert sum(isinstance(event, ConversationAbsorbed) for event in events) == 1
        # a receipt for a message of the absorbed thread, and a repetition of it, find their way
        await made.post(by_id)
        await made.post(webhook(change(echoes=[{**echo("wamid.4"), "to": "4915100000000"}])))
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2", "wamid.3", "wamid.4")}


async def test_an_interrupted_merge_is_mended_by_the_next_item(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(webhook(change([text("wamid.1")], contacts=[contact()])))
        await made.post(
            webhook(change([text("wamid.2", sender=None, from_user_id="DE.7")], contacts=[contact(None, "DE.7")]))
        )
        older, younger = sorted(row.id for row in await made.store.list_conversations(TENANT))
        tree = await made.tree.tenant(TENANT)
        await tree.conversations.ref(younger).ask(Surrender(older, NUMBER, made.now))  # and then the process dies
        hidden = text("wamid.3", sender=None, from_user_id="DE.7")
        assert (await made.post(webhook(change([hidden], contacts=[contact(None, "DE.7")])))).status == 200
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2", "wamid.3")}


async def test_the_directory_forgets_nothing_that_is_not_durable(autojump_clock: MockClock) -> None:
    async with spine() as made:
        contacts = [ContactRef(phone=f"49{n}") for n in range(50)]
        await made.tree.directory.resolve(TENANT, NUMBER, contacts)
        found = {made.tree.directory.lookup(NUMBER, each.external_ids()) for each in contacts}
        assert len(found) == 50
        assert None not in found
        assert await made.store.list_conversations(TENANT) == []  # nothing was written for being asked


# --- when things go wrong


async def test_no_commit_no_acknowledgement(autojump_clock: MockClock) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as made:
        await made.post(webhook(change([text("wamid.1")], contacts=[contact()])))
        database.outage = "the database is away"
        answer = await made.post(webhook(change([text("wamid.2")], contacts=[contact()])))
        assert answer.status == 503
        assert dict(answer.headers)[b"retry-after"]
        database.outage = None
        assert (await made.post(webhook(change([text("wamid.2")], contacts=[contact()])))).status == 200
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2")}
        assert made.tree.inspect().restarts == 0


async def test_a_commit_that_answered_nothing_is_found_again(autojump_clock: MockClock) -> None:
    """The connection breaks after the commit: outcome unknown. The repetition must find it done."""
    async with spine() as made:
        store = made.store
        real = store.append_batch

        async def commit_and_break(*args: object, **kwargs: object) -> object:
            await real(*args, **kwargs)  # type: ignore[arg-type]
            raise StoreUnavailable("the connection broke")

        store.append_batch = commit_and_break  # type: ignore[method-assign,assignment]
        body = webhook(change([text("wamid.1")], contacts=[contact()]))
        assert (await made.post(body)).status == 503
        store.append_batch = real  # type: ignore[method-assign]
        assert (await made.post(body)).status == 200
        assert [event.kind for event in await made.events()] == ["conversation_started", "message_recorded"]


async def test_a_message_that_crashes_its_actor_is_quarantined_alone(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = machine.decide

    def fragile(state: machine.State, command: machine.Command) -> object:
        if isinstance(command, machine.Happened) and getattr(command.command, "message_id", "") == "wamid.BOOM":
            raise ZeroDivisionError("boom")
        return real(state, command)

    monkeypatch.setattr(machine, "decide", fragile)
    async with spine() as made:
        body = webhook(change([text("wamid.1"), text("wamid.BOOM"), text("wamid.2")], contacts=[contact()]))
        sibling = webhook(change([text("wamid.9", sender="491999")], contacts=[contact("491999", name="Other")]))
        answers = []

        async def post(each: bytes) -> None:
            answers.append((await made.post(each)).status)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(post, body)
            nursery.start_soon(post, sibling)
        assert answers == [200, 200]
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2"), "Other": ("wamid.9",)}
        [entry] = await made.store.list_quarantine(tenant=TENANT)
        assert (entry.reason, entry.payload, entry.detail) == ("crashed", body, "ZeroDivisionError: boom")
        assert made.ingress.statistics().quarantined == 1


async def test_another_process_takes_over_and_this_one_commits_nothing_more(autojump_clock: MockClock) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as first:
        await first.post(webhook(change([text("wamid.1")], contacts=[contact()])))
        async with spine(database) as second:
            assert (await first.post(webhook(change([text("wamid.2")], contacts=[contact()])))).status == 503
            assert first.fenced
            assert (await second.post(webhook(change([text("wamid.2")], contacts=[contact()])))).status == 200
            assert await rows(second) == {"Mira": ("wamid.1", "wamid.2")}


async def test_an_idle_conversation_leaves_memory_and_comes_back_from_snapshot_and_tail(
    autojump_clock: MockClock,
) -> None:
    async with spine(idle_timeout=10.0) as made:
        for n in range(200):
            await made.post(webhook(change([text(f"wamid.{n}")], contacts=[contact()])))
        await trio.sleep(11)
        [(_, pool)] = made.tree.pools()
        assert (pool.resident, pool.passivations) == (0, 1)
        [row] = await made.store.list_conversations(TENANT)
        [loaded] = await made.store.load_streams([row.id])
        assert loaded.snapshot_version > 0
        assert len(loaded.tail) < 64
        await made.post(webhook(change([text("wamid.200")], contacts=[contact()])))
        [row] = await made.store.list_conversations(TENANT)
        assert (row.messages, row.unanswered, row.version) == (201, 201, 202)


async def test_random_crashes_leave_the_state_that_replay_gives(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RELIABILITY 7, quick form: the actor crashes now and then in the middle of a turn; what is stored is what one would fold."""
    chance = random.Random(7)
    real = Conversation._become

    def sometimes(self: Conversation, turn: object) -> None:
        if chance.random() < 0.2:
            raise RuntimeError("crashed after the commit, before the answer")
        real(self, turn)  # type: ignore[arg-type]

    monkeypatch.setattr(Conversation, "_become", sometimes)
    async with spine() as made:
        for n in range(60):
            answer = await made.post(webhook(change([text(f"wamid.{n}")], contacts=[contact()])))
            assert answer.status == 200
        [row] = await made.store.list_conversations(TENANT)
        events = await made.store.read_stream(TENANT, row.id, limit=1000)
        assert [event.version for event in events] == list(range(1, len(events) + 1))
        state = machine.INITIAL
        for event in events:
            state = machine.evolve(state, decode(event.body))
        assert (state.summary.messages, row.messages) == (60, 60)
        assert len(events) == 61


async def test_a_full_mailbox_is_answered_503_and_nothing_is_half_acknowledged(autojump_clock: MockClock) -> None:
    async with spine() as made:
        gate = trio.Event()
        real = made.store.append_batch

        async def slow(*args: object, **kwargs: object) -> object:
            await gate.wait()
            return await real(*args, **kwargs)  # type: ignore[arg-type]

        made.store.append_batch = slow  # type: ignore[method-assign,assignment]
        answers: list[int] = []

        async def post(n: int) -> None:
            answers.append((await made.post(webhook(change([text(f"wamid.{n}")], contacts=[contact()])))).status)

        async with trio.open_nursery() as nursery:
            for n in range(1200):
                nursery.start_soon(post, n)
            await trio.testing.wait_all_tasks_blocked()
            gate.set()
        accepted = sum(answer == 200 for answer in answers)
        assert set(answers) == {200, 503}
        [row] = await made.store.list_conversations(TENANT)
        assert row.messages == accepted


async def test_a_name_is_learnt_and_changes_the_list(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(webhook(change([text("wamid.1")])))
        assert list(await rows(made)) == ["+4915100000000"]
        await made.post(webhook(change([text("wamid.2")], contacts=[contact(name="Mira K.")])))
        assert list(await rows(made)) == ["Mira K."]
        assert any(isinstance(event, ContactIdentified) for event in await made.decoded())


async def test_an_item_that_no_database_takes_is_quarantined_and_its_siblings_are_not(
    autojump_clock: MockClock,
) -> None:
    async with spine() as made:
        real = made.store.append_batch

        async def picky(appends: Sequence[Append], **more: Any) -> list[Outcome]:
            if any(b"wamid.BAD" in event.body for append in appends for event in append.events):
                return [Unstorable("a number beyond 64 bits") for _ in appends]
            return await real(appends, **more)

        made.store.append_batch = picky  # type: ignore[method-assign,assignment]
        items = [text("wamid.1"), text("wamid.BAD"), text("wamid.2")]
        assert (await made.post(webhook(change(items, contacts=[contact()])))).status == 200
        assert await rows(made) == {"Mira": ("wamid.1", "wamid.2")}
        [entry] = await made.store.list_quarantine(tenant=TENANT)
        assert (entry.reason, entry.detail) == ("crashed", "NotStorable: a number beyond 64 bits")


async def test_the_problems_of_a_disproved_failure_are_not_the_message_s(autojump_clock: MockClock) -> None:
    async with spine() as made:
        failed = {**status("wamid.E1", "failed"), "errors": [{"code": 131026, "title": "Undeliverable"}]}
        for order in (("delivered", "failed"), ("failed", "delivered")):
            message_id = f"wamid.{order[0]}"
            await made.post(webhook(change(echoes=[echo(message_id)])))
            for value in order:
                receipt = failed if value == "failed" else status(message_id, value)
                await made.post(webhook(change(statuses=[{**receipt, "id": message_id}])))
        [row] = await made.store.list_conversations(TENANT)
        thread = await made.store.list_messages(TENANT, row.id)
        assert [(message.status, message.problems) for message in thread] == [(30, None), (30, None)]
        receipts = [event for event in await made.decoded() if isinstance(event, ReceiptRecorded)]
        assert sum(bool(event.problems) for event in receipts) == 2  # kept all the same
