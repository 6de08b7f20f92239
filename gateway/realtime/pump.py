"""The pump: one task that writes to every client that has something, on a common beat.

Owns when clients are written to. Must not know what is written, to whom, or how.

Theory of operation. An event for 500 dashboards is 500 writes, and a write costs ten times what queueing the event does; waking a task for each
would cost as much again. So a queue that gets something is marked here, and the pump empties the marked queues itself, without waiting,
in one loop; only what a client's kernel buffer does not take is left to that client's own task.

Then it rests, for so long that writing takes about a tenth of the time, and what comes meanwhile joins the next write. When little happens
the rest is nothing and an event is written at once; with 100 busy clients it is 8 ms, with 500 or more the longest, 40 ms: nobody sees that,
and the gateway writes 25 times a second instead of as often as events come.
"""

from typing import Protocol

import msgspec
import trio

REST_PER_WRITE = 80e-6
"""Seconds: ten times what a write costs."""
LONGEST_REST = 0.04
WRITES_AT_ONCE = 256
"""After so many writes, some 2 ms, everybody else has a turn."""


class Pumped(Protocol):
    """A queue that the pump can empty."""

    def flush(self) -> bool:
        """Write what is queued, without waiting. False: something is left to the task of the queue. Must not raise."""


class PumpStatistics(msgspec.Struct, frozen=True):
    """Queues that were emptied since the start, one write each; and how many of these writes left something to the client's own task."""

    writes: int
    left: int


class Pump:
    """One for all queues of a node. While it does not run, nothing that is marked is written."""

    def __init__(self) -> None:
        self._marked: list[Pumped] = []
        self._parked: trio.lowlevel.Task | None = None
        self._writes = 0
        self._left = 0

    def mark(self, queue: Pumped) -> None:
        """Have `queue` emptied at the next beat. To be called once until then."""
        self._marked.append(queue)
        if self._parked is not None:
            trio.lowlevel.reschedule(self._parked)
            self._parked = None

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Pump until cancelled."""
        task_status.started()
        while True:
            if not self._marked:
                self._parked = trio.lowlevel.current_task()
                await trio.lowlevel.wait_task_rescheduled(self._abort)
            marked, self._marked = self._marked, []
            for start in range(0, len(marked), WRITES_AT_ONCE):
                for queue in marked[start : start + WRITES_AT_ONCE]:
                    self._writes += 1
                    self._left += not queue.flush()
                await trio.lowlevel.checkpoint()
            await trio.sleep(min(len(marked) * REST_PER_WRITE, LONGEST_REST))

    def statistics(self) -> PumpStatistics:
        """Return the counts."""
        return PumpStatistics(self._writes, self._left)

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._parked = None
        return trio.lowlevel.Abort.SUCCEEDED
