"""How actors come and go: passivation and its races, stop, kill, shutdown, names."""

import math
import random
from collections import defaultdict
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor import (
    Actor,
    ActorPool,
    ActorStopped,
    Envelope,
    NameTaken,
    Registry,
    StopReason,
    Supervisor,
    Undelivered,
    actor_child,
)


class Resident(Actor):
    """Writes down its life; each part of it can be held by a gate."""

    gates: dict[str, trio.Event] = {}  # noqa: RUF012 - set anew by each test

    def __init__(self, key: str, log: list[str]) -> None:
        self.key = key
        self.log = log

    async def pass_gate(self, name: str) -> None:
        if name in self.gates:
            await self.gates[name].wait()

    async def started(self) -> None:
        self.log.append(f"+{self.key}")
        await self.pass_gate("started")

    async def receive(self, message: Any) -> Any:
        self.log.append(f"{self.key}:{message}")
        await self.pass_gate("receive")
        return message

    async def stopped(self, reason: StopReason) -> None:
        self.log.append(f"-{self.key} {reason.name}")
        await self.pass_gate("stopped")


class House:
    """A pool of residents, what they did, and what came back."""

    def __init__(self, *, max_resident: int = 100, idle_timeout: float = math.inf, **gates: trio.Event) -> None:
        Resident.gates = gates
        self.log: list[str] = []
        self.returned: list[tuple[str, Any, bool]] = []
        self.pool = ActorPool[str](
            "house",
            lambda key: Resident(key, self.log),
            max_resident=max_resident,
            idle_timeout=idle_timeout,
            on_undelivered=self.on_undelivered,
        )

    def on_undelivered(self, key: str, envelope: Envelope) -> None:
        self.returned.append((key, envelope.message, envelope.begun))

    def happened(self) -> str:
        text = ", ".join(self.log)
        self.log.clear()
        return text


