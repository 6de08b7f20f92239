"""What an actor sees: order, lanes, batches, limits, deadlines, fairness."""

import contextvars
from collections.abc import Sequence
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from supervisor import (
    Actor,
    ActorPool,
    ActorStopped,
    DeadlineExceeded,
    Envelope,
    MailboxFull,
    MailboxLimits,
    PoolFull,
    Reply,
)
from supervisor.workers import SPARE_WORKERS


class Notebook(Actor):
    """Writes down each turn, and waits before it if there is a gate."""

    batch = 1

    def __init__(self, key: str, turns: list[list[Any]], gate: trio.Event | None = None) -> None:
        self.key = key
        self.turns = turns
        self.gate = gate

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        self.turns.append([envelope.message for envelope in envelopes])
        if self.gate is not None:
            await self.gate.wait()
        await super().turn(envelopes)

    async def receive(self, message: Any) -> Any:
        return (self.key, message)


class Batching(Notebook):
    batch = 3


async def test_ask_is_answered_with_what_receive_returns(nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda key: Notebook(key, []))
    await nursery.start(pool.run)
    assert await pool.ref("a").ask("hello") == ("a", "hello")
    assert pool.ref("a").key == "a"
    pool.stop()


async def test_tells_of_one_sender_are_handled_in_order_and_one_at_a_time(nursery: trio.Nursery) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[str]("p", lambda key: Notebook(key, turns, gate))
    await nursery.start(pool.run)
    for number in range(100):
        pool.ref("a").tell(number)
    await wait_all_tasks_blocked()
    assert turns == [[0]]
    gate.set()
    await wait_all_tasks_blocked()
    assert turns == [[number] for number in range(100)]
    pool.stop()


async def test_a_turn_takes_up_to_a_batch_by_lane_and_rank(nursery: trio.Nursery) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[str]("p", lambda key: Batching(key, turns, gate), mailbox=MailboxLimits((9, 9)))
    await nursery.start(pool.run)
    ref = pool.ref("a")
    ref.tell("first")
    await wait_all_tasks_blocked()
    for message, lane, rank in [("read", 1, 2), ("sent", 1, 0), ("x", 0, 0), ("delivered", 1, 1), ("y", 0, 0)]:
        ref.tell(message, lane=lane, rank=rank)
    gate.set()
    await wait_all_tasks_blocked()
    assert turns == [["first"], ["x", "y", "sent"], ["delivered", "read"]]
    pool.stop()


class Slow(Actor):
    """Takes the replies and answers them when told to, over several turns."""

    def __init__(self) -> None:
        self.kept: list[Reply[Any]] = []

    async def turn(self, envelopes: Sequence[Envelope]) -> None:
        for envelope in envelopes:
            if envelope.message == "now":
                for number, reply in enumerate(self.kept):
                    reply.set(number)
            elif envelope.reply is not None:
                self.kept.append(envelope.reply)


async def test_a_reply_may_be_kept_and_given_later(nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda _: Slow())
    await nursery.start(pool.run)
    ref = pool.ref("a")
    replies = [ref.ask_nowait("question") for _ in range(3)]
    await wait_all_tasks_blocked()
    assert not any(reply.settled for reply in replies)
    ref.tell("now")
    assert [await reply.wait() for reply in replies] == [0, 1, 2]
    pool.stop()


async def test_a_full_lane_refuses_and_the_control_lane_does_not(nursery: trio.Nursery) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[str]("p", lambda key: Notebook(key, turns, gate), mailbox=MailboxLimits((1, 2)))
    await nursery.start(pool.run)
    ref = pool.ref("a")
    ref.tell("in the turn", lane=1)
    await wait_all_tasks_blocked()
    ref.tell(1, lane=1)
    ref.tell(2, lane=1)
    with pytest.raises(MailboxFull) as caught:
        ref.tell(3, lane=1)
    assert (caught.value.code, caught.value.retryable) == ("mailbox_full", True)
    with pytest.raises(MailboxFull):
        await ref.ask(3, lane=1)
    ref.tell("control")
    statistics = ref.statistics()
    assert statistics is not None
    assert (statistics.busy, statistics.mailbox.depth, statistics.mailbox.refused) == (True, (1, 2), 2)
    assert (pool.statistics().depth, pool.statistics().refused) == (3, 2)
    gate.set()
    await wait_all_tasks_blocked()
    assert turns == [["in the turn"], ["control"], [1], [2]]
    pool.stop()


async def test_a_bad_place_brings_no_actor_to_life(nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda key: Notebook(key, []))
    await nursery.start(pool.run)
    with pytest.raises(ValueError, match="no such place"):
        pool.ref("a").tell("x", lane=7)
    assert pool.statistics().resident == 0
    pool.stop()


async def test_a_pool_whose_residents_are_all_busy_takes_nobody_in(nursery: trio.Nursery) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[str]("p", lambda key: Notebook(key, turns, gate), max_resident=2)
    await nursery.start(pool.run)
    pool.ref("a").tell(1)
    pool.ref("b").tell(1)
    with pytest.raises(PoolFull):
        pool.ref("c").tell(1)
    pool.ref("b").tell(2)
    gate.set()
    await wait_all_tasks_blocked()
    pool.ref("c").tell(1)
    await wait_all_tasks_blocked()
    assert turns == [[1], [1], [2], [1]]
    assert pool.statistics().resident == 2
    pool.stop()


