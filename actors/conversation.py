"""The conversation actor: one contact on one endpoint, one message at a time (promise SINGLE-WRITER).

Owns the state of one conversation while it is resident, and the turn: receive ▸ decide ▸ journal ▸ evolve ▸ answer. Must not know what a
webhook, a provider or a socket is; what is decided is `protocol.machines.conversation`'s.

Theory of operation. A turn takes up to TURN envelopes. Each is decided on the state the one before it led to; all their events are one
append with the version the turn began at. While the journal commits it, the turn is suspended: waiting costs no task. The state
becomes the turn's only when the append stands, so a refused turn costs nothing but forgetting it:

* `Duplicate`: some items were recorded before. They are answered as such, the rest is decided anew.
* `VersionConflict`, or an append whose outcome is unknown: the state is read again first.
* `AliasTaken`: an id leads elsewhere. The items that name it go back to be routed again, the rest is decided anew.
* `Unstorable`: a crash, so that the runtime singles out the item that cannot be stored and quarantines it.
* `Fenced`: another process owns the conversation. The senders are told; this one may not continue.

Dedupe ids of recent items are remembered so that a provider's repetition does not cost a refused commit; the database decides.
"""

from collections.abc import Sequence

import msgspec

from actors import projection
from actors.journal import Journal
from actors.ports import (
    DUPLICATE,
    INBOUND,
    RECEIPTS,
    RECORDED,
    Answer,
    Contended,
    Deliver,
    Moved,
    NotOwner,
    NotStorable,
    Recorded,
    Relearner,
    Surrender,
    Surrendered,
    TakeOver,
)
from protocol.commands import ChangeIdentity, RecordReceipt
from protocol.events import ContactIdentified, ConversationEvent, decode, encode, kind_of
from protocol.machines import conversation as machine
from protocol.machines import timeline
from protocol.outcomes import Rejected
from store.contract import (
    AliasTaken,
    Append,
    Committed,
    Duplicate,
    Fenced,
    NewEvent,
    Outcome,
    RawWebhook,
    Store,
    StoreUnavailable,
    Unstorable,
)
from supervisor import Actor, Envelope, GoOn, MailboxLimits, Poisoned, Refused, Suspension, Undelivered

TURN = 64
"""Envelopes decided in one turn: a batched webhook or a burst of receipts is one append, and no turn grows without bound."""

DECISIONS = 5
"""How often a turn is decided anew before it is given up. Two suffice unless several processes fight over one database."""

SNAPSHOT_EVERY = 64
"""Versions between snapshots: a returning conversation folds at most this many events, some 0.3 ms."""

PAGE = 500
"""Events in one read of a long stream: each stays far within an operation's time limit."""

SEEN = 256
"""Dedupe ids remembered. Meta repeats within seconds to minutes; what is older the database refuses."""

LIMITS = MailboxLimits((64, 1000, 1000, 3000))
"""Room in the lanes control, inbound, outbound, receipts: there are three receipts to each message."""


def lane_of(command: object) -> tuple[int, int]:
    """Return the lane and the rank of a provider's command: receipts come after messages, and among themselves by status."""
    if isinstance(command, RecordReceipt):
        return RECEIPTS, timeline.RANK[command.status] if command.status else 0
    return INBOUND, 0


def _names(envelope: Envelope, external_id: str, elsewhere: str) -> bool:
    """Tell whether what `envelope` asks for would have needed `external_id`, which leads `elsewhere`, to lead here."""
    match envelope.message:
        case Deliver(happened=machine.Happened(contact=contact, command=command)):
            new = command.new.external_ids() if isinstance(command, ChangeIdentity) else ()
            return external_id in contact.external_ids() or external_id in new
        case TakeOver(other=other, contact=contact):
            return other != elsewhere and external_id in contact.external_ids()
        case _:
            return False


class _Turn:
    """What a turn would do: gathered while deciding, dropped when refused."""

    __slots__ = ("answers", "causes", "dedupe", "events", "state", "webhooks")

    def __init__(self, state: machine.State) -> None:
        self.state = state
        self.events: list[ConversationEvent] = []
        self.causes: list[str | None] = []
        self.dedupe: dict[bytes, None] = {}
        self.webhooks: dict[str, RawWebhook] = {}
        self.answers: list[tuple[Envelope, Answer]] = []


