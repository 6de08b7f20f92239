"""The feed against a list: whoever follows gets exactly the events it wants, in order, once (NO-GAP)."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

import actors.feed
from actors.feed import Feed
from protocol.frames import SnapshotRequired, Topics
from store.contract import FeedHead, StoredEvent, StoreUnavailable

TENANT = "tnt_A"
EVERYTHING = Topics(True, frozenset(), frozenset())
ENDPOINT_1 = Topics(False, frozenset({"whatsapp:1"}), frozenset())
CONVERSATION_2 = Topics(False, frozenset(), frozenset({"cnv_2"}))
NOTHING = Topics(False, frozenset(), frozenset({"cnv_none"}))


class Gate:
    """Where tasks wait for the test to let them on, one by one. Open by default."""

    def __init__(self) -> None:
        self.shut = False
        self.waiting: list[trio.Event] = []

    async def passage(self) -> None:
        if not self.shut:
            await trio.lowlevel.checkpoint()
            return
        event = trio.Event()
        self.waiting.append(event)
        try:
            await event.wait()
        finally:
            if event in self.waiting:
                self.waiting.remove(event)

    async def step(self, choice: int = 0) -> None:
        if self.waiting:
            self.waiting.pop(choice % len(self.waiting)).set()
        await wait_all_tasks_blocked()

    def open(self) -> None:
        self.shut = False
        while self.waiting:
            self.waiting.pop().set()


class Ledger:
    """A store of one tenant's events. What a read returns is decided between its two checkpoints."""

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate or Gate()
        self.epoch = "one"
        self.events: list[StoredEvent] = []
        self.oldest = 1
        self.away = False
        self.reads = 0

    def commit(self, count: int = 1) -> list[StoredEvent]:
        new = []
        for _ in range(count):
            offset = len(self.events) + 1
            event = StoredEvent(
                tenant=TENANT,
                offset=offset,
                stream=f"cnv_{offset % 3}",
                version=offset,
                kind="message_recorded",
                body=b'{"n":%d}' % offset,
                at=0,
                recorded_at=0,
                endpoint=f"whatsapp:{offset % 2}",
            )
            self.events.append(event)
            new.append(event)
        return new

    async def feed_head(self, tenant: str) -> FeedHead:
        assert tenant == TENANT
        await self._reach()
        known = FeedHead(self.epoch, len(self.events), self.oldest)
        await self.gate.passage()
        return known

    async def read_feed(self, tenant: str, *, after: int, limit: int = 100) -> list[StoredEvent]:
        assert tenant == TENANT
        await self._reach()
        start = max(after, self.oldest - 1)
        page = self.events[start : start + limit]
        await self.gate.passage()
        return page

    async def _reach(self) -> None:
        self.reads += 1
        await self.gate.passage()
        if self.away:
            raise StoreUnavailable("away")

    def wanted(self, topics: Topics, after: int, until: int | None = None) -> list[int]:
        return [event.offset for event in self.events[after:until] if topics.want(event.endpoint, event.stream)]


def encode(fields: bytes) -> bytes:
    return b"{" + fields + b"}"


class Follower:
    """A subscriber that writes down what it gets."""

    encode: Callable[[bytes], Any] = staticmethod(encode)

    def __init__(self, gate: Gate | None = None) -> None:
        self.gate = gate
        self.offsets: list[int] = []
        self.frames: list[Any] = []
        self.interrupted_at: int | None = None
        self.wakeup = trio.Event()

    def deliver(self, frame: Any, offset: int) -> None:
        self.offsets.append(offset)
        self.frames.append(frame)

    async def ready(self) -> None:
        if self.gate is not None:
            await self.gate.passage()
        await trio.lowlevel.checkpoint_if_cancelled()

    def interrupted(self, offset: int) -> None:
        self.interrupted_at = offset
        self.wakeup.set()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.feed, "RING_EVENTS", 4)
    monkeypatch.setattr(actors.feed, "PAGE", 3)


# --- following, one step at a time ---------------------------------------------------------------------------------------


