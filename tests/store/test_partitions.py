"""Tables that grow with time are split, and their past is dropped whole."""

from pathlib import Path

import pytest

from store.contract import Committed, RawWebhook
from store.postgres.bridge import open_bridge
from store.postgres.partitions import make_partitions
from store.postgres.pool import Link
from store.postgres.store import open_store
from tests.support.appends import AT, TENANT, append
from tests.support.postgres import execute

DAY = 86_400_000


async def make(url: str, now: int) -> None:
    async with open_bridge() as bridge:
        link = Link(url, {})
        await bridge.run(link.run, make_partitions, now)
        await bridge.run(link.close)


@pytest.mark.slow
async def test_rows_find_their_month_and_their_day(postgres_database: str) -> None:
    url = postgres_database
    async with open_store(url, Path(), serve=False) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        webhook = RawWebhook("whk_1", "meta", AT, b"{}", "routed")
        # No partition for that October yet: the default one takes the rows.
        assert await store.append_batch([append("s", epoch=epoch)], webhooks=[webhook], at=AT) == [Committed(1, AT)]
        assert await execute(url, "select count(*) from events_default") == 1
        await make(url, AT)
        await make(url, AT)
        assert await execute(url, "select count(*) from only events_2025_10") == 1
        assert await execute(url, "select count(*) from only events_default") == 0
        assert await execute(url, "select count(*) from only raw_webhooks_2025_10_09") == 1
        await store.append_batch([append("s", 1, 2, epoch=epoch)], at=AT + 60 * DAY)
        assert await execute(url, "select count(*) from only events_2025_12") == 2
        assert [e.offset for e in await store.read_feed(TENANT, after=0)] == [1, 2, 3], "one feed over all of them"


@pytest.mark.slow
async def test_past_days_are_dropped_not_deleted(postgres_database: str) -> None:
    url = postgres_database
    async with open_store(url, Path(), serve=False) as store:
        await make(url, AT)
        days = [RawWebhook(f"whk_{n}", "meta", AT + n * DAY, b"{}", "routed") for n in range(4)]
        await store.append_batch([], webhooks=days, at=AT)
        assert await store.prune_webhooks(AT + 2 * DAY + 1) == 3
        assert await execute(url, "select to_regclass('raw_webhooks_2025_10_09') is null")
        assert await execute(url, "select to_regclass('raw_webhooks_2025_10_10') is null")
        assert not await execute(url, "select to_regclass('raw_webhooks_2025_10_11') is null"), "its last part is kept"
        assert [row.id for row in await store.list_webhooks(since=0, until=2**62)] == ["whk_3"]
