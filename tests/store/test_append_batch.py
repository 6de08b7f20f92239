"""What only PostgreSQL's journal can show: its own limits, its locks, its log."""

import os
from pathlib import Path

import pytest

from store.contract import Committed, Unstorable, VersionConflict
from store.postgres.embedded import Server
from store.postgres.store import open_store
from tests.support.appends import AT, append, message

pytestmark = pytest.mark.slow


async def test_an_id_too_long_for_an_index_is_unstorable(postgres_database: str) -> None:
    async with open_store(postgres_database, Path(), serve=False) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        long = append("s", epoch=epoch, messages=(message(os.urandom(4000).hex()),))
        unstorable, committed = await store.append_batch([long, append("t", epoch=epoch)], at=AT)
        assert isinstance(unstorable, Unstorable)
        assert "exceeds" in unstorable.reason
        assert committed == Committed(1, AT)


async def test_refusals_are_no_errors_in_the_servers_log(postgres_database: str, postgres_server: Server) -> None:
    def errors() -> int:
        return sum(path.read_text().count("ERROR") for path in (postgres_server.pgdata / "log").glob("*.log"))

    async with open_store(postgres_database, Path(), serve=False) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        before = errors()
        assert await store.append_batch([append("s", 5, epoch=epoch)], at=AT) == [VersionConflict(0)]
        assert errors() == before
