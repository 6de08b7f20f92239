"""Reading what was kept aside. It is written by `append_batch`, with whatever it came with."""

from store.contract import QuarantineEntry
from store.postgres.pool import Connection


async def list_quarantine(
    connection: Connection, tenant: str | None, limit: int, before: str | None
) -> list[QuarantineEntry]:
    """Return quarantined items, newest first, older than the one called `before`."""
    rows = await connection.fetch(
        """
        select id, at, reason, detail, payload, tenant, webhook, stream from quarantine
        where ($1::text is null or tenant = $1)
          and ($2::text is null or (at, id) < (select at, id from quarantine where id = $2 and ($1::text is null or tenant = $1)))
        order by at desc, id desc limit $3
        """,
        tenant,
        before,
        limit,
    )
    return [QuarantineEntry(*row) for row in rows]
