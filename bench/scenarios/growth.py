"""Does a webhook cost the same in a large deployment as in a small one? A thousand to a million conversations, one to a thousand tenants.

Every stretch is a closed loop, because the size of a commit, and with it the cost of a webhook, depends on how many come at once: here it is always
as many. At each number of conversations two ways to use them are measured: spread over all of them, so that in a large deployment nearly
every webhook wakes a conversation that was not in memory; and over the same thousand always, so that only what is stored has grown.
"""

from collections.abc import Mapping

from bench.measure import Load, Measured
from bench.preload import LoadFromHere, preload
from bench.scenario import Bars, Context, Metric
from bench.scenarios.ingest import KEPT, kept
from bench.server import serving

ABOUT = "CPU per webhook as conversations and tenants grow: it must stay flat"

CONVERSATIONS = {"1k": 1_000, "10k": 10_000, "100k": 100_000, "1m": 1_000_000}
QUICK_CONVERSATIONS = {"1k": 200, "10k": 2_000}
ACTIVE = 1_000
"""Conversations that are used by those stretches that use the same always."""
TENANTS = {"1": 1, "100": 100, "1000": 1_000}
QUICK_TENANTS = {"1": 1, "100": 10}
SPREAD = 10_000
"""Conversations of all tenants together."""
QUICK_SPREAD = 200


def _declare() -> dict[str, Metric]:
    metrics: dict[str, Metric] = {}
    for size in CONVERSATIONS:
        for suffix, what in ((size, "spread over all"), (f"{size}_active", f"spread over the same {ACTIVE:,}")):
            where = f"with {size} conversations stored, {what}"
            metrics[f"cpu_us_per_webhook_{suffix}"] = Metric("µs", f"gateway's CPU time {where}")
            metrics[f"database_cpu_us_per_webhook_{suffix}"] = Metric("µs", f"PostgreSQL's CPU time {where}")
            metrics[f"saturation_per_s_{suffix}"] = Metric("webhooks/s", f"acknowledged {where}")
        metrics[f"gateway_rss_mib_{size}"] = Metric("MiB", f"resident memory of the gateway with {size} conversations")
    for tenants, number in TENANTS.items():
        where = f"with {number:,} tenant{'s' if number > 1 else ''}"
        metrics[f"cpu_us_per_webhook_{tenants}_tenants"] = Metric("µs", f"gateway's CPU time {where}")
        metrics[f"database_cpu_us_per_webhook_{tenants}_tenants"] = Metric("µs", f"PostgreSQL's CPU time {where}")
        metrics[f"saturation_per_s_{tenants}_tenants"] = Metric("webhooks/s", f"acknowledged {where}")
    for name, what in (
        ("conversations", "at most over at least conversations, spread over all"),
        ("active", "the same, over the same conversations always"),
        ("tenants", "at most over at least tenants"),
    ):
        metrics[f"growth_{name}"] = Metric("×", f"CPU per webhook, gateway and PostgreSQL, {what}: 1 is flat")
    return metrics | KEPT


METRICS = _declare()


async def run(context: Context) -> None:
    """Grow one deployment in conversations, then compare deployments of different numbers of tenants."""
    quick = context.settings.quick
    bars: dict[str, Measured] = {}
    spread, active = await _conversations(context, QUICK_CONVERSATIONS if quick else CONVERSATIONS)
    for size, measured in spread.items():
        bars[f"{size} conversations"] = measured
        bars[f"{size} conversations, the same used"] = active[size]
    by_tenants: dict[str, Measured] = {}
    for name, tenants in (QUICK_TENANTS if quick else TENANTS).items():
        by_tenants[name] = bars[f"{tenants:,} tenants"] = measured = await _tenants(context, tenants)
        _costs(context, measured, f"{name}_tenants")
    for name, stretches in (("conversations", spread), ("active", active), ("tenants", by_tenants)):
        cost = [each.gateway_cpu + each.database_cpu for each in stretches.values()]
        per_webhook = [cpu / max(each.operations, 1) for cpu, each in zip(cost, stretches.values(), strict=True)]
        context.outcome.metrics[f"growth_{name}"] = per_webhook[-1] / per_webhook[0] if per_webhook[0] else 0.0
    costs = {
        name: {part: us for part, us in each.cpu_us().items() if part != "generator"} for name, each in bars.items()
    }
    context.outcome.plots.append(Bars("CPU time per webhook", "µs", costs))
    if quick:
        context.note("Quick form: 200 and 2,000 conversations stood for 1k and 10k, 10 tenants for 100.")


async def _conversations(context: Context, sizes: Mapping[str, int]) -> tuple[dict[str, Measured], dict[str, Measured]]:
    """Measure one tenant at each number of conversations; return the stretches over all of them, and over the same."""
    spread: dict[str, Measured] = {}
    active: dict[str, Measured] = {}
    following = 0
    async with serving(context) as server:
        for size, conversations in sizes.items():
            context.stage(f"writing to {conversations:,} conversations")
            await preload(context, server, conversations)
            for stretches, suffix, used in (
                (spread, size, conversations),
                (active, f"{size}_active", min(ACTIVE, conversations)),
            ):
                load = LoadFromHere(context, server, conversations=used, first=following)
                await load.begin()
                context.stage(f"{conversations:,} conversations, {used:,} of them used")
                stretches[size] = measured = await load.closed()
                following = load.next
                _costs(context, measured, suffix)
                kept(context, load.kept)
            context.outcome.metrics[f"gateway_rss_mib_{size}"] = measured.samples[-1].gateway_rss / 2**20
    return spread, active


async def _tenants(context: Context, tenants: int) -> Measured:
    """Measure a gateway with so many tenants."""
    context.stage(f"{tenants:,} tenants")
    async with serving(context, tenants=tenants) as server:
        load = Load(context, server, conversations=QUICK_SPREAD if context.settings.quick else SPREAD)
        await load.begin()
        await load.fill()
        measured = await load.closed()
        kept(context, load.kept)
    return measured


def _costs(context: Context, measured: Measured, suffix: str) -> None:
    cpu = measured.cpu_us()
    context.outcome.metrics[f"cpu_us_per_webhook_{suffix}"] = cpu["gateway"]
    context.outcome.metrics[f"database_cpu_us_per_webhook_{suffix}"] = cpu["database"]
    context.outcome.metrics[f"saturation_per_s_{suffix}"] = measured.result.per_second_mean
