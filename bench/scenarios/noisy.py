"""A noisy neighbour: what tenant B's answers take while tenant A sends fifty times as much, and while A sends all it can.

B's few webhooks are measured in an open loop, alone and beside A in turns, so that nothing else that changes in the course of a run is taken for
A's doing. The two tenants' loads come from two processes; A's begins before B's and outlasts it.
"""

import trio
from hdrh.histogram import HdrHistogram

from bench.bodies import Work
from bench.load import BEGIN, LONGEST_US, Plan, Result
from bench.measure import FASTEST, ITEMS, Kept
from bench.preload import LoadFromHere
from bench.scenario import Context, Latencies, Metric
from bench.scenarios.ingest import KEPT, kept
from bench.server import Server, serving
from bench.worker import worker

ABOUT = "one tenant's answer times alone, beside a tenant 50 times as busy, and beside one that sends all it can"

QUIET = 20.0
NOISE = 50 * QUIET
ROUNDS = 3
QUICK_ROUNDS = 1
CONVERSATIONS = 1_000
QUICK_CONVERSATIONS = 100
MARGIN = 2.0
"""Seconds the noise outlasts B's: a process has to start and to end."""

STATES: dict[str, tuple[str, float | None]] = {
    "beside": (f"beside A at {NOISE:,.0f}/s", NOISE),
    "beside_saturation": ("beside A at saturation", None),
}
ALONE = "alone"

METRICS: dict[str, Metric] = {
    **{
        f"{name}_ms_{state}": Metric("ms", f"{words} of B's answer times at {QUIET:g}/s, {where}")
        for state, where in ((ALONE, ALONE), *((state, where) for state, (where, _) in STATES.items()))
        for name, words in (("p50", "median"), ("p99", "99 %"), ("max", "longest"))
    },
    **{
        f"p99_ratio_{state}": Metric("×", f"B's p99 {where} over B's p99 alone") for state, (where, _) in STATES.items()
    },
    **{
        f"noise_per_s_{state}": Metric("webhooks/s", f"acknowledged for A, B {where}")
        for state, (where, _) in STATES.items()
    },
    **KEPT,
}


class Noise:
    """Tenant A: load around another's, from a process of its own."""

    def __init__(self, context: Context, server: Server, conversations: int, first: int) -> None:
        self.kept = Kept()
        self.rates: dict[str, list[float]] = {state: [] for state in STATES}
        self._context = context
        self._server = server
        self._conversations = conversations
        self._next = first

    async def run(self, state: str, seconds: float, *, task_status: trio.TaskStatus[None]) -> None:
        """Make the noise of a state; it counts as started when it has been going on for a moment."""
        settings = self._context.settings
        plan = Plan(
            url=self._server.webhooks,
            work=Work(self._server.tenants, conversations=self._conversations, seed=settings.seed),
            rate=STATES[state][1],
            seconds=seconds,
            warmup=0.5,
            first=self._next,
            most=int(FASTEST * (seconds + 0.5)),
        )

        async def on_line(line: str) -> None:
            if line == BEGIN:
                task_status.started()

        head = await self._server.head(self._server.keys[0])
        async with worker("bench.load", plan=plan, on_line=on_line) as generator:
            result = await generator.result(Result)
        self._next = result.last
        self.rates[state].append(result.per_second_mean)
        await self._check(result, head)

    async def _check(self, result: Result, head: int) -> None:
        """Compare the number acknowledged with what A's feed has more."""
        events = await self._server.feed(self._server.keys[0], head)
        stored = [event.message_id for event in events if event.kind in ITEMS]
        lost = max(result.acknowledged_ever - len(stored), 0)
        repeated = len(stored) - len(set(stored))
        self.kept.sent += result.sent_ever
        self.kept.acknowledged += result.acknowledged_ever
        self.kept.stored += len(stored)
        self.kept.lost += lost
        self.kept.repeated += repeated
        if lost or repeated:
            self._context.fail(f"Of A's messages {lost:,} acknowledged ones are not stored, {repeated:,} are twice.")


async def run(context: Context) -> None:
    """Measure B in each state, round by round."""
    settings = context.settings
    conversations = QUICK_CONVERSATIONS if settings.quick else CONVERSATIONS
    times = {state: HdrHistogram(1, LONGEST_US, 3) for state in (ALONE, *STATES)}
    async with serving(context, tenants=2) as server:
        if len(server.tenants) < 2:
            raise ValueError("noisy needs two tenants")
        halves = [
            Server(server.url, (tenant,), (key,), server.process)
            for tenant, key in zip(server.tenants, server.keys, strict=True)
        ]
        a, b = (LoadFromHere(context, half, conversations=conversations) for half in halves)
        context.stage("writing to the conversations of both tenants")
        for load in (a, b):
            await load.begin()
            await load.fill()
        noise = Noise(context, halves[0], conversations, a.next)
        rounds = QUICK_ROUNDS if settings.quick else ROUNDS
        for number in range(1, rounds + 1):
            context.stage(f"round {number} of {rounds}: B alone")
            times[ALONE].decode_and_add((await b.open(QUIET)).result.histogram)
            for state, (where, _) in STATES.items():
                context.stage(f"round {number} of {rounds}: B {where}")
                async with trio.open_nursery() as nursery:
                    await nursery.start(noise.run, state, settings.warmup + settings.seconds + MARGIN)
                    times[state].decode_and_add((await b.open(QUIET)).result.histogram)
        for counts in (a.kept, b.kept, noise.kept):
            kept(context, counts)
    _report(context, times, noise)


def _report(context: Context, times: dict[str, HdrHistogram], noise: Noise) -> None:
    metrics = context.outcome.metrics
    for state, histogram in times.items():
        metrics[f"p50_ms_{state}"] = histogram.get_value_at_percentile(50) / 1e3
        metrics[f"p99_ms_{state}"] = histogram.get_value_at_percentile(99) / 1e3
        metrics[f"max_ms_{state}"] = histogram.get_max_value() / 1e3
    for state, rates in noise.rates.items():
        metrics[f"p99_ratio_{state}"] = metrics[f"p99_ms_{state}"] / metrics[f"p99_ms_{ALONE}"]
        metrics[f"noise_per_s_{state}"] = sum(rates) / len(rates)
    curves = {f"B {STATES[state][0] if state in STATES else state}": each for state, each in times.items()}
    context.outcome.plots.append(
        Latencies("B's answer times by percentile", {name: each.encode().decode() for name, each in curves.items()})
    )
    samples = times[ALONE].get_total_count()
    if samples < 300:
        context.note(f"B's p99 is that of {samples} answers a state: a few late ones move it.")
