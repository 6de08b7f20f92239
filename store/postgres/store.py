"""The store on PostgreSQL: opening it, and the contract's methods, each one crossing of the bridge to its own file.

Owns the life of everything behind it: embedded server, bridge, connections, coalescers, maintenance. Must not know SQL.
"""

import logging
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import trio

from store.contract import (
    ApiKey,
    Append,
    ConversationRow,
    Endpoint,
    FeedHead,
    LoadedStream,
    MessageRow,
    MessageStatus,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    Routes,
    StoredEvent,
    StoreUnavailable,
    Tenant,
)
from store.postgres import embedded, list_conversations, list_messages, quarantine, read_feed, routes, webhooks
from store.postgres.acquire_partitions import acquire_partitions
from store.postgres.append_batch import append_batch
from store.postgres.bridge import Bridge, open_bridge
from store.postgres.check import check
from store.postgres.coalesce import Coalescer
from store.postgres.find_conversations import Key, find_conversations
from store.postgres.find_messages import find_messages
from store.postgres.find_recorded import find_recorded
from store.postgres.load_streams import load_streams
from store.postgres.migrate import migrate
from store.postgres.partitions import make_partitions
from store.postgres.pool import Connection, Link, Pool
from store.postgres.serving import ServingLock, application_name

log = logging.getLogger(__name__)

START_TIME = 10.0
"""Seconds to wait at the start for a database that is still starting itself."""
CHECK_TIME = 1.0
"""Seconds `check` may take."""
ROUTES_WAIT = 5.0
"""Seconds after which routes are looked at even when no notification came: notifications can be lost (RELIABILITY 28)."""
MAINTENANCE_PERIOD = 3600.0
"""Seconds between two looks whether the coming partitions exist."""
MAINTENANCE_TIME = 600.0
"""Seconds that migrations, new partitions and pruning may take."""

JOURNAL_SETTINGS = {"enable_hashjoin": "off", "enable_mergejoin": "off"}
"""The journal's plans are index lookups, however small a table was when they were made."""

EMPTY = LoadedStream(version=0, snapshot=None, snapshot_version=0, tail=())