class Conversation(Actor):
    """One conversation. Envelopes carry `Deliver`, `Surrender` or `TakeOver`."""

    __slots__ = (
        "_decisions",
        "_journal",
        "_known",
        "_relearner",
        "_seen",
        "_state",
        "_store",
        "_tenant",
        "_turn",
        "_version",
        "id",
    )

    batch = TURN

    def __init__(self, tenant: str, conversation: str, journal: Journal, store: Store, relearner: Relearner) -> None:
        self.id = conversation
        self._tenant = tenant
        self._journal = journal
        self._store = store
        self._relearner = relearner
        self._state = machine.INITIAL
        self._version = 0
        self._known = False
        self._seen: dict[bytes, None] = {}
        self._turn: _Turn | None = None
        self._decisions = 0

    async def started(self) -> None:
        """Come to life knowing nothing: the first turn reads, so that a database that is away is no crash."""

    async def turn(self, envelopes: Sequence[Envelope]) -> Suspension[Outcome] | None:
        """Decide all of `envelopes` and hand the events to the journal; the rest of the turn is `resumed`."""
        try:
            if not self._known:
                await self._load()
            if self._state.timeline.forgot or timeline.is_full(self._state.timeline, len(envelopes)):
                await self._recall(envelopes)
        except StoreUnavailable as error:
            self._fail(envelopes, error)
            return None
        return self._propose(envelopes)

    def _propose(self, envelopes: Sequence[Envelope]) -> Suspension[Outcome] | None:
        turn = self._decide(envelopes)
        if not turn.events:
            self._answer(turn)
            return None
        try:
            waiting = self._journal.submit(self._append(turn), tuple(turn.webhooks.values()))
        except Refused as error:
            self._fail(envelopes, error)
            return None
        self._turn = turn
        return waiting

    def resumed(self, envelopes: Sequence[Envelope], reply: Suspension[Outcome]) -> Suspension[Outcome] | GoOn | None:
        """Finish the turn by what the journal says: nearly always, that it is committed."""
        turn, self._turn = self._turn, None
        try:
            outcome = reply.result()
        except (StoreUnavailable, Undelivered) as error:
            self._fail(envelopes, error)
            return None
        except Poisoned as error:  # it crashes the journal, always: the same as if the database had named it
            raise NotStorable(str(error.__cause__ or error)) from error
        match outcome:
            case Committed() if turn is not None:
                self._decisions = 0
                self._become(turn)
                self._answer(turn)
                return None
            case AliasTaken(external_id=external_id, conversation=elsewhere):
                taken = [each for each in envelopes if not each.through and _names(each, external_id, elsewhere)]
                for envelope in taken:
                    envelope.answer(Moved(elsewhere, external_id))
                if taken:  # fewer are left each time: this comes to an end without being counted
                    return self._decide_anew(envelopes)
                self._known = False
            case Fenced(partition=partition):
                self._fail(envelopes, NotOwner(f"partition {partition} has another owner"))
                return None
            case Unstorable(reason=reason):
                raise NotStorable(reason)
            case Duplicate(keys=keys):
                self._remember(keys)
            case _:
                self._known = False
        self._decisions += 1
        if self._decisions > DECISIONS:
            self._decisions = 0
            self._fail(envelopes, Contended(f"{self.id} kept changing"))
            return None
        return self._decide_anew(envelopes)

    def _decide_anew(self, envelopes: Sequence[Envelope]) -> GoOn | None:
        """Let a worker decide what is not answered yet."""
        rest = [envelope for envelope in envelopes if not envelope.through]
        return (lambda: self.turn(rest)) if rest else None

    def _fail(self, envelopes: Sequence[Envelope], error: Exception) -> None:
        """Tell the senders, and read the state again before deciding anything more: what became of the append may be unknown."""
        self._known = False
        for envelope in envelopes:
            if not envelope.through:
                envelope.fail(error)

    async def _load(self) -> None:
        [stream] = await self._store.load_streams([self.id])
        state = machine.decode_snapshot(stream.snapshot) if stream.snapshot is not None else None
        if state is None:
            state, version = machine.INITIAL, 0
            while version < stream.snapshot_version:  # written by another release: fold everything, a page at a time
                limit = min(PAGE, stream.snapshot_version - version)
                page = await self._store.read_stream(self._tenant, self.id, after=version, limit=limit)
                for event in page:
                    state = machine.evolve(state, decode(event.body))
                version = page[-1].version
        for event in stream.tail:
            state = machine.evolve(state, decode(event.body))
        self._state, self._version, self._known = state, stream.version, True

    async def _recall(self, envelopes: Sequence[Envelope]) -> None:
        """See to it that the state knows what these commands are about, as far as anybody does (`timeline`)."""
        subjects: dict[str, None] = {}
        for envelope in envelopes:
            message = envelope.message
            if isinstance(message, Deliver) and isinstance(message.happened.command, timeline.Command):
                subject = timeline.subject(message.happened.command)
                if subject is not None:
                    subjects[subject] = None
        if not subjects:
            return
        line = self._state.timeline
        unknown = [each for each in subjects if not timeline.knows(line, each)] if line.forgot else []
        if unknown:
            for found in await self._store.find_messages(self._tenant, unknown):
                if found.conversation == self.id:
                    line = timeline.recall(line, found.message_id, found.status, recorded=found.seq is not None)
        self._state = msgspec.structs.replace(self._state, timeline=timeline.keep(line, subjects))

    def _decide(self, envelopes: Sequence[Envelope]) -> _Turn:
        turn = _Turn(self._state)
        for envelope in envelopes:
            match envelope.message:
                case Deliver(happened=happened, dedupe=dedupe, webhook=webhook):
                    answer: Answer = self._apply(turn, happened, dedupe, webhook.id)
                    if answer is RECORDED:
                        turn.webhooks[webhook.id] = webhook
                case Surrender(into=into, endpoint=endpoint, at=at):
                    answer = self._apply(turn, machine.MergeInto(into, endpoint, at), None, None)
                    if not isinstance(answer, Moved):
                        answer = Surrendered(turn.state.identity.contact, machine.standing(turn.state))
                case TakeOver(other=other, contact=contact, standing=standing, endpoint=endpoint, dedupe=dedupe, at=at):
                    absorb = machine.Absorb(other, contact, endpoint, at, standing)
                    answer = self._apply(turn, absorb, dedupe, None)
            turn.answers.append((envelope, answer))
        return turn

    def _apply(
        self, turn: _Turn, command: machine.Command, dedupe: bytes | None, cause: str | None
    ) -> Recorded | Moved:
        if dedupe is not None and (dedupe in self._seen or dedupe in turn.dedupe):
            return DUPLICATE
        events = machine.decide(turn.state, command)
        if isinstance(events, Rejected):
            return Moved(events.detail)
        if not events:
            return DUPLICATE
        if dedupe is not None:
            turn.dedupe[dedupe] = None
        state = turn.state
        for event in events:
            state = machine.evolve(state, event)
        turn.state = state
        turn.events.extend(events)
        turn.causes.extend([cause] * len(events))
        return RECORDED

    def _append(self, turn: _Turn) -> Append:
        partition, epoch = self._journal.place(self.id)
        endpoint = turn.state.endpoint
        version = self._version + len(turn.events)
        due = version // SNAPSHOT_EVERY != self._version // SNAPSHOT_EVERY
        return Append(
            tenant=self._tenant,
            stream=self.id,
            partition=partition,
            epoch=epoch,
            expected=self._version,
            events=tuple(
                NewEvent(kind_of(event), encode(event), event.at, cause)
                for event, cause in zip(turn.events, turn.causes, strict=True)
            ),
            endpoint=endpoint,
            dedupe=tuple(turn.dedupe),
            aliases=projection.aliases(endpoint, turn.events),
            messages=projection.messages(turn.events),
            conversation=projection.conversation(self._state, turn.state, turn.events),
            snapshot=machine.encode_snapshot(turn.state) if due else None,
        )

    def _become(self, turn: _Turn) -> None:
        self._state = turn.state
        self._version += len(turn.events)
        self._remember(turn.dedupe)
        for event in turn.events:
            if isinstance(event, ContactIdentified):
                self._relearner.relearn(self._tenant, turn.state.endpoint, self.id, event.added, event.removed)

    def _answer(self, turn: _Turn) -> None:
        for envelope, answer in turn.answers:
            envelope.answer(answer)

    def _remember(self, keys: "Sequence[bytes] | dict[bytes, None]") -> None:
        seen = self._seen
        seen.update(dict.fromkeys(keys))
        while len(seen) > SEEN:
            del seen[next(iter(seen))]
