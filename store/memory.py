"""The store in memory, for tests: the contract's semantics without its durability.

`MemoryDatabase` is what several processes would share; each `MemoryStore` on it is one of them, with fences between them as on PostgreSQL.
One list of plain rows a table; every method is atomic because it does not yield between its one checkpoint and its return.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec
import trio

from store.contract import (
    AliasTaken,
    ApiKey,
    Append,
    Committed,
    ConversationRow,
    ConversationWrite,
    Duplicate,
    Endpoint,
    FeedHead,
    Fenced,
    LoadedStream,
    MessageRow,
    MessageStatus,
    MessageWrite,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    Routes,
    StoredEvent,
    StoreUnavailable,
    Tenant,
    Unstorable,
    VersionConflict,
)
from store.read_model import combine, storable, storable_conversation, storable_message

ROUTES_WAIT = 5.0
"""Seconds `wait_routes_changed` takes at most, as on PostgreSQL."""


class _Message(msgspec.Struct):
    """A row of a thread: `write` holds what all writes came to, `seq` in it being the feed offset by now."""

    write: MessageWrite
    recorded_at: int | None


class _Conversation(msgspec.Struct):
    tenant: str
    write: ConversationWrite


class MemoryDatabase:
    """What outlives a store. `outage`: while set, every call raises StoreUnavailable with this text."""

    def __init__(self) -> None:
        self.outage: str | None = None
        self.fences: dict[int, tuple[int, object]] = {}
        self.streams: dict[str, list[StoredEvent]] = {}
        self.owners: dict[str, str] = {}
        """The tenant of each stream."""
        self.snapshots: dict[str, tuple[int, bytes]] = {}
        self.feeds: dict[str, list[StoredEvent]] = {}
        self.dedupe: set[bytes] = set()
        self.aliases: dict[tuple[str, str, str], str] = {}
        self.conversations: dict[str, _Conversation] = {}
        self.messages: dict[tuple[str, str, str], _Message] = {}
        """By tenant, conversation, message id."""
        self.webhooks: dict[str, RawWebhook] = {}
        self.quarantine: dict[str, QuarantineEntry] = {}
        self.tenants: dict[str, Tenant] = {}
        self.endpoints: dict[tuple[str, str], Endpoint] = {}
        self.keys: dict[str, ApiKey] = {}
        self.routes_version = 0
        self.routes_changed = trio.Event()


class MemoryStore:
    """One process's store on a `MemoryDatabase`, its own unless one is given."""

    def __init__(self, database: MemoryDatabase | None = None) -> None:
        self.database = database or MemoryDatabase()
        self._held: dict[int, int] = {}
        self._routes_seen = -1

    async def acquire_partitions(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Bump epochs."""
        db = await self._reach()
        epochs = {partition: db.fences.get(partition, (0, None))[0] + 1 for partition in partitions}
        db.fences.update({partition: (epoch, self) for partition, epoch in epochs.items()})
        self._held.update(epochs)
        return epochs

    async def append_batch(
        self,
        appends: Sequence[Append],
        *,
        webhooks: Sequence[RawWebhook] = (),
        quarantine: Sequence[QuarantineEntry] = (),
        at: int,
    ) -> list[Outcome]:
        """Commit or refuse each append in turn."""
        db = await self._reach()
        outcomes: list[Outcome] = []
        for append in appends:
            refusal = self._refusal(append)
            outcomes.append(refusal or self._commit(append, at))
        for webhook in webhooks:
            db.webhooks.setdefault(webhook.id, webhook)
        for entry in quarantine:
            db.quarantine.setdefault(entry.id, msgspec.structs.replace(entry, detail=storable(entry.detail)))
        return outcomes

    def _refusal(self, append: Append) -> Outcome | None:
        db = self.database
        if db.fences.get(append.partition) != (append.epoch, self):
            return Fenced(append.partition)
        actual = len(db.streams.get(append.stream, ()))
        if actual != append.expected or db.owners.get(append.stream, append.tenant) != append.tenant:
            return VersionConflict(actual)
        recorded = tuple(key for key in append.dedupe if key in db.dedupe)
        if recorded:
            return Duplicate(recorded)
        for alias in append.aliases:
            external_id = storable(alias.external_id)
            leads_to = db.aliases.get((append.tenant, alias.endpoint, external_id), append.stream)
            if not alias.remove and leads_to not in (append.stream, alias.steal_from):
                return AliasTaken(external_id, leads_to)
        if any(not -(2**63) <= number < 2**63 for number in _numbers(append)):
            return Unstorable("value out of int64 range")
        return None

    def _commit(self, append: Append, at: int) -> Committed:
        db = self.database
        stream = db.streams.setdefault(append.stream, [])
        db.owners[append.stream] = append.tenant
        feed = db.feeds.setdefault(append.tenant, [])
        before = len(feed)
        for event in append.events:
            stored = StoredEvent(
                tenant=append.tenant,
                offset=len(feed) + 1,
                stream=append.stream,
                version=len(stream) + 1,
                kind=event.kind,
                body=event.body,
                at=event.at,
                recorded_at=at,
                endpoint=append.endpoint,
                cause=event.cause,
            )
            stream.append(stored)
            feed.append(stored)
        db.dedupe.update(append.dedupe)
        for alias in append.aliases:
            key = (append.tenant, alias.endpoint, storable(alias.external_id))
            if not alias.remove:
                db.aliases[key] = append.stream
            elif db.aliases.get(key) == append.stream:
                del db.aliases[key]
        if append.conversation is not None:
            if append.conversation.absorbs is not None:
                self._absorb(append.tenant, append.conversation.absorbs, append.stream)
            db.conversations[append.stream] = _Conversation(append.tenant, storable_conversation(append.conversation))
        for write in append.messages:
            self._write_message(append, write, before, at)
        if append.snapshot is not None:
            db.snapshots[append.stream] = (len(stream), append.snapshot)
        return Committed(before + 1, at)

    def _write_message(self, append: Append, write: MessageWrite, before: int, at: int) -> None:
        write = storable_message(write)
        if write.seq is not None:
            write = msgspec.structs.replace(write, seq=before + write.seq)
        row = self.database.messages.setdefault(
            (append.tenant, append.stream, write.message_id), _Message(MessageWrite(write.message_id, status=-1), None)
        )
        row.write = combine(row.write, write)
        if write.seq is not None:
            row.recorded_at = at

    def _absorb(self, tenant: str, source: str, target: str) -> None:
        messages = self.database.messages
        for key in [key for key in messages if key[:2] == (tenant, source)]:
            moved = messages.pop(key)
            standing = messages.get((tenant, target, key[2]))
            if standing is not None:  # what the absorbing thread says stands; the status is the further one
                further = MessageWrite(key[2], moved.write.status, moved.write.status_at, problems=moved.write.problems)
                status = combine(standing.write, further)
                write = combine(moved.write, standing.write)
                moved.write = msgspec.structs.replace(
                    write, status=status.status, status_at=status.status_at, problems=status.problems
                )
                moved.recorded_at = moved.recorded_at if standing.recorded_at is None else standing.recorded_at
            messages[tenant, target, key[2]] = moved

    async def load_streams(self, streams: Sequence[str]) -> list[LoadedStream]:
        """Load snapshots and tails."""
        db = await self._reach()
        loaded = []
        for stream in streams:
            events = db.streams.get(stream, [])
            version, snapshot = db.snapshots.get(stream, (0, None))
            loaded.append(LoadedStream(len(events), snapshot, version, tuple(events[version:])))
        return loaded

    async def find_conversations(self, tenant: str, endpoint: str, external_ids: Sequence[str]) -> Mapping[str, str]:
        """Look external ids up."""
        db = await self._reach()
        found = {external_id: db.aliases.get((tenant, endpoint, storable(external_id))) for external_id in external_ids}
        return {external_id: stream for external_id, stream in found.items() if stream is not None}

    async def find_messages(self, tenant: str, message_ids: Sequence[str]) -> list[MessageStatus]:
        """Look messages up."""
        db = await self._reach()
        asked = {storable(message_id): message_id for message_id in message_ids}
        return [
            MessageStatus(stream, asked[message_id], row.write.status, row.write.seq)
            for (owner, stream, message_id), row in sorted(
                db.messages.items(), key=lambda item: (item[0][2], item[0][1])
            )
            if owner == tenant and message_id in asked
        ]

    async def list_conversations(
        self,
        tenant: str,
        *,
        endpoint: str | None = None,
        unanswered: bool | None = None,
        search: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> list[ConversationRow]:
        """Return a page of the list."""
        db = await self._reach()
        sought = None if search is None else storable(search).lower()
        rows = [
            self._row(name, row)
            for name, row in db.conversations.items()
            if row.tenant == tenant
            and row.write.merged_into is None
            and (endpoint is None or row.write.endpoint == endpoint)
            and (unanswered is None or (row.write.unanswered > 0) == unanswered)
            and (before is None or (row.write.last_at, name) < before)
            and (sought is None or self._matches(tenant, name, row.write.name, sought))
        ]
        return sorted(rows, key=lambda row: (row.last_at, row.id), reverse=True)[:limit]

    def _matches(self, tenant: str, stream: str, name: str, sought: str) -> bool:
        ids = [key[2] for key, leads_to in self.database.aliases.items() if key[0] == tenant and leads_to == stream]
        return sought in name.lower() or any(sought in one[one.find(":") + 1 :].lower() for one in ids)

    def _row(self, stream: str, row: _Conversation) -> ConversationRow:
        write = row.write
        thread = [m.write for key, m in self.database.messages.items() if key[:2] == (row.tenant, stream)]
        sent = [(m.seq, m.status) for m in thread if m.seq is not None and m.outbound]
        return ConversationRow(
            id=stream,
            endpoint=write.endpoint,
            contact=write.contact,
            name=write.name,
            preview=write.preview,
            last_at=write.last_at,
            last_outbound=write.last_outbound,
            last_status=max(sent)[1] if sent and write.last_outbound else 0,
            unanswered=write.unanswered,
            messages=write.messages,
            version=len(self.database.streams[stream]),
            merged_into=write.merged_into,
        )

    async def get_conversation(self, tenant: str, conversation: str) -> ConversationRow | None:
        """Return one line of the list."""
        db = await self._reach()
        row = db.conversations.get(conversation)
        return self._row(conversation, row) if row is not None and row.tenant == tenant else None

    async def list_messages(
        self, tenant: str, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[MessageRow]:
        """Return a page of a thread."""
        db = await self._reach()
        rows = [
            msgspec.convert(
                {**msgspec.structs.asdict(row.write), "conversation": conversation, "recorded_at": row.recorded_at},
                MessageRow,
            )
            for key, row in db.messages.items()
            if key[:2] == (tenant, conversation)
            and row.write.seq is not None
            and (before is None or row.write.seq < before)
        ]
        return sorted(rows, key=lambda row: row.seq, reverse=True)[:limit]

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return a stream's events."""
        db = await self._reach()
        return [event for event in db.streams.get(stream, []) if event.tenant == tenant][after:][:limit]

    async def feed_head(self, tenant: str) -> FeedHead:
        """Return where a feed stands."""
        db = await self._reach()
        return FeedHead(epoch=f"memory-{id(db):x}", head=len(db.feeds.get(tenant, ())), oldest=1)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 500) -> list[StoredEvent]:
        """Return a feed's events."""
        db = await self._reach()
        return db.feeds.get(tenant, [])[max(after, 0) :][:limit]

    async def list_webhooks(
        self, *, since: int, until: int, after: str | None = None, limit: int = 100
    ) -> list[RawWebhook]:
        """Return raw webhooks of a period."""
        db = await self._reach()
        rows = [row for row in db.webhooks.values() if since <= row.received_at < until]
        rows.sort(key=lambda row: (row.received_at, row.id))
        if after is not None:
            places = [place for place, row in enumerate(rows, 1) if row.id == after]
            rows = rows[places[0] :] if places else []
        return rows[:limit]

    async def prune_webhooks(self, before: int) -> int:
        """Forget old webhooks."""
        db = await self._reach()
        old = [name for name, row in db.webhooks.items() if row.received_at < before]
        for name in old:
            del db.webhooks[name]
        return len(old)

    async def list_quarantine(
        self, *, tenant: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[QuarantineEntry]:
        """Return quarantined items."""
        db = await self._reach()
        rows = sorted(db.quarantine.values(), key=lambda row: (row.at, row.id), reverse=True)
        if before is not None:
            seen = db.quarantine.get(before)
            rows = (
                []
                if seen is None or tenant not in (None, seen.tenant)
                else [row for row in rows if (row.at, row.id) < (seen.at, seen.id)]
            )
        return [row for row in rows if tenant is None or row.tenant == tenant][:limit]

    async def load_routes(self) -> Routes:
        """Return tenants, endpoints and live keys."""
        db = await self._reach()
        return Routes(
            tuple(sorted(db.tenants.values(), key=lambda tenant: tenant.id)),
            tuple(sorted(db.endpoints.values(), key=lambda endpoint: (endpoint.provider, endpoint.external_id))),
            tuple(sorted((key for key in db.keys.values() if key.revoked_at is None), key=lambda key: key.id)),
        )

    async def add_tenant(self, tenant: Tenant) -> bool:
        """Record a tenant."""
        db = await self._reach()
        if tenant.id in db.tenants or any(other.slug == tenant.slug for other in db.tenants.values()):
            return False
        db.tenants[tenant.id] = tenant
        return self._routes_change()

    async def add_endpoint(self, endpoint: Endpoint) -> bool:
        """Record an endpoint."""
        db = await self._reach()
        if (endpoint.provider, endpoint.external_id) in db.endpoints:
            return False
        db.endpoints[endpoint.provider, endpoint.external_id] = endpoint
        return self._routes_change()

    async def add_key(self, key: ApiKey) -> None:
        """Record an API key."""
        (await self._reach()).keys[key.id] = key
        self._routes_change()

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke an API key."""
        db = await self._reach()
        key = db.keys.get(key_id)
        if key is None or key.revoked_at is not None:
            return False
        db.keys[key_id] = msgspec.structs.replace(key, revoked_at=at)
        return self._routes_change()

    async def wait_routes_changed(self) -> None:
        """Wait for a change that this store has not seen yet; at most ROUTES_WAIT seconds."""
        db = self.database
        with trio.move_on_after(ROUTES_WAIT):
            while db.routes_version == self._routes_seen:
                await db.routes_changed.wait()
        self._routes_seen = db.routes_version
        await trio.lowlevel.checkpoint()

    async def check(self) -> None:
        """Raise StoreUnavailable in an outage, or when a partition was taken away."""
        db = await self._reach()
        lost = [partition for partition, epoch in self._held.items() if db.fences[partition] != (epoch, self)]
        if lost:
            raise StoreUnavailable(f"{len(lost)} partitions were taken by another process")

    def _routes_change(self) -> bool:
        db = self.database
        db.routes_version += 1
        db.routes_changed.set()
        db.routes_changed = trio.Event()
        return True

    async def _reach(self) -> MemoryDatabase:
        await trio.lowlevel.checkpoint()
        if self.database.outage is not None:
            raise StoreUnavailable(self.database.outage)
        return self.database


def _numbers(append: Append) -> Iterator[int]:
    """Yield the numbers that come from outside: the provider's times."""
    for event in append.events:
        yield event.at
    for write in append.messages:
        yield write.at or 0
        yield write.status_at or 0
    if append.conversation is not None:
        yield append.conversation.last_at
