"""What happens to one simulated business: who comes by, what they do, what Meta would have to tell of it, and the truth to check it by.

Source: WhatsApp Cloud API reference, sections 3 to 5. Pure: chance is the caller's, time is virtual. A tenant's people come by, again and
again. A visit is a dialogue of `world`; the business answers in its own app (so Meta reports echoes) and each answer is followed by its
receipts. Between lines people do all the other things WhatsApp can do (`_ACTS`), each as often as its weight in the mix says. Must not
know how facts become webhooks: that is `meta`.
"""

import heapq
import itertools
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from random import Random

import msgspec

from bench.simulators import acts, world
from bench.simulators.acts import Said
from bench.simulators.world import Person, SimTenant
from protocol.commands import ContactRef
from protocol.whatsapp import compose, wire
from protocol.whatsapp.reader import notice_key

_SECOND = 1000
_MINUTE = 60 * _SECOND


class Truth(msgspec.Struct, frozen=True):
    """One item of a delivery, as the gateway must know it once it has answered 200.

    `conversation` is the simulator's name of the conversation (`Person.key`), or `<phone_number_id>/account` for a notice; `key` is the item's
    dedupe key; `kind` what it is; `ids` the external ids (`phone:…`, `user:…`, `group:…`) the item shows, by which to find the conversation.
    """

    conversation: str
    key: str
    kind: str
    ids: tuple[str, ...] = ()


class Fact(msgspec.Struct, frozen=True):
    """One thing Meta has to tell. `array` names the array of the value that holds `item`; None: `item` is the whole value."""

    at_ms: int
    field: str
    array: str | None
    item: object
    truth: tuple[Truth, ...]
    contact: wire.Contact | None = None
    errors: tuple[wire.Error, ...] = ()


