"""The scenarios of `parley bench`, by name. This dict is the one place where they are listed; none registers itself.

To add one, write a module with METRICS (every key it may report, with unit and meaning; a key that is not declared is an error), an
`async def run(context: Context) -> None` that puts what it finds into `context.outcome`, and a line below; describe its keys in
docs/benchmarks.md and run its quick form in tests/bench. What there is to build from:

    async with serving(context, tenants=1) as server:              # bench.server: an own gateway, or the deployment of --target
        async with following(context, server, 100) as dashboards:  # bench.following: dashboards in a process of their own
            load = Load(context, server, conversations=10_000)     # bench.measure: stretches of load, each checked: sent = answered = stored
            await load.begin()
            context.stage("at 3,300/s")                            # what the user sees
            measured = await load.open(3300.0)                     # or load.closed(): saturation
            seen = await dashboards.finish()                       # lost and repeated events become failures by themselves
    context.outcome.metrics["p50_ms"] = measured.result.p50_us / 1e3
    context.outcome.plots.append(Latencies("Answer times", {"3,300/s": measured.result.histogram}))
    context.note("what a reader must know"); context.fail("a promise that did not hold")

`context.settings.quick` asks for the form that takes seconds: same keys, or fewer; smaller numbers of everything.
"""

from pathlib import Path

from bench.scenario import Scenario
from bench.scenarios import actors, end_to_end, fan_out, growth, ingest, noisy, peers, profile, recover, soak

SCENARIOS: dict[str, Scenario] = {
    "ingest": Scenario(ingest.ABOUT, ingest.METRICS, ingest.run),
    "end-to-end": Scenario(end_to_end.ABOUT, end_to_end.METRICS, end_to_end.run),
    "fan-out": Scenario(fan_out.ABOUT, fan_out.METRICS, fan_out.run),
    "peers": Scenario(peers.ABOUT, peers.METRICS, peers.run, targets=False),
    "actors": Scenario(actors.ABOUT, actors.METRICS, actors.run, targets=False),
    "recover": Scenario(recover.ABOUT, recover.METRICS, recover.run, targets=False),
    "growth": Scenario(growth.ABOUT, growth.METRICS, growth.run, targets=False),
    "noisy": Scenario(noisy.ABOUT, noisy.METRICS, noisy.run),
    "soak": Scenario(soak.ABOUT, soak.METRICS, soak.run),
    "profile": profile.profiled(Scenario(ingest.ABOUT, ingest.METRICS, ingest.run), Path("profile.svg")),
}
