"""What only PostgreSQL's journal can show: its own limits, its locks, its log."""

import os
from pathlib import Path

import pytest

from store.contract import Committed, QuarantineEntry, RawWebhook, StoreUnavailable, Unstorable, VersionConflict
from store.postgres.embedded import Server
from store.postgres.store import open_store
from tests.support.appends import AT, TENANT, append, message
from tests.support.postgres import execute

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


async def test_an_error_nobody_foresaw_is_the_one_appends_that_causes_it(postgres_database: str) -> None:
    async with open_store(postgres_database, Path(), serve=False) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        await execute(postgres_database, "alter table streams add constraint odd check (stream <> 'bad')")
        batch = [append(name, epoch=epoch) for name in ("a", "b", "bad", "c", "d")]
        outcomes = await store.append_batch(batch, at=AT)
        assert [type(outcome) for outcome in outcomes] == [Committed, Committed, Unstorable, Committed, Committed]


async def test_a_row_that_cannot_be_kept_hurts_no_other_and_leaves_its_name(postgres_database: str) -> None:
    async with open_store(postgres_database, Path(), serve=False) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        webhooks = [RawWebhook(f"whk_{n}", "meta", AT + n, b"{}", "routed", TENANT) for n in range(5)]
        webhooks[2] = RawWebhook("whk_2", "me\0ta", AT + 2, b"secret", "routed", TENANT)
        entries = [QuarantineEntry(f"qrt_{n}", AT + n, "crashed", "why", b"what", TENANT) for n in range(3)]
        entries[1] = QuarantineEntry("qrt_1", 2**70, "crashed", "why", b"what", TENANT)
        bad = append("bad", epoch=epoch, messages=(message("m", at=2**70),))
        outcomes = await store.append_batch(
            [append("s", epoch=epoch), bad, append("t", epoch=epoch)], webhooks=webhooks, quarantine=entries, at=AT
        )
        assert [type(outcome) for outcome in outcomes] == [Committed, Unstorable, Committed]
        kept = await store.list_webhooks(since=AT, until=AT + 9)
        assert [row.id for row in kept] == ["whk_0", "whk_1", "whk_3", "whk_4"]
        found = {row.id: (row.at, row.reason, row.payload) for row in await store.list_quarantine(tenant=TENANT)}
        assert found == {
            "qrt_0": (AT, "crashed", b"what"),
            "qrt_1": (AT, "unstorable", b""),
            "qrt_2": (AT + 2, "crashed", b"what"),
            "whk_2": (AT, "unstorable", b""),
        }


async def test_a_database_that_keeps_nothing_at_all_is_unavailable(postgres_database: str) -> None:
    async with open_store(postgres_database, Path(), serve=False) as store:
        await store.acquire_partitions([1])
        await execute(postgres_database, "alter table quarantine add constraint odd check (false)")
        entry = QuarantineEntry("qrt_1", AT, "crashed", "why", b"what")
        with pytest.raises(StoreUnavailable, match="takes nothing"):
            await store.append_batch([], quarantine=[entry], at=AT)
