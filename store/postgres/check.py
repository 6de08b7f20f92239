"""Whether an append would be accepted now."""

from store.contract import StoreUnavailable
from store.postgres.pool import Connection
from store.postgres.serving import ServingLock


async def check(connection: Connection, serving: ServingLock, owner: str, held: int, probe: bool) -> None:
    """Look at the journal's own connection: writable, lock ours, `held` partitions still `owner`'s.

    `probe`: the last append failed, so commit something real too; a full disk or a lost standby shows only then.

    Raises:
        StoreUnavailable: with the reason.
    """
    if serving.rival is not None:
        await serving.renew(connection)
    serving.require()
    row = await connection.fetchrow(
        """
        select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean as read_only,
               (select count(*) from partitions where owner = $1) as held
        """,
        owner,
    )
    assert row is not None, "a select without from has one row"  # noqa: S101
    if row["read_only"]:
        # A former primary stays up read-only; only a new connection finds the one that took its place (RELIABILITY 13).
        connection.terminate()
        raise StoreUnavailable("the database is read-only")
    if row["held"] < held:
        raise StoreUnavailable(f"{held - row['held']} partitions were taken by another process")
    if probe:
        await connection.execute("update installation set identity = identity")