class Life:
    """Everything that happens to one tenant: a heap of things to do, each of which may plan others and may tell facts."""

    def __init__(
        self, random: Random, tenant: SimTenant, contacts: int, weights: Mapping[str, float], start_ms: int
    ) -> None:
        self.random = random
        self.tenant = tenant
        self._told: list[tuple[int, int, Fact]] = []
        self._plan: list[tuple[int, int, Callable[[int], object]]] = []
        self._order = itertools.count()
        self._start_ms = start_ms
        self._acts = [name for name in _ACTS if weights[name] > 0]
        self._act_weights = [weights[name] for name in self._acts]
        self._chatter = weights["chatter"]
        self._trade = world.DIALOGUES[random.choice(list(world.DIALOGUES))]
        self._media_ids = itertools.count(811_000_000_000_001)
        for number in range(contacts):
            someone = world.person(random, tenant, number)
            self._at(start_ms + random.randrange(10 * _MINUTE), partial(self._visit, someone))

    def facts(self) -> Iterator[Fact]:
        """Yield, in the order of their time, everything that is told."""
        while True:
            # What happens may tell of its own near future, so a fact waits until nothing earlier can still happen.
            while not self._told or self._plan[0][0] <= self._told[0][0]:
                at, _, happen = heapq.heappop(self._plan)
                happen(at)
            yield heapq.heappop(self._told)[2]

    def _at(self, at: int, happen: Callable[[int], object]) -> None:
        heapq.heappush(self._plan, (at, next(self._order), happen))

    def _visit(self, person: Person, at: int) -> None:
        random = self.random
        lines = random.choice(self._trade[person.language])
        for turn, line in enumerate(lines):
            if turn % 2:
                at += random.randrange(3 * _SECOND, 90 * _SECOND)
                self._at(at, partial(self.answer, person, Said("text", text=wire.Text(body=line))))
                continue
            at += random.randrange(5 * _SECOND, 2 * _MINUTE)
            self._at(at, partial(self.say, person, Said("text", text=wire.Text(body=line))))
            if self._acts and random.random() >= self._chatter / (self._chatter + sum(self._act_weights)):
                act = random.choices(self._acts, self._act_weights)[0]
                at += random.randrange(2 * _SECOND, 20 * _SECOND)
                self._at(at, partial(_ACTS[act], self, person))
        self._at(at + int(random.expovariate(1 / (15 * _MINUTE))), partial(self._visit, person))

    # What an act may use.

    def wamid(self) -> str:
        """Invent a message id."""
        return "wamid." + b64encode(self.random.randbytes(27)).decode()

    def media_id(self) -> str:
        """Invent a media id."""
        return str(next(self._media_ids))

    def say(self, person: Person, said: Said, at: int, *, known: bool = True) -> str:
        """Have a person send something; return its message id."""
        message_id = self.wamid()
        message = said.message(
            id=message_id,
            from_=person.phone,
            from_user_id=person.user_id,
            from_parent_user_id=person.parent_user_id,
            timestamp=str(at // _SECOND),
        )
        truth = Truth(person.key, f"m:{message_id}", said.type, person.ids())
        reasons = [self.account_truth("errors", compose.raw(error), None) for error in said.value_errors]
        contact = person.contact() if known else None
        self.tell(Fact(at, "messages", "messages", message, (truth, *reasons), contact, said.value_errors))
        return message_id

    def answer(self, person: Person, said: Said, at: int) -> str:
        """Have the business write in its own app; its receipts follow. Return the message id."""
        message_id = self.wamid()
        message = said.message(
            id=message_id,
            from_=self.tenant.display_phone_number,
            to=person.phone,
            to_user_id=person.user_id,
            timestamp=str(at // _SECOND),
        )
        truth = Truth(person.key, f"m:{message_id}", f"echo:{said.type}", person.ids())
        self.tell(Fact(at, "smb_message_echoes", "message_echoes", message, (truth,), person.contact()))
        self._plan_receipts(person, message_id, at, voice=said.type == "audio")
        return message_id

    def _plan_receipts(self, person: Person, message_id: str, at: int, *, voice: bool) -> None:
        random = self.random
        if random.random() < 0.03:
            self._at(at + random.randrange(_SECOND, 5 * _SECOND), partial(self._receipt, person, message_id, "failed"))
            return
        steps = [("sent", 800), ("delivered", 4 * _SECOND)]
        if random.random() < 0.8:  # the others have read receipts off
            steps.append(("read", _MINUTE))
            if voice:
                steps.append(("played", _MINUTE))
        for status, longest in steps:
            at += random.randrange(100, longest)
            self._at(at, partial(self._receipt, person, message_id, status))

    def _receipt(self, person: Person, message_id: str, status: str, at: int) -> None:
        failed = status == "failed"
        receipt = wire.Status(
            id=message_id,
            status=status,
            timestamp=str(at // _SECOND),
            recipient_id=person.phone,
            recipient_user_id=person.user_id,
            recipient_parent_user_id=person.parent_user_id,
            pricing=acts.PRICING if status in ("sent", "delivered") else msgspec.UNSET,
            errors=[acts.UNDELIVERABLE] if failed else None,
        )
        truth = Truth(person.key, f"s:{message_id}:{status}", f"status:{status}", person.ids())
        # Failed statuses come without contacts (2).
        contact = None if failed else person.contact()
        self.tell(Fact(at, "messages", "statuses", receipt, (truth,), contact))

    def tell(self, fact: Fact) -> None:
        """Give Meta something to report."""
        heapq.heappush(self._told, (fact.at_ms, next(self._order), fact))

    def tell_item(self, field: str, array: str, item: object, truth: Truth, person: Person, at: int) -> None:
        """Report an item of a conversation that is no message."""
        self.tell(Fact(at, field, array, item, (truth,), person.contact()))

    def tell_notice(self, field: str, value: object, at: int, key: str | None = None) -> None:
        """Report a change of the account."""
        truth = self.account_truth(field, compose.raw(value), at // _SECOND)
        if key is not None:
            truth = msgspec.structs.replace(truth, key=key)
        self.tell(Fact(at, field, None, value, (truth,)))

    def account_truth(self, topic: str, payload: msgspec.Raw, time: int | None) -> Truth:
        """Return the truth of a notice; `time` is its entry's, in seconds."""
        account = f"{self.tenant.phone_number_id}/account"
        return Truth(account, notice_key(topic, payload, time), f"notice:{topic}")


_Act = Callable[[Life, Person, int], None]


def _saying(compose_said: Callable[[Random, str], Said]) -> _Act:
    """Make an act of a person who sends something that needs nothing but chance and a media id."""

    def act(life: Life, person: Person, at: int) -> None:
        life.say(person, compose_said(life.random, life.media_id()), at)

    return act


def _about(compose_said: Callable[[Random, str], Said]) -> _Act:
    """Make an act of a person who answers something the business sends just before."""

    def act(life: Life, person: Person, at: int) -> None:
        asked = life.answer(person, acts.question(life.random), at)
        reply = compose_said(life.random, asked)
        if reply.replies:
            reply = reply.about(asked, life.tenant.display_phone_number)
        life.say(person, reply, at + 2 * _SECOND)

    return act


def _voice_answer(life: Life, person: Person, at: int) -> None:
    life.answer(person, acts.voice(life.random, life.media_id()), at)


def _second_thought(life: Life, person: Person, at: int) -> None:
    """Write, correct it, and sometimes take it back."""
    written = life.say(person, acts.line("See you tommorow"), at)
    life.say(person, acts.edit(written, "See you tomorrow 🙂"), at + 20 * _SECOND)
    if life.random.random() < 0.5:
        life.say(person, acts.revoke(written), at + 40 * _SECOND)


def _new_number(life: Life, person: Person, at: int) -> None:
    """Move to another phone number, and with it to another business-scoped id (2.2)."""
    if person.phone is None:
        _new_user_id(life, person, at)
        return
    phone = world.new_phone(life.random, person)
    user_id = _renewed(life, person)
    # value.contacts is absent for number changes (3.13).
    life.say(person, acts.changed_number(person.name, person.phone, phone, user_id), at, known=False)
    person.phone, person.user_id = phone, user_id


def _new_user_id(life: Life, person: Person, at: int) -> None:
    user_id = _renewed(life, person)
    if user_id is not None:
        life.say(person, acts.changed_user_id(user_id), at, known=False)
        person.user_id = user_id


def _renewed(life: Life, person: Person) -> str | None:
    if person.user_id is None:
        return None
    return world.new_user_id(life.random, person.language, person.number)


def _show_number(life: Life, person: Person, at: int) -> None:
    """Let a hidden number be seen, or adopt a username: from now on both ids name one person."""
    if person.phone is None:
        person.phone = world.new_phone(life.random, person)
    elif person.user_id is None:
        person.user_id = world.new_user_id(life.random, person.language, person.number)
    life.say(person, acts.line("It's me again 👋"), at)


def _call(life: Life, person: Person, at: int) -> None:
    call_id = f"wacid.{life.random.randbytes(15).hex()}"
    for event, after in (("connect", 0), ("terminate", 95 * _SECOND)):
        call = acts.call(call_id, event, person, life.tenant.display_phone_number, (at + after) // _SECOND)
        truth = Truth(person.key, f"c:{call_id}:{event}", f"call:{event}", person.ids())
        life.tell_item("calls", "calls", call, truth, person, at + after)


def _call_back(life: Life, person: Person, at: int) -> None:
    call_id = f"wacid.{life.random.randbytes(15).hex()}"
    for status, after in (("RINGING", 0), ("ACCEPTED", 8 * _SECOND)):
        rung = wire.Status(
            id=call_id,
            status=status,
            timestamp=str((at + after) // _SECOND),
            type="call",
            recipient_id=person.phone,
            recipient_user_id=person.user_id,
        )
        event = status.lower()
        truth = Truth(person.key, f"c:{call_id}:{event}", f"call:{event}", person.ids())
        life.tell_item("calls", "statuses", rung, truth, person, at + after)


def _preference(life: Life, person: Person, at: int) -> None:
    value = life.random.choice(("stop", "resume"))
    said = acts.preference(person, value, at // _SECOND)
    key = f"p:{person.user_id or person.phone}:{said.category}:{value}:{said.timestamp}"
    truth = Truth(person.key, key, f"preference:{value}", person.ids())
    life.tell_item("user_preferences", "user_preferences", said, truth, person, at)


def _template(life: Life, person: Person, at: int) -> None:
    value = acts.template_status(life.random)
    key = f"t:{value.message_template_id}:{value.event}:{at // _SECOND}"
    life.tell_notice("message_template_status_update", value, at, key)


def _account(life: Life, person: Person, at: int) -> None:
    field, value = acts.account_notice(life.random, life.tenant.display_phone_number)
    life.tell_notice(field, value, at)


def _novelty(life: Life, person: Person, at: int) -> None:
    """Report a field this gateway has never heard of."""
    life.tell_notice("message_sentiment_update", {"sentiment": life.random.randrange(5)}, at)


def _rate_limit(life: Life, person: Person, at: int) -> None:
    truth = life.account_truth("errors", compose.raw(acts.RATE_LIMITED), None)
    life.tell(Fact(at, "messages", "errors", acts.RATE_LIMITED, (truth,)))


def _group(life: Life, person: Person, at: int) -> None:
    """Write to the tenant's one group; the business answers, and that person receives it."""
    group_id = f"group-{life.tenant.phone_number_id}"
    key, ids = f"{life.tenant.phone_number_id}/group", (f"group:{group_id}",)
    asked, answered = life.wamid(), life.wamid()
    participant = person.phone or person.user_id
    question = acts.line("Who brings the cake? 🎂").message(
        id=asked,
        from_=person.phone,
        from_user_id=person.user_id,
        group_id=group_id,
        timestamp=str(at // _SECOND),
    )
    answer = acts.line("We do 🙌").message(
        id=answered, from_=life.tenant.display_phone_number, group_id=group_id, timestamp=str(at // _SECOND)
    )
    receipt = wire.Status(
        id=answered,
        status="delivered",
        timestamp=str(at // _SECOND + 2),
        recipient_id=group_id,
        recipient_type="group",
        recipient_participant_id=person.phone,
        recipient_participant_user_id=person.user_id,
    )
    for after, field, array, item, dedupe, kind in (
        (0, "messages", "messages", question, f"m:{asked}", "group:text"),
        (1, "smb_message_echoes", "message_echoes", answer, f"m:{answered}", "group:echo"),
        (2, "messages", "statuses", receipt, f"s:{answered}:delivered:{participant}", "group:status"),
    ):
        truth = Truth(key, dedupe, kind, ids)
        life.tell(Fact(at + after * _SECOND, field, array, item, (truth,), person.contact()))


def _import(life: Life, person: Person, at: int) -> None:
    """Import a thread of last month, one message of either side and a placeholder for media."""
    business = life.tenant.display_phone_number
    asked, answered, picture = life.wamid(), life.wamid(), life.wamid()
    chunk, progress = acts.history(person, business, (asked, answered, picture), at // _SECOND)
    ids = ContactRef(person.phone, person.user_id).external_ids()
    truth = (
        life.account_truth("history", compose.raw(progress), None),
        Truth(person.key, f"m:{asked}", "history:text", ids),
        Truth(person.key, f"m:{answered}", "history:text", ids),
        Truth(person.key, f"m:{picture}:placeholder", "history:media_placeholder", ids),
    )
    life.tell(Fact(at, "history", "history", chunk, truth))


_ACTS: dict[str, _Act] = {
    "image": _saying(acts.image),
    "video": _saying(acts.video),
    "voice": _saying(acts.voice),
    "document": _saying(acts.document),
    "sticker": _saying(acts.sticker),
    "location": _saying(acts.location),
    "contacts": _saying(acts.contacts),
    "order": _saying(acts.order),
    "welcome": _saying(acts.welcome),
    "referral": _saying(acts.referral),
    "forward": _saying(acts.forward),
    "product": _saying(acts.product),
    "unsupported": _saying(acts.unsupported),
    "unknown": _saying(acts.unknown),
    "incomplete": _saying(acts.incomplete),
    "button_reply": _about(acts.button_reply),
    "list_reply": _about(acts.list_reply),
    "flow_reply": _about(acts.flow_reply),
    "call_permission": _about(acts.call_permission),
    "template_button": _about(acts.template_button),
    "reaction": _about(acts.reaction),
    "reaction_removal": _about(acts.reaction_removal),
    "quote": _about(acts.quote),
    "voice_answer": _voice_answer,
    "second_thought": _second_thought,
    "new_number": _new_number,
    "show_number": _show_number,
    "call": _call,
    "call_back": _call_back,
    "preference": _preference,
    "template": _template,
    "account": _account,
    "novelty": _novelty,
    "rate_limit": _rate_limit,
    "group": _group,
    "history": _import,
}

DEFAULT_MIX: dict[str, float] = {
    "chatter": 60,  # how often a line of text is followed by nothing of what stands below
    **dict.fromkeys(_ACTS, 1.0),
    "image": 8,
    "voice": 6,
    "reaction": 6,
    "quote": 4,
    "button_reply": 4,
    "document": 3,
    "location": 3,
    "voice_answer": 3,
    "new_number": 0.5,
    "show_number": 0.5,
    "rate_limit": 0.3,
    "novelty": 0.3,
    "group": 0.5,
    "history": 0.5,
}
"""Relative frequencies."""
