"""One tenant's events to very many dashboards: what a delivered event costs, how long it takes, and that none is missing.

The gateway's whole CPU time is divided by the delivered events: what taking the webhooks costs is included.
"""

from typing import NamedTuple

from bench.dashboards import Seen, Transport, most_files
from bench.following import Delivered, delivered, following
from bench.measure import Load, Measured
from bench.scenario import Bars, Context, Latencies, Metric, Plot, Timeline
from bench.scenarios import ingest
from bench.server import serving

ABOUT = "1 tenant, 500 to 10,000 dashboards, 50 and 200 events/s, WebSocket and Socket.IO"

DASHBOARDS = (500, 2000, 10_000)
RATES = (50, 200)
NAMES: dict[Transport, str] = {"websocket": "WebSocket", "socketio": "Socket.IO"}
TRANSPORTS = tuple(NAMES)
QUICK_DASHBOARDS = (20,)
QUICK_RATES = (40,)
CONVERSATIONS = 500
SPARE_FILES = 200
"""Files a process needs besides its dashboards."""

SAMPLES_PER_SECOND = 5000
"""Timed deliveries, about."""


class Form(NamedTuple):
    """One combination."""

    transport: Transport
    dashboards: int
    rate: int

    @property
    def suffix(self) -> str:
        """How its metrics end."""
        return f"_{self.transport}_{self.dashboards}_at_{self.rate}"

    @property
    def load(self) -> str:
        """How many at which rate."""
        return f"{self.dashboards:,} dashboards, {self.rate}/s"

    def __str__(self) -> str:
        return f"{NAMES[self.transport]}, {self.load}"


def forms(dashboards: tuple[int, ...], rates: tuple[int, ...]) -> list[Form]:
    """Return every combination."""
    return [Form(transport, count, rate) for transport in TRANSPORTS for count in dashboards for rate in rates]


def _declared(form: Form) -> dict[str, Metric]:
    where = f"({form})"
    return {
        f"cpu_us_per_delivery{form.suffix}": Metric("µs", f"gateway's CPU time per delivered event {where}"),
        f"p50_ms{form.suffix}": Metric("ms", f"median from when a webhook was due to the event's arrival {where}"),
        f"p99_ms{form.suffix}": Metric("ms", f"99 % of these times {where}"),
        f"delivered_per_s{form.suffix}": Metric("events/s", f"delivered over all dashboards {where}"),
    }


METRICS: dict[str, Metric] = {
    **{
        key: metric
        for form in forms(DASHBOARDS, RATES) + forms(QUICK_DASHBOARDS, QUICK_RATES)
        for key, metric in _declared(form).items()
    },
    "delivered": Metric("events", "received by all dashboards in the whole run, warm-up included"),
    "delivered_lost": Metric("events", "not received by a dashboard that stayed connected: must be 0"),
    "delivered_repeated": Metric("events", "received twice: must be 0"),
    "dashboards_closed": Metric("dashboards", "closed by the gateway, as too slow or otherwise"),
    **ingest.KEPT,
}


async def run(context: Context) -> None:
    """Measure every combination that this machine's limits allow: one gateway for each number of dashboards and transport."""
    quick = context.settings.quick
    counts, rates = (QUICK_DASHBOARDS, QUICK_RATES) if quick else (DASHBOARDS, RATES)
    room = most_files() - SPARE_FILES
    found: dict[Form, tuple[Measured, Delivered]] = {}
    for transport in TRANSPORTS:
        for count in counts:
            if count > room:
                context.note(f"{count:,} dashboards were left out: this machine allows a process {room:,} (ulimit -n).")
                continue
            found |= await follow(context, [Form(transport, count, rate) for rate in rates])
    context.outcome.plots += plots(found)


async def follow(context: Context, forms: list[Form]) -> dict[Form, tuple[Measured, Delivered]]:
    """Measure one number of dashboards at every rate."""
    transport, count, _ = forms[0]
    context.stage(f"{count:,} dashboards")
    measured: dict[Form, Measured] = {}
    async with serving(context, settings={"PARLEY_CONNECTIONS": str(count + 1000)}) as server:
        load = Load(context, server, conversations=CONVERSATIONS)
        await load.begin()
        await load.fill()
        sample = max(1, count * max(form.rate for form in forms) // SAMPLES_PER_SECOND)
        async with following(context, server, count, transport=transport, sample=sample) as dashboards:
            for form in forms:
                context.stage(str(form))
                measured[form] = await load.open(form.rate)
                await dashboards.settle()
            seen = await dashboards.finish()
    ingest.kept(context, load.kept)
    for name, value in (
        ("delivered", seen.events),
        ("delivered_lost", seen.lost),
        ("delivered_repeated", seen.repeated),
        ("dashboards_closed", sum(seen.closed.values())),
    ):
        context.outcome.metrics[name] = context.outcome.metrics.get(name, 0) + value
    return {form: (each, _report(context, form, each, seen)) for form, each in measured.items()}


def _report(context: Context, form: Form, measured: Measured, seen: Seen) -> Delivered:
    metrics = context.outcome.metrics
    times = delivered(context, measured, seen)
    if measured.samples and times.events:
        metrics[f"cpu_us_per_delivery{form.suffix}"] = measured.gateway_cpu / times.events * 1e6
    if times.p50_us:
        metrics[f"p50_ms{form.suffix}"] = times.p50_us / 1e3
        metrics[f"p99_ms{form.suffix}"] = times.p99_us / 1e3
    else:
        context.note(f"{form}: nothing that was due in the measured time could be sent, so there are no times.")
    metrics[f"delivered_per_s{form.suffix}"] = times.events / measured.result.seconds
    return times


def plots(found: dict[Form, tuple[Measured, Delivered]]) -> list[Plot]:
    """Draw times and throughput by transport, and the cost of all combinations."""
    cost: dict[str, dict[str, float]] = {}
    for form, (measured, times) in found.items():
        if measured.samples and times.events:
            cost[str(form)] = {"gateway": measured.gateway_cpu / times.events * 1e6}
    drawn: list[Plot] = [Bars("CPU time of the gateway per delivered event", "µs", cost)]
    for transport in TRANSPORTS:
        of = {form: times for form, (_, times) in found.items() if form.transport == transport}
        name = NAMES[transport]
        drawn += [
            Latencies(
                f"Delivery times by percentile, {name}", {form.load: each.histogram for form, each in of.items()}
            ),
            Timeline(
                f"Delivered events, {name}", "events/s", {form.load: each.throughput() for form, each in of.items()}
            ),
        ]
    return drawn