class PostgresStore:
    """The contract on PostgreSQL. Made by `open_store`."""

    def __init__(self, bridge: Bridge, url: str, name: str) -> None:
        self.incarnation = uuid4().hex
        """Signs the partitions this store acquires: an epoch alone could repeat after a restored backup."""
        self._bridge = bridge
        self._serving = ServingLock()
        self._journal = Link(url, {"application_name": name, **JOURNAL_SETTINGS}, self._serving.renew)
        self._pool = Pool(url, {"application_name": f"{name} reads"})
        self._route_listener = routes.RouteListener()
        self._listening = Link(url, {"application_name": f"{name} routes"}, self._route_listener.start)
        self._streams: Coalescer[str, LoadedStream] = Coalescer(self._load_streams)
        self._conversations: Coalescer[Key, str] = Coalescer(self._find_conversations)
        self._held: set[int] = set()
        self._failed = False

    async def acquire_partitions(self, partitions: Sequence[int]) -> Mapping[int, int]:
        """Bump epochs. Raises StoreUnavailable when another process took the database over."""
        self._serving.require()
        epochs = await self._bridge.run(self._journal.run, acquire_partitions, self.incarnation, partitions)
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
        """Commit in one round trip; see the contract."""
        try:
            outcomes = await self._bridge.run(
                self._journal.run, append_batch, self.incarnation, appends, webhooks, quarantine, at
            )
        except StoreUnavailable:
            self._failed = True
            raise
        self._failed = False
        return outcomes

    async def load_streams(self, streams: Sequence[str]) -> list[LoadedStream]:
        """Load streams, together with whoever else is loading some."""
        found = await self._streams.get(streams)
        return [found.get(stream, EMPTY) for stream in streams]

    async def find_conversations(self, tenant: str, endpoint: str, external_ids: Sequence[str]) -> Mapping[str, str]:
        """Look external ids up, together with whoever else is looking."""
        found = await self._conversations.get([(tenant, endpoint, external_id) for external_id in external_ids])
        return {
            external_id: found[tenant, endpoint, external_id]
            for external_id in external_ids
            if (tenant, endpoint, external_id) in found
        }

    async def find_messages(self, tenant: str, message_ids: Sequence[str]) -> list[MessageStatus]:
        """Look messages up."""
        return await self._bridge.run(self._pool.run, find_messages, tenant, message_ids)

    async def find_recorded(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return those of `keys` that were ever recorded; for tools, not part of the contract."""
        return await self._bridge.run(self._pool.run, find_recorded, keys)

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
        """Return a page of the list; `search` is part of a name, phone number or user id."""
        operation = list_conversations.list_conversations
        return await self._bridge.run(self._pool.run, operation, tenant, endpoint, unanswered, search, before, limit)

    async def get_conversation(self, tenant: str, conversation: str) -> ConversationRow | None:
        """Return one line of the list."""
        return await self._bridge.run(self._pool.run, list_conversations.get_conversation, tenant, conversation)

    async def list_messages(
        self, tenant: str, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[MessageRow]:
        """Return a page of a thread."""
        return await self._bridge.run(self._pool.run, list_messages.list_messages, tenant, conversation, before, limit)

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        """Return a stream's events."""
        return await self._bridge.run(self._pool.run, read_feed.read_stream, tenant, stream, after, limit)

    async def feed_head(self, tenant: str) -> FeedHead:
        """Return where a feed stands."""
        return await self._bridge.run(self._pool.run, read_feed.feed_head, tenant)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 500) -> list[StoredEvent]:
        """Return a feed's events."""
        return await self._bridge.run(self._pool.run, read_feed.read_feed, tenant, after, limit)

    async def list_webhooks(
        self, *, since: int, until: int, after: str | None = None, limit: int = 100
    ) -> list[RawWebhook]:
        """Return raw webhooks of a period. Paging is cheapest when `since` moves along to the last one's `received_at`."""
        return await self._bridge.run(self._pool.run, webhooks.list_webhooks, since, until, after, limit)

    async def prune_webhooks(self, before: int) -> int:
        """Forget old webhooks, whole days at a time."""
        return await self._bridge.run(self._pool.run_within, MAINTENANCE_TIME, webhooks.prune_webhooks, before)

    async def list_quarantine(
        self, *, tenant: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[QuarantineEntry]:
        """Return quarantined items."""
        return await self._bridge.run(self._pool.run, quarantine.list_quarantine, tenant, limit, before)

    async def load_routes(self) -> Routes:
        """Return tenants, endpoints and live keys."""
        return await self._bridge.run(self._pool.run, routes.load_routes)

    async def add_tenant(self, tenant: Tenant) -> bool:
        """Record a tenant."""
        return await self._bridge.run(self._pool.run, routes.add_tenant, tenant)

    async def add_endpoint(self, endpoint: Endpoint) -> bool:
        """Record an endpoint."""
        return await self._bridge.run(self._pool.run, routes.add_endpoint, endpoint)

    async def add_key(self, key: ApiKey) -> None:
        """Record an API key."""
        await self._bridge.run(self._pool.run, routes.add_key, key)

    async def revoke_key(self, key_id: str, at: int) -> bool:
        """Revoke an API key."""
        return await self._bridge.run(self._pool.run, routes.revoke_key, key_id, at)

    async def wait_routes_changed(self) -> None:
        """Wait for a notification, ROUTES_WAIT seconds at most; so long, too, when the database cannot be reached."""
        await self._bridge.run(self._wait_routes_changed)

    async def check(self) -> None:
        """Ask the journal's connection, within CHECK_TIME."""
        try:
            with trio.fail_after(CHECK_TIME):
                await self._bridge.run(
                    self._journal.run, check, self._serving, self.incarnation, len(self._held), self._failed
                )
        except trio.TooSlowError:
            raise StoreUnavailable(f"the database did not answer within {CHECK_TIME} s") from None
        self._failed = False

    # --- opening, keeping, closing ---------------------------------------------------------------------------------------

    async def start(self, *, serve: bool, take_over: bool) -> None:
        """Wait for the database, claim it (`serve`), bring its schema up to date. Raises StoreRefused, StoreUnavailable."""
        deadline = trio.current_time() + START_TIME
        while True:
            try:
                return await self._bridge.run(self._journal.run_within, MAINTENANCE_TIME, self._begin, serve, take_over)
            except StoreUnavailable:
                if trio.current_time() > deadline:
                    raise
                await trio.sleep(0.1)

    async def run(self, *, maintain: bool) -> None:
        """Serve the coalescers and, if told, make partitions ahead of time; until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._streams.run)
            nursery.start_soon(self._conversations.run)
            if maintain:
                nursery.start_soon(self._maintain)

    async def close(self) -> None:
        """Close the connections, in a bounded time."""
        await self._bridge.run(self._close)

    async def _maintain(self) -> None:
        while True:
            await trio.sleep(MAINTENANCE_PERIOD)
            try:
                await self._bridge.run(self._pool.run_within, MAINTENANCE_TIME, make_partitions, _now())
            except StoreUnavailable as error:
                log.warning("partitions were not made ahead of time: %s; the next try is in an hour", error)

    async def _load_streams(self, streams: Sequence[str]) -> Mapping[str, LoadedStream]:
        return await self._bridge.run(self._pool.run, load_streams, streams)

    async def _find_conversations(self, keys: Sequence[Key]) -> Mapping[Key, str]:
        return await self._bridge.run(self._pool.run, find_conversations, keys)

    # The rest runs on the asyncio side.

    async def _begin(self, connection: Connection, serve: bool, take_over: bool) -> None:
        if serve:
            await self._serving.claim(connection, take_over=take_over)
        ran = await migrate(connection)
        if ran:
            log.info("migrated the database: %s", ", ".join(ran))
        await make_partitions(connection, _now())

    async def _wait_routes_changed(self) -> None:
        with suppress(StoreUnavailable):  # without a connection, the wait below still ends as promised
            await self._listening.connection()
        await self._route_listener.wait(ROUTES_WAIT)

    async def _close(self) -> None:
        await self._journal.close()
        await self._listening.close()
        await self._pool.close()


@asynccontextmanager
async def open_store(
    database_url: str | None, data_dir: Path, *, take_over: bool = False, serve: bool = True
) -> AsyncIterator[PostgresStore]:
    """Open the store for as long as the block lasts: on `database_url`, or on a PostgreSQL of our own in `data_dir`.

    `serve`: claim the database for this process (a tool beside a running gateway says False). `take_over`: claim it even from a process
    that serves it now, which is fenced.

    Raises:
        StoreRefused: another process serves this database, its schema is newer, or the embedded server cannot run; the text says what to do.
        StoreUnavailable: the database could not be reached.
    """
    escaped: Exception | None = None
    async with AsyncExitStack() as stack:
        url = database_url
        if url is None:
            url = await stack.enter_async_context(embedded.attach(data_dir, keep=serve))
        bridge = await stack.enter_async_context(open_bridge())
        nursery = await stack.enter_async_context(trio.open_nursery())
        store = PostgresStore(bridge, url, application_name(time.time()))
        try:
            await store.start(serve=serve, take_over=take_over)
            nursery.start_soon(lambda: store.run(maintain=serve))
            yield store
        except Exception as error:
            # Carried out past the nurseries, which would wrap it in groups that say nothing.
            escaped = error
        finally:
            nursery.cancel_scope.cancel()
            with trio.CancelScope(shield=True):
                await store.close()
    if escaped is not None:
        raise escaped


def _now() -> int:
    return int(time.time() * 1000)
