"""Ten minutes at half of what this machine can take: memory and answer times stay as they are, and nothing is lost.

The time is sent in ten stretches, each checked when it ends (sent = answered = stored); then the next one is composed, and the gateway rests for
some seconds. Memory is compared between the end of the first stretch and the end of the last.
"""

from itertools import accumulate

from bench.following import following
from bench.measure import Load, Measured
from bench.scenario import Context, Latencies, Metric, Timeline
from bench.scenarios.ingest import KEPT, kept
from bench.server import serving

ABOUT = "ten minutes at half of saturation: memory, answer times, losses"

STRETCHES = 10
QUICK_STRETCHES = 3
LENGTH = 6
"""Times the seconds of a stretch of other scenarios: a minute, unless --seconds says otherwise."""
CONVERSATIONS = 10_000
QUICK_CONVERSATIONS = 500
MIB = 2**20

METRICS: dict[str, Metric] = {
    "saturation_per_s": Metric("webhooks/s", "acknowledged before, with 64 connections always waiting"),
    "rate_per_s": Metric("webhooks/s", "sent: half of that"),
    "answered_per_s": Metric("webhooks/s", "acknowledged, mean of the stretches"),
    "seconds": Metric("s", "under load"),
    "p50_ms": Metric("ms", "median of the answer times, median of the stretches"),
    "p99_ms_first": Metric("ms", "99 % of the answer times in the first stretch"),
    "p99_ms_last": Metric("ms", "99 % of the answer times in the last stretch"),
    "p99_ms_worst": Metric("ms", "99 % of the answer times in the worst stretch"),
    "p99_drift": Metric("×", "the last stretch's p99 over the first's"),
    "rss_mib_first": Metric("MiB", "resident memory of the gateway when the first stretch ended"),
    "rss_mib_last": Metric("MiB", "resident memory of the gateway when the last stretch ended"),
    "rss_growth_percent": Metric("%", "from the first to the last"),
    "cpu_us_per_webhook_first": Metric("µs", "gateway's CPU time per webhook in the first stretch"),
    "cpu_us_per_webhook_last": Metric("µs", "gateway's CPU time per webhook in the last stretch"),
    "dashboard_lost": Metric("events", "a dashboard that follows everything was not sent: must be 0"),
    **KEPT,
}


async def run(context: Context) -> None:
    """Find the saturation, then stay at half of it."""
    settings, metrics = context.settings, context.outcome.metrics
    stretches: list[Measured] = []
    async with serving(context) as server, following(context, server, 1) as dashboard:
        load = Load(context, server, conversations=QUICK_CONVERSATIONS if settings.quick else CONVERSATIONS)
        await load.begin()
        context.stage("writing to the conversations")
        await load.fill()
        context.stage("saturation")
        metrics["saturation_per_s"] = saturation = (await load.closed()).result.per_second_mean
        metrics["rate_per_s"] = rate = max(saturation / 2, 1.0)
        count = QUICK_STRETCHES if settings.quick else STRETCHES
        seconds = settings.seconds if settings.quick else LENGTH * settings.seconds
        for number in range(1, count + 1):
            context.stage(f"{rate:,.0f}/s, stretch {number} of {count}")
            stretches.append(await load.open(rate, seconds=seconds, warmup=0.0))
        metrics["dashboard_lost"] = (await dashboard.finish()).lost
        kept(context, load.kept)
    _report(context, stretches)


def _report(context: Context, stretches: list[Measured]) -> None:
    metrics = context.outcome.metrics
    first, last = stretches[0], stretches[-1]
    p99 = [each.result.p99_us / 1e3 for each in stretches]
    metrics["answered_per_s"] = sum(each.result.per_second_mean for each in stretches) / len(stretches)
    metrics["seconds"] = sum(each.result.seconds for each in stretches)
    metrics["p50_ms"] = sorted(each.result.p50_us / 1e3 for each in stretches)[len(stretches) // 2]
    metrics["p99_ms_first"], metrics["p99_ms_last"], metrics["p99_ms_worst"] = p99[0], p99[-1], max(p99)
    metrics["p99_drift"] = p99[-1] / p99[0]
    begins = accumulate((each.result.seconds for each in stretches[:-1]), initial=0.0)
    context.outcome.plots += [
        Timeline(
            "99 % of the answer times, by stretch",
            "ms",
            {"p99": [(begin, value) for begin, value in zip(begins, p99, strict=True)]},
        ),
        Latencies(
            "Answer times by percentile",
            {"first stretch": first.result.histogram, "last stretch": last.result.histogram},
        ),
    ]
    if first.samples:
        at_first, at_last = first.samples[-1].gateway_rss / MIB, last.samples[-1].gateway_rss / MIB
        metrics["rss_mib_first"], metrics["rss_mib_last"] = at_first, at_last
        metrics["rss_growth_percent"] = (at_last / at_first - 1) * 100
        metrics["cpu_us_per_webhook_first"] = first.cpu_us()["gateway"]
        metrics["cpu_us_per_webhook_last"] = last.cpu_us()["gateway"]
        start = first.samples[0].at
        memory = [(each.at - start, each.gateway_rss / MIB) for stretch in stretches for each in stretch.samples]
        context.outcome.plots.append(Timeline("Resident memory of the gateway", "MiB", {"gateway": memory}))
