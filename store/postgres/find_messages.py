"""Finding messages of a tenant by the provider's ids."""

from collections.abc import Sequence

from store.contract import MessageStatus
from store.postgres.pool import Connection
from store.read_model import storable


async def find_messages(connection: Connection, tenant: str, message_ids: Sequence[str]) -> list[MessageStatus]:
    """Return what the read model knows of these ids; one id may be known in several conversations."""
    asked = {storable(message_id): message_id for message_id in message_ids}
    rows = await connection.fetch(
        """
        select m.conversation, m.message_id, m.status, m.seq
        from unnest($2::text[]) as u (message_id) join messages m on m.tenant = $1 and m.message_id = u.message_id
        order by m.message_id, m.conversation
        """,
        tenant,
        list(asked),
    )
    return [MessageStatus(row["conversation"], asked[row["message_id"]], row["status"], row["seq"]) for row in rows]
