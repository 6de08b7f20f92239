"""The outbox: its bound, its one reader, its end."""

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import wait_all_tasks_blocked

from gateway.http import NOTHING, Frame
from gateway.realtime.outbox import Outbox
from gateway.realtime.pump import Pump, PumpStatistics


async def test_drain_takes_everything_in_order() -> None:
    outbox: Outbox[Frame] = Outbox()
    frames = [Frame(b"a"), Frame(b"b"), Frame(b"c")]
    assert all(map(outbox.push, frames))
    assert await outbox.drain() == frames
    assert outbox.is_empty


async def test_drain_waits_for_the_first_push_and_takes_what_came_with_it() -> None:
    outbox: Outbox[bytes] = Outbox()
    async with trio.open_nursery() as nursery:
        got: list[list[bytes]] = []

        async def reader() -> None:
            got.append(await outbox.drain())

        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        outbox.push(b"1")
        outbox.push(b"2")
    assert got == [[b"1", b"2"]]


async def test_what_exceeds_the_bound_is_refused_and_not_kept() -> None:
    outbox: Outbox[bytes] = Outbox(max_bytes=4)
    assert outbox.push(b"123")
    assert not outbox.push(b"45")
    assert outbox.push(b"4")
    assert not outbox.push(b"5")
    assert await outbox.drain() == [b"123", b"4"]


async def test_a_batch_counts_until_the_reader_comes_back() -> None:
    outbox: Outbox[bytes] = Outbox(max_bytes=4)
    outbox.push(b"1234")
    await outbox.drain()
    assert outbox.statistics().queued_bytes == outbox.statistics().in_flight_bytes == 4
    assert not outbox.push(b"5")
    with trio.move_on_after(0):
        await outbox.drain()
    assert outbox.statistics().queued_bytes == 0
    assert outbox.push(b"5")


async def test_cancelled_drain_takes_nothing() -> None:
    outbox: Outbox[bytes] = Outbox()
    with trio.move_on_after(0) as waiting:
        await outbox.drain()
    assert waiting.cancelled_caught
    outbox.push(b"1")
    with trio.move_on_after(0) as ready:
        await outbox.drain()
    assert ready.cancelled_caught
    assert await outbox.drain() == [b"1"]


async def test_a_reader_woken_and_cancelled_at_once_loses_nothing() -> None:
    outbox: Outbox[bytes] = Outbox()
    taken: list[bytes] = []
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:

            async def reader() -> None:
                taken.extend(await outbox.drain())

            nursery.start_soon(reader)
            await wait_all_tasks_blocked()
            outbox.push(b"1")
            scope.cancel()
    assert taken + outbox.drain_nowait() == [b"1"]


async def test_a_second_reader_is_refused() -> None:
    outbox: Outbox[bytes] = Outbox()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.drain)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await outbox.drain()
        with pytest.raises(trio.BusyResourceError):
            outbox.drain_nowait()
        outbox.push(b"1")


async def test_a_reader_that_was_overtaken_waits_on() -> None:
    outbox: Outbox[bytes] = Outbox()
    async with trio.open_nursery() as nursery:
        got: list[list[bytes]] = []

        async def reader() -> None:
            got.append(await outbox.drain())

        nursery.start_soon(reader)
        await wait_all_tasks_blocked()
        outbox.push(b"1")
        assert outbox.drain_nowait() == [b"1"]
        await wait_all_tasks_blocked()
        assert got == []
        outbox.push(b"2")
    assert got == [[b"2"]]


async def test_close_lets_the_reader_finish() -> None:
    outbox: Outbox[bytes] = Outbox()
    outbox.push(b"1")
    outbox.close()
    assert not outbox.push(b"2")
    assert await outbox.drain() == [b"1"]
    assert await outbox.drain() == []


async def test_close_with_discard_drops_what_is_queued_and_wakes_everybody() -> None:
    outbox: Outbox[bytes] = Outbox(max_bytes=2)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.drain)
        await wait_all_tasks_blocked()
        outbox.close()
    outbox = Outbox(max_bytes=2)
    outbox.push(b"12")
    async with trio.open_nursery() as nursery:
        nursery.start_soon(outbox.wait_below, 1)
        await wait_all_tasks_blocked()
        outbox.close(discard=True)
    assert await outbox.drain() == []


async def test_wait_below_waits_until_the_batch_is_written() -> None:
    outbox: Outbox[bytes] = Outbox()
    await outbox.wait_below(1)
    outbox.push(b"1234")
    async with trio.open_nursery() as nursery:
        below: list[bool] = []

        async def producer() -> None:
            await outbox.wait_below(4)
            below.append(True)

        nursery.start_soon(producer)
        await wait_all_tasks_blocked()
        await outbox.drain()
        await wait_all_tasks_blocked()
        assert not below
        outbox.push(b"1")
        await outbox.drain()
        await wait_all_tasks_blocked()
        assert below


async def test_what_a_lane_keeps_of_a_write_counts_until_it_is_written(nursery: trio.Nursery) -> None:
    pump = Pump()
    await nursery.start(pump.run)
    outbox: Outbox[Frame] = Outbox(100, pump)
    outbox.write_through(lambda _: [NOTHING])  # the kernel takes a part, or nothing at all as with TLS
    written = trio.Event()

    async def task() -> None:
        while batch := await outbox.drain():
            assert batch == [NOTHING]
            await written.wait()

    nursery.start_soon(task)
    await wait_all_tasks_blocked()
    assert outbox.push(Frame(b"." * 78))
    await wait_all_tasks_blocked()
    assert pump.statistics() == PumpStatistics(writes=1, left=1)
    assert outbox.held_bytes == 80
    assert not outbox.push(Frame(b"." * 78)), "a client never holds more than its bound"
    written.set()
    await wait_all_tasks_blocked()
    assert outbox.held_bytes == 0
    assert outbox.push(Frame(b"." * 78))
    nursery.cancel_scope.cancel()


async def test_statistics_count_what_passed() -> None:
    outbox: Outbox[bytes] = Outbox(max_bytes=10)
    outbox.push(b"123")
    outbox.push(b"4")
    await outbox.drain()
    outbox.push(b"56")
    seen = outbox.statistics()
    assert (seen.queued_items, seen.queued_bytes, seen.in_flight_bytes) == (1, 6, 4)
    assert (seen.pushed_items, seen.pushed_bytes, seen.batches, seen.max_bytes, seen.closed) == (3, 6, 1, 10, False)


@given(st.lists(st.none() | st.binary(max_size=6)), st.integers(1, 12))
def test_any_run_keeps_the_order_and_the_bound(run: list[bytes | None], max_bytes: int) -> None:
    """None stands for a drain; the model is the list of what was accepted."""
    outbox: Outbox[bytes] = Outbox(max_bytes)
    accepted: list[bytes] = []
    taken: list[bytes] = []
    in_flight = 0
    for step in run:
        if step is None:
            batch = outbox.drain_nowait()
            in_flight = sum(map(len, batch))
            taken += batch
        else:
            waiting = sum(map(len, accepted[len(taken) :]))
            fits = waiting + in_flight + len(step) <= max_bytes
            assert outbox.push(step) is fits
            accepted += [step] * fits
        assert outbox.statistics().queued_bytes <= max_bytes
    assert taken + outbox.drain_nowait() == accepted