async def test_without_a_position_only_what_comes_after_is_delivered(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(5)
    assert await feed.follow(TENANT, EVERYTHING, follower) == ("one", 5)
    feed.publish(ledger.commit(2))
    assert follower.offsets == [6, 7]
    assert follower.frames[0] == (
        b'{"offset":6,"conversation":"cnv_0","endpoint":"whatsapp:0","version":6,"recorded_at":0,"event":{"n":6}}'
    )


@pytest.mark.parametrize("start", range(13))
@pytest.mark.parametrize("topics", [EVERYTHING, ENDPOINT_1, CONVERSATION_2, NOTHING])
@pytest.mark.usefixtures("small")
async def test_every_position_is_resumed_from_store_and_ring(ledger: Ledger, start: int, topics: Topics) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(3)
    await feed.follow(TENANT, EVERYTHING, Follower())
    feed.publish(ledger.commit(9))  # the ring holds the last four
    assert await feed.follow(TENANT, topics, follower, epoch="one", offset=start) == ("one", 12)
    assert follower.offsets == ledger.wanted(topics, start)
    feed.publish(ledger.commit(6))
    assert follower.offsets == ledger.wanted(topics, start)


async def test_what_the_ring_holds_is_not_read_from_the_store(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    await feed.follow(TENANT, EVERYTHING, Follower())
    feed.publish(ledger.commit(50))
    reads = ledger.reads
    await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=10)
    assert follower.offsets == list(range(11, 51))
    assert ledger.reads == reads


async def test_the_ring_is_bounded_by_bytes_too(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actors.feed, "RING_BYTES", 1000)
    feed, follower = Feed(ledger), Follower()
    await feed.follow(TENANT, EVERYTHING, Follower())
    feed.publish(ledger.commit(200))
    assert 800 < feed.statistics().ring_bytes <= 1000
    await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=0)
    assert follower.offsets == list(range(1, 201))


async def test_an_event_larger_than_the_ring_is_delivered_and_not_kept(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.feed, "RING_BYTES", 50)
    feed, follower, late = Feed(ledger), Follower(), Follower()
    await feed.follow(TENANT, EVERYTHING, follower)
    feed.publish(ledger.commit(2))
    await feed.follow(TENANT, EVERYTHING, late, epoch="one", offset=0)
    feed.publish(ledger.commit())
    assert follower.offsets == late.offsets == [1, 2, 3]
    assert feed.statistics().ring_bytes == 0


async def test_each_event_is_encoded_once_per_kind_of_follower(ledger: Ledger) -> None:
    class Other(Follower):
        encode = staticmethod(lambda fields: fields)

    feed = Feed(ledger)
    followers = [Follower() for _ in range(20)] + [Other() for _ in range(20)]
    for follower in followers:
        await feed.follow(TENANT, EVERYTHING, follower)
    feed.publish(ledger.commit(10))
    late = Follower()
    await feed.follow(TENANT, EVERYTHING, late, epoch="one", offset=0)
    assert late.frames[3] is followers[0].frames[3] is followers[19].frames[3]
    assert followers[20].frames[3] is followers[39].frames[3]
    statistics = feed.statistics()
    assert (statistics.encoded, statistics.delivered) == (20, 410)
    assert (statistics.published, statistics.subscribers, statistics.watched_tenants) == (10, 41, 1)


async def test_unfollowed_gets_nothing_more_and_twice_is_harmless(ledger: Ledger) -> None:
    feed, follower, other = Feed(ledger), Follower(), Follower()
    feed.unfollow(TENANT, follower)
    await feed.follow(TENANT, EVERYTHING, follower)
    await feed.follow(TENANT, EVERYTHING, other)
    feed.publish(ledger.commit())
    feed.unfollow(TENANT, follower)
    feed.unfollow(TENANT, follower)
    feed.publish(ledger.commit())
    assert follower.offsets == [1]
    assert other.offsets == [1, 2]


