"""The journal: one actor that turns many actors' appends into few commits (promises ACK-AFTER-COMMIT, SINGLE-WRITER, EFFECTIVELY-ONCE).

Owns the order of commits of this process, its partitions' epochs, and the hand-over of what was committed to the feed. Must not know
what is in an event.

Theory of operation. Whatever waits in the mailbox when a turn begins is one batch, one transaction, one round trip. When idle, a lone append is
committed at once; under load, appends gather while the commit before theirs is under way: the batch grows with the load and nothing
has to be tuned. (Waiting a few milliseconds for larger batches was tried: at 3,300 webhooks/s it made a third of the commits, saved a tenth of
the CPU and doubled the median answer time.) A batch is published to the feed in commit order, before anybody is answered, so whoever was
answered can already see it.

When the database fails, the outcome of the whole batch is unknown. Everybody in it is told so and reads again before deciding again; the
feeds of its tenants are interrupted, because an event that may have been committed, or may still be, did not pass through here.
"""

import copy
from collections.abc import Callable, Mapping, Sequence

import msgspec
import trio

from actors.distribution import SECONDS, SIZES, Distribution, Histogram
from actors.feed import Feed
from actors.ports import Clock
from protocol.ids import PARTITIONS, partition_of
from store.contract import (
    Append,
    Committed,
    Fenced,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    Store,
    StoredEvent,
    StoreUnavailable,
    Unstorable,
)
from supervisor import Actor, ActorPool, ActorRef, ChildSpec, Envelope, Intensity, MailboxLimits, Suspension

BATCH = 512
"""Appends per transaction. PostgreSQL's cost per row stops falling at about 256; beyond 512 only the wait grows."""

MAILBOX = 20_000
"""Appends that may wait: some two seconds of a saturated machine. Past it, webhooks are answered 503."""

BATCH_BYTES = 8 * 1024 * 1024
"""Bytes of webhooks and quarantined payloads after which a transaction takes no more: far within its time limit."""

INTENSITY = Intensity(30, 10.0)
"""A message that crashes the journal does so once with its batch and three times alone, for each of its sender's four tries: it has to be
found out before the journal gives up, which would end everything."""

KEPT_REMEMBERED = 4096
"""Webhooks remembered as kept, so that the second conversation of a batched webhook does not carry the body to the database again."""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """One append, with the webhooks that caused it; kept in the same commit. Answered with its `Outcome`."""

    append: Append
    webhooks: tuple[RawWebhook, ...]


class Keep(msgspec.Struct, frozen=True, gc=False):
    """A webhook of which something could not be delivered to anyone: kept, and shown. Answered with None once committed."""

    webhook: RawWebhook | None
    quarantine: tuple[QuarantineEntry, ...]


class JournalStatistics(msgspec.Struct, frozen=True):
    """Totals since the start, and how commits are spread: `commit_seconds` from the batch's being taken to its being durable."""

    appends: int
    events: int
    refused: int
    unavailable: int
    waiting: int
    commit_seconds: Histogram
    batch_size: Histogram


class Journal:
    """The way to the journal for everybody else, and its child spec."""

    def __init__(self, store: Store, feed: Feed, clock: Clock, *, on_fenced: Callable[[int], None]) -> None:
        """`on_fenced(partition)` is called when another process took this one's place: the node has to stop."""
        self.store = store
        self.feed = feed
        self.clock = clock
        self.on_fenced = on_fenced
        self._epochs: Mapping[int, int] = {}
        self._figures = _Figures()
        self._pool: ActorPool[str] = ActorPool(
            "journal",
            lambda _: _Writer(self, self._figures),
            mailbox=MailboxLimits((MAILBOX,)),
            intensity=INTENSITY,
            max_resident=1,
            kind="actor",
        )
        self._ref: ActorRef = self._pool.ref("journal")

    async def acquire(self) -> None:
        """Become the owner of all partitions. Whoever held them before is fenced."""
        self._epochs = await self.store.acquire_partitions(range(PARTITIONS))

    def place(self, stream: str) -> tuple[int, int]:
        """Return the stream's partition, and the epoch under which this process holds it."""
        partition = partition_of(stream)
        return partition, self._epochs.get(partition, 0)

    def submit(self, append: Append, webhooks: tuple[RawWebhook, ...] = ()) -> Suspension[Outcome]:
        """Hand `append` in, to be committed together with whatever else is waiting; what comes back is for a turn to return.

        It is answered with the outcome, or fails with StoreUnavailable (the outcome is unknown) or Undelivered (the journal ended).

        Raises:
            MailboxFull, ActorStopped: nothing was done.
        """
        return self._ref.ask_suspended(Entry(append, webhooks))

    async def append(self, append: Append, webhooks: tuple[RawWebhook, ...] = ()) -> Outcome:
        """Commit `append` and wait for it. Raises what `submit` raises, and what it fails with."""
        outcome: Outcome = await self._ref.ask(Entry(append, webhooks))
        return outcome

    async def keep(self, webhook: RawWebhook | None, quarantine: Sequence[QuarantineEntry] = ()) -> None:
        """Commit a webhook and quarantine entries by themselves. Raises as `append` does."""
        await self._ref.ask(Keep(webhook, tuple(quarantine)))

    def accepting(self) -> bool:
        """Tell whether there is room for more."""
        statistics = self._ref.statistics()
        return statistics is None or sum(statistics.mailbox.depth) < MAILBOX

    def child_spec(self) -> ChildSpec:
        """Return the journal as a child of a supervisor. On stop the batch under way is committed; what waits fails with Undelivered."""
        return self._pool.child_spec(shutdown=10.0)

    def statistics(self) -> JournalStatistics:
        """Return totals and the present depth."""
        statistics = self._ref.statistics()
        return self._figures.snapshot(0 if statistics is None else sum(statistics.mailbox.depth))


