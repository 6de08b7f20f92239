"""The store's contract: what the actors may ask of durable storage, and what every implementation must answer.

Owns the rows that cross the border and the `Store` protocol. `store.memory` and `store.postgres` implement it and pass one test suite
(`tests/contract`). Must not know SQL, trio's primitives or any provider.

The journal is the heart. `append_batch` commits many actors' appends at once, or refuses some of them by name; either all of an append
stands (events, dedupe ids, aliases, read models, raw webhooks, snapshot) or none of it:

1. FENCE. Each append names its stream's partition and the epoch under which this node acquired it. Another epoch in the database: `Fenced`.
2. VERSION. `expected` is the stream's version before the append. Another version in the database: `VersionConflict`.
3. DEDUPE. A dedupe key that is already recorded: `Duplicate`, naming the keys.
4. ALIAS. An external id that already leads to another conversation: `AliasTaken`, saying where it leads.
5. OFFSETS. Every event gets the next offset of its tenant's feed, in the order of the batch: offset order is commit order, without holes.
   A refused append uses no offset.

Times are Unix milliseconds. Ids are the texts of `protocol.ids`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

# --- errors ----------------------------------------------------------------------------------------------------------------


class StoreError(Exception):
    """Base of all that the store raises. `retryable`: the same call may succeed later, unchanged."""

    retryable = False


class StoreUnavailable(StoreError):
    """The database cannot be reached, is read-only or has no space. After an append, its outcome is unknown: reload before deciding again."""

    retryable = True


class StoreRefused(StoreError):
    """The store will not start: another process serves this database, or its schema is newer than this release. The text says what to do."""


# --- the journal -----------------------------------------------------------------------------------------------------------


class RawWebhook(msgspec.Struct, frozen=True, gc=False):
    """A webhook's body as received, kept in the commit of whatever it caused. `verdict`: routed, unrouted, undecodable or partial."""

    id: str
    provider: str
    received_at: int
    body: bytes
    verdict: str
    tenant: str | None = None


class NewEvent(msgspec.Struct, frozen=True, gc=False):
    """An event about to be recorded: `body` is its JSON, `at` the provider's time, `cause` the id of the webhook or command it comes from."""

    kind: str
    body: bytes
    at: int
    cause: str | None = None


class AliasWrite(msgspec.Struct, frozen=True, gc=False):
    """`external_id` (kind and id, on `endpoint`) leads to the append's stream from now on; `remove`: no longer.

    `steal_from`: a merged conversation it may be taken from.
    """

    endpoint: str
    external_id: str
    remove: bool = False
    steal_from: str | None = None


class MessageWrite(msgspec.Struct, frozen=True, gc=False):
    """What an append changes of one message in the thread's read model. Absent parts (None) stay as they are.

    A row may begin as a receipt alone (`seq` None: not shown) and be completed later. `seq` names the event that records the message by its
    place among this append's events (from 1); the row then keeps that event's feed offset. `status` is a rank and only ever grows
    (FORWARD-ONLY holds in the read model too); `status_at` and `problems` belong to it: they come with a higher rank, or (`problems`) where the
    same rank had none.
    """

    message_id: str
    status: int = 0
    status_at: int | None = None
    seq: int | None = None
    at: int | None = None
    outbound: bool | None = None
    origin: str | None = None
    kind: str | None = None
    content: bytes | None = None
    context: bytes | None = None
    author: str | None = None
    problems: bytes | None = None
    edited: bool = False
    revoked: bool = False


class ConversationWrite(msgspec.Struct, frozen=True, gc=False):
    """The conversation's row in the list, whole, as it is after the append."""

    endpoint: str
    contact: bytes
    name: str
    preview: str
    last_at: int
    last_outbound: bool
    unanswered: int
    messages: int
    merged_into: str | None = None
    absorbs: str | None = None
    """Set in the one append that takes another conversation's messages over: their rows move here in the same commit."""


class Append(msgspec.Struct, frozen=True, gc=False):
    """One actor's turn, ready to be committed."""

    tenant: str
    stream: str
    partition: int
    epoch: int
    expected: int
    events: tuple[NewEvent, ...]
    endpoint: str | None = None
    """The endpoint of the stream's conversation (None: the tenant's own stream); stands beside every event for the feed's filters."""
    dedupe: tuple[bytes, ...] = ()
    aliases: tuple[AliasWrite, ...] = ()
    messages: tuple[MessageWrite, ...] = ()
    conversation: ConversationWrite | None = None
    snapshot: bytes | None = None


