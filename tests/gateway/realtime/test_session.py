"""Sessions without a transport: requests and their answers, the subscription's life, the registry."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.feed import Feed
from gateway.realtime.session import Session, SessionRefused, Sessions
from protocol import frames
from protocol.frames import (
    Authenticate,
    Ping,
    Pong,
    Refused,
    ServerFrame,
    SnapshotRequired,
    Subscribe,
    Subscribed,
    Unsubscribe,
    Unsubscribed,
)
from store.contract import FeedHead, StoredEvent, StoreUnavailable

TENANT = "tnt_A"


class Identity(msgspec.Struct, frozen=True):
    tenant: str
    key: str


ALICE = Identity(TENANT, "key_1")


class Ledger:
    """The feed's store. `away` makes it fail; `gate`, when set to an event, holds its reads."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []
        self.epoch = "one"
        self.away = False
        self.gate: trio.Event | None = None
        self.tries = 0
        self.read_after: list[int] = []

    def commit(self, count: int = 1, body: bytes = b"{}") -> list[StoredEvent]:
        first = len(self.events) + 1
        new = [
            StoredEvent(TENANT, offset, f"cnv_{offset % 2}", offset, "noted", body, 0, 0, "whatsapp:1")
            for offset in range(first, first + count)
        ]
        self.events += new
        return new

    async def feed_head(self, tenant: str) -> FeedHead:
        await self._reach()
        return FeedHead(self.epoch, len(self.events), 1)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 100) -> list[StoredEvent]:
        await self._reach()
        self.read_after.append(after)
        return self.events[after : after + limit]

    async def _reach(self) -> None:
        self.tries += 1
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.away:
            raise StoreUnavailable("away")


class Wire:
    """A link that writes down what it is given, in one list: that is what a client sees."""

    encode: Callable[[bytes], Any] = staticmethod(lambda fields: msgspec.json.decode(b"{" + fields + b"}")["offset"])

    def __init__(self) -> None:
        self.seen: list[Any] = []
        self.closed: tuple[int, str] | None = None
        self.room = True
        self.goes_away_at: tuple[Ledger, int] | None = None
        self.ended = trio.Event()
        self.queued_bytes = 7

    def push(self, frame: Any) -> bool:
        if self.closed is None and not self.room:
            self.close(frames.SLOW_CONSUMER, "slow consumer")
        if self.closed is None:
            self.seen.append(frame)
            if self.goes_away_at is not None and frame == self.goes_away_at[1]:
                self.goes_away_at[0].away = True
        return self.closed is None

    def send(self, frame: ServerFrame) -> None:
        self.push(frame)

    async def wait_below(self, mark: int) -> None:
        await trio.lowlevel.checkpoint_if_cancelled()

    def close(self, code: int, reason: str) -> None:
        self.closed = self.closed or (code, reason)
        self.ended.set()


class World:
    def __init__(self) -> None:
        self.ledger = Ledger()
        self.feed = Feed(self.ledger)
        self.sessions = Sessions(self.feed, self.authenticate, limit=3)

    async def authenticate(self, token: str) -> Identity | None:
        return {"alice": ALICE, "second": Identity(TENANT, "key_2"), "other": Identity("tnt_B", "key_3")}.get(token)

    @asynccontextmanager
    async def session(self, token: str = "alice") -> AsyncIterator[tuple[Session, Wire]]:
        wire = Wire()
        async with self.sessions.open(wire) as session:
            identity = await self.authenticate(token)
            assert identity is not None
            session.identify(identity)
            yield session, wire

    def publish(self, count: int = 1) -> None:
        self.feed.publish(self.ledger.commit(count))


@pytest.fixture
def world() -> World:
    return World()


async def ask(session: Session, wire: Wire, *requests: frames.ClientFrame) -> None:
    for request in requests:
        session.request(request, wire.send)
    await wait_all_tasks_blocked()


# --- requests ------------------------------------------------------------------------------------------------------------


async def test_before_authentication_everything_is_refused(world: World) -> None:
    wire = Wire()
    async with world.sessions.open(wire) as session:
        await ask(session, wire, Ping(1), Subscribe(("tenant",), 2))
    assert [(frame.code, frame.id) for frame in wire.seen] == [("not_authenticated", 1), ("not_authenticated", 2)]


async def test_ping_and_a_second_key(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Ping(5), Ping(), Authenticate("alice"))
    assert wire.seen[:2] == [Pong(5), Pong()]
    assert wire.seen[2].code == "already_authenticated"


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (Subscribe((), 9), "bad_topic"),
        (Subscribe(("tenants",), 9), "bad_topic"),
        (Subscribe(("conversation:",), 9), "bad_topic"),
        (Subscribe(("tenant",) * 101, 9), "too_many_topics"),
        (Subscribe(("tenant",), 9, epoch="one"), "bad_position"),
        (Subscribe(("tenant",), 9, offset=1), "bad_position"),
    ],
)
async def test_a_bad_subscribe_is_refused_and_leaves_the_subscription_alone(
    world: World, request_: Subscribe, code: str
) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)), request_)
        world.publish()
    assert wire.seen[0].code == code
    assert wire.seen[0].id == 9
    assert wire.seen[1:] == [Subscribed("one", 0), 1]


