"""What a crash does to the messages, to the behaviour, to the pool."""

import random
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor import (
    Actor,
    ActorPool,
    ActorStopped,
    Envelope,
    Intensity,
    Poisoned,
    Strategy,
    Supervisor,
    SupervisorGaveUp,
    Undelivered,
    actor_child,
)


class Boom(Exception):
    pass


class Fragile(Actor):
    """Crashes on a message as often as `crashes` says; writes down what it does."""

    batch = 4

    def __init__(self, log: list[Any], crashes: dict[Any, int]) -> None:
        self.log = log
        self.crashes = crashes

    async def started(self) -> None:
        self.log.append("started")

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        self.log.append([envelope.message for envelope in envelopes])
        await super().turn(envelopes)

    async def receive(self, message: Any) -> str:
        await trio.lowlevel.checkpoint()
        if self.crashes.get(message, 0) > 0:
            self.crashes[message] -= 1
            raise Boom(message)
        return f"did {message}"


class Careless(Fragile):
    """Settles nothing before the whole turn is done."""

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        self.log.append([envelope.message for envelope in envelopes])
        answers = [await self.receive(envelope.message) for envelope in envelopes]
        for envelope, answer in zip(envelopes, answers, strict=True):
            envelope.answer(answer)


async def test_a_crashed_turn_is_taken_up_again_with_care(nursery: trio.Nursery) -> None:
    log: list[Any] = []
    crashes = {"b": 1}
    pool = ActorPool[str]("p", lambda _: Careless(log, crashes))
    await nursery.start(pool.run)
    replies = [pool.ref("k").ask_nowait(message) for message in "abcdef"]
    assert [await reply.wait() for reply in replies] == [f"did {message}" for message in "abcdef"]
    assert log == ["started", list("abcd"), "started", ["a"], ["b"], ["c"], ["d"], ["e", "f"]]
    assert pool.statistics().crashes == 1
    pool.stop()


async def test_what_a_crashed_turn_had_answered_is_not_repeated(nursery: trio.Nursery) -> None:
    log: list[Any] = []
    crashes = {"c": 1}
    pool = ActorPool[str]("p", lambda _: Fragile(log, crashes))
    await nursery.start(pool.run)
    replies = [pool.ref("k").ask_nowait(message) for message in "abcd"]
    assert [await reply.wait() for reply in replies] == [f"did {message}" for message in "abcd"]
    assert log == ["started", list("abcd"), "started", ["c"], ["d"]]
    pool.stop()


async def test_a_message_that_comes_during_the_crash_waits_behind(nursery: trio.Nursery) -> None:
    log: list[Any] = []
    crashes = {"a": 2}
    gate = trio.Event()

    class Gated(Fragile):
        async def receive(self, message: Any) -> str:
            await gate.wait()
            return await super().receive(message)

    pool = ActorPool[str]("p", lambda _: Gated(log, crashes))
    await nursery.start(pool.run)
    ref = pool.ref("k")
    ref.tell("a")
    await wait_all_tasks_blocked()
    ref.tell("b")
    ref.tell("c")
    gate.set()
    await wait_all_tasks_blocked()
    assert log == ["started", ["a"], "started", ["a"], "started", ["a"], ["b", "c"]]
    pool.stop()


async def test_poison_is_handed_over_and_the_actor_goes_on(nursery: trio.Nursery) -> None:
    log: list[Any] = []
    quarantine: list[tuple[str, Any, int, str]] = []

    async def on_poison(key: str, envelope: Envelope, error: Exception) -> str:
        await trio.lowlevel.checkpoint()
        quarantine.append((key, envelope.message, envelope.attempts, repr(error)))
        return "quarantined"

    crashes = {"bad": 99}
    pool = ActorPool[str]("p", lambda _: Careless(log, crashes), on_poison=on_poison)
    await nursery.start(pool.run)
    replies = [pool.ref("k").ask_nowait(message) for message in ("a", "bad", "c")]
    assert [await reply.wait() for reply in replies] == ["did a", "quarantined", "did c"]
    assert quarantine == [("k", "bad", 3, "Boom('bad')")]
    assert log == [
        *("started", ["a", "bad", "c"], "started", ["a"], ["bad"], "started", ["bad"], "started", ["bad"]),
        *("started", ["c"]),
    ]
    assert (pool.statistics().crashes, pool.statistics().poisoned) == (4, 1)
    pool.stop()


async def test_poison_without_a_place_for_it_is_returned(nursery: trio.Nursery) -> None:
    returned: list[Any] = []
    crashes = {"asked": 99, "told": 99}
    pool = ActorPool[str](
        "p",
        lambda _: Fragile([], crashes),
        on_undelivered=lambda key, envelope: returned.append((key, envelope.message)),
    )
    await nursery.start(pool.run)
    pool.ref("k").tell("told")
    with pytest.raises(Poisoned) as caught:
        await pool.ref("k").ask("asked")
    assert isinstance(caught.value.__cause__, Boom)
    assert returned == [("k", "told")]
    pool.stop()


