"""The one buffer between whoever has something to say to a client and the one task that writes to it.

Owns the bound: bytes that wait, counted until they are written. Must not know what the items are, which transport
carries them or how a client is closed.

Theory of operation
-------------------
1. `push` is synchronous and never waits, so that a broadcast to a thousand clients is a loop that no slow one can hold
   up. A client for which there is no room is not sent a shorter story: `push` says False and the caller closes it
   (`CloseCode.SLOW_CONSUMER`); it comes back and resumes from its offset.
2. `drain` waits for something to write and takes *everything*, which the transport joins into one write. Under load a
   write therefore carries more, instead of there being more writes.
3. What was taken still counts until `drain` is called again: a batch that sits in a blocked `send_all` is memory too.
   So an outbox never holds more than `max_bytes`, in flight or not.
4. With a pump, the waiting task is not woken for what can be written without it: the pump calls `flush`, which gives everything to `direct`
   and wakes the task only for what that leaves.
5. One task drains at a time. Whoever produces at the client's pace (a catch-up read after a resume) waits in
   `wait_below` before it reads on.
"""

from collections.abc import Callable, Sized
from typing import Generic, TypeVar

import msgspec
import trio

from gateway.http import SocketClosed
from gateway.realtime.pump import Pump

DEFAULT_MAX_BYTES = 1 << 20  # the bound of the reliability scorecard: 1 MiB for each client that does not read

T = TypeVar("T", bound=Sized)


class OutboxStatistics(msgspec.Struct, frozen=True):
    """What an outbox holds and has carried. `queued_bytes` includes `in_flight_bytes`."""

    queued_items: int
    queued_bytes: int
    in_flight_bytes: int
    pushed_items: int
    pushed_bytes: int
    batches: int
    max_bytes: int
    closed: bool


class Outbox(Generic[T]):
    """A bounded buffer with one reader that takes all there is. `len()` of an item is its weight in bytes."""

    __slots__ = (
        "_batches",
        "_closed",
        "_direct",
        "_in_flight",
        "_items",
        "_marked",
        "_max_bytes",
        "_pump",
        "_pushed_bytes",
        "_pushed_items",
        "_queued",
        "_reader",
        "_room",
    )

    def __init__(self, max_bytes: int = DEFAULT_MAX_BYTES, pump: Pump | None = None) -> None:
        self._max_bytes = max_bytes
        self._pump = pump
        self._marked = False
        self._direct: Callable[[list[T]], list[T]] | None = None
        self._items: list[T] = []
        self._queued = 0
        self._in_flight = 0
        self._closed = False
        self._reader: trio.lowlevel.Task | None = None
        self._room: trio.Event | None = None
        self._pushed_items = 0
        self._pushed_bytes = 0
        self._batches = 0

    def push(self, item: T) -> bool:
        """Add `item`. Returns False, and keeps nothing, when it would exceed the bound or the outbox is closed."""
        size = len(item)
        if self._closed or self.held_bytes + size > self._max_bytes:
            return False
        self._items.append(item)
        self._queued += size
        self._pushed_items += 1
        self._pushed_bytes += size
        if self._direct is None or self._pump is None:
            self._wake_reader()
        elif self._reader is not None and not self._marked:
            self._marked = True
            self._pump.mark(self)
        return True

    def write_through(self, direct: Callable[[list[T]], list[T]] | None) -> None:
        """From now on let the pump write with `direct`: it writes without waiting, and returns what is left for the task that drains.

        None: that task writes everything. Raises nothing; whatever `direct` raises makes the task find out by itself.
        """
        self._direct = direct

    def flush(self) -> bool:
        """Write what is queued if the draining task waits for it; called by the pump. False: that task has to write something."""
        self._marked = False
        if self._reader is None or not self._items:
            return not self._items  # the task is busy, and comes for the rest
        if self._direct is not None:
            items = self._take()
            try:
                left = self._direct(items)
            except SocketClosed:
                left = items
            if not left:
                self._written()
                return True
            self._items = left
            self._queued = sum(map(len, left))
            # What the lane keeps of a write that it could not finish weighs nothing in `left`, and is memory all the same.
            self._in_flight -= self._queued
        self._wake_reader()
        return False

    async def drain(self) -> list[T]:
        """Wait until there is something and take all of it, in order. Returns [] once closed and empty.

        Calling it says that what it returned last time is written, or lost with its transport. Cancellation takes
        nothing.

        Raises:
            trio.BusyResourceError: another task is waiting here.
        """
        self._written()
        if self._items or self._closed:
            await trio.lowlevel.checkpoint()
        while not (self._items or self._closed):
            # Somebody else may have come and taken all, or be waiting, since this task was woken.
            await trio.lowlevel.checkpoint_if_cancelled()
            if self._reader is not None:
                raise trio.BusyResourceError("another task drains this outbox")
            self._reader = trio.lowlevel.current_task()
            await trio.lowlevel.wait_task_rescheduled(self._abort_wait)
        return self._take()

    def drain_nowait(self) -> list[T]:
        """Take all there is at once, perhaps nothing; otherwise as `drain`."""
        if self._reader is not None:
            raise trio.BusyResourceError("another task drains this outbox")
        self._written()
        return self._take()

    async def wait_below(self, mark: int) -> None:
        """Wait until fewer than `mark` bytes are held, in flight included, or the outbox is closed."""
        while self.held_bytes >= mark and not self._closed:
            if self._room is None:
                self._room = trio.Event()
            await self._room.wait()
        await trio.lowlevel.checkpoint_if_cancelled()

    def close(self, *, discard: bool = False) -> None:
        """Take no more. The reader still gets what is queued, unless `discard`, and then []. May be called again."""
        self._closed = True
        if discard:
            self._items.clear()
            self._queued = 0
        self._wake_reader()
        self._tell_room()

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be taken. What is in flight does not count."""
        return not self._items

    @property
    def held_bytes(self) -> int:
        """What counts against the bound: bytes that wait or are being written."""
        return self._queued + self._in_flight

    def statistics(self) -> OutboxStatistics:
        """Return what is held now and what has passed."""
        return OutboxStatistics(
            queued_items=len(self._items),
            queued_bytes=self.held_bytes,
            in_flight_bytes=self._in_flight,
            pushed_items=self._pushed_items,
            pushed_bytes=self._pushed_bytes,
            batches=self._batches,
            max_bytes=self._max_bytes,
            closed=self._closed,
        )

    def _written(self) -> None:
        self._in_flight = 0
        self._tell_room()

    def _take(self) -> list[T]:
        items, self._items = self._items, []
        self._in_flight += self._queued
        self._queued = 0
        self._batches += bool(items)
        return items

    def _abort_wait(self, _: object) -> trio.lowlevel.Abort:
        self._reader = None
        return trio.lowlevel.Abort.SUCCEEDED

    def _wake_reader(self) -> None:
        if self._reader is not None:
            trio.lowlevel.reschedule(self._reader)
            self._reader = None

    def _tell_room(self) -> None:
        if self._room is not None:
            self._room.set()
            self._room = None