async def test_following_again_moves_to_the_new_topics(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    await feed.follow(TENANT, EVERYTHING, follower)
    feed.publish(ledger.commit(2))
    await feed.follow(TENANT, CONVERSATION_2, follower)
    feed.publish(ledger.commit(6))
    assert follower.offsets == [1, 2, 5, 8]
    assert feed.statistics().subscribers == 1


async def test_following_again_from_before_gets_nothing_live_until_it_has_caught_up(nursery: trio.Nursery) -> None:
    following, follower = Following(), Follower()
    ledger = Ledger(following.gate)
    feed = Feed(ledger)
    ledger.commit(5)
    await feed.follow(TENANT, EVERYTHING, follower)
    await following.begin(nursery, feed, follower, 0)
    feed.publish(ledger.commit(2))
    assert follower.offsets == []
    following.gate.open()
    await wait_all_tasks_blocked()
    assert following.answers == [("one", 7)]
    assert follower.offsets == [1, 2, 3, 4, 5, 6, 7]


async def test_a_follower_that_leaves_during_a_publish_stops_nobody(ledger: Ledger) -> None:
    feed, others = Feed(ledger), [Follower(), Follower()]

    class Full(Follower):
        def deliver(self, frame: Any, offset: int) -> None:
            super().deliver(frame, offset)
            feed.unfollow(TENANT, self)

    full = Full()
    for follower in (others[0], full, others[1]):
        await feed.follow(TENANT, EVERYTHING, follower)
    feed.publish(ledger.commit(3))
    assert full.offsets == [1]
    assert others[0].offsets == others[1].offsets == [1, 2, 3]


# --- what cannot be resumed ----------------------------------------------------------------------------------------------


async def test_another_epoch_needs_a_snapshot(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(3)
    answer = await feed.follow(TENANT, EVERYTHING, follower, epoch="zero", offset=2)
    assert answer == SnapshotRequired("epoch_changed", "one", 3)
    feed.publish(ledger.commit())
    assert follower.offsets == []


async def test_a_position_that_was_never_committed_needs_a_snapshot(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(3)
    answer = await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=4)
    assert answer == SnapshotRequired("ahead", "one", 3)
    assert feed.statistics().subscribers == 0


@pytest.mark.parametrize(("start", "resumed"), [(3, False), (4, True)])
async def test_a_position_before_the_oldest_needs_a_snapshot(ledger: Ledger, start: int, resumed: bool) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(10)
    ledger.oldest = 5
    answer = await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=start)
    assert answer == (("one", 10) if resumed else SnapshotRequired("too_old", "one", 10))
    assert follower.offsets == (list(range(5, 11)) if resumed else [])


async def test_a_position_before_a_store_that_kept_nothing_needs_a_snapshot(ledger: Ledger) -> None:
    ledger.commit(10)
    ledger.oldest = 11
    answer = await Feed(ledger).follow(TENANT, EVERYTHING, Follower(), epoch="one", offset=9)
    assert answer == SnapshotRequired("too_old", "one", 10)


@pytest.mark.usefixtures("small")
async def test_what_is_pruned_during_the_catch_up_is_noticed(ledger: Ledger) -> None:
    feed = Feed(ledger)
    ledger.commit(12)

    class Pruning(Follower):
        def deliver(self, frame: Any, offset: int) -> None:
            super().deliver(frame, offset)
            ledger.oldest = 8

    follower = Pruning()
    answer = await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=0)
    assert answer == SnapshotRequired("too_old", "one", 12)
    assert follower.offsets == [1, 2, 3]


async def test_an_epoch_that_changes_during_the_catch_up_is_noticed(ledger: Ledger) -> None:
    feed = Feed(ledger)
    ledger.commit(3)

    class Restoring(Follower):
        def deliver(self, frame: Any, offset: int) -> None:
            super().deliver(frame, offset)
            ledger.epoch = "two"
            feed.interrupt([TENANT])

    answer = await feed.follow(TENANT, EVERYTHING, Restoring(), offset=0)
    assert answer == SnapshotRequired("epoch_changed", "two", 3)


async def test_each_event_of_a_catch_up_waits_until_there_is_room(ledger: Ledger) -> None:
    feed = Feed(ledger)
    ledger.commit(7)

    class Counting(Follower):
        asked = 0

        async def ready(self) -> None:
            self.asked += 1

        def deliver(self, frame: Any, offset: int) -> None:
            assert self.asked == offset
            super().deliver(frame, offset)

    follower = Counting()
    await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=0)
    assert (len(follower.offsets), follower.asked) == (7, 8)  # and once for the ring


