"""One measured stretch of load on a server: what was answered, how long it took, what it cost, and whether all of it was kept.

Owns bringing the generator's figures and the server's CPU together over exactly the same time, and the check that what was sent was answered
and stored. Must not know scenarios.

What a figure costs is counted as CPU time per operation: unlike rates and times it hardly changes when something else runs on the machine.
"""

import time
from collections import Counter
from functools import partial

import msgspec
import psutil
import trio

from bench import load
from bench.bodies import Work, item_of
from bench.gateway_process import Usage
from bench.load import Plan, Result
from bench.scenario import Context
from bench.server import Server
from bench.worker import worker

STORM = 0.25
"""Cores used by other programs beyond which a note warns."""

FASTEST = 20_000
"""Webhooks a second that are composed for a closed loop."""

CHECKERS = 8
"""Feeds read at once."""


class Measured(msgspec.Struct, frozen=True):
    """A stretch of load. `samples` begin and end exactly with the measured time, and are empty for a deployment."""

    plan: Plan
    result: Result
    samples: list[Usage]

    @property
    def operations(self) -> int:
        """Acknowledged webhooks of the measured time."""
        return self.result.answers.get(200, 0)

    @property
    def gateway_cpu(self) -> float:
        """CPU seconds of the gateway."""
        return self.samples[-1].gateway_cpu - self.samples[0].gateway_cpu

    @property
    def database_cpu(self) -> float:
        """CPU seconds of its PostgreSQL."""
        return self.samples[-1].database_cpu - self.samples[0].database_cpu

    def cpu_us(self) -> dict[str, float]:
        """Return CPU microseconds per acknowledged webhook, of each that takes part."""
        count = max(self.operations, 1)
        parts = {"generator": self.result.cpu_seconds / count * 1e6}
        if self.samples:
            parts = {"gateway": self.gateway_cpu / count * 1e6, "database": self.database_cpu / count * 1e6, **parts}
        return parts

    def gateway_percent(self) -> float:
        """Return how much of one core the gateway used."""
        return self.gateway_cpu / (self.samples[-1].at - self.samples[0].at) * 100

    def throughput(self) -> list[tuple[float, float]]:
        """Return acknowledged webhooks by second, for a plot."""
        return [(second + 0.5, float(count)) for second, count in enumerate(self.result.per_second)]


class Load:
    """Load on one server, stretch by stretch; numbers go on from one to the next, so that no id comes twice."""

    def __init__(self, context: Context, server: Server, *, conversations: int) -> None:
        self._context = context
        self._server = server
        self._conversations = conversations
        self._next = 0
        self._checked: dict[str, int] = {}

    async def begin(self) -> None:
        """Note where the feeds stand, so that only what comes from now on is checked."""
        if self._server.process is None:  # an own gateway's are empty
            for key in self._server.keys:
                self._checked[key] = await self._server.head(key)

    async def fill(self) -> None:
        """Write to every conversation once, unmeasured: later stretches meet conversations that exist."""
        await self.closed(seconds=600.0, warmup=0.0, most=self._conversations)

    async def closed(
        self, *, seconds: float | None = None, warmup: float | None = None, batch: int = 1, most: int | None = None
    ) -> Measured:
        """Load to saturation: 64 connections, each with a request on its way at all times."""
        settings = self._context.settings
        seconds = settings.seconds if seconds is None else seconds
        warmup = settings.warmup if warmup is None else warmup
        return await self._measure(
            self._plan(batch, None, seconds, warmup, most or int(FASTEST * (seconds + warmup) / batch))
        )

    async def open(self, rate: float, *, seconds: float | None = None, warmup: float | None = None) -> Measured:
        """Load at a fixed rate, whatever the server does; times count from when a request was due."""
        settings = self._context.settings
        seconds = settings.seconds if seconds is None else seconds
        return await self._measure(self._plan(1, rate, seconds, settings.warmup if warmup is None else warmup, 0))

    def _plan(self, batch: int, rate: float | None, seconds: float, warmup: float, most: int) -> Plan:
        work = Work(
            self._server.tenants, conversations=self._conversations, batch=batch, seed=self._context.settings.seed
        )
        # Items are numbered by `number * batch`: beyond all that were sent with any other size of batch.
        first = -(-self._next // batch)
        return Plan(
            url=self._server.webhooks, work=work, rate=rate, seconds=seconds, warmup=warmup, first=first, most=most
        )

    async def _measure(self, plan: Plan) -> Measured:
        samples: list[Usage] = []
        others = _Others()

        async def on_line(line: str) -> None:
            if line in (load.BEGIN, load.END):
                if (usage := self._server.usage()) is not None:
                    samples.append(usage)
                others.sample(usage)
            else:
                seconds, _, answers = line.partition(" ")
                self._context.progress(f"{float(seconds):.0f} s, {int(answers):,} webhooks acknowledged")

        async def sample() -> None:
            while True:
                await trio.sleep(1.0)
                if len(samples) > 0 and (usage := self._server.usage()) is not None:
                    samples.append(usage)

        self._context.progress("composing webhooks")
        async with trio.open_nursery() as nursery, worker("bench.load", plan=plan, on_line=on_line) as generator:
            nursery.start_soon(sample)
            result = await generator.result(Result)
            nursery.cancel_scope.cancel()
        end = max((at for at, sampled in enumerate(samples) if sampled.at <= others.ended_at), default=-1)
        self._next = result.last * plan.work.batch
        self._judge(plan, result, others)
        return Measured(plan, result, samples[: end + 1])
