"""The database stops, hangs, turns read-only: refused in time, nothing false acknowledged, back by itself."""

import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import trio
import trio.testing

from store.contract import Committed, Outcome, StoreUnavailable
from store.postgres.bridge import open_bridge
from store.postgres.embedded import Server
from store.postgres.pool import Connection, Link
from store.postgres.store import PostgresStore, open_store
from tests.support.appends import AT, TENANT, append
from tests.support.postgres import execute

pytestmark = pytest.mark.slow


@pytest.fixture
async def store(postgres_database: str) -> AsyncIterator[PostgresStore]:
    async with open_store(postgres_database, Path()) as one:
        await one.acquire_partitions([1])
        yield one


async def write(store: PostgresStore, expected: int) -> Outcome:
    [outcome] = await store.append_batch([append("s", expected, epoch=1)], at=AT)
    return outcome


async def eventually(call: Callable[[], Awaitable[object]], seconds: float = 10) -> None:
    """Call until it is not unavailable any more."""
    with trio.fail_after(seconds):
        while True:
            try:
                await call()
                return
            except StoreUnavailable:
                await trio.sleep(0.02)


async def refused_in_time(store: PostgresStore, expected: int) -> None:
    with trio.fail_after(2), pytest.raises(StoreUnavailable):
        await write(store, expected)
    with trio.fail_after(1.2), pytest.raises(StoreUnavailable):
        await store.check()
    with trio.fail_after(2), pytest.raises(StoreUnavailable):
        await store.load_streams(["s"])


async def test_a_restart_of_the_server(store: PostgresStore, postgres_server: Server) -> None:
    assert await write(store, 0) == Committed(1, AT)
    for round_ in range(1, 3):
        await trio.to_thread.run_sync(postgres_server.stop, "immediate")
        try:
            await refused_in_time(store, round_)
        finally:
            await trio.to_thread.run_sync(postgres_server.start)
        await eventually(store.check)
        [loaded] = await store.load_streams(["s"])
        assert loaded.version == round_, "what was acknowledged is there"
        assert await write(store, round_) == Committed(round_ + 1, AT), "the fence still holds: nobody else came"


async def test_a_primary_that_turned_read_only(store: PostgresStore, postgres_server: Server) -> None:
    assert await write(store, 0) == Committed(1, AT)
    reload = "select pg_reload_conf()"
    await execute(postgres_server.url, "alter system set default_transaction_read_only = on", reload)
    try:
        await eventually_refused(store)
        with pytest.raises(StoreUnavailable, match="read-only"):
            await write(store, 1)
        assert [event.version for event in await store.read_feed(TENANT, after=0)] == [1], "reading goes on"
    finally:
        writable = "set default_transaction_read_only = off"
        await execute(postgres_server.url, writable, "alter system reset default_transaction_read_only", reload)
    await eventually(store.check)
    assert await write(store, 1) == Committed(2, AT)


async def eventually_refused(store: PostgresStore) -> None:
    """Wait until the server has read its new configuration."""
    with trio.fail_after(5):
        while True:
            try:
                await store.check()
            except StoreUnavailable as error:
                assert "read-only" in str(error)
                return
            await trio.sleep(0.01)


@contextmanager
def frozen(server: Server) -> Iterator[None]:
    """Stop every process of the server as if its machine hung."""
    postmaster = psutil.Process(int(server.pid_file.read_text().split("\n")[0]))
    pids = [postmaster.pid, *(child.pid for child in postmaster.children())]
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


async def test_a_server_that_hangs(store: PostgresStore, postgres_server: Server) -> None:
    assert await write(store, 0) == Committed(1, AT)
    with frozen(postgres_server):
        await refused_in_time(store, 1)
        await refused_in_time(store, 1)
    await eventually(store.check)
    await eventually(lambda: store.load_streams(["s"]))
    [loaded] = await store.load_streams(["s"])
    assert isinstance(await write(store, loaded.version), Committed)


async def test_closing_while_the_server_hangs(postgres_database: str, postgres_server: Server) -> None:
    async with open_store(postgres_database, Path()) as store:
        await store.acquire_partitions([1])
        await store.load_streams(["s"])
        scope = trio.CancelScope()

        async def stuck() -> None:
            with scope:
                await write(store, 0)

        with frozen(postgres_server), trio.fail_after(4):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stuck)
                await trio.testing.wait_all_tasks_blocked(0.02)
                scope.cancel()
            await store.close()


async def test_cancelling_whoever_has_the_store_open(postgres_database: str) -> None:
    opened = trio.Event()

    async def hold() -> None:
        async with open_store(postgres_database, Path()) as store:
            await store.acquire_partitions([1])
            await store.load_streams(["s"])  # a second connection to close
            opened.set()
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(hold)
        await opened.wait()
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert trio.current_time() - began < 2


async def test_a_commit_that_cannot_proceed_is_given_up(store: PostgresStore, postgres_database: str) -> None:
    async def shut_the_gate(connection: Connection) -> None:
        await connection.execute("select pg_advisory_lock(1885434476, 2)")

    async with open_bridge() as bridge:
        other = Link(postgres_database, {})
        await bridge.run(other.run, shut_the_gate)
        with trio.fail_after(2), pytest.raises(StoreUnavailable):
            await write(store, 0)
        with trio.move_on_after(0.1) as scope:
            await write(store, 0)
        assert scope.cancelled_caught, "a caller may give up sooner"
        await bridge.run(other.close)
    await eventually(store.check)
    [loaded] = await store.load_streams(["s"])
    # Given up is not undone: the outcome is unknown, and one look tells.
    assert loaded.version in (0, 1)
    assert await write(store, loaded.version) == Committed(loaded.version + 1, AT)