async def test_a_store_that_is_away_is_said_and_attaches_nobody(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.away = True
    with pytest.raises(StoreUnavailable):
        await feed.follow(TENANT, EVERYTHING, follower)
    ledger.away = False
    await feed.follow(TENANT, EVERYTHING, Follower())
    feed.publish(ledger.commit())
    assert follower.offsets == []


# --- races, each at its checkpoint ---------------------------------------------------------------------------------------


@dataclass
class Following:
    """A `follow` that stands at a shut gate."""

    gate: Gate = field(default_factory=Gate)
    answers: list[Any] = field(default_factory=list)

    async def begin(
        self, nursery: trio.Nursery, feed: Feed, follower: Follower, offset: int | None, topics: Topics = EVERYTHING
    ) -> None:
        async def run() -> None:
            epoch = None if offset is None else "one"
            self.answers.append(await feed.follow(TENANT, topics, follower, epoch=epoch, offset=offset))

        self.gate.shut = True
        nursery.start_soon(run)
        await wait_all_tasks_blocked()


@pytest.mark.parametrize("offset", [None, 5, 3])
@pytest.mark.parametrize("steps", range(6))
async def test_a_commit_at_any_point_of_the_first_following_is_delivered_at_once(
    offset: int | None, steps: int, nursery: trio.Nursery
) -> None:
    """Also where nobody watches yet, so that its publishing goes nowhere: no later commit is needed to notice it."""
    following, follower = Following(), Follower()
    ledger = Ledger(following.gate)
    feed = Feed(ledger)
    ledger.commit(5)
    await following.begin(nursery, feed, follower, offset)
    for _ in range(steps):
        await following.gate.step()
    new = ledger.commit()
    if feed.watched(TENANT):
        feed.publish(new)
    following.gate.open()
    await wait_all_tasks_blocked()
    [(epoch, position)] = following.answers
    assert epoch == "one"
    after = position if offset is None else offset
    assert follower.offsets == ledger.wanted(EVERYTHING, after)
    assert position == 6 or follower.offsets[-1:] == [6]


@pytest.mark.usefixtures("small")
async def test_what_is_committed_but_not_yet_published_is_not_read_ahead_and_delivered_twice(ledger: Ledger) -> None:
    feed, follower = Feed(ledger), Follower()
    ledger.commit(6)
    await feed.follow(TENANT, EVERYTHING, Follower())
    unpublished = ledger.commit(2)
    assert await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=1) == ("one", 6)
    feed.publish(unpublished)
    assert follower.offsets == [2, 3, 4, 5, 6, 7, 8]


async def test_a_position_that_is_committed_but_not_yet_published_is_not_ahead(ledger: Ledger) -> None:
    feed, first, follower = Feed(ledger), Follower(), Follower()
    await feed.follow(TENANT, EVERYTHING, first)
    unpublished = ledger.commit(2)
    assert await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=2) == ("one", 2)
    assert first.offsets == [1, 2]
    feed.publish(unpublished)
    feed.publish(ledger.commit())
    assert first.offsets == [1, 2, 3]
    assert follower.offsets == [3]


async def test_a_feed_that_is_interrupted_during_the_look_ahead_does_not_call_its_follower_ahead(
    nursery: trio.Nursery,
) -> None:
    following, follower = Following(), Follower()
    ledger = Ledger(following.gate)
    feed = Feed(ledger)
    await feed.follow(TENANT, EVERYTHING, Follower())
    ledger.commit(2)  # published nowhere: the outcome was unknown
    await following.begin(nursery, feed, follower, 2)
    feed.interrupt([TENANT])
    following.gate.open()
    await wait_all_tasks_blocked()
    assert following.answers == [("one", 2)]


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("steps", range(18))
@pytest.mark.parametrize("happening", ["overflow", "interrupt", "sweep"])
async def test_the_ring_moves_breaks_or_goes_during_a_catch_up(
    happening: str, steps: int, nursery: trio.Nursery, autojump_clock: trio.testing.MockClock
) -> None:
    following = Following()
    ledger, follower = Ledger(following.gate), Follower(following.gate)
    feed = Feed(ledger, linger=1.0)
    ledger.commit(8)
    await following.begin(nursery, feed, follower, 2)
    for _ in range(steps):
        await following.gate.step()
    match happening:
        case "overflow":
            if feed.watched(TENANT):
                feed.publish(ledger.commit(9))
        case "interrupt":
            feed.interrupt([TENANT])
        case "sweep":
            await trio.sleep(2)
            feed.sweep()
    following.gate.open()
    await wait_all_tasks_blocked()
    last = ledger.commit()
    feed.publish(last)
    assert len(following.answers) == 1
    if follower.interrupted_at is not None:
        assert follower.interrupted_at == 8
        await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=follower.interrupted_at)
    assert follower.offsets == ledger.wanted(EVERYTHING, 2)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("offset", [None, 0, 9])
