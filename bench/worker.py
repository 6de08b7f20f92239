"""A part of the bench as a process of its own, so that what it costs is not charged to what is measured.

Owns the conversation with it: a plan as one line on its standard input and further lines as orders, progress as lines on its standard error, one
JSON result on its standard output. Must not know what the process does.
"""

import subprocess
import sys
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import msgspec
import trio

T = TypeVar("T")

TAIL = 30
"""Lines kept for the explanation when a worker fails: a traceback's length."""


class WorkerFailed(Exception):
    """A worker ended without a result. The text has the end of what it said."""


class Worker:
    """A running worker."""

    def __init__(self, name: str, process: trio.Process) -> None:
        if process.stdin is None or process.stdout is None or process.stderr is None:
            raise ValueError("a worker needs its three pipes")
        self._name = name
        self._process = process
        self._orders, self._results, self._progress = process.stdin, process.stdout, process.stderr
        self._said: deque[str] = deque(maxlen=TAIL)
        self._output = bytearray()
        self._ended = trio.Event()

    async def tell(self, line: bytes) -> None:
        """Send an order. Raises WorkerFailed when nobody takes it any more."""
        try:
            await self._orders.send_all(line + b"\n")
        except trio.BrokenResourceError:
            await self._ended.wait()
            raise self._failure() from None

    async def result(self, form: type[T]) -> T:
        """Wait for the end and return the result. Raises WorkerFailed."""
        await self._ended.wait()
        if await self._process.wait():
            raise self._failure()
        return msgspec.json.decode(bytes(self._output), type=form)

    async def wait_until(self, event: trio.Event) -> None:
        """Wait for something the worker is about to say. Raises WorkerFailed if it ends without."""
        async with trio.open_nursery() as nursery:

            async def leave_when(reached: trio.Event) -> None:
                await reached.wait()
                nursery.cancel_scope.cancel()

            nursery.start_soon(leave_when, event)
            nursery.start_soon(leave_when, self._ended)
        if not event.is_set():
            raise self._failure()

    async def run(self, on_line: Callable[[str], Awaitable[None]]) -> None:
        """Take what it says until it has nothing more to say."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._listen, on_line)
            nursery.start_soon(self._collect)
        self._ended.set()

    async def aclose(self) -> None:
        """End it, if it has not ended."""
        with trio.CancelScope(shield=True):
            if self._process.poll() is None:
                self._process.kill()
            await self._process.wait()
            for pipe in (self._orders, self._results, self._progress):
                await pipe.aclose()

    def _failure(self) -> WorkerFailed:
        return WorkerFailed(f"{self._name} failed:\n" + "\n".join(self._said))

    async def _listen(self, on_line: Callable[[str], Awaitable[None]]) -> None:
        rest = b""
        async for data in self._progress:
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                text = line.decode(errors="replace")
                self._said.append(text)
                await on_line(text)

    async def _collect(self) -> None:
        async for data in self._results:
            self._output += data


@asynccontextmanager
async def worker(
    *command: str, plan: msgspec.Struct | None = None, on_line: Callable[[str], Awaitable[None]]
) -> AsyncIterator[Worker]:
    """Run `python -m <command>` for as long as the block lasts; `on_line` is called with each line of progress."""
    process = await trio.lowlevel.open_process(
        [sys.executable, "-m", *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started = Worker(command[0], process)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(started.run, on_line)
            if plan is not None:
                await started.tell(msgspec.json.encode(plan))
            yield started
            nursery.cancel_scope.cancel()
    finally:
        await started.aclose()
