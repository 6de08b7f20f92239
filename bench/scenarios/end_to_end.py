"""From a webhook to the dashboards: how long until each of a hundred sees what was sent.

The time runs from when the webhook was due to be sent until its event's frame has been read from a dashboard's socket; the dashboards are
a process of their own that follows the tenant's whole feed.
"""

from bench.following import delivered, following
from bench.measure import Load
from bench.scenario import Bars, Context, Latencies, Metric, Timeline
from bench.scenarios import ingest
from bench.server import serving

ABOUT = "webhook sent → frame received, by 100 dashboards at 1,000/s"

RATE = 1000
DASHBOARDS = 100
SAMPLE = 10
"""One event in ten of each dashboard is timed: ten thousand a second are plenty, and all would make the receiver the limit."""
CONVERSATIONS = 10_000

METRICS: dict[str, Metric] = {
    "p50_ms": Metric("ms", "median time from when a webhook was due to a dashboard's having its event"),
    "p99_ms": Metric("ms", "99 % of these times"),
    "max_ms": Metric("ms", "longest of these times"),
    "answer_p50_ms": Metric("ms", "median time until the webhook was answered, for comparison"),
    "answer_p99_ms": Metric("ms", "99 % of these times"),
    "events_per_s": Metric("events/s", "delivered, over all dashboards"),
    "cpu_us_per_webhook": Metric("µs", "gateway's CPU time per webhook, its deliveries included"),
    "database_cpu_us_per_webhook": Metric("µs", "PostgreSQL's CPU time per webhook"),
    "gateway_core_percent": Metric("% of a core", "the gateway uses"),
    "dashboards": Metric("dashboards", "that followed"),
    "delivered": Metric("events", "received by all of them in the whole run, warm-up included"),
    "delivered_lost": Metric("events", "not received by a dashboard that stayed connected: must be 0"),
    "delivered_repeated": Metric("events", "received twice: must be 0"),
    **ingest.KEPT,
}


async def run(context: Context) -> None:
    """Measure once."""
    metrics = context.outcome.metrics
    quick = context.settings.quick
    context.stage("end to end")
    async with serving(context) as server:
        load = Load(context, server, conversations=500 if quick else CONVERSATIONS)
        await load.begin()
        context.stage("writing to every conversation")
        await load.fill()
        context.stage(f"{DASHBOARDS} dashboards at {RATE:,}/s")
        async with following(context, server, DASHBOARDS, sample=SAMPLE) as dashboards:
            measured = await load.open(RATE)
            seen = await dashboards.finish()
    times = delivered(context, measured, seen)
    metrics["p50_ms"] = times.p50_us / 1e3
    metrics["p99_ms"] = times.p99_us / 1e3
    metrics["max_ms"] = times.max_us / 1e3
    metrics["answer_p50_ms"] = measured.result.p50_us / 1e3
    metrics["answer_p99_ms"] = measured.result.p99_us / 1e3
    metrics["events_per_s"] = times.events / measured.result.seconds
    metrics["dashboards"] = seen.dashboards
    metrics["delivered"] = seen.events
    metrics["delivered_lost"] = seen.lost
    metrics["delivered_repeated"] = seen.repeated
    ingest.costs(context, measured, "")
    if measured.samples:
        metrics["gateway_core_percent"] = measured.gateway_percent()
    ingest.kept(context, load.kept)
    context.outcome.plots += [
        Latencies("Times by percentile", {"answer": measured.result.histogram, "at the dashboards": times.histogram}),
        Timeline("Delivered events", "events/s", {"all dashboards": times.throughput()}),
        Bars("CPU time per webhook", "µs", {f"{RATE:,}/s, {DASHBOARDS} dashboards": measured.cpu_us()}),
    ]
