"""Raw webhooks: reading a period back, and forgetting what is old enough."""

from store.contract import RawWebhook
from store.postgres.partitions import drop_before, unhurried
from store.postgres.pool import Connection


async def list_webhooks(
    connection: Connection, since: int, until: int, after: str | None, limit: int
) -> list[RawWebhook]:
    """Return webhooks received in [since, until), in order of arrival, after the one called `after`."""
    rows = await connection.fetch(
        """
        select id, provider, received_at, body, verdict, tenant from raw_webhooks
        where received_at >= $1 and received_at < $2
          and ($3::text is null or (received_at, id) > (
              select received_at, id from raw_webhooks where received_at >= $1 and received_at < $2 and id = $3 limit 1))
        order by received_at, id limit $4
        """,
        since,
        until,
        after,
        limit,
    )
    return [RawWebhook(*row) for row in rows]


async def prune_webhooks(connection: Connection, before: int) -> int:
    """Drop the days that are wholly past, delete what is left; return how many webhooks went."""
    async with unhurried(connection):
        dropped = await drop_before(connection, "raw_webhooks", before)
        deleted: int = await connection.fetchval(
            "with gone as (delete from raw_webhooks where received_at < $1 returning 1) select count(*) from gone",
            before,
        )
    return dropped + deleted
