"""The conversation list, and one line of it."""

from store.contract import ConversationRow
from store.postgres.pool import Connection
from store.read_model import storable

ROW = """
    select c.id, c.endpoint, c.contact, c.name, c.preview, c.last_at, c.last_outbound,
           coalesce(case when c.last_outbound then (
               select m.status from messages m
               where m.conversation = c.id and m.tenant = c.tenant and m.seq is not null and m.outbound
               order by m.seq desc limit 1
           ) end, 0) as last_status,
           c.unanswered, c.messages, s.version, c.merged_into
    from conversations c join streams s on s.stream = c.id
"""
"""In the order of `ConversationRow`'s fields."""
LIST = f"""
    {ROW}
    where c.tenant = $1 and c.merged_into is null and (c.last_at, c.id) < ($2, $3)
      and ($4::text is null or c.endpoint = $4)
      and ($5::boolean is null or (c.unanswered > 0) = $5)
      and ($6::text is null or strpos(lower(c.name), lower($6)) > 0 or exists (
          select from aliases x where x.conversation = c.id and x.tenant = c.tenant
             and strpos(lower(substr(x.external_id, strpos(x.external_id, ':') + 1)), lower($6)) > 0))
    order by c.last_at desc, c.id desc limit $7
"""
NEWEST = (2**63 - 1, "")


async def list_conversations(
    connection: Connection,
    tenant: str,
    endpoint: str | None,
    unanswered: bool | None,
    search: str | None,
    before: tuple[int, str] | None,
    limit: int,
) -> list[ConversationRow]:
    """Return a page of the list. `search`: part of a name, a phone number or a user id, in either case."""
    last_at, last_id = before or NEWEST
    sought = None if search is None else storable(search)
    rows = await connection.fetch(LIST, tenant, last_at, last_id, endpoint, unanswered, sought, limit)
    return [ConversationRow(*row) for row in rows]


async def get_conversation(connection: Connection, tenant: str, conversation: str) -> ConversationRow | None:
    """Return one line, merged or not."""
    row = await connection.fetchrow(f"{ROW} where c.id = $2 and c.tenant = $1", tenant, conversation)
    return None if row is None else ConversationRow(*row)
