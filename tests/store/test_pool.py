"""Time spent waiting for a connection is part of an operation's time."""

import asyncio
from typing import Any, cast

import pytest

from store.postgres.pool import TIME_LIMIT, Link, Pool


class Clocked:
    """In place of a link: notes the time it is left for each operation, and moves the loop's clock instead of working."""

    def __init__(self) -> None:
        self.limits: list[float] = []
        self.begun = asyncio.Event()
        self.done = asyncio.Event()

    async def run_within(self, limit: float, *_: Any) -> None:
        self.limits.append(limit)
        self.begun.set()
        await self.done.wait()


def test_waiting_for_a_connection_is_within_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    async def operation(_: Any) -> None: ...

    async def main() -> list[float]:
        pool = Pool("", {}, size=1)
        link = Clocked()
        pool._idle = [cast(Link, link)]
        loop = asyncio.get_running_loop()
        time = loop.time
        first = asyncio.ensure_future(pool.run(operation))
        await link.begun.wait()
        second = asyncio.ensure_future(pool.run(operation))
        await asyncio.sleep(0)  # it waits now
        monkeypatch.setattr(loop, "time", lambda: time() + 1.0)
        link.done.set()
        await asyncio.gather(first, second)
        return link.limits

    alone, waited = asyncio.run(main())
    assert alone == pytest.approx(TIME_LIMIT, abs=0.2)
    assert waited == pytest.approx(TIME_LIMIT - 1.0, abs=0.2)
