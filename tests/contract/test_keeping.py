"""Raw webhooks, quarantine, routes, availability."""

import trio

from store.contract import ApiKey, Endpoint, QuarantineEntry, RawWebhook, Store, StoreUnavailable, Tenant
from tests.contract.conftest import World
from tests.support.appends import AT, TENANT

DAY = 86_400_000


def webhook(number: int, received_at: int) -> RawWebhook:
    return RawWebhook(f"whk_{number}", "meta", received_at, b"%d" % number, "routed", TENANT)


async def test_webhooks_are_read_in_order_of_arrival_in_pages(store: Store) -> None:
    kept = [webhook(9, AT), webhook(3, AT + 1), webhook(4, AT + 1), webhook(1, AT + DAY), webhook(2, AT + 2 * DAY)]
    await store.append_batch([], webhooks=[kept[3], kept[0], kept[2], kept[4], kept[1]], at=AT)
    assert await store.list_webhooks(since=AT, until=AT + 2 * DAY) == kept[:4]
    assert await store.list_webhooks(since=AT + 1, until=AT + DAY) == kept[1:3]
    first = await store.list_webhooks(since=AT, until=AT + 3 * DAY, limit=2)
    assert first == kept[:2]
    assert await store.list_webhooks(since=AT, until=AT + 3 * DAY, after=first[-1].id) == kept[2:]
    assert await store.list_webhooks(since=AT, until=AT + 3 * DAY, after=kept[-1].id) == []


async def test_old_webhooks_are_forgotten(store: Store) -> None:
    await store.append_batch([], webhooks=[webhook(n, AT + n * DAY) for n in range(5)], at=AT)
    assert await store.prune_webhooks(AT + 2 * DAY) == 2
    assert [row.id for row in await store.list_webhooks(since=0, until=2**62)] == ["whk_2", "whk_3", "whk_4"]
    assert await store.prune_webhooks(AT + 2 * DAY) == 0


async def test_quarantine_is_listed_newest_first(store: Store) -> None:
    def entry(number: int, at: int, tenant: str | None) -> QuarantineEntry:
        return QuarantineEntry(f"qrt_{number}", at, "bad_item", "why", b"what", tenant)

    kept = [entry(1, AT + 3, None), entry(5, AT + 2, TENANT), entry(4, AT + 2, "tnt_b"), entry(7, AT, TENANT)]
    await store.append_batch([], quarantine=[kept[2], kept[0], kept[3], kept[1]], at=AT)
    assert await store.list_quarantine() == kept
    assert await store.list_quarantine(tenant=TENANT) == [kept[1], kept[3]]
    assert await store.list_quarantine(limit=2) == kept[:2]
    assert await store.list_quarantine(before="qrt_5") == kept[2:]
    assert await store.list_quarantine(before="qrt_5", tenant=TENANT) == [kept[3]]


async def test_routes_are_recorded_once(store: Store) -> None:
    ada, second = Tenant("tnt_1", "ada", "Ada's"), Tenant("tnt_2", "ada", "another with her slug")
    endpoint = Endpoint("meta", "1001", "tnt_1", "app secret", "verify token", "acc", "+49 15")
    assert [await store.add_tenant(ada), await store.add_tenant(second)] == [True, False]
    assert [await store.add_endpoint(endpoint), await store.add_endpoint(endpoint)] == [True, False]
    assert "secret" not in repr(endpoint)
    keys = [ApiKey(f"key_{n}", "tnt_1", f"pk_{n}", b"digest%d" % n, AT) for n in (1, 2)]
    for one in keys:
        await store.add_key(one)
    routes = await store.load_routes()
    assert (routes.tenants, routes.endpoints, routes.keys) == ((ada,), (endpoint,), tuple(keys))
    assert [await store.revoke_key("key_1", AT), await store.revoke_key("key_1", AT)] == [True, False]
    assert await store.revoke_key("key_3", AT) is False
    assert (await store.load_routes()).keys == (keys[1],)


async def test_a_change_of_routes_wakes_every_store(store: Store, world: World) -> None:
    async with world.open() as other:
        for each in (store, other):
            await each.wait_routes_changed()  # the first wait returns at once: something may have changed before it
        with trio.fail_after(4):  # less than the 5 s after which it would return anyway
            async with trio.open_nursery() as nursery:
                nursery.start_soon(store.wait_routes_changed)
                nursery.start_soon(other.wait_routes_changed)
                await other.add_tenant(Tenant("tnt_1", "ada", "Ada's"))
            await other.add_key(ApiKey("key_1", "tnt_1", "pk", b"digest", AT))  # between two waits: not lost
            await store.wait_routes_changed()


async def test_check_tells_when_a_partition_was_taken(store: Store, epoch: int, world: World) -> None:
    await store.check()
    async with world.open() as other:
        await other.acquire_partitions([1])
        await other.check()
        refused = None
        try:
            await store.check()
        except StoreUnavailable as error:
            refused = error
        assert "1 partitions" in str(refused)
        await store.acquire_partitions([1])
        await store.check()
