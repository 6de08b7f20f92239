"""The bridge from trio to asyncio, where asyncpg lives. The only module that knows trio_asyncio.

Everything asyncpg runs as a coroutine handed to `Bridge.run`, one crossing per operation (about 40 µs). Nothing else leaks: no loop, no
future, no callback into trio. So a thread with an asyncio loop of its own (`asyncio.run_coroutine_threadsafe` and a trio event) could take
trio_asyncio's place here without another file changing. Must not know SQL or asyncpg.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, ParamSpec, TypeVar

import trio_asyncio

P = ParamSpec("P")
T = TypeVar("T")


class Bridge:
    """Runs coroutine functions of asyncio for tasks of trio."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    async def run(self, function: Callable[P, Coroutine[Any, Any, T]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Await `function(*args, **kwargs)` on the asyncio side; return its result or raise what it raised.

        Cancelling the caller cancels the coroutine and waits for it to unwind, so what it holds is released when this returns.
        """
        task = self._loop.create_task(function(*args, **kwargs))
        result: T = await trio_asyncio.run_aio_future(task)
        return result


@asynccontextmanager
async def open_bridge() -> AsyncIterator[Bridge]:
    """Start an asyncio loop beside the running trio loop, in the same thread, for as long as the block lasts."""
    async with trio_asyncio.open_loop() as loop:
        yield Bridge(loop)
