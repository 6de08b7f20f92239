"""A thread's messages."""

from store.contract import MessageRow
from store.postgres.pool import Connection


async def list_messages(
    connection: Connection, tenant: str, conversation: str, before: int | None, limit: int
) -> list[MessageRow]:
    """Return a page of the thread, newest first."""
    rows = await connection.fetch(
        """
        select message_id, conversation, seq, at, recorded_at, outbound, origin, kind, content, context, author, status, status_at,
               problems, edited, revoked
        from messages where conversation = $2 and seq < $3 and tenant = $1 order by seq desc limit $4
        """,
        tenant,
        conversation,
        2**63 - 1 if before is None else before,
        limit,
    )
    return [MessageRow(*row) for row in rows]