@pytest.mark.parametrize("steps", range(14))
async def test_cancelled_anywhere_it_is_not_attached(offset: int | None, steps: int) -> None:
    following = Following()
    ledger, follower = Ledger(following.gate), Follower(following.gate)
    feed = Feed(ledger)
    ledger.commit(9)
    async with trio.open_nursery() as nursery:
        await following.begin(nursery, feed, follower, offset)
        for _ in range(steps):
            await following.gate.step()
        # The task that was let on has not run yet when the cancellation comes.
        if following.gate.waiting:
            following.gate.waiting[0].set()
        finished = bool(following.answers)
        nursery.cancel_scope.cancel()
    seen = len(follower.offsets)
    if not finished:
        assert following.answers == []
        following.gate.open()
        await feed.follow(TENANT, EVERYTHING, Follower())
        feed.publish(ledger.commit())
        assert len(follower.offsets) == seen
        assert follower.offsets == list(range(1, seen + 1))


async def test_a_jump_in_the_offsets_sends_everyone_back_to_the_store(ledger: Ledger) -> None:
    feed, follower, filtered = Feed(ledger), Follower(), Follower()
    await feed.follow(TENANT, EVERYTHING, follower)
    await feed.follow(TENANT, NOTHING, filtered)
    feed.publish(ledger.commit(2))
    ledger.commit()  # its publishing is lost
    feed.publish(ledger.commit())
    assert follower.offsets == [1, 2]
    assert follower.interrupted_at == filtered.interrupted_at == 2
    assert not feed.watched(TENANT)
    await feed.follow(TENANT, EVERYTHING, follower, epoch="one", offset=2)
    assert follower.offsets == [1, 2, 3, 4]


async def test_an_unwatched_ring_is_kept_for_a_while(ledger: Ledger, autojump_clock: trio.testing.MockClock) -> None:
    feed, follower = Feed(ledger, linger=60), Follower()
    await feed.follow(TENANT, EVERYTHING, follower)
    await trio.sleep(100)
    feed.sweep()
    assert feed.watched(TENANT)
    feed.unfollow(TENANT, follower)
    await trio.sleep(59)
    feed.sweep()
    assert feed.watched(TENANT)
    await trio.sleep(1)
    feed.sweep()
    assert not feed.watched(TENANT)


# --- any order of everything ---------------------------------------------------------------------------------------------


