"""Sends deliveries to a gateway as Meta does: at a rate of its own, concurrently, and again until it is answered 200.

Source: WhatsApp Cloud API reference 1.3. Open loop: the rate does not wait for answers, up to `outstanding` deliveries that are in flight or
wait for a retry. A delivery whose connection broke is unacknowledged and tried again. Must not know what a webhook says.
"""

from collections import Counter
from collections.abc import Iterable
from random import Random

import msgspec
import trio

from bench.simulators.faults import DROPPED, FORGED, GIVE_UP_S, pause_after
from bench.simulators.http_client import BrokenConnection, Connect, Connection, connector, post_head, target_of
from bench.simulators.ledger import Ledger
from bench.simulators.meta import Delivery

_OUTSTANDING = 10_000
"""Deliveries (about 1 kB each) that may be unanswered at once before the rate gives way."""


class Report(msgspec.Struct):
    """Counts of a run, current while it goes on. `late` counts deliveries the rate had to hold back because too many were outstanding."""

    sent: int = 0
    """Deliveries begun, each counted once."""
    acknowledged: int = 0
    items: int = 0
    """Items (messages, receipts, notices) in acknowledged deliveries; a duplicate counts again."""
    attempts: int = 0
    broken: int = 0
    """Attempts without an answer."""
    gave_up: int = 0
    late: int = 0
    forged_accepted: int = 0
    """Forged deliveries not answered 401: must stay 0."""
    statuses: Counter[int] = msgspec.field(default_factory=Counter)


async def run(
    traffic: Iterable[Delivery],
    url: str,
    *,
    ledger: Ledger,
    rate: float | None = None,
    speed: float | None = None,
    concurrency: int = 32,
    outstanding: int = _OUTSTANDING,
    time_factor: float = 60.0,
    answer_timeout: float = 10.0,
    seed: int | str = 0,
    stop: trio.Event | None = None,
    report: Report | None = None,
    connect: Connect | None = None,
) -> Report:
    """Send `traffic` and return when all of it is settled, or when `stop` is set.

    `rate` in deliveries a second, or `speed` in virtual seconds a second, which sends each delivery when it is due; neither: as fast as
    `concurrency` connections take them. `time_factor`: virtual seconds of Meta's back-off that
    pass in a real one. `seed` is for the jitter of the back-off only. `connect` replaces the network in tests. `report` is filled as the run
    goes on. Being cancelled loses nothing: the ledger holds every answer received.

    Raises ValueError for a `url` that is not http or https, or a number that is not positive.
    """
    numbers = {"rate": rate, "speed": speed, "concurrency": concurrency, "time_factor": time_factor}
    for name, value in numbers.items():
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be positive")
    if rate is not None and speed is not None:
        raise ValueError("give a rate or a speed, not both")
    target = target_of(url)
    sender = _Sender(
        post_head(target),
        connect or connector(target),
        ledger,
        report or Report(),
        Random(f"{seed}/backoff"),
        outstanding,
        time_factor,
        answer_timeout,
    )
    async with trio.open_nursery() as nursery:
        if stop is not None:
            nursery.start_soon(_cancel_when, stop, nursery.cancel_scope)
        await sender.run(traffic, rate, speed, concurrency)
        nursery.cancel_scope.cancel()
    return sender.report


async def _cancel_when(stop: trio.Event, scope: trio.CancelScope) -> None:
    await stop.wait()
    scope.cancel()


class _Try(msgspec.Struct, frozen=True):
    """An attempt (from 0) at a delivery, and the virtual seconds spent waiting before it."""

    delivery: Delivery
    attempt: int = 0
    waited: float = 0.0