async def test_catch_up_comes_before_the_answer_and_live_events_after_it(world: World) -> None:
    world.ledger.commit(250)
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 1, "one", 10))
        world.publish(2)
    assert wire.seen == [*range(11, 251), Subscribed("one", 250, 1), 251, 252]


async def test_topics_filter(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("conversation:cnv_1",)))
        world.publish(4)
        await ask(session, wire, Subscribe(("endpoint:whatsapp:1", "conversation:cnv_none")))
        world.publish(2)
    assert wire.seen == [Subscribed("one", 0), 1, 3, Subscribed("one", 4), 5, 6]


async def test_a_position_that_cannot_be_resumed_is_said_and_nothing_is_subscribed(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 3, "zero", 0))
        world.publish()
    assert wire.seen == [SnapshotRequired("epoch_changed", "one", 0, 3)]


async def test_unsubscribe_ends_it(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)))
        world.publish()
        await ask(session, wire, Unsubscribe(4))
        world.publish()
        await ask(session, wire, Unsubscribe())
        assert world.feed.statistics().subscribers == 0
    assert wire.seen == [Subscribed("one", 0), 1, Unsubscribed(4), Unsubscribed()]


async def test_a_ping_is_answered_during_a_catch_up(world: World) -> None:
    world.ledger.gate = trio.Event()
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 1), Ping(2))
        world.ledger.gate.set()
        await wait_all_tasks_blocked()
    assert wire.seen == [Pong(2), Subscribed("one", 0, 1)]


@pytest.mark.parametrize("resumed", [False, True])
async def test_a_new_subscribe_cancels_the_catch_up_before_it(world: World, resumed: bool) -> None:
    world.ledger.commit(5)
    world.ledger.gate = trio.Event()
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 1, "one", 0))
        if resumed:
            # The first task is on its way with what it read when the second request comes.
            world.ledger.gate.set()
        await ask(session, wire, Subscribe(("conversation:cnv_1",), 2, "one", 2))
        world.ledger.gate.set()
        await wait_all_tasks_blocked()
        world.publish(2)
        assert world.feed.statistics().subscribers == 1
    [superseded, *rest] = wire.seen
    assert (superseded.code, superseded.id) == ("superseded", 1)
    assert rest == [3, 5, Subscribed("one", 5, 2), 7]


async def test_a_hundred_subscribes_at_once_are_all_answered_and_the_last_one_stands(world: World) -> None:
    world.ledger.commit(3)
    async with world.session() as (session, wire):
        await ask(session, wire, *(Subscribe(("tenant",), number, "one", number % 4) for number in range(100)))
        assert world.feed.statistics().subscribers == 1
    assert [frame.id for frame in wire.seen[:99]] == list(range(99))
    assert wire.seen[99:] == [Subscribed("one", 3, 99)]


# --- interruptions -------------------------------------------------------------------------------------------------------


async def test_an_interrupted_subscription_goes_on_by_itself_without_gap(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)))
        world.publish(2)
        world.ledger.commit()  # its publishing is lost
        world.publish(2)
        await wait_all_tasks_blocked()
        world.publish()
        world.ledger.commit()
        world.feed.interrupt([TENANT])
        await wait_all_tasks_blocked()
    assert wire.seen == [Subscribed("one", 0), 1, 2, 3, 4, 5, 6, 7]


async def test_an_interrupted_subscription_waits_for_a_store_that_is_away(
    world: World, autojump_clock: MockClock
) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)))
        world.ledger.away = True
        world.ledger.commit()
        world.feed.interrupt([TENANT])
        await trio.sleep(60)
        assert 10 < world.ledger.tries < 40
        world.ledger.away = False
        await trio.sleep(5)
        world.publish()
        assert wire.seen == [Subscribed("one", 0), 1, 2]
        # The next time it begins with short pauses again.
        world.ledger.away = True
        world.ledger.commit()
        world.feed.interrupt([TENANT])
        await wait_all_tasks_blocked()
        world.ledger.away = False
        await trio.sleep(0.3)
        assert wire.seen[3:] == [3]


async def test_an_interrupted_filter_goes_on_from_the_head_and_not_from_its_last_event(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("conversation:cnv_none",)))
        world.publish(200)
        world.ledger.read_after.clear()
        world.feed.interrupt([TENANT])
        await wait_all_tasks_blocked()
        assert world.ledger.read_after == [200]