class Committed(msgspec.Struct, frozen=True, gc=False):
    """The append stands. Its events have the versions `expected + 1 …` and the feed offsets `first_offset …`, recorded at `at`."""

    first_offset: int
    at: int


class VersionConflict(msgspec.Struct, frozen=True, gc=False):
    """The stream is at `actual`, or belongs to another tenant."""

    actual: int


class Duplicate(msgspec.Struct, frozen=True, gc=False):
    """These dedupe keys are recorded already."""

    keys: tuple[bytes, ...]


class Fenced(msgspec.Struct, frozen=True, gc=False):
    """The partition belongs to another epoch now: drop its actors, commit nothing more under the old one."""

    partition: int


class AliasTaken(msgspec.Struct, frozen=True, gc=False):
    """`external_id` leads to `conversation`."""

    external_id: str
    conversation: str


class Unstorable(msgspec.Struct, frozen=True, gc=False):
    """The append holds something that no database takes (a number beyond 64 bits, an id of kilobytes): it would fail for ever. Siblings do not."""

    reason: str


Outcome = Committed | VersionConflict | Duplicate | Fenced | AliasTaken | Unstorable


# --- what is read back -------------------------------------------------------------------------------------------------------


class StoredEvent(msgspec.Struct, frozen=True, gc=False):
    """An event as recorded. `at` is the provider's time, `recorded_at` the commit's."""

    tenant: str
    offset: int
    stream: str
    version: int
    kind: str
    body: bytes
    at: int
    recorded_at: int
    endpoint: str | None = None
    cause: str | None = None


class LoadedStream(msgspec.Struct, frozen=True, gc=False):
    """A stream's state: the newest snapshot, taken at `snapshot_version` (0: none), and the events after it."""

    version: int
    snapshot: bytes | None
    snapshot_version: int
    tail: tuple[StoredEvent, ...]


class MessageStatus(msgspec.Struct, frozen=True, gc=False):
    """Where a message known to the read model stands. `seq` None: only receipts for it have come so far."""

    conversation: str
    message_id: str
    status: int
    seq: int | None


class ConversationRow(msgspec.Struct, frozen=True, gc=False):
    """One line of a conversation list. `contact` is the JSON of a `ContactRef`."""

    id: str
    endpoint: str
    contact: bytes
    name: str
    preview: str
    last_at: int
    last_outbound: bool
    last_status: int
    """Rank of the newest outbound message's status where `last_outbound`, else 0."""
    unanswered: int
    messages: int
    version: int
    merged_into: str | None


class MessageRow(msgspec.Struct, frozen=True, gc=False):
    """One message of a thread. `seq` orders it: the feed offset of the event that recorded it, so merged threads interleave as committed."""

    message_id: str
    conversation: str
    seq: int
    at: int
    recorded_at: int
    outbound: bool
    origin: str
    kind: str
    content: bytes
    context: bytes | None
    author: str | None
    status: int
    status_at: int | None
    problems: bytes | None
    edited: bool
    revoked: bool


class FeedHead(msgspec.Struct, frozen=True, gc=False):
    """A tenant's feed: `epoch` names this feed's life, `head` is the newest offset (0: none), `oldest` the oldest still stored."""

    epoch: str
    head: int
    oldest: int


class QuarantineEntry(msgspec.Struct, frozen=True, gc=False):
    """Something kept aside. `reason`: undecodable, unrouted, bad_item, crashed, unstorable. `detail` is for people. `payload` is what arrived.

    `unstorable`: the database would not take the webhook or entry of this id; what is left of it is this, without the payload.
    """

    id: str
    at: int
    reason: str
    detail: str
    payload: bytes
    tenant: str | None = None
    webhook: str | None = None
    stream: str | None = None


class Tenant(msgspec.Struct, frozen=True, gc=False):
    """A business. `slug` is its unique short name; `status` is active or suspended."""

    id: str
    slug: str
    name: str
    status: str = "active"


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """One number (or mailbox, widget) of a tenant at a provider. `external_id` is the provider's (phone_number_id), unique per provider."""

    provider: str
    external_id: str
    tenant: str
    app_secret: str
    verify_token: str
    account: str | None = None
    display: str | None = None

    def __repr__(self) -> str:
        """Say which endpoint, never its secrets."""
        return f"Endpoint({self.provider}:{self.external_id}, tenant={self.tenant})"


