"""Durable webhooks a second, and how long an answer takes at a given rate; every promise kept, one dashboard watching.

Each request is a signed text message with an id of its own; the answer comes after its commit. All stretches go through the same ten thousand
conversations, which exist before the first is measured.
"""

from bench.following import following
from bench.measure import Kept, Load, Measured
from bench.scenario import Bars, Context, Latencies, Metric, Timeline
from bench.server import serving

ABOUT = "durable webhooks: saturation, and answer times at 3,300/s and 10,000/s"

RATES = (3300, 10_000)
"""Meta's sizing for 1,000 messages a second with 30 % replies, and three times that."""

BATCH = 10
TENANTS = 1000
CONVERSATIONS = 10_000
SAMPLE = 1000
"""The dashboard's times are another scenario's: its events are counted, hardly any is looked into."""
QUICK_CONVERSATIONS = 500
QUICK_TENANTS = 20


def saturation_metrics(suffix: str, what: str) -> dict[str, Metric]:
    """Declare what a closed loop tells."""
    return {
        f"saturation_per_s{suffix}": Metric("webhooks/s", f"acknowledged at saturation, {what}"),
        f"cpu_us_per_webhook{suffix}": Metric("µs", f"gateway's CPU time per webhook at saturation, {what}"),
        f"database_cpu_us_per_webhook{suffix}": Metric(
            "µs", f"PostgreSQL's CPU time per webhook at saturation, {what}"
        ),
    }


def rate_metrics(suffix: str, what: str) -> dict[str, Metric]:
    """Declare what an open loop tells."""
    return {
        **{
            f"{name}_ms{suffix}": Metric("ms", f"{words} of the answer times {what}, from when each was due")
            for name, words in (
                ("p50", "median"),
                ("p90", "90 %"),
                ("p99", "99 %"),
                ("p999", "99.9 %"),
                ("max", "longest"),
            )
        },
        f"answered_per_s{suffix}": Metric("webhooks/s", f"acknowledged {what}"),
        f"cpu_us_per_webhook{suffix}": Metric("µs", f"gateway's CPU time per webhook {what}"),
        f"database_cpu_us_per_webhook{suffix}": Metric("µs", f"PostgreSQL's CPU time per webhook {what}"),
        f"gateway_core_percent{suffix}": Metric("% of a core", f"the gateway uses {what}"),
    }


KEPT: dict[str, Metric] = {
    "sent": Metric("messages", "sent in the whole run, warm-up included"),
    "acknowledged": Metric("messages", "in webhooks that were answered 200"),
    "stored": Metric("messages", "found in the tenants' feeds afterwards"),
    "lost": Metric("messages", "acknowledged and not stored: must be 0"),
    "repeated": Metric("messages", "stored more than once: must be 0"),
}

METRICS: dict[str, Metric] = {
    **saturation_metrics("", "one message each"),
    **rate_metrics("_at_3300", "at 3,300/s"),
    **rate_metrics("_at_10000", "at 10,000/s"),
    **saturation_metrics("_batched", f"{BATCH} messages each"),
    "messages_per_s_batched": Metric("messages/s", f"acknowledged in webhooks of {BATCH}"),
    **saturation_metrics("_1000_tenants", "over 1,000 tenants"),
    **rate_metrics("_at_3300_1000_tenants", "at 3,300/s over 1,000 tenants"),
    "gateway_rss_mib": Metric("MiB", "resident memory of the gateway after the stretches with one tenant"),
    "database_mib": Metric("MiB", "memory of PostgreSQL then (shared pages once)"),
    **KEPT,
    "dashboard_events": Metric("events", "pushed to the one dashboard of the first tenant"),
    "dashboard_lost": Metric("events", "that dashboard was not sent: must be 0"),
}


def saturation(context: Context, measured: Measured, suffix: str = "") -> None:
    """Report a closed loop."""
    metrics = context.outcome.metrics
    metrics[f"saturation_per_s{suffix}"] = measured.result.per_second_mean
    costs(context, measured, suffix)


def answer_times(context: Context, measured: Measured, suffix: str) -> None:
    """Report an open loop."""
    metrics, result = context.outcome.metrics, measured.result
    for name in ("p50", "p90", "p99", "p999", "max"):
        metrics[f"{name}_ms{suffix}"] = getattr(result, f"{name}_us") / 1e3
    metrics[f"answered_per_s{suffix}"] = result.per_second_mean
    costs(context, measured, suffix)
    if measured.samples:
        metrics[f"gateway_core_percent{suffix}"] = measured.gateway_percent()


