"""The serving lock: one process at a time serves a database, and the next one can say who it is.

A courtesy, not the guarantee: what keeps two processes from corrupting each other is the fence checked in every commit. The lock only makes
the second start fail with a clear message instead of taking the first one's partitions. It lives on the journal's connection, so it goes
with the process, however it dies. Must not know the journal.
"""

import asyncio
import os
import socket
from contextlib import suppress
from datetime import UTC, datetime

import asyncpg

from store.contract import StoreRefused, StoreUnavailable
from store.postgres.pool import Connection

LOCK = (1885434476, 1)
WAIT = 1.5
"""Seconds a start waits for the lock: a killed process's backend needs a moment to notice."""
PERIOD = 0.05

HOLDER = """
    select a.pid, a.application_name from pg_locks l join pg_stat_activity a on a.pid = l.pid
    where l.locktype = 'advisory' and l.granted and l.classid::bigint = $1 and l.objid::bigint = $2 and l.objsubid = 2
      and l.database = (select oid from pg_database where datname = current_database()) and l.pid <> pg_backend_pid()
"""


def application_name(now: float) -> str:
    """Return how this process signs its connections (PostgreSQL keeps 63 bytes): host, pid, since when."""
    since = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    host = socket.gethostname().encode("ascii", "replace").decode()[:20]
    return f"parley {host} pid {os.getpid()} since {since}"


class ServingLock:
    """This process's claim to serve the database. `rival` names who serves instead, None while the claim stands."""

    def __init__(self) -> None:
        self.rival: str | None = None
        self._claimed = False

    async def claim(self, connection: Connection, *, take_over: bool) -> None:
        """Take the lock for the first time.

        `take_over`: cut the holder off; its partitions are fenced when the caller acquires them.

        Raises:
            StoreRefused: another process serves this database; the text says which.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + WAIT
        while not await self._try(connection):
            if take_over:
                await self._supplant(connection)
            if loop.time() > deadline:
                raise StoreRefused(
                    f"another process serves this database: {await self._holder(connection)}. Stop it first, or start with "
                    "--take-over to fence it"
                )
            await asyncio.sleep(PERIOD)
        self._claimed = True

    async def renew(self, connection: Connection) -> None:
        """Take the lock again on a new connection of the journal; note the rival if somebody else has it by now."""
        if not self._claimed:
            return
        loop = asyncio.get_running_loop()
        deadline = loop.time() + PERIOD * 4  # our own former backend may still be going
        while not await self._try(connection):
            if loop.time() > deadline:
                self.rival = await self._holder(connection)
                return
            await asyncio.sleep(PERIOD)

    def require(self) -> None:
        """Raise StoreUnavailable if another process serves the database now."""
        if self.rival is not None:
            raise StoreUnavailable(f"another process took this database over: {self.rival}")

    async def _supplant(self, connection: Connection) -> None:
        """Cut the holder off and queue for its lock, in one statement.

        A holder under load is back within a millisecond, and would win against whoever only tries now and then.
        """
        with suppress(asyncpg.LockNotAvailableError, asyncpg.QueryCanceledError):  # then the next attempt decides
            await connection.execute(
                f"select (select count(pg_terminate_backend(pid)) from ({HOLDER}) h), pg_advisory_lock($1::int, $2::int)",  # noqa: S608
                *LOCK,
            )

    async def _try(self, connection: Connection) -> bool:
        got: bool = await connection.fetchval("select pg_try_advisory_lock($1, $2)", *LOCK)
        if got:
            self.rival = None
        return got

    async def _holder(self, connection: Connection) -> str:
        row = await connection.fetchrow(HOLDER, *LOCK)
        return "one that is just ending" if row is None else f"{row['application_name']} (connection {row['pid']})"
