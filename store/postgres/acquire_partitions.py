"""Becoming the owner of partitions: the fence that makes a former owner's commits miss."""

from collections.abc import Sequence

from store.postgres.pool import Connection

GATE = (1885434476, 2)
"""Advisory lock that every commit holds shared (migration 0002). Held exclusively, no commit is half-way while epochs change."""


async def acquire_partitions(connection: Connection, owner: str, partitions: Sequence[int]) -> dict[int, int]:
    """Bump each partition's epoch and make `owner` its holder; return the new epochs."""
    async with connection.transaction():
        await connection.execute("select pg_advisory_xact_lock($1, $2)", *GATE)
        rows = await connection.fetch(
            """
            insert into partitions as p (partition, epoch, owner, acquired_at)
            select n, 1, $2, (extract(epoch from clock_timestamp()) * 1000)::bigint from unnest($1::smallint[]) as n
            on conflict (partition) do update
                set epoch = p.epoch + 1, owner = excluded.owner, acquired_at = excluded.acquired_at
            returning partition, epoch
            """,
            sorted(set(partitions)),
            owner,
        )
    return {row["partition"]: row["epoch"] for row in rows}
