"""One measured stretch of load on a server: what was answered, how long it took, what it cost, and whether all of it was kept.

Owns bringing the generator's figures and the server's CPU together over exactly the same time, and the check that what was sent was answered
and stored. Must not know scenarios.

What a figure costs is counted as CPU time per operation: unlike rates and times it hardly changes when something else runs on the machine.
"""

import time
from collections import Counter
from collections.abc import Collection

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

OVERDUE = 0.1
"""Seconds of requests waiting to be sent at the end of a stretch beyond which it counts as an overload."""

SATURATING = 64
"""Connections of a closed loop."""

OPEN = 256
"""Connections of an open loop: as many as may be on their way at 10,000/s and 25 ms, so that they are not what limits it."""

FASTEST = 20_000
"""Webhooks a second that are composed for a closed loop."""

ITEMS = frozenset({"message_recorded", "receipt_recorded"})
"""The events of which an item causes exactly one."""

FILL_SECONDS = 600.0
"""Filling ends when everything is sent; a server that takes longer is not worth measuring."""

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
        """Return CPU microseconds per acknowledged webhook, of each that takes part; nothing if none was acknowledged."""
        count = self.operations
        if not count:
            return {}
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


class Kept(msgspec.Struct):
    """What became of all items (messages, receipts) that were sent. `acknowledged` ones must be stored, all of them once."""

    sent: int = 0
    acknowledged: int = 0
    stored: int = 0
    lost: int = 0
    repeated: int = 0


class Ledger:
    """Compares, stretch by stretch, what was acknowledged with what came up in the feeds since the last comparison."""

    def __init__(self) -> None:
        self.kept = Kept()
        self._open: set[int] = set()  # sent, not acknowledged, not stored yet: they may still be, once

    def compare(self, sent: range, refused: Collection[int], stored: Counter[int]) -> list[str]:
        """Add a stretch, and return the promises that did not hold.

        `sent` are the items of the stretch, `refused` those of them that were not acknowledged, `stored` how often each was found.
        """
        kept = self.kept
        lost = sum(item not in stored for item in sent if item not in refused)
        # A webhook answered 503 because its commit took too long may be committed after its stretch was checked.
        late = self._open & stored.keys()
        strange = [item for item in stored if item not in sent and item not in late]
        repeated = sum(count > 1 for item, count in stored.items()) + sum(item < sent.start for item in strange)
        unknown = sum(item >= sent.start for item in strange)
        self._open = (self._open - late) | {item for item in refused if item not in stored}
        kept.sent += len(sent)
        kept.acknowledged += len(sent) - len(refused)
        kept.stored += len(stored) - len(strange)
        kept.lost += lost
        kept.repeated += repeated
        found = {
            f"{lost:,} acknowledged messages are not stored.": lost,
            f"{repeated:,} messages are stored more than once.": repeated,
            f"{unknown:,} messages are stored that were never sent.": unknown,
        }
        return [text for text, count in found.items() if count]


