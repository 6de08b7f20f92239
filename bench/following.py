"""Dashboards that follow a server while it is loaded, seen from the scenario: started, awaited, asked what they saw.

Owns bringing what they saw together with what was sent: from the webhook's due time to the frame's arrival. Both are the machine's one monotonic
clock. Must not know how a dashboard works.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import trio
from hdrh.histogram import HdrHistogram

from bench.dashboards import BUCKETS, DashboardPlan, Seen, Transport
from bench.load import BUSY, LONGEST_US
from bench.measure import Measured
from bench.scenario import Context
from bench.server import Server
from bench.worker import Worker, worker


class Delivered(msgspec.Struct, frozen=True):
    """What came of a stretch of load at the dashboards.

    `events` arrived in its measured time, `per_bucket` by parts of a second (`dashboards.BUCKETS`). The times are the sample's, in microseconds, from
    when a webhook was due until its event arrived; `histogram` is HdrHistogram's text.
    """

    events: int
    per_bucket: list[int]
    histogram: str
    p50_us: int
    p99_us: int
    max_us: int

    def throughput(self) -> list[tuple[float, float]]:
        """Return events a second over the measured time, for a plot."""
        return [((at + 0.5) / BUCKETS, float(count * BUCKETS)) for at, count in enumerate(self.per_bucket)]


class Following:
    """Dashboards of the server's first tenant."""

    def __init__(self, context: Context, server: Server, dashboards: Worker) -> None:
        self.ready = trio.Event()
        self.settled = trio.Event()
        self._context = context
        self._server = server
        self._worker = dashboards

    async def settle(self) -> None:
        """Let every dashboard come to the end of the feed, so that one stretch's backlog is not the next one's."""
        self._context.progress("letting the dashboards catch up")
        self.settled = trio.Event()
        await self._worker.tell(f"settle {await self._server.head(self._server.keys[0])}".encode())
        await self._worker.wait_until(self.settled)

    async def finish(self) -> Seen:
        """Let every dashboard come to the end of the feed, and return what they saw. Failures go into the context."""
        self._context.progress("letting the dashboards catch up")
        head = await self._server.head(self._server.keys[0])
        await self._worker.tell(f"until {head}".encode())
        seen = await self._worker.result(Seen)
        if seen.lost:
            self._context.fail(f"{seen.lost:,} events did not reach dashboards that stayed connected.")
        if seen.repeated:
            self._context.fail(f"{seen.repeated:,} events came to a dashboard twice.")
        if seen.refused:
            self._context.note(f"{self._context.now}: {seen.refused:,} dashboards could not connect.")
        for code, count in seen.closed.items():
            why = "as too slow (4008)" if code == 4008 else f"with {code}" if code else "without a word"
            self._context.note(f"{self._context.now}: {count:,} of {seen.dashboards:,} dashboards were closed {why}.")
        return seen


@asynccontextmanager
async def following(
    context: Context, server: Server, count: int, *, transport: Transport = "websocket", sample: int = 1
) -> AsyncIterator[Following]:
    """Have so many dashboards follow the first tenant for as long as the block lasts; `sample` is one in how many events is timed."""
    followers: list[Following] = []

    async def on_line(line: str) -> None:
        match line.split():
            case ["connected", number]:
                context.progress(f"{int(number):,} dashboards connected")
            case ["ready", _, _]:
                followers[0].ready.set()
            case ["settled"]:
                followers[0].settled.set()

    plan = DashboardPlan(url=server.url, key=server.keys[0], count=count, transport=transport, sample=sample)
    async with worker("bench.dashboards", on_line=on_line) as dashboards:
        followers.append(Following(context, server, dashboards))
        await dashboards.tell(msgspec.json.encode(plan))
        await dashboards.wait_until(followers[0].ready)
        yield followers[0]


def delivered(context: Context, measured: Measured, seen: Seen) -> Delivered:
    """Return what came of an open loop at the dashboards. Notes it when their process, not the gateway, was the limit."""
    plan, result = measured.plan, measured.result
    if plan.rate is None:
        raise ValueError("a closed loop has no due times")
    histogram = HdrHistogram(1, LONGEST_US, 3)
    first, last = plan.first * plan.work.batch, result.last * plan.work.batch
    for item, arrival in zip(seen.items, seen.arrivals, strict=True):
        if first <= item < last:
            due = result.started_at + (item // plan.work.batch - plan.first) / plan.rate
            if due >= result.begun_at:
                histogram.record_value(min(max(int((arrival - due) * 1e6), 1), LONGEST_US))
    end = result.begun_at + result.seconds
    if seen.cpu_between(result.begun_at, end) > BUSY * result.seconds:
        context.note(
            f"The process of the {seen.dashboards:,} dashboards was the limit at {plan.rate:,.0f}/s: their times contain its own waiting."
        )
    per_bucket = seen.events_between(result.begun_at, end)
    return Delivered(
        events=sum(per_bucket),
        per_bucket=per_bucket,
        histogram=histogram.encode().decode(),
        p50_us=histogram.get_value_at_percentile(50),
        p99_us=histogram.get_value_at_percentile(99),
        max_us=histogram.get_max_value(),
    )