class Client:
    """A follower as a session makes it: follows again from where it stands whenever it is interrupted."""

    def __init__(self, feed: Feed, ledger: Ledger, gate: Gate, topics: Topics, offset: int | None) -> None:
        self.feed, self.ledger, self.topics = feed, ledger, topics
        self.follower = Follower(gate)
        self.start = offset
        self.position = offset
        self.live = False
        self.refused: SnapshotRequired | None = None
        self.scope = trio.CancelScope()

    async def run(self) -> None:
        with self.scope:
            try:
                await self._follow()
            finally:
                self.live = False
                self.feed.unfollow(TENANT, self.follower)

    async def _follow(self) -> None:
        while True:
            epoch = None if self.position is None else "one"
            answer = await self.feed.follow(TENANT, self.topics, self.follower, epoch=epoch, offset=self.position)
            if isinstance(answer, SnapshotRequired):
                self.refused = answer
                return
            self.start = answer[1] if self.start is None else self.start
            self.live = True
            self.check(until=answer[1])
            await self.follower.wakeup.wait()
            self.follower.wakeup = trio.Event()
            self.live = False
            self.position = self.follower.interrupted_at

    def check(self, until: int | None = None) -> None:
        """Everything wanted up to `until` has come, or else up to the last that has; and nothing but that."""
        offsets = self.follower.offsets
        if until is None:
            until = offsets[-1] if offsets else 0
        assert offsets == self.ledger.wanted(self.topics, self.start or 0, until)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.integers(1, 6)),
        st.tuples(st.just("publish"), st.integers(1, 6)),
        st.tuples(st.just("lose"), st.just(0)),
        st.tuples(st.just("step"), st.integers(0, 5)),
        st.tuples(st.just("steps"), st.integers(2, 12)),
        st.tuples(st.just("follow"), st.integers(-1, 30)),
        st.tuples(st.just("leave"), st.integers(0, 5)),
        st.tuples(st.just("interrupt"), st.just(0)),
        st.tuples(st.just("sweep"), st.just(0)),
    ),
    min_size=5,
    max_size=60,
)


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(operations=operations, which=st.randoms(use_true_random=False))
async def test_any_order_of_commits_publishings_followings_and_losses(
    operations: list[tuple[str, int]], which: random.Random
) -> None:
    gate = Gate()
    gate.shut = True
    ledger = Ledger(gate)
    feed = Feed(ledger, linger=0.0)
    pending: list[StoredEvent] = []
    clients: list[Client] = []

    def publish(events: Sequence[StoredEvent]) -> None:
        if feed.watched(TENANT):  # as the journal does
            feed.publish(events)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(actors.feed, "RING_EVENTS", 4)
        patch.setattr(actors.feed, "PAGE", 3)
        async with trio.open_nursery() as nursery:
            for name, number in operations:
                match name:
                    case "commit":
                        pending += ledger.commit(number)
                    case "publish":
                        publish(pending[:number])
                        del pending[:number]
                    case "lose" if pending:
                        del pending[0]
                        feed.interrupt([TENANT])
                    case "step":
                        await gate.step(number)
                    case "steps":
                        for _ in range(number):
                            await gate.step(which.randrange(100))
                    case "follow":
                        offset = None if number < 0 else min(number, len(ledger.events))
                        topics = which.choice([EVERYTHING, ENDPOINT_1, CONVERSATION_2])
                        client = Client(feed, ledger, gate, topics, offset)
                        clients.append(client)
                        nursery.start_soon(client.run)
                        await wait_all_tasks_blocked()
                    case "leave" if clients:
                        clients[number % len(clients)].scope.cancel()
                        await wait_all_tasks_blocked()
                    case "interrupt":
                        feed.interrupt([TENANT])
                    case "sweep":
                        feed.sweep()
                for client in clients:
                    client.check()
            gate.open()
            await wait_all_tasks_blocked()
            publish(pending)
            await wait_all_tasks_blocked()
            for client in clients:
                assert client.refused is None
                if not client.scope.cancel_called:
                    assert client.live
                    client.check(until=len(ledger.events))
            nursery.cancel_scope.cancel()
    assert feed.statistics().subscribers == 0


# --- snapshot against subscribe ------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_snapshot_raced_against_subscribe_in_a_thousand_interleavings() -> None:
    """RELIABILITY 11. The snapshot names the position read before its rows; a row's version tells what is folded in."""
    for seed in range(1000):
        await _race_snapshot(random.Random(seed))


async def _race_snapshot(rng: random.Random) -> None:
    gate = Gate()
    gate.shut = True
    ledger = Ledger(gate)
    feed = Feed(ledger)
    pending = ledger.commit(rng.randrange(4))
    follower = Follower(gate)
    shown: dict[str, list[int]] = {}

    def rows() -> dict[str, list[int]]:
        folded: dict[str, list[int]] = {}
        for event in ledger.events:
            folded.setdefault(event.stream, []).append(event.version)
        return folded

    async def dashboard() -> None:
        position = await ledger.feed_head(TENANT)
        await gate.passage()
        shown.update(rows())
        await gate.passage()
        answer = await feed.follow(TENANT, EVERYTHING, follower, epoch=position.epoch, offset=position.head)
        assert not isinstance(answer, SnapshotRequired)

    async with trio.open_nursery() as nursery:
        if rng.random() < 0.5:
            gate.shut = False
            await feed.follow(TENANT, EVERYTHING, Follower())
            gate.shut = True
        nursery.start_soon(dashboard)
        await wait_all_tasks_blocked()
        for _ in range(rng.randrange(5, 40)):
            match rng.randrange(4):
                case 0:
                    pending += ledger.commit()
                case 1:
                    count = rng.randrange(len(pending) + 1)
                    if feed.watched(TENANT):
                        feed.publish(pending[:count])
                    del pending[:count]
                case _:
                    await gate.step(rng.randrange(3))
        gate.open()
        await wait_all_tasks_blocked()
        if feed.watched(TENANT):
            feed.publish(pending)
    for offset in follower.offsets:
        event = ledger.events[offset - 1]
        versions = shown.setdefault(event.stream, [])
        if not versions or event.version > versions[-1]:
            versions.append(event.version)
    assert shown == rows()
