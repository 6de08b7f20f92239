"""Each child failing while starting, running and stopping, under each strategy; order, grace, escalation."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor import (
    ChildExists,
    ChildOverdue,
    ChildRunning,
    ChildSpec,
    ChildStartFailed,
    Intensity,
    NotRunning,
    Restart,
    Strategy,
    Supervisor,
    SupervisorGaveUp,
    UnknownChild,
)


class Boom(Exception):
    pass


class Child:
    """A service that does as told and writes down: `+a` in service, `xa` start failed, `!a` crashed, `.a` returned,
    `?a` asked to stop, `-a` cancelled."""

    def __init__(self, name: str, log: list[str]) -> None:
        self.name = name
        self.log = log
        self.starts = 0
        self.failing_starts: set[int] = set()
        self.fails_when_stopped = False
        self.clean_up = 0.0
        self.swallows: trio.Event | None = None
        self.end = trio.Event()
        self.crashing = False

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.starts += 1
        self.end, self.crashing = trio.Event(), False
        await trio.lowlevel.checkpoint()
        if self.starts in self.failing_starts:
            self.log.append(f"x{self.name}")
            raise Boom(self.name)
        self.log.append(f"+{self.name}")
        task_status.started()
        try:
            await self.end.wait()
        except trio.Cancelled:
            with trio.CancelScope(shield=True):
                await trio.sleep(self.clean_up)
                if self.swallows is not None:
                    await self.swallows.wait()
            self.log.append(f"-{self.name}")
            if self.fails_when_stopped:
                raise Boom(self.name) from None
            raise
        self.log.append(f"{'!' if self.crashing else '.'}{self.name}")
        if self.crashing:
            raise Boom(self.name)

    def crash(self) -> None:
        self.crashing = True
        self.end.set()

    def finish(self) -> None:
        self.end.set()

    def ask_to_stop(self) -> None:
        self.log.append(f"?{self.name}")

    def spec(self, **options: object) -> ChildSpec:
        return ChildSpec(self.name, self.run, **options)  # type: ignore[arg-type]  # keyword by keyword below


class Family:
    """A supervisor of a, b and c, and the log of all that happened."""

    def __init__(self, strategy: Strategy = Strategy.ONE_FOR_ONE, intensity: Intensity = Intensity()) -> None:  # noqa: B008
        self.log: list[str] = []
        self.a, self.b, self.c = (Child(name, self.log) for name in "abc")
        self.everyone = (self.a, self.b, self.c)
        self.supervisor = Supervisor(
            "family", [child.spec() for child in self.everyone], strategy=strategy, intensity=intensity
        )

    def happened(self) -> str:
        """What happened since the last look."""
        text = " ".join(self.log)
        self.log.clear()
        return text

    def states(self) -> list[str]:
        return [node.state for node in self.supervisor.children()]


EVERY_STRATEGY = pytest.mark.parametrize("strategy", Strategy)


@EVERY_STRATEGY
async def test_starts_in_order_and_stops_in_reverse(
    strategy: Strategy, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    await nursery.start(family.supervisor.run)
    assert family.happened() == "+a +b +c"
    family.supervisor.stop()
    await wait_all_tasks_blocked()
    assert family.happened() == "-c -b -a"
    assert not nursery.child_tasks


@EVERY_STRATEGY
@pytest.mark.parametrize(("failing", "expected"), [(0, "xa"), (1, "+a xb -a"), (2, "+a +b xc -b -a")])
async def test_failing_at_first_start(
    strategy: Strategy, failing: int, expected: str, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    family.everyone[failing].failing_starts = {1}
    with pytest.raises(ChildStartFailed) as caught:
        await family.supervisor.run()
    assert caught.value.child == "abc"[failing]
    assert isinstance(caught.value.__cause__, Boom)
    assert family.happened() == expected


CRASHES = {
    Strategy.ONE_FOR_ONE: ["!a +a", "!b +b", "!c +c"],
    Strategy.REST_FOR_ONE: ["!a -c -b +a +b +c", "!b -c +b +c", "!c +c"],
    Strategy.ONE_FOR_ALL: ["!a -c -b +a +b +c", "!b -c -a +a +b +c", "!c -b -a +a +b +c"],
}


@EVERY_STRATEGY
@pytest.mark.parametrize("failing", range(3))
@pytest.mark.parametrize("siblings_fail_when_stopped", [False, True])
async def test_failing_while_running(
    strategy: Strategy, failing: int, siblings_fail_when_stopped: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    for child in family.everyone:
        child.fails_when_stopped = siblings_fail_when_stopped
    await nursery.start(family.supervisor.run)
    family.happened()
    family.everyone[failing].crash()
    await wait_all_tasks_blocked()
    assert family.happened() == CRASHES[strategy][failing]
    node = family.supervisor.children()[failing]
    assert (node.state, node.restarts, node.last_error) == ("running", 1, f"Boom: {node.name}")
    family.supervisor.stop()
    await wait_all_tasks_blocked()
    assert family.happened() == "-c -b -a"


@EVERY_STRATEGY
async def test_failing_to_start_again_is_one_more_failure(
    strategy: Strategy, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    family.b.failing_starts = {2}
    await nursery.start(family.supervisor.run)
    family.happened()
    family.b.crash()
    await wait_all_tasks_blocked()
    assert (
        family.happened()
        == {
            Strategy.ONE_FOR_ONE: "!b xb +b",
            Strategy.REST_FOR_ONE: "!b -c xb +b +c",
            Strategy.ONE_FOR_ALL: "!b -c -a +a xb -a +a +b +c",
        }[strategy]
    )
    assert family.supervisor.children()[1].restarts == 2
    family.supervisor.stop()


@EVERY_STRATEGY
async def test_a_sibling_failing_to_start_again_becomes_the_one_that_failed(
    strategy: Strategy, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    family.c.failing_starts = {2}
    await nursery.start(family.supervisor.run)
    family.happened()
    family.b.crash()
    await wait_all_tasks_blocked()
    assert (
        family.happened()
        == {
            Strategy.ONE_FOR_ONE: "!b +b",
            Strategy.REST_FOR_ONE: "!b -c +b xc +c",
            Strategy.ONE_FOR_ALL: "!b -c -a +a +b xc -b -a +a +b +c",
        }[strategy]
    )
    family.supervisor.stop()


@EVERY_STRATEGY
@pytest.mark.parametrize("failing", range(3))
async def test_failing_while_the_family_stops(
    strategy: Strategy, failing: int, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(strategy)
    family.everyone[failing].fails_when_stopped = True
    await nursery.start(family.supervisor.run)
    family.happened()
    family.supervisor.stop()
    await wait_all_tasks_blocked()
    assert family.happened() == "-c -b -a"
    assert family.supervisor.children()[failing].last_error is not None
    assert family.states() == ["stopped"] * 3


@pytest.mark.parametrize("crash", [False, True])
@pytest.mark.parametrize("restart", Restart)
async def test_who_is_restarted(
    restart: Restart, crash: bool, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    log: list[str] = []
    child = Child("a", log)
    supervisor = Supervisor("s", [child.spec(restart=restart)])
    await nursery.start(supervisor.run)
    if crash:
        child.crash()
    else:
        child.finish()
    await wait_all_tasks_blocked()
    again = restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and crash)
    assert child.starts == (2 if again else 1)
    assert len(supervisor.children()) == (0 if restart is Restart.TEMPORARY else 1)
    supervisor.stop()


async def test_temporary_siblings_are_stopped_and_forgotten(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    log: list[str] = []
    a, b = Child("a", log), Child("b", log)
    supervisor = Supervisor("s", [a.spec(), b.spec(restart=Restart.TEMPORARY)], strategy=Strategy.ONE_FOR_ALL)
    await nursery.start(supervisor.run)
    a.crash()
    await wait_all_tasks_blocked()
    assert log == ["+a", "+b", "!a", "-b", "+a"]
    assert [node.name for node in supervisor.children()] == ["a"]
    supervisor.stop()


async def test_two_at_once_under_one_for_all_restart_the_family_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(Strategy.ONE_FOR_ALL)
    await nursery.start(family.supervisor.run)
    family.happened()
    family.a.crash()
    family.b.crash()
    await wait_all_tasks_blocked()
    assert family.happened() in ("!a !b -c +a +b +c", "!b !a -c +a +b +c")
    family.supervisor.stop()


@EVERY_STRATEGY
async def test_gives_up_beyond_its_intensity(strategy: Strategy, autojump_clock: MockClock) -> None:
    family = Family(strategy, Intensity(2, 5.0))
    with pytest.raises(SupervisorGaveUp) as caught:
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(family.supervisor.run)
                for _ in range(3):
                    family.b.crash()
                    await wait_all_tasks_blocked()
        except* SupervisorGaveUp as group:
            raise group.exceptions[0] from group.exceptions[0].__cause__
    assert isinstance(caught.value.__cause__, Boom)
    assert caught.value.child == "b"
    assert family.happened().endswith("!b -c -a")


async def test_restarts_spread_over_time_are_borne_for_ever(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family(intensity=Intensity(1, 5.0))
    await nursery.start(family.supervisor.run)
    for _ in range(20):
        family.b.crash()
        await trio.sleep(5.1)
    assert family.b.starts == 21
    family.supervisor.stop()


async def test_escalation_goes_through_two_levels(autojump_clock: MockClock) -> None:
    log: list[str] = []
    leaf, aunt = Child("leaf", log), Child("aunt", log)
    lower = Supervisor("lower", [leaf.spec()], intensity=Intensity(1))
    upper = Supervisor("upper", [aunt.spec(), lower.child_spec()], intensity=Intensity(1))
    root = Supervisor("root", [upper.child_spec()], intensity=Intensity(0))
    with pytest.RaisesGroup(SupervisorGaveUp, check=lambda group: causes(group.exceptions[0]) == ["upper", "lower"]):
        async with trio.open_nursery() as nursery:
            await nursery.start(root.run)
            for _ in range(4):
                leaf.crash()
                await wait_all_tasks_blocked()
    assert log == ["+aunt", "+leaf", "!leaf", "+leaf", "!leaf", "+leaf", "!leaf", "+leaf", "!leaf", "-aunt"]


def causes(error: BaseException) -> list[str]:
    names = []
    while isinstance(cause := error.__cause__, SupervisorGaveUp):
        names.append(cause.supervisor)
        error = cause
    return names


async def test_cancelling_the_tree_takes_it_down_in_order(autojump_clock: MockClock) -> None:
    log: list[str] = []
    a, b, c, d = (Child(name, log) for name in "abcd")
    for child in (a, b, c, d):
        child.clean_up = 1.0
    inner = Supervisor("inner", [b.spec(), c.spec()])
    root = Supervisor("root", [a.spec(), inner.child_spec(), d.spec()])
    async with trio.open_nursery() as nursery:
        await nursery.start(root.run)
        began = trio.current_time()
        nursery.cancel_scope.cancel()
    assert log == ["+a", "+b", "+c", "+d", "-d", "-c", "-b", "-a"]
    assert trio.current_time() - began == pytest.approx(4.0)


async def test_a_child_that_can_be_asked_is_not_cancelled(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    log: list[str] = []
    child = Child("a", log)

    def ask() -> None:
        child.ask_to_stop()
        child.finish()

    supervisor = Supervisor("s", [child.spec(stop=ask)])
    await nursery.start(supervisor.run)
    supervisor.stop()
    await wait_all_tasks_blocked()
    assert log == ["+a", "?a", ".a"]


def failing_request() -> None:
    raise Boom


@pytest.mark.parametrize(("ask", "seconds"), [(lambda: None, 2.0), (failing_request, 0.0)])
async def test_a_child_that_does_not_heed_is_cancelled(
    ask: Callable[[], None], seconds: float, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    log: list[str] = []
    child = Child("a", log)
    supervisor = Supervisor("s", [child.spec(stop=ask, shutdown=2.0)])
    await nursery.start(supervisor.run)
    began = trio.current_time()
    await supervisor.stop_child("a")
    assert log == ["+a", "-a"]
    assert trio.current_time() - began == pytest.approx(seconds)
    supervisor.stop()


async def test_an_overdue_child_is_left_behind_but_not_orphaned(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family()
    family.c.swallows = trio.Event()
    await nursery.start(family.supervisor.run)
    family.happened()
    family.supervisor.stop()
    await trio.sleep(4.9)
    assert (family.happened(), family.states()) == ("", ["running", "running", "stopping"])
    await trio.sleep(0.2)
    assert (family.happened(), family.states()) == ("-b -a", ["stopped", "stopped", "overdue"])
    assert family.supervisor.statistics().state == "running"
    family.c.swallows.set()
    await wait_all_tasks_blocked()
    assert (family.happened(), family.supervisor.statistics().state) == ("-c", "stopped")


async def test_an_overdue_child_is_never_replaced(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family(Strategy.REST_FOR_ONE)
    family.c.swallows = release = trio.Event()
    with pytest.RaisesGroup(SupervisorGaveUp, check=lambda group: group.exceptions[0].child == "c"):
        async with trio.open_nursery() as inner:
            await inner.start(family.supervisor.run)
            family.happened()
            family.b.crash()
            await trio.sleep(60)
            assert family.happened() == "!b +b -b -a"
            release.set()
    assert family.happened() == "-c"


async def test_stop_child_tells_when_it_does_not_end(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()
    family.b.swallows = trio.Event()
    await nursery.start(family.supervisor.run)
    with pytest.raises(ChildOverdue):
        await family.supervisor.stop_child("b")
    with pytest.raises(ChildRunning):
        await family.supervisor.restart_child("b")
    family.b.swallows.set()
    await wait_all_tasks_blocked()
    family.b.swallows = None
    await family.supervisor.restart_child("b")
    assert family.states() == ["running"] * 3
    family.supervisor.stop()


async def test_cancelling_a_start_that_hangs(autojump_clock: MockClock) -> None:
    log: list[str] = []
    a = Child("a", log)

    async def never(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.sleep_forever()

    with trio.move_on_after(1) as scope:
        await Supervisor("s", [a.spec(), ChildSpec("never", never)]).run()
    assert scope.cancelled_caught
    assert log == ["+a", "-a"]


async def test_a_child_that_reports_success_while_it_is_cancelled_can_still_be_cancelled(
    autojump_clock: MockClock,
) -> None:
    async def late(*, task_status: trio.TaskStatus[None]) -> None:
        try:
            await trio.sleep_forever()
        finally:
            task_status.started()
            await trio.sleep(1000)

    with trio.move_on_after(1) as scope:
        await Supervisor("s", [ChildSpec("late", late)]).run()
    assert scope.cancelled_caught
    assert trio.current_time() < 1000


async def test_returning_without_reporting_success_is_a_failed_start(autojump_clock: MockClock) -> None:
    async def brief(*, task_status: trio.TaskStatus[None]) -> None:
        await trio.lowlevel.checkpoint()

    with pytest.raises(ChildStartFailed):
        await Supervisor("s", [ChildSpec("brief", brief)]).run()


async def test_crashing_at_the_moment_of_success(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    starts = 0

    async def hasty(*, task_status: trio.TaskStatus[None]) -> None:
        nonlocal starts
        starts += 1
        task_status.started()
        if starts == 1:
            raise Boom
        await trio.sleep_forever()

    supervisor = Supervisor("s", [ChildSpec("hasty", hasty)])
    await nursery.start(supervisor.run)
    await wait_all_tasks_blocked()
    assert starts == 2
    supervisor.stop()


async def test_keyboard_interrupt_in_a_child_is_no_failure_to_be_mended(autojump_clock: MockClock) -> None:
    family = Family()

    async def interrupted(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        raise KeyboardInterrupt

    supervisor = Supervisor("s", [family.a.spec(), ChildSpec("interrupted", interrupted)])
    with pytest.RaisesGroup(KeyboardInterrupt):
        await supervisor.run()
    assert family.happened() == "+a -a"


async def test_children_come_and_go(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()
    supervisor = family.supervisor
    await nursery.start(supervisor.run)
    d = Child("d", family.log)
    await supervisor.start_child(d.spec())
    with pytest.raises(ChildExists):
        await supervisor.start_child(d.spec())
    with pytest.raises(ChildRunning):
        await supervisor.restart_child("d")
    with pytest.raises(ChildRunning):
        await supervisor.delete_child("d")
    await supervisor.stop_child("b")
    assert family.states() == ["running", "stopped", "running", "running"]
    await supervisor.restart_child("b")
    await supervisor.stop_child("b")
    await supervisor.delete_child("b")
    for operation in (supervisor.stop_child, supervisor.restart_child, supervisor.delete_child):
        with pytest.raises(UnknownChild):
            await operation("b")
    assert family.happened() == "+a +b +c +d -b +b -b"
    supervisor.stop()
    await wait_all_tasks_blocked()
    assert family.happened() == "-d -c -a"
    with pytest.raises(NotRunning):
        await supervisor.start_child(family.b.spec())


async def test_a_dynamic_child_that_fails_to_start_is_not_kept(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(intensity=Intensity(0))
    await nursery.start(family.supervisor.run)
    d = Child("d", family.log)
    d.failing_starts = {1}
    with pytest.raises(ChildStartFailed):
        await family.supervisor.start_child(d.spec())
    assert family.states() == ["running"] * 3
    await family.supervisor.start_child(d.spec())
    assert family.happened() == "+a +b +c xd +d"
    family.supervisor.stop()


async def test_a_stopped_child_stays_stopped_when_its_siblings_are_restarted(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    family = Family(Strategy.ONE_FOR_ALL)
    family.a.failing_starts = {2}
    await nursery.start(family.supervisor.run)
    await family.supervisor.stop_child("b")
    family.happened()
    family.c.crash()
    await wait_all_tasks_blocked()
    assert family.happened() == "!c -a xa +a +c"
    assert family.states() == ["running", "stopped", "running"]
    family.supervisor.stop()


async def test_a_crash_that_a_stop_request_overtakes_restarts_nobody(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for _ in range(20):  # trio runs the crash and the request in random order
        family = Family()
        await nursery.start(family.supervisor.run)
        family.b.crash()
        await family.supervisor.stop_child("b")
        await wait_all_tasks_blocked()
        assert family.states() == ["running", "stopped", "running"]
        assert (family.b.starts, family.supervisor.children()[1].restarts) == (1, 0)
        family.supervisor.stop()


async def test_a_temporary_child_that_is_stopped_is_forgotten(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()
    await nursery.start(family.supervisor.run)
    await family.supervisor.start_child(Child("d", family.log).spec(restart=Restart.TEMPORARY))
    await family.supervisor.stop_child("d")
    assert len(family.supervisor.children()) == 3
    family.supervisor.stop()


async def test_a_child_may_have_itself_stopped(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()

    async def tired(*, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await family.supervisor.stop_child("tired")

    await nursery.start(family.supervisor.run)
    await family.supervisor.start_child(ChildSpec("tired", tired))
    await wait_all_tasks_blocked()
    assert family.supervisor.children()[-1].state == "stopped"
    family.supervisor.stop()


async def test_requests_that_the_end_overtakes_are_refused(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()
    family.a.clean_up = 1.0
    await nursery.start(family.supervisor.run)
    refused: list[str] = []

    async def request(name: str) -> None:
        try:
            await family.supervisor.stop_child(name)
        except NotRunning:
            refused.append(name)

    async with trio.open_nursery() as requests:
        requests.start_soon(request, "a")
        await wait_all_tasks_blocked()
        requests.start_soon(request, "b")
        await wait_all_tasks_blocked()
        family.supervisor.stop()
    assert sorted(refused) == ["a", "b"]


async def test_runs_again_with_the_children_it_was_made_with(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    family = Family()
    for _ in range(2):
        await nursery.start(family.supervisor.run)
        with pytest.raises(RuntimeError, match="runs already"):
            await family.supervisor.run()
        await family.supervisor.start_child(Child("d", family.log).spec())
        family.supervisor.stop()
        await wait_all_tasks_blocked()
    assert family.happened() == "+a +b +c +d -d -c -b -a +a +b +c +d -d -c -b -a"


async def test_the_live_tree_is_json(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    log: list[str] = []
    a, b = Child("a", log), Child("b", log)
    root = Supervisor("root", [Supervisor("inner", [a.spec()]).child_spec(), b.spec()])
    await nursery.start(root.run)
    a.crash()
    await wait_all_tasks_blocked()
    tree = json.loads(json.dumps(dataclasses.asdict(root.statistics())))
    inner = tree["children"][0]
    assert (tree["kind"], inner["kind"], tree["children"][1]["kind"]) == ("supervisor", "supervisor", "task")
    assert (inner["children"][0]["restarts"], inner["children"][0]["last_error"]) == (1, "Boom: a")
    assert inner["started_at"] > 0
    root.stop()


@pytest.mark.parametrize("options", [{"name": ""}, {"shutdown": 0}, {"shutdown": math.nan}])
def test_a_senseless_spec_is_refused(options: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="a child needs"):
        ChildSpec(**({"name": "a", "start": Child("a", []).run} | options))  # type: ignore[arg-type]


def test_two_children_of_one_name_are_refused() -> None:
    specs: Sequence[ChildSpec] = [Child("a", []).spec(), Child("a", []).spec()]
    with pytest.raises(ValueError, match="one name"):
        Supervisor("s", specs)


async def test_no_failure_is_silent(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture, autojump_clock: MockClock
) -> None:
    family = Family()
    await nursery.start(family.supervisor.run)
    family.b.crash()
    await wait_all_tasks_blocked()
    (record,) = caplog.records
    assert (record.message, record.__dict__["child"]) == ("a child failed", "b")
    assert record.exc_info is not None
    family.supervisor.stop()
