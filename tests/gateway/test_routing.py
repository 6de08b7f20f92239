from collections.abc import Awaitable, Callable, Collection

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.routing import BACKOFF, LOAD_SECONDS, MISS_INTERVAL, SETTLE, RouteTable, digest_of, new_key, presented_key
from store.contract import ApiKey, Endpoint, Routes, StoreUnavailable, Tenant

BAKERY, FLORIST = Tenant("tnt_bakery", "bakery", "The Bakery"), Tenant("tnt_florist", "florist", "The Florist")


def endpoint(number: str, tenant: Tenant, secret: str = "s3cret", account: str | None = None) -> Endpoint:
    return Endpoint("whatsapp", number, tenant.id, secret, "verify-me", account)


class RouteStore:
    """The part of a store that the table uses, with a database that can be away or hang."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.loads = 0
        self.away = False
        self.before_load: Callable[[], Awaitable[None]] | None = None
        self._changed = trio.Event()

    async def load_routes(self) -> Routes:
        self.loads += 1
        await trio.lowlevel.checkpoint()
        if self.before_load is not None:
            await self.before_load()
        if self.away:
            raise StoreUnavailable("the database is away")
        return self.routes

    async def wait_routes_changed(self) -> None:
        if self.away:
            raise StoreUnavailable("the database is away")
        await self._changed.wait()

    def notify(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


@pytest.fixture
def store() -> RouteStore:
    return RouteStore(
        Routes(
            (BAKERY, FLORIST),
            (
                endpoint("1", BAKERY, "platform", "waba"),
                endpoint("2", FLORIST, "platform", "waba"),
                endpoint("3", FLORIST, "own"),
            ),
            (),
        )
    )


def table_of(store: RouteStore) -> RouteTable:
    return RouteTable(store)  # type: ignore[arg-type]  # the part that is used


async def test_look_ups(store: RouteStore, nursery: trio.Nursery) -> None:
    table = table_of(store)
    assert table.endpoint("whatsapp", "1") is None
    await nursery.start(table.run)
    one, two, three = store.routes.endpoints
    assert table.loaded
    assert table.endpoint("whatsapp", "1") == one
    assert table.endpoint("telegram", "1") is None
    assert table.endpoints_of_account("whatsapp", "waba") == (one, two)
    assert table.endpoints_of_account("whatsapp", "other") == ()
    assert table.endpoints_of(FLORIST.id) == (two, three)
    assert table.endpoints_of("tnt_nobody") == ()
    assert table.tenant(BAKERY.id) == BAKERY and table.tenant("tnt_nobody") is None
    assert table.app_secrets("whatsapp") == ("platform", "own")
    assert table.app_secrets("telegram") == ()
    assert table.endpoints_at("whatsapp") == [one, two, three] and table.endpoints_at("telegram") == []


async def test_a_change_is_followed(store: RouteStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    table = table_of(store)
    await nursery.start(table.run)
    await wait_all_tasks_blocked()
    added = endpoint("4", BAKERY)
    store.routes = Routes((BAKERY, FLORIST), (*store.routes.endpoints, added), ())
    for _ in range(40):
        store.notify()
        await trio.sleep(SETTLE / 50)
    await trio.sleep(1)
    assert table.endpoint("whatsapp", "4") == added
    assert store.loads == 2  # one for the forty


async def test_what_another_process_added_is_found_at_once(store: RouteStore, autojump_clock: MockClock) -> None:
    table = table_of(store)
    assert await table.find_endpoint("whatsapp", "1") == store.routes.endpoints[0]
    await trio.sleep(MISS_INTERVAL)
    text, key = new_key(BAKERY.id, at=1)
    store.routes = Routes((BAKERY,), (), (key,))
    identity = await table.authenticate(text)
    assert identity == (BAKERY, key)
    assert store.loads == 2


async def test_a_flood_of_unknown_ids_costs_few_loads(store: RouteStore, autojump_clock: MockClock) -> None:
    table = table_of(store)
    found: list[object] = []

    async def ask(number: int) -> None:
        found.append(await table.find_endpoint("whatsapp", f"unknown-{number}"))
        found.append(await table.authenticate(f"pk_unknown_{number}"))

    began = trio.current_time()
    for _ in range(10):
        async with trio.open_nursery() as nursery:
            for number in range(200):
                nursery.start_soon(ask, number)
    assert found == [None] * 4000
    assert store.loads == 20  # two rounds of misses a flood, whatever its size
    assert trio.current_time() - began >= 18 * MISS_INTERVAL
    assert table.statistics().misses == 4000


async def test_a_miss_right_after_a_load_is_looked_up_all_the_same(
    store: RouteStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """`parley tenant add`, and its first webhook, may follow the start within milliseconds."""
    table = table_of(store)
    await nursery.start(table.run)
    await trio.sleep(0.01)
    added = endpoint("4", BAKERY)
    store.routes = Routes((BAKERY,), (*store.routes.endpoints, added), ())
    assert await table.find_endpoint("whatsapp", "4") == added


async def test_known_ids_never_load(store: RouteStore, nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    table = table_of(store)
    await nursery.start(table.run)
    await trio.sleep(10 * MISS_INTERVAL)
    for _ in range(100):
        assert await table.find_endpoint("whatsapp", "1")
    assert store.loads == 1


async def test_what_cannot_be_a_key_costs_nothing(store: RouteStore) -> None:
    table = table_of(store)
    for token in ("", "pk_", "Bearer x", "pk_" + "x" * 500, "pk_a\x00b", "pk_\u00e9", "pk_a\n"):
        assert await table.authenticate(token) is None
    assert store.loads == 0


async def test_revoked_keys_stop_working_and_are_reported(store: RouteStore, nursery: trio.Nursery) -> None:
    (kept_text, kept), (gone_text, gone) = new_key(BAKERY.id, at=1), new_key(FLORIST.id, at=2)
    store.routes = Routes((BAKERY, FLORIST), (), (kept, gone))
    table = table_of(store)
    revoked: list[Collection[ApiKey]] = []
    table.on_keys_revoked(revoked.append)
    await nursery.start(table.run)
    assert await table.authenticate(gone_text) == (FLORIST, gone)
    assert revoked == []
    await wait_all_tasks_blocked()
    changed = trio.Event()
    table.on_keys_revoked(lambda _: changed.set())
    store.routes = Routes((BAKERY, FLORIST), (), (kept,))
    store.notify()
    await changed.wait()
    assert revoked == [[gone]]
    assert await table.authenticate(gone_text) is None
    assert await table.authenticate(kept_text) == (BAKERY, kept)


async def test_the_old_table_serves_while_the_database_is_away(
    store: RouteStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    text, key = new_key(BAKERY.id, at=1)
    store.routes = Routes(store.routes.tenants, store.routes.endpoints, (key,))
    table = table_of(store)
    await nursery.start(table.run)
    await wait_all_tasks_blocked()
    store.away = True
    store.notify()
    await trio.sleep(60)
    assert table.endpoint("whatsapp", "1") is not None
    assert await table.authenticate(text) == (BAKERY, key)
    assert store.loads <= 2 + 60 / BACKOFF[-1] + len(BACKOFF)
    for _ in range(3):  # what is not known cannot be called unknown
        with pytest.raises(StoreUnavailable):
            await table.find_endpoint("whatsapp", "9")
        with pytest.raises(StoreUnavailable):
            await table.authenticate("pk_whoever_that_is")
    store.away = False
    store.routes = Routes(store.routes.tenants, (endpoint("9", BAKERY),), (key,))
    await trio.sleep(BACKOFF[-1] + 1)
    assert table.endpoint("whatsapp", "9") is not None
    for _ in range(2):  # the second is answered from the table, which is no longer the one of the outage
        assert await table.find_endpoint("whatsapp", "8") is None


async def test_started_without_a_database_and_recovered(
    store: RouteStore, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    store.away = True
    table = table_of(store)
    await nursery.start(table.run)
    assert table.statistics().loads == 0
    with pytest.raises(StoreUnavailable):
        await table.find_endpoint("whatsapp", "1")
    store.away = False
    await trio.sleep(BACKOFF[-1] + 1)
    assert table.loaded and table.endpoint("whatsapp", "1") is not None


async def test_a_database_that_hangs_counts_as_away(store: RouteStore, autojump_clock: MockClock) -> None:
    store.before_load = trio.sleep_forever
    table = table_of(store)
    asked = trio.current_time()
    with pytest.raises(StoreUnavailable):
        await table.find_endpoint("whatsapp", "1")
    assert trio.current_time() - asked == pytest.approx(LOAD_SECONDS)
    with pytest.raises(StoreUnavailable):  # told so without another wait
        await table.find_endpoint("whatsapp", "1")
    assert trio.current_time() - asked == pytest.approx(LOAD_SECONDS)
    assert table.statistics().failures == 1


async def test_one_who_gives_up_does_not_answer_for_the_others(store: RouteStore, autojump_clock: MockClock) -> None:
    release = trio.Event()
    store.before_load = release.wait
    table = table_of(store)
    found: list[Endpoint | None] = []

    async def ask() -> None:
        found.append(await table.find_endpoint("whatsapp", "1"))

    async with trio.open_nursery() as nursery:
        impatient = trio.CancelScope()

        async def give_up() -> None:
            with impatient:
                await table.find_endpoint("whatsapp", "1")
                raise AssertionError("was to be cancelled")

        nursery.start_soon(give_up)
        await wait_all_tasks_blocked()
        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        impatient.cancel()
        release.set()
    assert found == [store.routes.endpoints[0]]


def test_a_new_key_is_recognisable_and_kept_as_a_digest() -> None:
    text, key = new_key(BAKERY.id, at=1790000000000)
    assert text.startswith(f"{key.prefix}_") and key.prefix.startswith("pk_")
    assert key.digest == digest_of(text) and key.tenant == BAKERY.id and key.created_at == 1790000000000
    assert text not in repr(key) and text.removeprefix(f"{key.prefix}_") not in repr(key)
    assert new_key(BAKERY.id, at=1)[0] != text


@pytest.mark.parametrize(
    ("headers", "shown"),
    [
        ((), None),
        (((b"x-api-key", b"pk_a"),), "pk_a"),
        (((b"authorization", b"Bearer pk_a"),), "pk_a"),
        (((b"authorization", b"bearer  pk_a "),), "pk_a"),
        (((b"authorization", b"Bearer pk_a"), (b"x-api-key", b"pk_a")), "pk_a"),
        (((b"authorization", b"Bearer pk_a"), (b"x-api-key", b"pk_b")), None),
        (((b"x-api-key", b"pk_a"), (b"x-api-key", b"pk_b")), None),
        (((b"authorization", b"Basic cGtfYQ=="),), None),
        (((b"authorization", b"Basic cGtfYQ=="), (b"x-api-key", b"pk_a")), "pk_a"),
        (((b"x-api-key", b"pk_\xff"),), "pk_\xff"),
    ],
)
def test_where_a_key_is_shown(headers: tuple[tuple[bytes, bytes], ...], shown: str | None) -> None:
    assert presented_key(headers) == shown