class ApiKey(msgspec.Struct, frozen=True, gc=False):
    """An API key as kept: never the key, only SHA-256 of it and the prefix people recognise it by."""

    id: str
    tenant: str
    prefix: str
    digest: bytes
    created_at: int
    revoked_at: int | None = None


class Routes(msgspec.Struct, frozen=True, gc=False):
    """All tenants, endpoints and live API keys, as of one moment."""

    tenants: tuple[Tenant, ...]
    endpoints: tuple[Endpoint, ...]
    keys: tuple[ApiKey, ...]


# --- the contract ----------------------------------------------------------------------------------------------------------


class Store(Protocol):
    """Durable storage. Every method raises StoreUnavailable when the database cannot serve it; cancellation leaves no half commit."""

    async def acquire_partitions(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Become the owner of `partitions`: bump each epoch, return the new ones. Whoever held them before is fenced from now on."""

    async def append_batch(
        self,
        appends: Sequence[Append],
        *,
        webhooks: Sequence[RawWebhook] = (),
        quarantine: Sequence[QuarantineEntry] = (),
        at: int,
    ) -> list[Outcome]:
        """Commit what can be committed, in one transaction; answer each append in its place.

        At most one append a stream in a batch. `webhooks` and `quarantine` are kept in the same transaction, or one before it, in any case (a
        repeated id is kept once); a row of them that the database does not take leaves an `unstorable` quarantine entry. When this returns,
        what it calls Committed is durable (synchronous commit).
        """

    async def load_streams(self, streams: Sequence[str]) -> list[LoadedStream]:
        """Return each stream's newest snapshot and tail; version 0 and no tail for one that does not exist."""

    async def find_conversations(self, tenant: str, endpoint: str, external_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the conversation each known external id leads to; unknown ones are absent."""

    async def find_messages(self, tenant: str, message_ids: Sequence[str]) -> list[MessageStatus]:
        """Return what the read model knows of these provider message ids, within the tenant."""

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
        """Return conversations, newest activity first, merged ones left out. `before`: the (last_at, id) of the last row already seen."""

    async def get_conversation(self, tenant: str, conversation: str) -> ConversationRow | None:
        """Return one conversation's row, merged or not; None when this tenant has no such conversation."""

    async def list_messages(
        self, tenant: str, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[MessageRow]:
        """Return a thread's messages, newest first; `before`: the `seq` of the last row already seen."""

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return a stream's events with versions > `after`, in order."""

    async def feed_head(self, tenant: str) -> FeedHead:
        """Return where the tenant's feed stands; a tenant without events has head 0 and oldest 1."""

    async def read_feed(self, tenant: str, *, after: int, limit: int = 500) -> list[StoredEvent]:
        """Return events with offsets > `after`, in order, without holes as long as `after` >= oldest - 1."""

    async def list_webhooks(
        self, *, since: int, until: int, after: str | None = None, limit: int = 100
    ) -> list[RawWebhook]:
        """Return raw webhooks received in [since, until), in order of arrival; `after`: the id of the last one already read."""

    async def prune_webhooks(self, before: int) -> int:
        """Forget raw webhooks received before `before`; return how many (by partition where possible)."""

    async def list_quarantine(
        self, *, tenant: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[QuarantineEntry]:
        """Return quarantined items, newest first. `tenant` None: all, the unrouted among them."""

    async def load_routes(self) -> Routes:
        """Return all tenants, endpoints and keys that are not revoked."""

    async def add_tenant(self, tenant: Tenant) -> bool:
        """Record a tenant; False when the slug is taken."""

    async def add_endpoint(self, endpoint: Endpoint) -> bool:
        """Record an endpoint; False when (provider, external_id) is taken."""

    async def add_key(self, key: ApiKey) -> None:
        """Record an API key."""

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke a key; False when there is no such live key."""

    async def wait_routes_changed(self) -> None:
        """Return when tenants, endpoints or keys may have changed, by whichever process; at the latest after 5 s."""

    async def check(self) -> None:
        """Return if an append would be accepted now: reachable, writable, and this process's fence holds. Raises StoreUnavailable."""
