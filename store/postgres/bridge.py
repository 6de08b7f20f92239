"""The bridge from trio to asyncio, where asyncpg lives. The only module that knows both.

Everything asyncpg runs as a coroutine handed to `Bridge.run`, one crossing per operation. Nothing else leaks: no loop, no future, no callback
into trio. So a thread with an asyncio loop of its own could take this place without another file changing. Must not know SQL or asyncpg.

Theory of operation. An asyncio loop need not run all the time: it can be stepped. `stop()` before `run_forever()` makes it poll its selector
once without waiting, run what is ready, and return (documented for `loop.stop`). So a coroutine is started by stepping the loop at once, in
the caller's own task, up to where it waits for the server; and a trio task that waits for the loop's selector, itself a file descriptor,
steps it again when an answer has come. Between the steps nothing of asyncio exists. Timers are looked at every TICK, which is exact enough for
the time-outs they are.

Rejected: trio-asyncio, which drives the loop by trio tasks and channels. It does more than is needed here (each can call the other), and
costs 159 µs of CPU for `select 1` and 396 µs for a commit where this takes a fraction of it (`docs/design.md` has the figures). A thread: its
answers would wait for the interpreter's lock, up to 5 ms, while trio is busy.
"""

import asyncio
import selectors
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import trio

P = ParamSpec("P")
T = TypeVar("T")

TICK = 0.05
"""Seconds between two looks at the loop's timers: connection and statement time-outs, all of half a second and more."""


class _SteppedLoop(asyncio.SelectorEventLoop):
    """An asyncio loop that runs when it is stepped."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        super().__init__(selector)
        self._more = False

    def call_soon(self, callback: Any, *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]  # its args are typed one by one
        """As asyncio's; and remember that there is something to run."""
        self._more = True
        return super().call_soon(callback, *args, context=context)

    def step(self) -> None:
        """Take in what the selector has, and run all that is ready, until nothing is."""
        self._more = True
        while self._more:
            self._more = False
            self.stop()
            self.run_forever()


class Bridge:
    """Runs coroutine functions of asyncio for tasks of trio."""

    def __init__(self, loop: _SteppedLoop) -> None:
        self._loop = loop
        self._token = trio.lowlevel.current_trio_token()

    async def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(*args, **kwargs)` on the asyncio side; return its result or raise what it raised.

        Cancelling the caller cancels the coroutine and waits for it to unwind, so what it holds is released when this returns.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        task = self._loop.create_task(function(*args, **kwargs))
        self._loop.step()
        if task.done():
            await trio.lowlevel.cancel_shielded_checkpoint()
        else:
            await self._wait(task)
        return task.result()

    async def _wait(self, task: "asyncio.Task[T]") -> None:
        caller = trio.lowlevel.current_task()
        raise_cancel: Callable[[], Any] | None = None

        def abort(raise_it: Callable[[], Any]) -> trio.lowlevel.Abort:
            nonlocal raise_cancel
            raise_cancel = raise_it
            task.cancel()
            self._token.run_sync_soon(self._loop.step)
            return trio.lowlevel.Abort.FAILED  # the coroutine has to unwind first

        task.add_done_callback(lambda _: trio.lowlevel.reschedule(caller))
        await trio.lowlevel.wait_task_rescheduled(abort)
        if raise_cancel is not None and task.cancelled():
            raise_cancel()


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Have an asyncio loop beside the running trio loop, in the same thread, for as long as the block lasts."""
    selector = selectors.DefaultSelector()
    loop = _SteppedLoop(selector)
    # Whoever is cancelled in the block, or with it, may still have to wait for the loop: to unwind, to close connections.
    attending = trio.CancelScope(shield=True)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_attend, loop, selector, attending)
            try:
                yield Bridge(loop)
            finally:
                attending.cancel()
    finally:
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.step()
        loop.close()


async def _attend(loop: _SteppedLoop, selector: selectors.BaseSelector, attending: trio.CancelScope) -> None:
    """Step the loop whenever something has come for it, and at every tick, until `attending` is cancelled."""
    with attending:
        while True:
            with trio.move_on_after(TICK):
                # Of every selector that asyncio uses by default where Parley runs (epoll, kqueue) there is a descriptor, readable when it has events.
                await trio.lowlevel.wait_readable(selector.fileno())  # type: ignore[attr-defined]
            loop.step()
