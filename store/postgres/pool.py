"""Connections that come back by themselves: one for the journal, a few for reads.

Everything here runs on the asyncio side of the bridge. Owns connecting, time limits, eviction, and the translation of what asyncpg raises
into `StoreUnavailable`; an operation is any coroutine function that takes the connection first. Must not know what operations do.

A limit that passes cuts the connection (no cancel request that a hung server would leave unanswered): the command fails here at once, and
`statement_timeout` ends it over there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, Concatenate, ParamSpec, TypeAlias, TypeVar

import asyncpg

from store.contract import StoreUnavailable

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Operation: TypeAlias = Callable[Concatenate[Connection, P], Coroutine[Any, Any, T]]

TIME_LIMIT = 1.5
"""Seconds an operation may take, waiting for a connection included: a webhook's 503 must leave within 2 s (RELIABILITY 12)."""
CONNECT_LIMIT = 1.0
"""Seconds to connect; within TIME_LIMIT, so that the caller learns why."""
FIRST_BACKOFF, LAST_BACKOFF = 0.05, 1.0
"""Seconds between attempts to connect, doubling. In between, operations are refused at once."""
POOL_SIZE = 4
"""Connections for reads. Queries are short; more of them would only compete with the journal for the cores."""

SERVER_SETTINGS: Mapping[str, str] = {
    "synchronous_commit": "on",
    "statement_timeout": str(int(TIME_LIMIT * 1000)),
    "lock_timeout": str(int(TIME_LIMIT * 1000)),
    "idle_in_transaction_session_timeout": "5000",
    "jit": "off",
    # Every query has an index. A plan made while a table was small must not scan it once it has grown.
    "enable_seqscan": "off",
    # A vanished host's connection, and the serving lock with it, is gone after 15 s instead of two hours.
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "5",
    "tcp_keepalives_count": "2",
}


def is_unavailable(error: Exception) -> bool:
    """Whether `error` means that the database cannot serve now: lost, starting, stopping, read-only, full, too slow, out of memory."""
    if isinstance(error, asyncpg.PostgresError):
        # https://www.postgresql.org/docs/current/errcodes-appendix.html: connection, rollback (deadlock), resources, operator, system,
        # internal; 25006 read-only; 55P03 lock time-out; 3D/28 the database or the role is not there (yet, or any more).
        state = error.sqlstate or ""
        return state[:2] in ("08", "40", "53", "57", "58", "XX", "3D", "28") or state in ("25006", "55P03")
    return isinstance(
        error, OSError | asyncpg.InterfaceError | asyncpg.InternalClientError | TimeoutError
    ) and not isinstance(error, asyncpg.DataError | ValueError)


class Link:
    """One connection to the database, used by one operation at a time, made again when it breaks."""

    def __init__(
        self,
        url: str,
        settings: Mapping[str, str],
        on_connect: Callable[[Connection], Awaitable[None]] | None = None,
    ) -> None:
        self._url = url
        self._settings = {**SERVER_SETTINGS, **settings}
        self._on_connect = on_connect
        self._connection: Connection | None = None
        self._turn = asyncio.Lock()
        self._backoff = 0.0
        self._retry_at = 0.0
        self._last_error = ""

    async def run(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `operation(connection, …)` in turn, within TIME_LIMIT; see `run_within`."""
        return await self.run_within(TIME_LIMIT, operation, *args, **kwargs)

    async def run_within(self, limit: float, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `operation(connection, …)` in turn, within `limit` seconds. A cancelled operation's connection is cut.

        Raises:
            StoreUnavailable: see `is_unavailable`; whether a write took effect is then unknown.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        await _in_turn(self._turn, deadline)
        try:
            connection = self._connection
            if connection is None or connection.is_closed():
                connection = await self._connect()
            alarm = loop.call_at(deadline, connection.terminate)
            try:
                return await operation(connection, *args, **kwargs)
            except asyncio.CancelledError:
                self._cut()
                raise
            except Exception as error:
                if not is_unavailable(error):
                    raise
                self._cut()
                late = loop.time() >= deadline
                raise StoreUnavailable(f"no answer within {limit:.1f} s" if late else _describe(error)) from error
            finally:
                alarm.cancel()
        finally:
            self._turn.release()

    async def connection(self) -> Connection:
        """Return the connection itself, made if need be: for one that listens. Not for use beside `run`."""
        async with self._turn:
            if self._connection is None or self._connection.is_closed():
                return await self._connect()
            return self._connection

    async def close(self) -> None:
        """Say good-bye if the server listens, hang up in any case."""
        if self._connection is not None and not self._connection.is_closed():
            with suppress(Exception):  # it is over either way, and `_cut` follows
                await self._connection.close(timeout=0.5)
        self._cut()

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        if loop.time() < self._retry_at:
            raise StoreUnavailable(self._last_error)
        connection = None
        try:
            connection = await asyncpg.connect(self._url, timeout=CONNECT_LIMIT, server_settings=dict(self._settings))
            if self._on_connect is not None:
                async with asyncio.timeout(CONNECT_LIMIT):
                    await self._on_connect(connection)
        except BaseException as error:
            if connection is not None:
                connection.terminate()
            if not isinstance(error, Exception) or not is_unavailable(error):
                raise
            self._backoff = min(LAST_BACKOFF, max(FIRST_BACKOFF, self._backoff * 2))
            self._retry_at = loop.time() + self._backoff
            self._last_error = f"cannot connect to the database: {_describe(error)}"
            raise StoreUnavailable(self._last_error) from error
        self._backoff = 0.0
        self._connection = connection
        return connection

    def _cut(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None


class Pool:
    """A bounded set of links for reads. The one used last is used next, so idle ones stay idle."""

    def __init__(self, url: str, settings: Mapping[str, str], size: int = POOL_SIZE) -> None:
        self._links = [Link(url, settings) for _ in range(size)]
        self._idle = list(self._links)
        self._free = asyncio.Semaphore(size)

    async def run(self, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `operation(connection, …)` on a free connection. Raises StoreUnavailable, also when none became free in time."""
        return await self.run_within(TIME_LIMIT, operation, *args, **kwargs)

    async def run_within(self, limit: float, operation: Operation[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, within `limit` seconds, waiting for a connection included: for maintenance."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limit
        async with self._a_link(min(deadline, loop.time() + TIME_LIMIT)) as link:
            return await link.run_within(deadline - loop.time(), operation, *args, **kwargs)

    async def close(self) -> None:
        """Close every connection."""
        await asyncio.gather(*[link.close() for link in self._links])

    @asynccontextmanager
    async def _a_link(self, deadline: float) -> AsyncIterator[Link]:
        await _in_turn(self._free, deadline)
        link = self._idle.pop()
        try:
            yield link
        finally:
            self._idle.append(link)
            self._free.release()


async def _in_turn(lock: asyncio.Lock | asyncio.Semaphore, deadline: float) -> None:
    if not lock.locked():  # the usual case, without the timer that costs more than the wait
        await lock.acquire()
        return
    try:
        async with asyncio.timeout_at(deadline):
            await lock.acquire()
    except TimeoutError:
        raise StoreUnavailable("the database is too slow: others have been waiting before this in vain") from None


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")
