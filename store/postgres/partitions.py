"""Partitions of the tables that grow with time: `events` by month, `raw_webhooks` by day, both UTC. Made ahead, dropped whole.

A row whose time has no partition (a wrong clock) goes to the table's default partition; nothing is refused for it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

from store.postgres.pool import Connection

MONTHS_AHEAD = 2
DAYS_AHEAD = 3
"""Both survive a maintenance that fails for a day or two."""


async def make_partitions(connection: Connection, now: int) -> None:
    """Make the partitions that `now` (Unix milliseconds) and the time ahead need. Idempotent, and safe beside appends."""
    today = datetime.fromtimestamp(now / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    wanted = []
    month = today.replace(day=1)
    for _ in range(1 + MONTHS_AHEAD):
        following = (month + timedelta(days=32)).replace(day=1)
        wanted.append(("events", f"events_{month:%Y_%m}", month, following))
        month = following
    for day in (today + timedelta(days=n) for n in range(1 + DAYS_AHEAD)):
        wanted.append(("raw_webhooks", f"raw_webhooks_{day:%Y_%m_%d}", day, day + timedelta(days=1)))
    async with unhurried(connection):
        for parent, name, lower, upper in wanted:
            await connection.execute("select add_partition($1, $2, $3, $4)", parent, name, _ms(lower), _ms(upper))


async def drop_before(connection: Connection, parent: str, before: int) -> int:
    """Drop the partitions of `parent` that end at or before `before`; return how many rows they held."""
    ends = await connection.fetch(
        r"""
        select c.relname, substring(pg_get_expr(c.relpartbound, c.oid) from 'TO \(''(-?\d+)''\)')::bigint as upper
        from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = $1::regclass
        """,
        parent,
    )
    rows = 0
    for name in [row["relname"] for row in ends if row["upper"] is not None and row["upper"] <= before]:
        async with connection.transaction():
            rows += await connection.fetchval(f'select count(*) from "{name}"')  # noqa: S608 - a name from the catalogue
            await connection.execute(f'drop table "{name}"')
    return rows


@asynccontextmanager
async def unhurried(connection: Connection) -> AsyncIterator[None]:
    """Let statements of maintenance run long, but wait for a table only briefly: appends would queue behind the wait."""
    await connection.execute("set statement_timeout = '600s'; set lock_timeout = '300ms'")
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute("reset statement_timeout; reset lock_timeout")


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)
