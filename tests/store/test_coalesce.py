"""Lookups that come together go out together."""

from collections.abc import Mapping, Sequence

import pytest
import trio
import trio.testing

from store.contract import StoreUnavailable
from store.postgres.coalesce import BATCH, WAITING, Coalescer


class Recorder:
    """Answers n → 10 n; keeps what it was asked; `gate` holds it up."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.gate = trio.Event()
        self.error: Exception | None = None

    async def fetch(self, keys: Sequence[int]) -> Mapping[int, int]:
        self.asked.append(list(keys))
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return {key: key * 10 for key in keys if key >= 0}


async def test_what_is_asked_during_one_query_is_the_next_one(nursery: trio.Nursery) -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.fetch)
    nursery.start_soon(coalescer.run)
    answers: dict[int, int | None] = {}

    async def ask(key: int) -> None:
        answers[key] = (await coalescer.get([key])).get(key)

    async with trio.open_nursery() as asking:
        asking.start_soon(ask, 1)
        await trio.testing.wait_all_tasks_blocked()
        for key in (2, 3, -4, 3):
            asking.start_soon(ask, key)
        await trio.testing.wait_all_tasks_blocked()
        assert recorder.asked == [[1]]
        recorder.gate.set()
    assert answers == {1: 10, 2: 20, 3: 30, -4: None}
    assert len(recorder.asked) == 2
    assert sorted(recorder.asked[1]) == [-4, 2, 3]


async def test_a_query_is_bounded(nursery: trio.Nursery) -> None:
    recorder = Recorder()
    recorder.gate.set()
    coalescer = Coalescer(recorder.fetch)
    nursery.start_soon(coalescer.run)
    found = await coalescer.get(range(BATCH * 2 + 1))
    assert len(found) == BATCH * 2 + 1
    assert [len(keys) for keys in recorder.asked] == [BATCH, BATCH, 1]


async def test_a_failure_reaches_everyone_who_asked_and_nobody_else(nursery: trio.Nursery) -> None:
    recorder = Recorder()
    recorder.gate.set()
    recorder.error = StoreUnavailable("away")
    coalescer = Coalescer(recorder.fetch)
    nursery.start_soon(coalescer.run)
    failed: list[BaseException] = []

    async def ask(key: int) -> None:
        with pytest.raises(StoreUnavailable, match="away") as caught:
            await coalescer.get([key])
        failed.append(caught.value)

    async with trio.open_nursery() as asking:
        for key in range(3):
            asking.start_soon(ask, key)
    assert len(set(map(id, failed))) == 3
    recorder.error = None
    assert await coalescer.get([5]) == {5: 50}


async def test_more_than_may_wait_is_refused(nursery: trio.Nursery) -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.fetch)
    nursery.start_soon(coalescer.run)
    nursery.start_soon(coalescer.get, [1])
    await trio.testing.wait_all_tasks_blocked()
    nursery.start_soon(coalescer.get, range(WAITING))
    await trio.testing.wait_all_tasks_blocked()
    with pytest.raises(StoreUnavailable, match="too many"):
        await coalescer.get([1])
    nursery.cancel_scope.cancel()


async def test_a_caller_that_gives_up_hurts_no_other(nursery: trio.Nursery) -> None:
    recorder = Recorder()
    coalescer = Coalescer(recorder.fetch)
    nursery.start_soon(coalescer.run)
    with trio.move_on_after(0.01):
        await coalescer.get([1])
    recorder.gate.set()
    assert await coalescer.get([2]) == {2: 20}