async def test_a_quarantine_that_fails_is_tried_again_and_nothing_overtakes(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    tries: list[float] = []

    async def on_poison(key: str, envelope: Envelope, error: Exception) -> str:
        tries.append(trio.current_time())
        if len(tries) < 3:
            raise OSError("no database")
        return "quarantined at last"

    crashes = {"bad": 4}  # one with its neighbour, three alone
    pool = ActorPool[str]("p", lambda _: Fragile(log, crashes), on_poison=on_poison)
    await nursery.start(pool.run)
    bad, good = (pool.ref("k").ask_nowait(message) for message in ("bad", "good"))
    assert await good.wait() == "did good"
    assert bad.settled
    assert await bad.wait() == "quarantined at last"
    assert [at - tries[0] for at in tries] == pytest.approx([0, 0.05, 0.15])
    pool.stop()


async def test_a_quarantine_that_keeps_failing_returns_everything(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    async def on_poison(key: str, envelope: Envelope, error: Exception) -> None:
        raise OSError("no database")

    crashes = {"bad": 4}  # one with its neighbour, three alone
    pool = ActorPool[str]("p", lambda _: Fragile([], crashes), on_poison=on_poison)
    await nursery.start(pool.run)
    bad, good = (pool.ref("k").ask_nowait(message) for message in ("bad", "good"))
    for reply, unknown in [(bad, True), (good, True)]:
        with pytest.raises(Undelivered) as caught:
            await reply.wait()
        assert isinstance(caught.value.__cause__, OSError)
        assert caught.value.outcome_unknown is unknown
    assert pool.statistics().resident == 0
    assert await pool.ref("k").ask("good") == "did good"
    pool.stop()


class Starting(Actor):
    """Fails to start as often as `failures` says."""

    failures = 0
    starts: list[float] = []  # noqa: RUF012 - set anew by each test

    async def started(self) -> None:
        self.starts.append(trio.current_time())
        if Starting.failures:
            Starting.failures -= 1
            raise Boom("cannot load")

    async def receive(self, message: Any) -> Any:
        return message


@pytest.mark.parametrize("broken", ["started", "factory"])
async def test_failing_to_start_is_tried_again_with_pauses_and_blames_no_message(
    broken: str, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    Starting.failures, Starting.starts = 2, []

    def factory(_: str) -> Actor:
        if broken == "factory" and Starting.failures:
            Starting.failures -= 1
            raise Boom("cannot make")
        return Starting()

    pool = ActorPool[str]("p", factory)
    await nursery.start(pool.run)
    began = trio.current_time()
    assert await pool.ref("k").ask("x") == "x"
    assert trio.current_time() - began == pytest.approx(0.15)
    assert pool.statistics().crashes == 2
    pool.stop()


async def test_an_actor_that_cannot_start_is_given_up_with_its_messages(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    Starting.failures, Starting.starts = 3, []
    pool = ActorPool[str]("p", lambda _: Starting())
    await nursery.start(pool.run)
    replies = [pool.ref("k").ask_nowait(number) for number in range(3)]
    for reply in replies:
        with pytest.raises(Undelivered) as caught:
            await reply.wait()
        assert isinstance(caught.value.__cause__, Boom)
        assert not caught.value.outcome_unknown
    assert pool.statistics().resident == 0
    assert await pool.ref("k").ask("again") == "again"
    pool.stop()


async def test_a_farewell_that_fails_loses_nothing(nursery: trio.Nursery) -> None:
    class Sore(Starting):
        async def stopped(self, reason: object) -> None:
            raise Boom("no farewell")

    Starting.failures = 0
    pool = ActorPool[str]("p", lambda _: Sore(), max_resident=1)
    await nursery.start(pool.run)
    for key in "abc":
        assert await pool.ref(key).ask(key) == key
        await wait_all_tasks_blocked()
    assert pool.statistics().crashes == 2
    pool.stop()
    await wait_all_tasks_blocked()
    assert pool.statistics().resident == 0


async def run_until_it_gives_up(pool: ActorPool[str], act: Callable[[], Awaitable[None]]) -> SupervisorGaveUp:
    with pytest.RaisesGroup(SupervisorGaveUp) as caught:
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await act()
    error = caught.value.exceptions[0]
    assert isinstance(error, SupervisorGaveUp)
    return error


async def test_too_many_crashes_are_too_many(autojump_clock: MockClock) -> None:
    crashes = {"bad": 99}
    started = trio.Event()

    class Waiting(Fragile):
        async def receive(self, message: Any) -> str:
            if message == "wait":
                started.set()
                await trio.sleep_forever()
            return await super().receive(message)

    pool = ActorPool[str]("p", lambda _: Waiting([], crashes), intensity=Intensity(2, 5.0))
    replies = {}

    async def act() -> None:
        replies["sibling"] = pool.ref("sibling").ask_nowait("wait")
        await started.wait()
        replies["behind"] = pool.ref("sibling").ask_nowait("x")
        replies["bad"] = pool.ref("k").ask_nowait("bad")

    error = await run_until_it_gives_up(pool, act)
    assert (error.supervisor, error.child) == ("p", "'k'")
    assert isinstance(error.__cause__, Boom)
    unknown = {}
    for name, reply in replies.items():
        with pytest.raises(Undelivered) as caught:
            await reply.wait()
        unknown[name] = caught.value.outcome_unknown
    assert unknown == {"sibling": True, "behind": False, "bad": True}
    with pytest.raises(ActorStopped):
        pool.ref("k").tell("x")
    assert (pool.statistics().resident, pool.statistics().depth) == (0, 0)


async def test_nobody_has_a_turn_after_the_pool_gave_up(autojump_clock: MockClock) -> None:
    handled: list[Any] = []
    returned: list[Any] = []

    class Hasty(Actor):
        async def receive(self, message: Any) -> None:
            if message == "bad":
                raise Boom
            handled.append(message)

    pool = ActorPool[str](
        "p",
        lambda _: Hasty(),
        intensity=Intensity(0),
        on_undelivered=lambda _, envelope: returned.append(envelope.message),
    )

    async def act() -> None:
        pool.ref("k").tell("bad")
        for key in "abc":
            pool.ref(key).tell(key)
        await trio.sleep_forever()

    await run_until_it_gives_up(pool, act)
    assert (handled, sorted(returned)) == ([], ["a", "b", "bad", "c"])


async def test_a_supervisor_restarts_a_pool_that_gave_up(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    crashes = {"bad": 1}
    pool = ActorPool[str]("p", lambda _: Fragile([], crashes), intensity=Intensity(0))
    supervisor = Supervisor("s", [pool.child_spec()])
    await nursery.start(supervisor.run)
    with pytest.raises(Undelivered):
        await pool.ref("k").ask("bad")
    await wait_all_tasks_blocked()
    assert await pool.ref("k").ask("bad") == "did bad"
    (node,) = supervisor.children()
    assert (node.kind, node.state, node.restarts) == ("pool", "running", 1)
    assert node.last_error is not None
    assert node.last_error.startswith("SupervisorGaveUp: p gave up on 'k': more than 0 crashes in 5 s")
    supervisor.stop()


async def test_a_single_actor_that_bears_no_crash_takes_its_siblings_with_it(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    log: list[Any] = []
    crashes = {"bad": 1}
    first, ref = actor_child("first", lambda: Fragile(log, crashes), intensity=Intensity(0))
    second, _ = actor_child("second", lambda: Fragile(log, {}))
    supervisor = Supervisor("s", [first, second], strategy=Strategy.REST_FOR_ONE)
    await nursery.start(supervisor.run)
    assert log == ["started", "started"]
    ref.tell("bad")
    await wait_all_tasks_blocked()
    assert log == ["started", "started", ["bad"], "started", "started"]
    assert await ref.ask("good") == "did good"
    supervisor.stop()


async def test_a_single_actor_that_cannot_start_fails_its_supervisor() -> None:
    Starting.failures, Starting.starts = 1, []
    spec, _ = actor_child("single", Starting)
    with pytest.raises(Exception, match="single failed to start") as caught:
        await Supervisor("s", [spec]).run()
    assert isinstance(caught.value.__cause__, Boom)


class Account(Actor):
    """Keeps its state in a log outside; crashes at random before or after writing."""

    def __init__(self, key: int, journal: dict[int, list[int]], chance: random.Random, crashes: list[int]) -> None:
        self.key = key
        self.journal = journal
        self.chance = chance
        self.crashes = crashes
        self.seen: list[int] = []

    async def started(self) -> None:
        self.seen = list(self.journal[self.key])

    def maybe_crash(self) -> None:
        if self.crashes[0] > 0 and self.chance.random() < 0.3:
            self.crashes[0] -= 1
            raise Boom

    async def receive(self, message: int) -> int:
        self.maybe_crash()
        if message not in self.seen:
            self.journal[self.key].append(message)
            if self.chance.random() < 0.5:
                await trio.lowlevel.checkpoint()
            self.maybe_crash()
            self.seen.append(message)
        return len(self.seen)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
async def test_after_a_thousand_random_crashes_state_equals_replay(
    seed: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    chance = random.Random(seed)
    journal: dict[int, list[int]] = defaultdict(list)
    crashes = [1000]
    behaviours: dict[int, Account] = {}

    def factory(key: int) -> Account:
        behaviours[key] = Account(key, journal, chance, crashes)
        return behaviours[key]

    pool = ActorPool[int]("p", factory, intensity=Intensity(10_000), max_attempts=1000)
    await nursery.start(pool.run)
    sent: dict[int, list[int]] = defaultdict(list)
    for number in range(4000):
        key = chance.randrange(20)
        pool.ref(key).tell(number)
        sent[key].append(number)
        if chance.random() < 0.1:
            await wait_all_tasks_blocked()
    await wait_all_tasks_blocked()
    assert crashes == [0]
    assert pool.statistics().crashes == 1000
    assert journal == sent
    assert {key: behaviour.seen for key, behaviour in behaviours.items()} == sent
    pool.stop()
