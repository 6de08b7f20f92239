"""Loading streams: heads, newest snapshots and tails of many streams in two round trips (one when all are new)."""

from collections.abc import Sequence

from store.contract import LoadedStream, StoredEvent
from store.postgres.pool import Connection
from store.postgres.read_feed import EVENT, event_of

HEADS = """
    select h.stream, h.version, n.version as snapshot_version, n.body
    from unnest($1::text[]) as u (stream) join streams h on h.stream = u.stream left join snapshots n on n.stream = u.stream
"""
# Up to the head just read: what is committed in between belongs to the next look. LATERAL keeps it one index lookup a stream.
TAILS = f"""
    select {EVENT} from unnest($1::text[], $2::int[], $3::int[]) as u (stream, after, upto)
    cross join lateral (
        select * from events where stream = u.stream and version > u.after and version <= u.upto order by version offset 0
    ) e
"""  # noqa: S608 - EVENT is a constant


async def load_streams(connection: Connection, streams: Sequence[str]) -> dict[str, LoadedStream]:
    """Return the streams that exist, by name."""
    heads = await connection.fetch(HEADS, streams)
    behind = [(row["stream"], row["snapshot_version"] or 0, row["version"]) for row in heads]
    behind = [entry for entry in behind if entry[1] < entry[2]]
    tails: dict[str, list[StoredEvent]] = {}
    if behind:
        for row in await connection.fetch(TAILS, *zip(*behind, strict=True)):
            event = event_of(row)
            tails.setdefault(event.stream, []).append(event)
    return {
        row["stream"]: LoadedStream(
            version=row["version"],
            snapshot=row["body"],
            snapshot_version=row["snapshot_version"] or 0,
            tail=tuple(sorted(tails.get(row["stream"], ()), key=lambda event: event.version)),
        )
        for row in heads
    }
