"""A message on its way: the envelope it travels in, and the slot its answer comes back in."""

import enum
import math
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import trio

from supervisor.errors import DeadlineExceeded

T = TypeVar("T")


class _Slot(enum.Enum):
    """What a reply holds."""

    NOTHING = enum.auto()
    VALUE = enum.auto()
    ERROR = enum.auto()


class Reply(Generic[T]):
    """The slot for one answer, filled once and awaited by at most one task.

    Costs three references until somebody really waits: there is no event and no lock in it.
    """

    __slots__ = ("_content", "_slot", "_waiter", "expired")

    def __init__(self) -> None:
        self._slot = _Slot.NOTHING
        self._content: Any = None
        self._waiter: trio.lowlevel.Task | None = None
        self.expired = False
        """The asker stopped waiting because of its deadline: nobody will look at the answer."""

    @property
    def settled(self) -> bool:
        """Whether there is an answer, good or bad."""
        return self._slot is not _Slot.NOTHING

    def set(self, value: T) -> None:
        """Answer with `value`. Raises RuntimeError on a second answer."""
        self._settle(_Slot.VALUE, value)

    def fail(self, error: Exception) -> None:
        """Answer by making `wait` raise `error`. Raises RuntimeError on a second answer."""
        self._settle(_Slot.ERROR, error)

    def _settle(self, slot: _Slot, content: Any) -> None:
        if self._slot is not _Slot.NOTHING:
            raise RuntimeError("a reply is given once")
        self._slot = slot
        self._content = content
        if self._waiter is not None:
            trio.lowlevel.reschedule(self._waiter)
            self._waiter = None

    def result(self) -> T:
        """Return the answer, or raise what `fail` was called with. Raises RuntimeError while there is none."""
        if self._slot is _Slot.NOTHING:
            raise RuntimeError("there is no answer yet")
        if self._slot is _Slot.ERROR:
            raise self._content
        value: T = self._content
        return value

    def expire(self) -> None:
        """Let whoever waits have `DeadlineExceeded` instead of an answer; nothing happens where there is one already."""
        if self._slot is _Slot.NOTHING:
            self.expired = True
            if self._waiter is not None:
                trio.lowlevel.reschedule(self._waiter)
                self._waiter = None

    async def wait(self, timeout: float = math.inf) -> T:  # noqa: ASYNC109 - the deadline is part of the protocol
        """Wait at most `timeout` seconds for the answer.

        Raises:
            DeadlineExceeded: it did not come in time. A message whose turn has not come by then is skipped.
            Exception: whatever `fail` was called with.

        Cancelling the wait does not take the message back: only a deadline tells that nobody wants it any more.
        """
        if self.settled:
            await trio.lowlevel.checkpoint()
        elif timeout == math.inf:
            if not self.expired:
                await self._park()
        else:
            with trio.move_on_after(timeout):
                await self._park()
            if not self.settled:
                self.expired = True
        if self.expired and not self.settled:
            raise DeadlineExceeded("no answer in time")
        return self.result()

    async def _park(self) -> None:
        if self._waiter is not None:
            raise RuntimeError("a reply is awaited by one task")
        self._waiter = trio.lowlevel.current_task()

        def abort(_: object) -> trio.lowlevel.Abort:
            self._waiter = None
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abort)


class Suspension(Reply[T]):
    """A reply that an actor waits for without holding a worker: return it from `Actor.turn`.

    As soon as it is settled, `Actor.resumed` goes on with the turn, in the task of whoever settled it. Parking and waking a worker costs more
    than a whole turn; this costs a call.
    """

    __slots__ = ("_then",)

    def __init__(self) -> None:
        super().__init__()
        self._then: Callable[[], None] | None = None

    def when_settled(self, then: Callable[[], None]) -> None:
        """Call `then` once there is an answer; now, if there is one. It must not raise."""
        if self.settled:
            then()
        else:
            self._then = then

    def _settle(self, slot: _Slot, content: Any) -> None:
        super()._settle(slot, content)
        then, self._then = self._then, None
        if then is not None:
            then()


class Deadlines:
    """One common deadline for many replies, kept by one task: a timer for each would cost more than the answer.

    A reply expires between `seconds` and `seconds` + 2 * `tick` after it is given here.
    """

    def __init__(self, seconds: float, *, tick: float = 0.1) -> None:
        self.seconds = seconds
        self._tick = tick
        self._now = -math.inf  # of the last tick: asking the clock for each reply would cost more than the rest
        self._waiting: deque[tuple[float, Reply[Any]]] = deque()

    def watch(self, reply: Reply[Any]) -> None:
        """Expire `reply` when its time is over and it has no answer."""
        self._waiting.append((self._now + self._tick + self.seconds, reply))

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep time until cancelled. Costs nothing for a reply that was answered but its place in a queue."""
        waiting = self._waiting
        self._now = trio.current_time()
        task_status.started()
        while True:
            await trio.sleep(self._tick)
            self._now = now = trio.current_time()
            while waiting and (waiting[0][0] <= now or waiting[0][1].settled):
                waiting.popleft()[1].expire()


class Envelope:
    """A message in a mailbox or in a turn, with what the runtime has to remember about it."""

    __slots__ = ("attempts", "begun", "error", "lane", "message", "rank", "reply", "settled")

    def __init__(self, message: Any, lane: int = 0, rank: int = 0, reply: Reply[Any] | None = None) -> None:
        self.message = message
        self.lane = lane
        self.rank = rank
        self.reply = reply
        self.attempts = 0
        """How many turns it crashed that held nothing else."""
        self.error: Exception | None = None
        """What the last of these crashes was."""
        self.begun = False
        """It came back from a turn that did not end well: parts of its work may have been done."""
        self.settled = False
        """The turn has answered it; a crash later in the same turn does not bring it back."""

    @property
    def through(self) -> bool:
        """Whether it needs no further turn: it was settled, or its reply was given directly."""
        return self.settled or (self.reply is not None and self.reply.settled)

    def answer(self, value: Any = None) -> None:
        """Settle the message: it is done with, and whoever asked gets `value`."""
        self.settled = True
        if self.reply is not None:
            self.reply.set(value)

    def fail(self, error: Exception) -> None:
        """Settle the message: it is done with, and for whoever asked `error` is raised."""
        self.settled = True
        if self.reply is not None:
            self.reply.fail(error)
