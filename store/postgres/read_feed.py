"""Reading events back: a tenant's feed, a stream, and where a feed stands."""

import asyncpg

from store.contract import FeedHead, StoredEvent
from store.postgres.pool import Connection

EVENT = "e.tenant, e.feed_offset, e.stream, e.version, e.kind, e.body, e.at, e.recorded_at, e.endpoint, e.cause"
"""The columns of an event, in the order of `StoredEvent`'s fields."""


def event_of(row: asyncpg.Record) -> StoredEvent:
    """Return the event a row of EVENT holds."""
    return StoredEvent(*row)


async def read_feed(connection: Connection, tenant: str, after: int, limit: int) -> list[StoredEvent]:
    """Return the tenant's events with offsets > `after`, in order."""
    rows = await connection.fetch(
        f"select {EVENT} from events e where tenant = $1 and feed_offset > $2 order by feed_offset limit $3",  # noqa: S608
        tenant,
        after,
        limit,
    )
    return [event_of(row) for row in rows]


async def read_stream(connection: Connection, tenant: str, stream: str, after: int, limit: int) -> list[StoredEvent]:
    """Return the stream's events with versions > `after`, in order; none when it is another tenant's."""
    rows = await connection.fetch(
        f"select {EVENT} from events e where stream = $2 and version > $3 and tenant = $1 order by version limit $4",  # noqa: S608
        tenant,
        stream,
        after,
        limit,
    )
    return [event_of(row) for row in rows]


async def feed_head(connection: Connection, tenant: str) -> FeedHead:
    """Return where the feed stands. Its epoch is known before its first event: the installation's identity."""
    row = await connection.fetchrow(
        """
        select coalesce(f.epoch, i.identity) as epoch, coalesce(f.head, 0) as head,
               (select feed_offset from events where tenant = $1 order by feed_offset limit 1) as oldest
        from installation i left join feeds f on f.tenant = $1
        """,
        tenant,
    )
    assert row is not None, "`installation` has its one row since migration 0001"  # noqa: S101
    return FeedHead(row["epoch"], row["head"], row["head"] + 1 if row["oldest"] is None else row["oldest"])