async def test_a_pool_that_does_not_run_refuses(nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda key: Notebook(key, []))
    for _ in range(2):
        with pytest.raises(ActorStopped):
            pool.ref("a").tell("too early, or too late")
        await nursery.start(pool.run)
        with pytest.raises(RuntimeError, match="runs already"):
            await pool.run()
        await pool.ref("a").ask("in time")
        pool.stop()
        await wait_all_tasks_blocked()


async def test_past_its_deadline_a_waiting_message_is_skipped_and_a_begun_one_is_not(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[str]("p", lambda key: Notebook(key, turns, gate))
    await nursery.start(pool.run)
    ref = pool.ref("a")

    async def late(message: str) -> None:
        with pytest.raises(DeadlineExceeded):
            await ref.ask(message, timeout=2)

    async with trio.open_nursery() as askers:
        askers.start_soon(late, "begun")
        await wait_all_tasks_blocked()
        askers.start_soon(late, "skipped")
        with trio.move_on_after(1):
            await ref.ask("cancelled")
    assert trio.current_time() == pytest.approx(2, abs=0.1)
    gate.set()
    await wait_all_tasks_blocked()
    assert turns == [["begun"], ["cancelled"]]
    pool.stop()


async def test_a_reply_in_time_beats_its_deadline(autojump_clock: MockClock) -> None:
    reply: Reply[int] = Reply()
    with pytest.raises(DeadlineExceeded):
        await reply.wait(0)
    reply = Reply()
    reply.set(1)
    assert await reply.wait(0) == 1
    with pytest.raises(RuntimeError, match="once"):
        reply.set(2)


async def test_a_reply_is_awaited_by_one_task_at_a_time(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    reply: Reply[int] = Reply()
    async with trio.open_nursery() as inner:
        inner.start_soon(reply.wait)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="one task"):
            await reply.wait()
        inner.cancel_scope.cancel()
    nursery.start_soon(reply.wait)
    await wait_all_tasks_blocked()
    reply.set(3)


class Endless(Actor):
    """Keeps itself busy without ever waiting."""

    def __init__(self, pool: ActorPool[str], key: str, counts: dict[str, int]) -> None:
        self.ref = pool.ref(key)
        self.counts = counts

    async def receive(self, message: Any) -> None:
        self.counts[self.ref.key] += 1  # type: ignore[index]  # the keys are strings
        self.ref.tell(message)


async def test_endless_mailboxes_share_with_each_other_and_with_every_task(nursery: trio.Nursery) -> None:
    counts = dict.fromkeys("abc", 0)
    pool: ActorPool[str] = ActorPool("p", lambda key: Endless(pool, key, counts))
    await nursery.start(pool.run)
    for key in counts:
        pool.ref(key).tell("on and on")
    for _ in range(50):
        await trio.lowlevel.checkpoint()
    assert min(counts.values()) > 100
    assert max(counts.values()) - min(counts.values()) <= 32
    nursery.cancel_scope.cancel()


def workers(nursery: trio.Nursery) -> int:
    """How many tasks the one pool that runs in `nursery` has."""
    (pool,) = nursery.child_tasks
    return sum(len(inner.child_tasks) for inner in pool.child_nurseries)


async def test_any_number_of_turns_can_wait_and_their_workers_go_afterwards(nursery: trio.Nursery) -> None:
    turns: list[list[Any]] = []
    gate = trio.Event()
    pool = ActorPool[int]("p", lambda key: Notebook(str(key), turns, gate))
    await nursery.start(pool.run)
    for key in range(500):
        pool.ref(key).tell("x")
    await wait_all_tasks_blocked()
    assert len(turns) == 500
    assert workers(nursery) >= 500
    gate.set()
    await wait_all_tasks_blocked()
    assert pool.statistics().active == 0
    assert 0 < workers(nursery) <= SPARE_WORKERS
    pool.stop()
    await wait_all_tasks_blocked()
    assert not nursery.child_tasks


async def test_turns_that_never_wait_share_one_task(nursery: trio.Nursery) -> None:
    pool = ActorPool[int]("p", lambda key: Notebook(str(key), []))
    await nursery.start(pool.run)
    for key in range(20):
        pool.ref(key).tell("x")
    await wait_all_tasks_blocked()
    assert pool.statistics().depth == 0
    assert workers(nursery) <= 2  # the one that did it, and the one that was summoned in case it had to wait
    pool.stop()


async def test_a_cancelled_pool_ends_however_busy_its_actors_are(nursery: trio.Nursery) -> None:
    counts = dict.fromkeys("abcdefgh", 0)
    pool: ActorPool[str] = ActorPool("p", lambda key: Endless(pool, key, counts))
    async with trio.open_nursery() as inner:
        await inner.start(pool.run)
        for key in counts:
            pool.ref(key).tell("on and on")
        await trio.lowlevel.checkpoint()
        inner.cancel_scope.cancel()
    assert pool.statistics().resident == 0


variable = contextvars.ContextVar("variable", default="of the pool")


class Contextual(Actor):
    async def receive(self, message: Any) -> str:
        return variable.get()


async def test_a_turn_does_not_see_its_senders_context(nursery: trio.Nursery) -> None:
    pool = ActorPool[str]("p", lambda _: Contextual())
    await nursery.start(pool.run)
    variable.set("of the sender")
    assert await pool.ref("a").ask("whose?") == "of the pool"
    pool.stop()


async def test_a_behaviour_without_receive_says_so(nursery: trio.Nursery) -> None:
    with pytest.raises(NotImplementedError, match="Actor handles no messages"):
        await Actor().receive("x")