class Load:
    """Load on one server, stretch by stretch; numbers go on from one to the next, so that no id comes twice."""

    def __init__(self, context: Context, server: Server, *, conversations: int) -> None:
        self._ledger = Ledger()
        self._context = context
        self._server = server
        self._conversations = conversations
        self._next = 0
        self._read_to = dict.fromkeys(server.keys, 0)

    @property
    def kept(self) -> Kept:
        """What became of everything sent so far."""
        return self._ledger.kept

    async def begin(self) -> None:
        """Note where the feeds stand, so that only what comes from now on is checked."""
        if self._server.process is None:  # an own gateway's are empty
            for key in self._server.keys:
                self._read_to[key] = await self._server.head(key)

    async def fill(self, rounds: int = 1, *, batch: int = 1) -> None:
        """Write to every conversation, unmeasured: later stretches meet conversations that exist. With several tenants `batch` must be 1."""
        await self.closed(seconds=FILL_SECONDS, warmup=0.0, batch=batch, most=self._conversations * rounds // batch)

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
            url=self._server.webhooks,
            work=work,
            rate=rate,
            seconds=seconds,
            warmup=warmup,
            connections=SATURATING if rate is None else OPEN,
            first=first,
            most=most,
        )

    async def _measure(self, plan: Plan) -> Measured:
        watch = _Watch(self._server)

        async def on_line(line: str) -> None:
            match line.split():
                case [load.BEGIN]:
                    watch.begin()
                case [load.END]:
                    watch.end()
                case [seconds, answers] if answers.isdecimal():
                    self._context.progress(f"{float(seconds):.0f} s, {int(answers):,} webhooks answered")

        self._context.progress("composing webhooks")
        async with worker("bench.load", plan=plan, on_line=on_line) as generator, trio.open_nursery() as nursery:
            nursery.start_soon(watch.run)
            result = await generator.result(Result)
            nursery.cancel_scope.cancel()
        self._next = result.last * plan.work.batch
        self._judge(plan, result, watch)
        await self._check(plan, result)
        return Measured(plan, result, watch.samples)

    def _judge(self, plan: Plan, result: Result, watch: "_Watch") -> None:
        context, where = self._context, self._context.now
        if result.limited and plan.warmup + plan.seconds < FILL_SECONDS:
            context.note(f"{where}: the generator was the limit, the server could have done more.")
        if plan.rate is not None and result.overdue > plan.rate * OVERDUE:
            context.note(
                f"{where}: only {result.per_second_mean:,.0f} of {plan.rate:,.0f} webhooks/s were answered: the times are those of an overload."
            )
        context.others = max(context.others, watch.others)
        for status, count in sorted(result.answers.items()):
            if status != 200:
                context.note(f"{where}: {count:,} webhooks were answered {status}.")
        if result.broken:
            context.note(f"{where}: {result.broken:,} connections broke.")

    async def _check(self, plan: Plan, result: Result) -> None:
        """Compare what was acknowledged with what the tenants' feeds now have more than at the last check."""
        self._context.progress("checking that all of it is stored")
        stored: Counter[int] = Counter()
        limit = trio.CapacityLimiter(CHECKERS)

        async def read(key: str) -> None:
            async with limit:
                events = await self._server.feed(key, self._read_to[key])
            if events:
                self._read_to[key] = events[-1].offset
            for event in events:
                if event.kind in ITEMS and event.message_id is not None:
                    item = item_of(event.message_id, plan.work.seed)
                    if item is not None:
                        stored[item] += 1

        async with trio.open_nursery() as nursery:
            for key in self._server.keys:
                nursery.start_soon(read, key)
        batch = plan.work.batch
        refused = {item for number in result.unacknowledged for item in range(number * batch, (number + 1) * batch)}
        for broken in self._ledger.compare(range(plan.first * batch, result.last * batch), refused, stored):
            self._context.fail(f"{self._context.now}: {broken}")


class _Watch:
    """Looks at the server while it is loaded: exactly at the beginning and at the end, and once a second between."""

    def __init__(self, server: Server) -> None:
        self.samples: list[Usage] = []
        self.others = 0.0
        """Cores used by programs that have nothing to do with the measurement."""
        self._server = server
        self._measuring = False
        self._began = (0.0, 0.0)

    async def run(self) -> None:
        """Take a sample every second."""
        while True:
            await trio.sleep(1.0)
            if self._measuring:
                self._sample()

    def begin(self) -> None:
        """Note that the measured time begins."""
        self._measuring = True
        self._sample()
        self._began = time.monotonic(), self._strange_cpu()

    def end(self) -> None:
        """Note that the measured time ends. It may never have begun: everything was sent in the warm-up."""
        if not self._measuring:
            return
        self._measuring = False
        self._sample()
        at, cpu = self._began
        self.others = max(self._strange_cpu() - cpu, 0.0) / max(time.monotonic() - at, 1e-9)

    def _sample(self) -> None:
        usage = self._server.usage()
        if usage is not None:
            self.samples.append(usage)

    def _strange_cpu(self) -> float:
        """Return the CPU seconds of the whole machine that were not used by us, our children or the database."""
        busy = psutil.cpu_times()
        total = float(sum(busy) - busy.idle - getattr(busy, "iowait", 0.0) - getattr(busy, "guest", 0.0))
        own = psutil.Process()
        for process in (own, *own.children(recursive=True)):
            try:
                times = process.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total -= times.user + times.system
        return total - (self.samples[-1].database_cpu if self.samples else 0.0)
