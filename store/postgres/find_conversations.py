"""Finding which conversation an external id leads to; many actors' questions in one query."""

from collections.abc import Sequence

from store.postgres.pool import Connection
from store.read_model import storable

Key = tuple[str, str, str]
"""Tenant, endpoint, external id."""


async def find_conversations(connection: Connection, keys: Sequence[Key]) -> dict[Key, str]:
    """Return the conversation each known key leads to."""
    rows = await connection.fetch(
        """
        select u.place, x.conversation
        from unnest($1::text[], $2::text[], $3::text[]) with ordinality as u (tenant, endpoint, external_id, place)
        join aliases x using (tenant, endpoint, external_id)
        """,
        [tenant for tenant, _, _ in keys],
        [endpoint for _, endpoint, _ in keys],
        [storable(external_id) for _, _, external_id in keys],
    )
    return {keys[row["place"] - 1]: row["conversation"] for row in rows}
