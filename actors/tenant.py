"""A tenant: its subtree of actors, and the actor of its own stream (what concerns no single conversation).

Owns what runs for one tenant and the notices about its accounts, templates, numbers and groups. Must not know other tenants: a failure here
ends at this subtree's root.
"""

from collections.abc import Sequence

from actors.conversation import LIMITS, Conversation
from actors.journal import Journal
from actors.ports import DUPLICATE, RECORDED, Contended, NewId, Notice, NotOwner, NotStorable, Quarantined, Relearner
from protocol.events import NoticeRecorded, encode, kind_of
from protocol.ids import QUARANTINED
from store.contract import (
    Append,
    Committed,
    Duplicate,
    Fenced,
    NewEvent,
    QuarantineEntry,
    Store,
    StoreUnavailable,
    Unstorable,
)
from supervisor import (
    Actor,
    ActorPool,
    ChildSpec,
    Envelope,
    Intensity,
    MailboxLimits,
    Refused,
    Restart,
    Strategy,
    Supervisor,
    Undelivered,
)

DECISIONS = 5


class TenantStream(Actor):
    """The actor of a tenant's own stream; its envelopes carry `Notice`. It has no state but the version."""

    __slots__ = ("_journal", "_store", "_tenant", "_version")

    batch = 64

    def __init__(self, tenant: str, journal: Journal, store: Store) -> None:
        self._tenant = tenant
        self._journal = journal
        self._store = store
        self._version: int | None = None

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        """Record all notices in one append; what was recorded before is answered as such."""
        known: set[bytes] = set()
        try:
            for _ in range(DECISIONS):
                if self._version is None:
                    [stream] = await self._store.load_streams([self._tenant])
                    self._version = stream.version
                fresh: dict[bytes, Notice] = {}
                for envelope in envelopes:
                    if envelope.message.dedupe not in known:
                        fresh.setdefault(envelope.message.dedupe, envelope.message)
                if not fresh:
                    break
                webhooks = {notice.webhook.id: notice.webhook for notice in fresh.values()}
                match await self._journal.append(self._append(self._version, fresh), tuple(webhooks.values())):
                    case Committed():
                        self._version += len(fresh)
                        for envelope in envelopes:
                            envelope.answer(DUPLICATE if envelope.message.dedupe in known else RECORDED)
                        return
                    case Duplicate(keys=keys):
                        known.update(keys)
                    case Unstorable(reason=reason):
                        raise NotStorable(reason)
                    case Fenced(partition=partition):
                        raise NotOwner(f"partition {partition} has another owner")
                    case _:
                        self._version = None
            else:
                raise Contended(f"the stream of {self._tenant} kept changing")
        except (StoreUnavailable, NotOwner, Contended, Refused, Undelivered) as error:
            self._version = None
            for envelope in envelopes:
                envelope.fail(error)
            return
        for envelope in envelopes:
            envelope.answer(DUPLICATE)

    def _append(self, version: int, notices: dict[bytes, Notice]) -> Append:
        partition, epoch = self._journal.place(self._tenant)
        events = []
        for each in notices.values():
            event = NoticeRecorded(
                each.at, each.account, each.notice.topic, each.notice.payload, each.endpoint, each.notice.known
            )
            events.append(NewEvent(kind_of(event), encode(event), each.at, each.webhook.id))
        return Append(
            tenant=self._tenant,
            stream=self._tenant,
            partition=partition,
            epoch=epoch,
            expected=version,
            events=tuple(events),
            dedupe=tuple(notices),
        )


class TenantTree:
    """The supervised subtree of one tenant: its own stream, and its conversations."""

    def __init__(
        self,
        tenant: str,
        journal: Journal,
        store: Store,
        relearner: Relearner,
        new_id: NewId,
        *,
        idle_timeout: float,
        max_resident: int,
    ) -> None:
        """`idle_timeout` (seconds) and `max_resident` bound the conversations kept in memory."""
        self.tenant = tenant
        self._journal = journal
        self._new_id = new_id
        self.stream: ActorPool[str] = ActorPool(
            "stream",
            lambda _: TenantStream(tenant, journal, store),
            mailbox=MailboxLimits((2000,)),
            max_resident=1,
            intensity=Intensity(20, 10.0),
            on_poison=self._quarantine,
            kind="actor",
        )
        self.conversations: ActorPool[str] = ActorPool(
            "conversations",
            lambda conversation: Conversation(tenant, conversation, journal, store, relearner),
            mailbox=LIMITS,
            max_resident=max_resident,
            idle_timeout=idle_timeout,
            intensity=Intensity(200, 10.0),
            on_poison=self._quarantine,
        )
        self._supervisor = Supervisor(
            tenant,
            [self.stream.child_spec(), self.conversations.child_spec()],
            strategy=Strategy.ONE_FOR_ONE,
            intensity=Intensity(5, 60.0),
        )

    def child_spec(self) -> ChildSpec:
        """Return the subtree as a child. Temporary: a tenant that gives up is started again by its next message, not by restarting others."""
        return ChildSpec(
            self.tenant,
            self._supervisor.run,
            Restart.TEMPORARY,
            shutdown=15.0,
            stop=self._supervisor.stop,
            inspect=self._supervisor.statistics,
        )

    async def _quarantine(self, key: str, envelope: Envelope, error: Exception) -> Quarantined:
        """Keep a message that crashes its actor: with its raw webhook, so that it can be replayed through mended code."""
        message = envelope.message
        webhook = getattr(message, "webhook", None)
        entry = QuarantineEntry(
            id=self._new_id(QUARANTINED),
            at=self._journal.clock(),
            reason="crashed",
            detail=f"{type(error).__name__}: {error}"[:500],
            payload=webhook.body if webhook is not None else repr(message).encode()[:65536],
            tenant=self.tenant,
            webhook=webhook.id if webhook is not None else None,
            stream=key,
        )
        await self._journal.keep(webhook, [entry])
        return Quarantined(entry.id)