class _Sender:
    def __init__(
        self,
        head: bytes,
        connect: Connect,
        ledger: Ledger,
        report: Report,
        random: Random,
        outstanding: int,
        time_factor: float,
        answer_timeout: float,
    ) -> None:
        self._head = head
        self._connect = connect
        self._ledger = ledger
        self.report = report
        self._random = random
        self._outstanding = outstanding
        self._room = trio.Semaphore(outstanding)
        self._fed = False
        self._settled = trio.Event()
        self._time_factor = time_factor
        self._answer_timeout = answer_timeout
        # As large as everything that can be outstanding: putting a retry in never waits.
        self._put, self._take = trio.open_memory_channel[_Try](outstanding)

    async def run(self, traffic: Iterable[Delivery], rate: float | None, speed: float | None, concurrency: int) -> None:
        async with trio.open_nursery() as nursery:
            self._retries = nursery
            for _ in range(concurrency):
                nursery.start_soon(self._work)
            await self._feed(traffic, rate, speed)
            self._fed = True
            if not self._is_settled():
                await self._settled.wait()
            self._put.close()

    async def _feed(self, traffic: Iterable[Delivery], rate: float | None, speed: float | None) -> None:
        began = trio.current_time()
        first_ms: int | None = None
        for number, delivery in enumerate(traffic):
            if rate is not None:
                # From the beginning, not from the last one: an open loop catches up what it was late.
                await trio.sleep_until(began + number / rate)
            elif speed is not None:
                first_ms = delivery.due_ms if first_ms is None else first_ms
                await trio.sleep_until(began + (delivery.due_ms - first_ms) / 1000 / speed)
            try:
                self._room.acquire_nowait()
            except trio.WouldBlock:
                self.report.late += 1
                await self._room.acquire()
            self.report.sent += 1
            await self._put.send(_Try(delivery))

    async def _work(self) -> None:
        """Carry tries over one connection, which is opened when needed and replaced when it is used up."""
        connection: Connection | None = None
        try:
            async for each in self._take:
                if connection is not None and not connection.reusable:
                    await connection.aclose()
                    connection = None
                status = None
                with trio.move_on_after(self._answer_timeout):
                    try:
                        if connection is None:
                            connection = Connection(await self._connect())
                        status = await self._attempt(connection, each)
                    except (BrokenConnection, OSError):
                        pass  # no answer: counted, recorded and tried again below
                self._settle(each, status)
        finally:
            if connection is not None:
                await connection.aclose()

    async def _attempt(self, connection: Connection, each: _Try) -> int | None:
        delivery = each.delivery
        request = b"%bX-Hub-Signature-256: %b\r\nContent-Length: %d\r\n\r\n%b" % (
            self._head,
            delivery.signature,
            len(delivery.body),
            delivery.body,
        )
        if delivery.fault == DROPPED and each.attempt == 0:
            await connection.break_off(request[: -len(delivery.body) // 2])
            return None
        return (await connection.request(request)).status

    def _settle(self, each: _Try, status: int | None) -> None:
        delivery, report = each.delivery, self.report
        report.attempts += 1
        if status is None:
            report.broken += 1
        else:
            report.statuses[status] += 1
        self._ledger.record(delivery, each.attempt, status)
        if delivery.fault == FORGED and status is not None:
            report.forged_accepted += status != 401
        elif status == 200:
            report.acknowledged += 1
            report.items += len(delivery.truth)
        else:
            pause = pause_after(each.attempt, self._random)
            if each.waited + pause <= GIVE_UP_S:
                again = _Try(delivery, each.attempt + 1, each.waited + pause)
                # In the sender's own nursery: a retry outlives the worker's turn, and ends with the run.
                self._retries.start_soon(self._try_later, again, pause / self._time_factor)
                return
            report.gave_up += 1
        self._room.release()
        if self._is_settled():
            self._settled.set()

    def _is_settled(self) -> bool:
        """Tell whether all was sent and, since all the room is free, nothing is in flight or waits."""
        return self._fed and self._room.value == self._outstanding

    async def _try_later(self, again: _Try, seconds: float) -> None:
        await trio.sleep(seconds)
        await self._put.send(again)
