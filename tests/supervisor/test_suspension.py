"""Turns that wait for a reply without holding a worker; and deadlines kept for many replies by one task."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor import (
    Actor,
    ActorPool,
    ActorStopped,
    DeadlineExceeded,
    Deadlines,
    Envelope,
    GoOn,
    Poisoned,
    Reply,
    Suspension,
    Undelivered,
)


class Bank:
    """Where suspended turns wait: settled by the test."""

    def __init__(self) -> None:
        self.waiting: list[Suspension[str]] = []
        self.turns: list[list[Any]] = []
        self.resumed: list[list[Any]] = []
        self.script: list[str] = []

    def suspend(self) -> Suspension[str]:
        self.waiting.append(Suspension())
        return self.waiting[-1]

    def settle(self, value: str = "ok") -> None:
        self.waiting.pop(0).set(value)


class Depositor(Actor):
    """Suspends every turn; `script` says what `resumed` does each time (nothing left: it answers)."""

    batch = 4

    def __init__(self, bank: Bank) -> None:
        self.bank = bank

    async def turn(self, envelopes: Sequence[Envelope]) -> Suspension[str] | None:
        self.bank.turns.append([envelope.message for envelope in envelopes])
        return self.bank.suspend()

    def resumed(self, envelopes: Sequence[Envelope], reply: Suspension[str]) -> Suspension[str] | GoOn | None:
        self.bank.resumed.append([envelope.message for envelope in envelopes])
        match self.bank.script.pop(0) if self.bank.script else "answer":
            case "again":
                return self.bank.suspend()
            case "go on":

                async def go_on() -> Suspension[str] | None:
                    await trio.lowlevel.checkpoint()
                    return self.bank.suspend()

                return go_on
            case "crash":
                raise ZeroDivisionError("resumed")
        for envelope in envelopes:
            envelope.answer((envelope.message, reply.result()))
        return None


@pytest.fixture
def bank() -> Bank:
    return Bank()


@pytest.fixture
async def pool(bank: Bank, nursery: trio.Nursery) -> ActorPool[str]:
    made = ActorPool[str]("p", lambda _: Depositor(bank), idle_timeout=60.0)
    await nursery.start(made.run)
    return made


async def test_a_suspended_turn_holds_no_task_and_is_finished_by_whoever_settles_it(
    bank: Bank, pool: ActorPool[str]
) -> None:
    before = trio.lowlevel.current_statistics().tasks_living
    replies = [pool.ref(str(n)).ask_nowait("hello") for n in range(100)]
    await wait_all_tasks_blocked()
    assert len(bank.waiting) == 100
    assert trio.lowlevel.current_statistics().tasks_living <= before + 5  # a few workers at most, not one a turn
    assert pool.statistics().active == 100
    bank.settle()
    assert replies[0].result() == ("hello", "ok")  # no trip round the scheduler
    assert pool.statistics().active == 99
    pool.stop()
    while bank.waiting:
        bank.settle()


async def test_there_is_no_other_turn_meanwhile(bank: Bank, pool: ActorPool[str]) -> None:
    pool.ref("a").tell(1)
    await wait_all_tasks_blocked()
    for message in range(2, 8):
        pool.ref("a").tell(message)
    await wait_all_tasks_blocked()
    assert bank.turns == [[1]]
    bank.settle()
    await wait_all_tasks_blocked()
    assert bank.turns == [[1], [2, 3, 4, 5]]
    bank.settle()
    await wait_all_tasks_blocked()
    assert bank.turns[-1] == [6, 7]
    bank.settle()
    assert pool.statistics().active == 0
    pool.stop()


async def test_it_may_wait_again_and_go_on_in_a_worker(bank: Bank, pool: ActorPool[str]) -> None:
    bank.script = ["again", "go on", "answer"]
    reply = pool.ref("a").ask_nowait("x")
    for _ in range(3):
        await wait_all_tasks_blocked()
        bank.settle()
    assert reply.result() == ("x", "ok")
    assert bank.turns == [["x"]]
    assert bank.resumed == [["x"]] * 3
    pool.stop()


async def test_what_is_settled_before_the_turn_returns_is_resumed_by_its_worker(nursery: trio.Nursery) -> None:
    class Hasty(Depositor):
        async def turn(self, envelopes: Sequence[Envelope]) -> Suspension[str] | None:
            waiting = self.bank.suspend()
            self.bank.settle("at once")
            return waiting

    pool = ActorPool[str]("p", lambda _: Hasty(Bank()))
    await nursery.start(pool.run)
    assert await pool.ref("a").ask("x") == ("x", "at once")
    assert [await pool.ref("a").ask(n) for n in range(40)] == [(n, "at once") for n in range(40)]
    assert pool.statistics().active == 0
    pool.stop()


async def test_a_crash_in_resumed_is_a_crash_of_the_turn(bank: Bank, pool: ActorPool[str]) -> None:
    bank.script = ["crash"] * 3
    poisoned = pool.ref("a").ask_nowait("bad")
    fine = pool.ref("b").ask_nowait("good")
    await wait_all_tasks_blocked()
    bank.settle()  # "bad" crashes whoever settles? No: the bank hears nothing of it.
    for _ in range(2):
        await wait_all_tasks_blocked()
        bank.waiting.pop().set("ok")
        await wait_all_tasks_blocked()
    with pytest.raises(Poisoned):
        await poisoned.wait()
    assert pool.statistics().crashes == 3
    bank.settle()
    assert fine.result() == ("good", "ok")
    pool.stop()


async def test_a_kill_returns_the_messages_and_ignores_the_reply(bank: Bank, pool: ActorPool[str]) -> None:
    first, second = pool.ref("a").ask_nowait(1), None
    await wait_all_tasks_blocked()
    second = pool.ref("a").ask_nowait(2)
    pool.ref("a").kill()
    await wait_all_tasks_blocked()
    for reply, unknown in ((first, True), (second, False)):
        with pytest.raises(Undelivered) as returned:
            reply.result()
        assert returned.value.outcome_unknown is unknown
    third = pool.ref("a").ask_nowait(3)
    await wait_all_tasks_blocked()
    bank.settle("too late")
    assert not third.settled
    bank.settle("in time")
    assert third.result() == (3, "in time")
    pool.stop()


async def test_a_stop_waits_for_it(bank: Bank, nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda _: Depositor(bank))
    await nursery.start(pool.run)
    reply = pool.ref("a").ask_nowait(1)
    await wait_all_tasks_blocked()
    pool.stop()
    await wait_all_tasks_blocked()
    assert pool.statistics().resident == 1
    bank.settle()
    await wait_all_tasks_blocked()
    assert reply.result() == (1, "ok")
    assert pool.statistics().resident == 0


async def test_a_pool_that_is_cancelled_returns_it(bank: Bank) -> None:
    pool = ActorPool[str]("p", lambda _: Depositor(bank))
    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        reply = pool.ref("a").ask_nowait(1)
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    with pytest.raises(Undelivered):
        reply.result()
    bank.settle()  # nobody is there; nothing happens


class AtClosing(trio.abc.Instrument):
    """Does something once, between the moment a nursery closes and the next step of its owner."""

    def __init__(self, nursery: trio.Nursery, act: Callable[[], None]) -> None:
        self.done = False
        self.error: BaseException | None = None
        self._nursery = nursery
        self._act = act

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._nursery._closed and not self.done:
            self.done = True
            try:
                self._act()
            except BaseException as error:  # what pytest raises is no Exception
                self.error = error


async def test_settling_after_the_nursery_has_closed_does_no_harm(bank: Bank) -> None:
    """Between a pool's last task and its last line others run: whoever settles just then must not hear of it."""
    pool = ActorPool[str]("p", lambda _: Depositor(bank))
    bank.script = ["go on"]  # it would need a worker

    def settle_and_post() -> None:
        assert pool.statistics().resident == 1, "the pool has not come to forget its actors"
        bank.settle()
        with pytest.raises(ActorStopped):
            pool.ref("a").tell(2)

    async with trio.open_nursery() as nursery:
        await nursery.start(pool.run)
        first = pool.ref("a").ask_nowait(1)
        await wait_all_tasks_blocked()
        assert pool._nursery is not None
        closing = AtClosing(pool._nursery, settle_and_post)
        trio.lowlevel.add_instrument(closing)
        nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(closing)
    assert closing.done
    if closing.error is not None:
        raise closing.error
    with pytest.raises(Undelivered):
        first.result()