class _Figures:
    """Plain counters, owned by the journal across restarts of its writer."""

    __slots__ = ("appends", "batch_size", "commit_seconds", "events", "refused", "unavailable")

    def __init__(self) -> None:
        self.appends = self.events = self.refused = self.unavailable = 0
        self.commit_seconds = Distribution(SECONDS)
        self.batch_size = Distribution(SIZES)

    def snapshot(self, waiting: int) -> JournalStatistics:
        return JournalStatistics(
            self.appends,
            self.events,
            self.refused,
            self.unavailable,
            waiting,
            self.commit_seconds.snapshot(),
            self.batch_size.snapshot(),
        )


class _Writer(Actor):
    """The journal's behaviour: one turn, one transaction."""

    batch = BATCH

    def __init__(self, journal: Journal, figures: _Figures) -> None:
        self._journal = journal
        self._figures = figures
        self._kept: dict[str, None] = {}

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        rest = envelopes
        try:
            while rest:
                rest = rest[await self._commit(rest) :]
        except StoreUnavailable as error:
            self._figures.unavailable += 1
            self._journal.feed.doubt(
                envelope.message.append.tenant for envelope in rest if isinstance(envelope.message, Entry)
            )
            for envelope in rest:
                envelope.fail(copy.copy(error))  # raised in as many tasks: each has a traceback of its own

    async def _commit(self, envelopes: Sequence[Envelope]) -> int:
        """Commit the first of `envelopes`, as many as one transaction may carry, and answer them; return how many."""
        entries: list[Envelope] = []
        appends: list[Append] = []
        webhooks: dict[str, RawWebhook] = {}
        quarantine: list[QuarantineEntry] = []
        count = size = 0
        while count < len(envelopes) and size < BATCH_BYTES:
            envelope = envelopes[count]
            count += 1
            message: Entry | Keep = envelope.message
            brought: tuple[RawWebhook, ...]
            if isinstance(message, Entry):
                entries.append(envelope)
                appends.append(message.append)
                brought = message.webhooks
            else:
                quarantine.extend(message.quarantine)
                size += sum(len(entry.payload) for entry in message.quarantine)
                brought = () if message.webhook is None else (message.webhook,)
            for webhook in brought:
                if webhook.id not in self._kept and webhook.id not in webhooks:
                    webhooks[webhook.id] = webhook
                    size += len(webhook.body)
        journal, figures = self._journal, self._figures
        at = journal.clock()
        began = trio.current_time()
        outcomes = await journal.store.append_batch(
            appends, webhooks=tuple(webhooks.values()), quarantine=quarantine, at=at
        )
        figures.commit_seconds.add(trio.current_time() - began)
        figures.batch_size.add(len(appends))
        figures.appends += len(appends)
        self._remember(webhooks)
        # An append that is not storable may have been refused before it came to its feed's lock.
        journal.feed.settle(
            append.tenant
            for append, outcome in zip(appends, outcomes, strict=True)
            if not isinstance(outcome, Unstorable)
        )
        for append, outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, Committed):
                figures.events += len(append.events)
                if journal.feed.watched(append.tenant):
                    journal.feed.publish(_recorded(append, outcome))
            else:
                figures.refused += 1
                if isinstance(outcome, Fenced):
                    journal.on_fenced(outcome.partition)
        for envelope, outcome in zip(entries, outcomes, strict=True):
            envelope.answer(outcome)
        for envelope in envelopes[:count]:
            if isinstance(envelope.message, Keep):
                envelope.answer()
        return count

    def _remember(self, webhooks: Mapping[str, RawWebhook]) -> None:
        kept = self._kept
        kept.update(dict.fromkeys(webhooks))
        while len(kept) > KEPT_REMEMBERED:
            del kept[next(iter(kept))]


def _recorded(append: Append, outcome: Committed) -> list[StoredEvent]:
    return [
        StoredEvent(
            tenant=append.tenant,
            offset=outcome.first_offset + index,
            stream=append.stream,
            version=append.expected + 1 + index,
            kind=event.kind,
            body=event.body,
            at=event.at,
            recorded_at=outcome.at,
            endpoint=append.endpoint,
            cause=event.cause,
        )
        for index, event in enumerate(append.events)
    ]