def costs(context: Context, measured: Measured, suffix: str) -> None:
    """Report CPU per webhook, where it can be seen."""
    cpu = measured.cpu_us()
    if "gateway" in cpu:
        context.outcome.metrics[f"cpu_us_per_webhook{suffix}"] = cpu["gateway"]
        context.outcome.metrics[f"database_cpu_us_per_webhook{suffix}"] = cpu["database"]


def kept(context: Context, counts: Kept) -> None:
    """Add to what was sent and what became of it."""
    metrics = context.outcome.metrics
    for name in KEPT:
        metrics[name] = metrics.get(name, 0) + getattr(counts, name)


async def run(context: Context) -> None:
    """Measure with one tenant, then with a thousand."""
    quick = context.settings.quick
    conversations = QUICK_CONVERSATIONS if quick else CONVERSATIONS
    stretches: dict[str, Measured] = {}
    context.stage("one tenant")
    async with serving(context) as server, following(context, server, 1, sample=SAMPLE) as dashboards:
        load = Load(context, server, conversations=conversations)
        await load.begin()
        context.stage(f"writing to {conversations:,} conversations")
        await load.fill()
        context.stage("saturation")
        stretches["saturation"] = measured = await load.closed()
        saturation(context, measured)
        for rate in RATES:
            context.stage(f"{rate:,}/s")
            stretches[f"{rate:,}/s"] = measured = await load.open(rate)
            answer_times(context, measured, f"_at_{rate}")
        context.stage(f"saturation, {BATCH} messages a webhook")
        stretches["saturation, batched"] = measured = await load.closed(batch=BATCH)
        saturation(context, measured, "_batched")
        context.outcome.metrics["messages_per_s_batched"] = measured.result.per_second_mean * BATCH
        if server.process is not None:
            context.outcome.metrics["gateway_rss_mib"] = server.process.usage().gateway_rss / 2**20
            context.outcome.metrics["database_mib"] = server.process.database_memory() / 2**20
        seen = await dashboards.finish()
        context.outcome.metrics["dashboard_events"] = seen.events
        context.outcome.metrics["dashboard_lost"] = seen.lost
        kept(context, load.kept)

    tenants = QUICK_TENANTS if quick else TENANTS
    if context.deployment is not None and len(context.deployment.tenants) < tenants:
        context.note(f"The stretches over {TENANTS:,} tenants need as many --tenant; they were left out.")
    else:
        context.stage(f"{tenants:,} tenants")
        async with (
            serving(context, tenants=tenants) as server,
            following(context, server, 1, sample=SAMPLE) as dashboards,
        ):
            load = Load(context, server, conversations=conversations)
            await load.begin()
            context.stage(f"writing to {conversations:,} conversations of {tenants:,} tenants")
            await load.fill()
            context.stage(f"saturation, {tenants:,} tenants")
            stretches[f"saturation, {tenants:,} tenants"] = measured = await load.closed()
            saturation(context, measured, "_1000_tenants")
            context.stage(f"3,300/s, {tenants:,} tenants")
            stretches[f"3,300/s, {tenants:,} tenants"] = measured = await load.open(3300)
            answer_times(context, measured, "_at_3300_1000_tenants")
            await dashboards.finish()
            kept(context, load.kept)
        if quick:
            context.note(f"Quick form: {tenants} tenants stood for 1,000.")
    plots(context, stretches)


def plots(context: Context, stretches: dict[str, Measured]) -> None:
    """Draw answer times, throughput and cost of all stretches."""
    open_loops = {name: each for name, each in stretches.items() if each.plan.rate is not None}
    context.outcome.plots += [
        Latencies("Answer times by percentile", {name: each.result.histogram for name, each in open_loops.items()}),
        Timeline("Acknowledged webhooks", "webhooks/s", {name: each.throughput() for name, each in stretches.items()}),
        Bars("CPU time per message", "µs", {name: per_message(each) for name, each in stretches.items()}),
    ]


def per_message(measured: Measured) -> dict[str, float]:
    """Return CPU microseconds per message of each that takes part: a webhook of ten is not a dearer webhook."""
    return {part: cost / measured.plan.work.batch for part, cost in measured.cpu_us().items()}