async def test_a_catch_up_that_is_cut_off_goes_on_where_it_was(world: World, autojump_clock: MockClock) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)))
        world.ledger.commit(250)
        wire.goes_away_at = (world.ledger, 60)
        world.feed.interrupt([TENANT])
        await trio.sleep(20)
        assert wire.seen[-1] == 100  # the rest of a page that had been read
        world.ledger.away = False
        await trio.sleep(5)
    assert wire.seen == [Subscribed("one", 0), *range(1, 251)]


async def test_an_interrupted_subscription_whose_epoch_has_gone_is_told_unasked(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 8))
        world.ledger.epoch = "two"
        world.feed.interrupt([TENANT])
        await wait_all_tasks_blocked()
        world.publish()
        await ask(session, wire, Subscribe(("tenant",), 9, "two", 0))
    assert wire.seen == [
        Subscribed("one", 0, 8),
        SnapshotRequired("epoch_changed", "two", 0),
        1,
        Subscribed("two", 1, 9),
    ]


async def test_a_subscribe_while_the_store_is_away_is_refused_and_may_be_repeated(world: World) -> None:
    world.ledger.commit(2)
    world.ledger.away = True
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",), 1, "one", 1))
        world.ledger.away = False
        await ask(session, wire, Subscribe(("tenant",), 2, "one", 1))
    assert isinstance(wire.seen[0], Refused)
    assert (wire.seen[0].code, wire.seen[0].id) == ("store_unavailable", 1)
    assert wire.seen[1:] == [2, Subscribed("one", 2, 2)]


# --- ends ----------------------------------------------------------------------------------------------------------------


async def test_without_room_the_link_is_closed_and_the_feed_lets_go(world: World) -> None:
    async with world.session() as (session, wire), world.session() as (other, other_wire):
        await ask(session, wire, Subscribe(("tenant",)))
        await ask(other, other_wire, Subscribe(("tenant",)))
        world.publish()
        wire.room = False
        world.publish(3)
        assert world.feed.statistics().subscribers == 1
    assert wire.closed == (4008, "slow consumer")
    assert wire.seen == [Subscribed("one", 0), 1]
    assert other_wire.seen == [Subscribed("one", 0), 1, 2, 3, 4]


async def test_the_end_of_a_connection_ends_what_it_started(world: World) -> None:
    async with world.session() as (session, wire):
        await ask(session, wire, Subscribe(("tenant",)))
    async with world.session() as (session, wire):
        world.ledger.gate = trio.Event()
        await ask(session, wire, Subscribe(("tenant",), None, "one", 0))
    assert world.feed.statistics().subscribers == 0


async def test_a_revoked_key_closes_its_sessions_and_no_others(world: World) -> None:
    async with world.session() as (_, first), world.session("second") as (_, second), world.session() as (third, wire):
        await ask(third, wire, Subscribe(("tenant",)))
        assert world.sessions.close_key("key_1") == 2
        assert first.closed == wire.closed == (4001, "the key is no longer valid")
        assert second.closed is None
        assert world.feed.statistics().subscribers == 0


async def test_a_suspended_tenant_closes_its_sessions_and_no_others(world: World) -> None:
    unknown = Wire()
    async with world.session() as (_, ours), world.session("other") as (_, theirs), world.sessions.open(unknown):
        assert world.sessions.close_tenant(TENANT) == 1
        assert ours.closed is not None
        assert theirs.closed is unknown.closed is None


async def test_connections_are_capped_before_they_are_authenticated(world: World) -> None:
    async with world.sessions.open(Wire()), world.sessions.open(Wire()), world.session():
        with pytest.raises(SessionRefused) as refused:
            async with world.sessions.open(Wire()):
                pytest.fail("let in")
        assert refused.value.code == 4013
        statistics = world.sessions.statistics()
    assert (statistics.open, statistics.authenticated, statistics.queued_bytes) == (3, 1, 21)
    assert (statistics.opened, statistics.refused) == (3, 1)
    assert world.sessions.statistics().open == 0


async def test_shutdown_closes_all_waits_and_cuts_off_who_does_not_go(
    world: World, autojump_clock: MockClock, nursery: trio.Nursery
) -> None:
    ended: list[str] = []
    wires = {"polite": Wire(), "stubborn": Wire()}

    async def connection(name: str) -> None:
        try:
            async with world.sessions.open(wires[name]):
                await wires[name].ended.wait()
                if name == "stubborn":
                    await trio.sleep_forever()
        finally:
            ended.append(name)

    for name in wires:
        nursery.start_soon(connection, name)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await world.sessions.shutdown(grace=5)
    assert trio.current_time() - began == 5
    await wait_all_tasks_blocked()
    assert ended == ["polite", "stubborn"]
    assert {wire.closed for wire in wires.values()} == {(1001, "the gateway stops")}
    with pytest.raises(SessionRefused) as refused:
        async with world.sessions.open(Wire()):
            pytest.fail("let in")
    assert refused.value.code == 1001


async def test_shutdown_of_nothing_is_immediate(world: World) -> None:
    with trio.fail_after(1):
        await world.sessions.shutdown(grace=60)