async def test_idle_actors_are_passivated_in_time_by_one_task(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    house = House(idle_timeout=10)
    await nursery.start(house.pool.run)
    await trio.sleep(3)
    house.pool.ref("a").tell(1)
    await trio.sleep(4)
    house.pool.ref("b").tell(1)
    await trio.sleep(4)
    house.pool.ref("a").tell(2)
    await trio.sleep(5.9)
    assert house.happened() == "+a, a:1, +b, b:1, a:2"
    await trio.sleep(0.2)
    assert house.happened() == "-b PASSIVATED"
    await trio.sleep(3.8)
    assert house.happened() == ""
    await trio.sleep(0.2)
    assert house.happened() == "-a PASSIVATED"
    house.pool.ref("a").tell(3)
    await trio.sleep(1)
    assert house.happened() == "+a, a:3"
    assert house.pool.statistics().passivations == 2
    house.pool.stop()


async def test_a_busy_actor_is_not_idle_however_long_its_turn(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    gate = trio.Event()
    house = House(idle_timeout=10, receive=gate)
    await nursery.start(house.pool.run)
    house.pool.ref("a").tell(1)
    await trio.sleep(100)
    gate.set()
    await trio.sleep(9)
    assert house.happened() == "+a, a:1"
    await trio.sleep(2)
    assert house.happened() == "-a PASSIVATED"
    house.pool.stop()


async def test_the_one_idle_longest_makes_room(nursery: trio.Nursery) -> None:
    house = House(max_resident=2)
    await nursery.start(house.pool.run)
    for key in ("a", "b", "a", "c"):
        house.pool.ref(key).tell("x")
        await wait_all_tasks_blocked()
    assert house.happened() == "+a, a:x, +b, b:x, a:x, -b PASSIVATED, +c, c:x"
    assert house.pool.statistics().resident == 2
    house.pool.stop()


async def test_residents_who_take_long_to_go_do_not_pile_up(nursery: trio.Nursery) -> None:
    gate = trio.Event()
    house = House(max_resident=3, stopped=gate)
    await nursery.start(house.pool.run)
    refused = 0
    for number in range(50):
        try:
            house.pool.ref(str(number)).tell("x")
        except ActorStopped:
            raise
        except Exception as error:
            assert type(error).__name__ == "PoolFull"
            refused += 1
        await wait_all_tasks_blocked()
    assert house.pool.statistics().resident <= 6
    assert refused > 40
    gate.set()
    house.pool.stop()


async def test_a_message_during_passivation_waits_for_a_new_behaviour(nursery: trio.Nursery) -> None:
    gate = trio.Event()
    house = House(max_resident=1, stopped=gate)
    await nursery.start(house.pool.run)
    await house.pool.ref("a").ask(1)
    await house.pool.ref("b").ask(1)
    reply = house.pool.ref("a").ask_nowait(2)
    await wait_all_tasks_blocked()
    assert house.happened() == "+a, a:1, -a PASSIVATED, +b, b:1"
    gate.set()
    assert await reply.wait() == 2
    assert house.happened() == "+a, a:2"
    house.pool.stop()


async def test_a_message_before_passivation_has_begun_keeps_the_behaviour(nursery: trio.Nursery) -> None:
    house = House(max_resident=1)
    await nursery.start(house.pool.run)
    await house.pool.ref("a").ask(1)
    house.pool.ref("b").tell(1)  # orders a's passivation
    house.pool.ref("a").tell(2)
    await wait_all_tasks_blocked()
    assert house.happened() == "+a, a:1, a:2, +b, b:1"
    house.pool.stop()


class Tenant(Actor):
    """Notices if there are two of it at once. Every step takes a random time."""

    def __init__(self, key: int, world: "World") -> None:
        self.key = key
        self.world = world

    async def step(self) -> None:
        assert self.key not in self.world.inside
        self.world.inside.add(self.key)
        try:
            await trio.sleep(self.world.chance.choice([0, 0, 0.5, 1, 3]))
        finally:
            self.world.inside.discard(self.key)

    async def started(self) -> None:
        await self.step()

    async def receive(self, message: int) -> None:
        await self.step()
        self.world.handled[self.key].append(message)

    async def stopped(self, reason: StopReason) -> None:
        await self.step()


class World:
    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.inside: set[int] = set()
        self.handled: dict[int, list[int]] = defaultdict(list)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
async def test_no_race_of_passivation_loses_doubles_or_reorders(
    seed: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    world = World(seed)
    pool = ActorPool[int]("p", lambda key: Tenant(key, world), max_resident=8, idle_timeout=2)
    await nursery.start(pool.run)
    sent: dict[int, list[int]] = defaultdict(list)
    for number in range(1500):
        key = world.chance.randrange(12)
        try:
            pool.ref(key).tell(number)
        except Exception as error:
            assert type(error).__name__ == "PoolFull"
        else:
            sent[key].append(number)
        await trio.sleep(world.chance.choice([0, 0.1, 0.5, 2, 5]))
    await trio.sleep(10_000)
    assert world.handled == sent
    statistics = pool.statistics()
    assert (statistics.resident, statistics.crashes, statistics.undelivered) == (0, 0, 0)
    assert statistics.passivations > 100
    pool.stop()


async def test_stop_finishes_the_turn_and_returns_the_rest(nursery: trio.Nursery) -> None:
    gate = trio.Event()
    house = House(receive=gate)
    await nursery.start(house.pool.run)
    ref = house.pool.ref("a")
    turn = ref.ask_nowait(1)
    await wait_all_tasks_blocked()
    waiting = ref.ask_nowait(2)
    ref.tell(3)
    ref.stop()
    with pytest.raises(ActorStopped):
        ref.tell(4)
    gate.set()
    await ref.wait_stopped()
    assert await turn.wait() == 1
    with pytest.raises(Undelivered) as caught:
        await waiting.wait()
    assert (caught.value.message, caught.value.outcome_unknown) == (2, False)
    assert house.returned == [("a", 3, False)]
    assert house.happened() == "+a, a:1, -a STOPPED"
    assert await ref.ask(5) == 5
    assert house.happened() == "+a, a:5"
    house.pool.stop()


async def test_kill_cuts_the_turn_off_and_returns_everything(nursery: trio.Nursery) -> None:
    house = House(receive=trio.Event())
    await nursery.start(house.pool.run)
    ref = house.pool.ref("a")
    turn = ref.ask_nowait(1)
    await wait_all_tasks_blocked()
    ref.tell(2)
    ref.kill()
    await ref.wait_stopped()
    with pytest.raises(Undelivered) as caught:
        await turn.wait()
    assert (caught.value.message, caught.value.outcome_unknown) == (1, True)
    assert house.returned == [("a", 2, False)]
    assert house.happened() == "+a, a:1"
    assert house.pool.statistics().crashes == 0
    Resident.gates = {}
    assert await ref.ask(3) == 3
    house.pool.stop()


@pytest.mark.parametrize("where", ["started", "stopped"])
async def test_kill_also_ends_what_hangs_in(where: str, nursery: trio.Nursery) -> None:
    house = House(**{where: trio.Event()})
    await nursery.start(house.pool.run)
    ref = house.pool.ref("a")
    ref.tell(1)
    await wait_all_tasks_blocked()
    ref.stop()
    await wait_all_tasks_blocked()
    assert ref.statistics() is not None
    ref.kill()
    await ref.wait_stopped()
    assert house.returned == ([("a", 1, False)] if where == "started" else [])
    house.pool.stop()


class Suicidal(Actor):
    """Kills itself and then ends its turn without waiting, so that the kill comes too late for it."""

    def __init__(self, pool: ActorPool[str]) -> None:
        self.pool = pool

    async def receive(self, message: Any) -> Any:
        if message == "die":
            self.pool.ref("a").kill()
            self.pool.ref("b").tell("next on this worker")
        else:
            await trio.lowlevel.checkpoint()
        return message


async def test_a_kill_hits_nobody_else_who_shares_the_worker(nursery: trio.Nursery) -> None:
    returned: list[Any] = []
    pool: ActorPool[str] = ActorPool(
        "p", lambda _: Suicidal(pool), on_undelivered=lambda _, envelope: returned.append(envelope.message)
    )
    await nursery.start(pool.run)
    assert await pool.ref("a").ask("die") == "die"
    await wait_all_tasks_blocked()
    assert pool.ref("a").statistics() is None
    assert await pool.ref("b").ask("alive") == "alive"
    assert returned == []
    pool.stop()


@pytest.mark.parametrize("order", ["stop", "kill"])
async def test_orders_to_idle_and_absent_actors(order: str, nursery: trio.Nursery) -> None:
    house = House()
    await nursery.start(house.pool.run)
    ref = house.pool.ref("a")
    getattr(ref, order)()
    await ref.wait_stopped()
    await ref.ask(1)
    getattr(ref, order)()
    getattr(ref, order)()
    await ref.wait_stopped()
    assert house.happened() == "+a, a:1" + (", -a STOPPED" if order == "stop" else "")
    house.pool.stop()


async def test_shutdown_lets_turns_finish_says_farewell_and_returns_what_waits(nursery: trio.Nursery) -> None:
    gate = trio.Event()
    house = House(receive=gate)
    await nursery.start(house.pool.run)
    reply = house.pool.ref("a").ask_nowait(1)
    await wait_all_tasks_blocked()
    house.pool.ref("a").tell(2)
    house.pool.stop()
    for key in ("a", "new"):
        with pytest.raises(ActorStopped):
            house.pool.ref(key).tell(3)
    await wait_all_tasks_blocked()
    assert house.pool.inspect().state == "stopping"
    gate.set()
    await wait_all_tasks_blocked()
    assert await reply.wait() == 1
    assert house.returned == [("a", 2, False)]
    assert house.happened() == "+a, a:1, -a SHUTDOWN"
    assert not nursery.child_tasks
    assert house.pool.inspect().state == "stopped"


async def test_shutdown_is_as_gentle_after_the_pool_was_empty_for_a_while(nursery: trio.Nursery) -> None:
    house = House(receive=trio.Event())
    await nursery.start(house.pool.run)
    house.pool.ref("a").kill()
    house.pool.ref("a").tell(0)
    house.pool.ref("a").kill()
    await house.pool.ref("a").wait_stopped()
    reply = house.pool.ref("b").ask_nowait(1)
    await wait_all_tasks_blocked()
    house.pool.stop()
    await wait_all_tasks_blocked()
    Resident.gates["receive"].set()
    assert await reply.wait() == 1


async def test_cancelling_a_pool_kills_and_returns(nursery: trio.Nursery) -> None:
    house = House(receive=trio.Event())
    async with trio.open_nursery() as inner:
        await inner.start(house.pool.run)
        reply = house.pool.ref("a").ask_nowait(1)
        await wait_all_tasks_blocked()
        house.pool.ref("a").tell(2)
        house.pool.ref("b").tell(3)
        inner.cancel_scope.cancel()
    with pytest.raises(Undelivered) as caught:
        await reply.wait()
    assert caught.value.outcome_unknown
    assert house.returned == [("a", 2, False), ("b", 3, False)]
    assert house.pool.statistics().resident == 0


async def test_a_supervisor_kills_a_pool_that_outlives_its_grace(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    house = House(receive=trio.Event())
    supervisor = Supervisor("s", [house.pool.child_spec(shutdown=2)])
    await nursery.start(supervisor.run)
    house.pool.ref("a").tell(1)
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await supervisor.stop_child("house")
    assert trio.current_time() - began == pytest.approx(2)
    assert house.returned == [("a", 1, True)]
    supervisor.stop()


async def test_a_hook_that_fails_does_not_keep_the_others_messages(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    house = House(receive=trio.Event())
    seen: list[Any] = []

    def hook(key: str, envelope: Envelope) -> None:
        seen.append(envelope.message)
        raise OSError

    pool = ActorPool[str]("p", lambda key: Resident(key, house.log), on_undelivered=hook)
    await nursery.start(pool.run)
    for number in range(3):
        pool.ref("a").tell(number)
    await wait_all_tasks_blocked()
    pool.ref("a").kill()
    await wait_all_tasks_blocked()
    assert seen == [0, 1, 2]
    assert [record.message for record in caplog.records] == ["on_undelivered failed"] * 3
    pool.stop()


async def test_eager_actors_are_there_from_the_start(nursery: trio.Nursery) -> None:
    log: list[str] = []
    Resident.gates = {}
    spec, ref = actor_child("journal", lambda: Resident("j", log))
    supervisor = Supervisor("s", [spec])
    await nursery.start(supervisor.run)
    assert log == ["+j"]
    assert await ref.ask(1) == 1
    (node,) = supervisor.children()
    assert (node.name, node.kind) == ("journal", "actor")
    supervisor.stop()
    await wait_all_tasks_blocked()
    assert log == ["+j", "j:1", "-j SHUTDOWN"]


@pytest.mark.parametrize("options", [{"max_resident": 0}, {"idle_timeout": 0}, {"idle_timeout": math.nan}])
def test_a_senseless_pool_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a pool needs"):
        House(**options)


async def test_registry(nursery: trio.Nursery) -> None:
    house = House()
    registry = Registry()
    a, b = house.pool.ref("a"), house.pool.ref("b")
    found: list[Any] = []

    async def wait() -> None:
        found.append(await registry.wait_registered("journal"))

    nursery.start_soon(wait)
    nursery.start_soon(wait)
    await wait_all_tasks_blocked()
    assert registry.whereis("journal") is None
    registry.register("journal", a)
    await wait_all_tasks_blocked()
    assert found == [a, a]
    with pytest.raises(NameTaken):
        registry.register("journal", b)
    registry.register("feed", b)
    assert registry.names() == ("journal", "feed")
    registry.unregister("journal")
    registry.register("journal", b)
    assert await registry.wait_registered("journal") is b
    with pytest.raises(KeyError):
        registry.unregister("sender")
