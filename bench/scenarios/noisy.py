"""A noisy neighbour: what tenant B's answers take while tenant A sends fifty times as much, and while A sends all it can.

B's few webhooks are measured in an open loop, alone and beside A in turns, so that nothing else that changes in the course of a run is taken for
A's doing. The two tenants' loads come from two processes.
"""

from collections.abc import Awaitable, Callable

import trio
from hdrh.histogram import HdrHistogram

from bench.load import LONGEST_US
from bench.measure import Load, Measured
from bench.scenario import Context, Latencies, Metric
from bench.scenarios.ingest import KEPT, kept
from bench.server import Server, serving

ABOUT = "one tenant's answer times alone, beside a tenant 50 times as busy, and beside one that sends all it can"

QUIET = 20.0
NOISE = 50 * QUIET
ROUNDS = 3
QUICK_ROUNDS = 1
CONVERSATIONS = 1_000
LEAD = 1.0
"""Seconds the noise lasts longer than what it is to disturb, before and after (the two generators start within some tenths of a second)."""

STATES = {"alone": "alone", "beside": f"beside A at {NOISE:,.0f}/s", "beside_saturation": "beside A at saturation"}

METRICS: dict[str, Metric] = {
    **{
        f"{name}_ms_{state}": Metric("ms", f"{words} of B's answer times at {QUIET:g}/s, {where}")
        for state, where in STATES.items()
        for name, words in (("p50", "median"), ("p99", "99 %"), ("max", "longest"))
    },
    "p99_ratio": Metric("×", f"B's p99 {STATES['beside']} over B's p99 alone"),
    "p99_ratio_saturation": Metric("×", f"B's p99 {STATES['beside_saturation']} over B's p99 alone"),
    "noise_per_s": Metric("webhooks/s", f"acknowledged for A at {NOISE:,.0f}/s"),
    "noise_per_s_saturation": Metric("webhooks/s", "acknowledged for A at saturation"),
    **KEPT,
}


class _Noise:
    """Tenant A: load that surrounds another's, from a process of its own."""

    def __init__(self, context: Context, server: Server, first: int) -> None:
        self._context = context
        self._server = server
        self._first = self._next = first
        self._acknowledged = 0
        self._read_to = 0

    async def begin(self) -> None:
        """Note where A's feed stands."""
        self._read_to = await self._server.head(self._server.keys[0])

    async def run(self, rate: float | None, seconds: float, *, task_status: trio.TaskStatus[trio.Event]) -> None:
        """Make noise at a rate, or all there can be (None); report as started once it is measured, with what is set at its end."""
        settings = self._context.settings
        plan = Plan(
            url=self._server.webhooks,
            work=Work(self._server.tenants, conversations=CONVERSATIONS, seed=settings.seed),
            rate=rate,
            seconds=seconds,
            warmup=LEAD,
            first=self._next,
            most=int(FASTEST * (LEAD + seconds)),
        )

        async def on_line(line: str) -> None:
            if line == BEGIN:
                task_status.started(rates)

        rates: list[float] = []
        async with worker("bench.load", plan=plan, on_line=on_line) as generator:
            result = await generator.result(Result)
        self._next = result.last
        self._acknowledged += result.acknowledged_ever
def _report(context: Context, times: dict[str, HdrHistogram], noise: dict[str, list[float]]) -> None:
    metrics = context.outcome.metrics
    for state, histogram in times.items():
        metrics[f"p50_ms_{state}"] = histogram.get_value_at_percentile(50) / 1e3
        metrics[f"p99_ms_{state}"] = histogram.get_value_at_percentile(99) / 1e3
        metrics[f"max_ms_{state}"] = histogram.get_max_value() / 1e3
    for suffix, state in (("", "beside"), ("_saturation", "beside_saturation")):
        metrics[f"p99_ratio{suffix}"] = metrics[f"p99_ms_{state}"] / metrics["p99_ms_alone"]
        metrics[f"noise_per_s{suffix}"] = sum(noise[state]) / len(noise[state])
    context.outcome.plots.append(
        Latencies(
            "B's answer times by percentile",
            {f"B {STATES[state]}": histogram.encode().decode() for state, histogram in times.items()},
        )
    )
    samples = times["alone"].get_total_count()
    if samples < 300:
        context.note(f"B's p99 is of {samples} answers a state: one late answer moves it.")
