"""Which of many items have been recorded, by their dedupe keys: for tools that ask what a repetition would add."""

from collections.abc import Sequence

from store.postgres.pool import Connection


async def find_recorded(connection: Connection, keys: Sequence[bytes]) -> set[bytes]:
    """Return those of `keys` (16 bytes each) that an append has recorded."""
    rows = await connection.fetch("select key from dedupe where key = any($1::bytea[])", keys)
    return {row["key"] for row in rows}