async def test_a_kill_does_not_wait_for_the_reply_of_a_turn_that_outlived_it(nursery: trio.Nursery) -> None:
    class Stubborn(Depositor):
        async def turn(self, envelopes: Sequence[Envelope]) -> Suspension[str]:
            with trio.CancelScope(shield=True):
                await going.wait()
            return self.bank.suspend()

    going = trio.Event()
    pool = ActorPool[str]("p", lambda _: Stubborn(bank))
    bank = Bank()
    await nursery.start(pool.run)
    reply = pool.ref("a").ask_nowait(1)
    await wait_all_tasks_blocked()
    pool.ref("a").kill()
    going.set()
    with trio.fail_after(1):
        await pool.wait_gone("a")
    with pytest.raises(Undelivered) as returned:
        reply.result()
    assert returned.value.outcome_unknown
    bank.settle("too late")
    pool.stop()


async def test_an_idle_actor_is_not_passivated_while_it_is_suspended(
    bank: Bank, pool: ActorPool[str], autojump_clock: MockClock
) -> None:
    reply = pool.ref("a").ask_nowait(1)
    await trio.sleep(200)
    assert pool.statistics().resident == 1
    bank.settle()
    assert reply.result() == (1, "ok")
    await trio.sleep(61)
    assert pool.statistics().resident == 0
    pool.stop()


# --- deadlines


async def test_one_task_keeps_many_deadlines(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    deadlines = Deadlines(2.0, tick=0.1)
    await nursery.start(deadlines.run)
    replies = [Reply[int]() for _ in range(100)]
    outcomes: list[str] = []

    async def wait(reply: Reply[int]) -> None:
        try:
            outcomes.append(str(await reply.wait()))
        except DeadlineExceeded:
            outcomes.append("late")

    began = trio.current_time()
    async with trio.open_nursery() as waiters:
        for reply in replies:
            deadlines.watch(reply)
            waiters.start_soon(wait, reply)
        await trio.sleep(1)
        for number, reply in enumerate(replies[:40]):
            reply.set(number)
    assert 2.0 <= trio.current_time() - began <= 2.2
    assert sorted(outcomes) == sorted([str(n) for n in range(40)] + ["late"] * 60)
    replies[-1].set(1)  # the answer that comes too late is nobody's, and no error
    with pytest.raises(DeadlineExceeded):
        expired = Reply[int]()
        expired.expire()
        await expired.wait()
    nursery.cancel_scope.cancel()
