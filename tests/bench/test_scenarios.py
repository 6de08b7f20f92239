"""Each scenario in its quick form: its numbers are consistent, and nothing is lost. Never its speed."""

from pathlib import Path

import msgspec
import pytest

from bench.gateway_process import GatewayProcess
from bench.scenario import Context, Deployment, Metric, Report, Scenario, Settings, run
from bench.scenarios import SCENARIOS
from bench.scenarios.fan_out import QUICK_DASHBOARDS, QUICK_RATES, TRANSPORTS
from bench.scenarios.ingest import RATES
from bench.simulators.world import SimTenant

SETTINGS = Settings(seconds=0.3, warmup=0.1, quick=True)


async def quickly(name: str, deployment: Deployment | None = None) -> dict[str, float]:
    report = await run(name, SCENARIOS[name], SETTINGS, deployment=deployment)
    assert report.outcome.failures == []
    metrics = report.outcome.metrics
    # what was sent was answered, or a note says what became of it; what was answered is stored, once
    assert metrics["sent"] >= metrics["acknowledged"] > 0
    if metrics["sent"] > metrics["acknowledged"]:
        assert any("answered 503" in note for note in report.outcome.notes)
    assert metrics["acknowledged"] <= metrics["stored"] <= metrics["sent"]
    assert metrics["lost"] == metrics["repeated"] == 0
    assert (report.machine.postgresql is None) == (deployment is not None)
    document = msgspec.json.decode(msgspec.json.encode(report.document()))
    assert document["metrics"] == metrics
    assert {"scenario", "machine", "settings", "metrics"} <= document.keys()
    return metrics


@pytest.mark.slow
async def test_ingest() -> None:
    metrics = await quickly("ingest")
    assert metrics["dashboard_lost"] == 0
    assert metrics["dashboard_events"] > 0
    assert metrics["messages_per_s_batched"] == pytest.approx(10 * metrics["saturation_per_s_batched"])
    for rate in RATES:
        assert metrics[f"p50_ms_at_{rate}"] <= metrics[f"p99_ms_at_{rate}"] <= metrics[f"max_ms_at_{rate}"]
        assert 0 < metrics[f"answered_per_s_at_{rate}"] <= rate * 1.5
    assert all(value > 0 for key, value in metrics.items() if "cpu_us" in key)
    assert metrics.keys() == SCENARIOS["ingest"].metrics.keys()


@pytest.mark.slow
async def test_end_to_end_on_a_deployment(tmp_path: Path) -> None:
    async with GatewayProcess(tmp_path / "data") as gateway:
        tenant = gateway.add_tenant("bench", "300000000000001")
        number = SimTenant(tenant.phone_number_id, tenant.waba_id, tenant.app_secret, "4930000000")
        deployment = Deployment(gateway.url, (number,), (tenant.api_key,))
        metrics = await quickly("end-to-end", deployment)
    assert metrics["dashboards"] == 100
    assert metrics["delivered_lost"] == metrics["delivered_repeated"] == 0
    assert metrics["delivered"] % 100 == 0  # to every dashboard the same
    assert metrics["delivered"] >= 100 * (metrics["sent"] - 500)  # all but those that opened the conversations
    assert 0 < metrics["p50_ms"] <= metrics["p99_ms"] <= metrics["max_ms"]
    unseen = {key for key in SCENARIOS["end-to-end"].metrics if "cpu" in key or "core" in key}
    assert metrics.keys() == SCENARIOS["end-to-end"].metrics.keys() - unseen


@pytest.mark.slow
async def test_fan_out() -> None:
    metrics = await quickly("fan-out")
    [dashboards], [rate] = QUICK_DASHBOARDS, QUICK_RATES
    sent = int(rate * (SETTINGS.seconds + SETTINGS.warmup)) + 1
    assert metrics["delivered"] >= len(TRANSPORTS) * dashboards * (sent - 2)
    assert metrics["delivered_lost"] == metrics["delivered_repeated"] == metrics["dashboards_closed"] == 0
    for transport in TRANSPORTS:
        suffix = f"_{transport}_{dashboards}_at_{rate}"
        assert metrics[f"cpu_us_per_delivery{suffix}"] > 0
        assert 0 < metrics[f"p50_ms{suffix}"] <= metrics[f"p99_ms{suffix}"]


@pytest.mark.slow
async def test_actors() -> None:
    metrics = await quickly("actors")
    assert metrics["conversations"] == 5_000
    assert 500 < metrics["bytes_per_conversation"] < 50_000
    assert metrics["messages_per_s"] > 0
    assert metrics["asks_per_s"] > 0
    assert metrics["activation_ms"] == pytest.approx(metrics["cold_p50_ms"] - metrics["warm_p50_ms"], abs=0.001)
    assert metrics.keys() == SCENARIOS["actors"].metrics.keys()


async def report_of(found: dict[str, float]) -> Report:
    async def find(context: Context) -> None:
        context.outcome.metrics |= found
        context.note("once")
        context.note("once")

    return await run("made-up", Scenario("nothing", {"a": Metric("s", "x"), "b": Metric("s", "y")}, find), Settings())


async def test_metrics_come_in_the_order_of_their_declaration() -> None:
    report = await report_of({"b": 2, "a": 1.23456})
    assert list(report.outcome.metrics.items()) == [("a", 1.2346), ("b", 2)]
    assert report.outcome.notes == ["once"]


async def test_a_metric_that_nobody_declared_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not declare: c"):
        await report_of({"a": 1, "c": 2})
