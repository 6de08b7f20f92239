"""One process serves a database; a second one is told so, or takes it over and fences the first."""

import os
from pathlib import Path

import pytest
import trio

from store.contract import Committed, Fenced, StoreRefused, StoreUnavailable
from store.postgres.store import open_store
from tests.support.appends import AT, append
from tests.support.postgres import execute

pytestmark = pytest.mark.slow


async def test_a_second_process_is_refused_and_told_who_serves(postgres_database: str) -> None:
    async with open_store(postgres_database, Path()) as first:
        epochs = await first.acquire_partitions([1])
        with (
            trio.fail_after(5),
            pytest.raises(StoreRefused, match=rf"another process serves .* pid {os.getpid()} since 20"),
        ):
            async with open_store(postgres_database, Path()):
                pytest.fail("two processes serve one database")
        async with open_store(postgres_database, Path(), serve=False) as tool:
            await tool.load_routes()
        assert await first.append_batch([append("s", epoch=epochs[1])], at=AT) == [Committed(1, AT)]
    async with open_store(postgres_database, Path()) as next_one:
        await next_one.check()


async def test_a_take_over_fences_the_first(postgres_database: str) -> None:
    async with open_store(postgres_database, Path()) as first:
        old = await first.acquire_partitions([1, 2])
        async with open_store(postgres_database, Path(), take_over=True) as second:
            new = await second.acquire_partitions([1, 2])
            assert await first.append_batch([append("s", epoch=old[1])], at=AT) == [Fenced(1)]
            assert await second.append_batch([append("s", epoch=new[1])], at=AT) == [Committed(1, AT)]
            await second.check()
            with pytest.raises(StoreUnavailable, match="took this database over"):
                await first.check()
            with pytest.raises(StoreUnavailable, match="took this database over"):
                await first.acquire_partitions([1])
        # The other one is gone: the database is the first one's again, but only what it acquires anew.
        with pytest.raises(StoreUnavailable, match="2 partitions were taken"):
            await first.check()
        assert await first.append_batch([append("s", 1, epoch=old[1])], at=AT) == [Fenced(1)]
        again = await first.acquire_partitions([1, 2])
        await first.check()
        assert await first.append_batch([append("s", 1, epoch=again[1])], at=AT) == [Committed(2, AT)]


async def test_the_lock_is_taken_again_after_a_lost_connection(postgres_database: str) -> None:
    async with open_store(postgres_database, Path()) as store:
        epochs = await store.acquire_partitions([1])
        cut = "select count(pg_terminate_backend(pid)) from pg_stat_activity where pid <> pg_backend_pid() and datname = current_database()"
        assert await execute(postgres_database, cut) == 1
        with trio.fail_after(5):
            while True:
                try:
                    outcomes = await store.append_batch([append("s", epoch=epochs[1])], at=AT)
                    break
                except StoreUnavailable:  # the cut was noticed in the middle of it
                    await trio.sleep(0.01)
        assert outcomes == [Committed(1, AT)]
        await store.check()
        with pytest.raises(StoreRefused):
            async with open_store(postgres_database, Path()):
                pytest.fail("the lock was lost with the connection")
