"""The scenarios about a gateway in operation (peers, recover, growth, noisy, soak, profile) in seconds: consistent figures, never speed."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bench.bodies import MESSAGE_ID
from bench.load import Result
from bench.peers import install
from bench.peers.process import BUSINESS, Contender, Cpu
from bench.scenario import Context, Scenario, Settings, run
from bench.scenarios import SCENARIOS, growth, noisy, peers, recover, soak
from bench.scenarios.noisy import Noise
from bench.scenarios.peers import PARLEY, PEERS, Loaded, Turn
from bench.scenarios.profile import profiled
from bench.server import FeedEvent, Server, serving

SETTINGS = Settings(seconds=0.3, warmup=0.1, quick=True)


async def figures(name: str) -> dict[str, float]:
    """Run a scenario's quick form; what was sent was answered (or counted as refused) and what was answered is stored, once."""
    report = await run(name, SCENARIOS[name], SETTINGS)
    metrics = report.outcome.metrics
    assert report.outcome.failures == []
    assert metrics["sent"] >= metrics["acknowledged"] > 0
    assert metrics["stored"] >= metrics["acknowledged"]
    assert metrics["lost"] == 0
    return metrics


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_peers() -> None:
    metrics = await figures("peers")
    present = [name for name in (PARLEY, *PEERS) if f"saturation_per_s_{name}" in metrics]
    assert len(present) + metrics["missing_peers"] == 1 + len(PEERS)
    assert {PARLEY, peers.LIMIT} <= set(present)
    for name in present:
        assert metrics[f"saturation_per_s_{name}"] > 0
        assert 0 < metrics[f"server_cpu_us_per_webhook_{name}"] <= metrics[f"cpu_us_per_webhook_{name}"]
    # every contender that stores was watched by a dashboard, and Parley's also sees conversations begin
    assert metrics["shown"] >= metrics["stored"]


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_recover() -> None:
    metrics = await figures("recover")
    assert metrics["conversations"] == recover.QUICK_CONVERSATIONS
    assert metrics["kills"] == recover.QUICK_KILLS + 1
    assert metrics["stored"] == metrics["sent"]  # each was repeated until it was acknowledged
    assert metrics["repeated"] == 0
    assert metrics["ready_s"] > 0
    assert metrics["first_ack_s"] > 0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_growth() -> None:
    metrics = await figures("growth")
    for suffix in (*growth.QUICK_CONVERSATIONS, *(f"{tenants}_tenants" for tenants in growth.QUICK_TENANTS)):
        assert metrics[f"cpu_us_per_webhook_{suffix}"] > 0
    assert metrics["growth_conversations"] > 0
    assert metrics["repeated"] == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_noisy() -> None:
    metrics = await figures("noisy")
    for state in (noisy.ALONE, *noisy.STATES):
        assert 0 < metrics[f"p50_ms_{state}"] <= metrics[f"p99_ms_{state}"] <= metrics[f"max_ms_{state}"]
    assert 0 < metrics["noise_per_s_beside"] <= noisy.NOISE * 1.1
    assert metrics["repeated"] == 0


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_soak() -> None:
    metrics = await figures("soak")
    assert metrics["seconds"] == pytest.approx(soak.QUICK_STRETCHES * SETTINGS.seconds, rel=0.2)
    assert metrics["rate_per_s"] == pytest.approx(metrics["saturation_per_s"] / 2, abs=0.01)
    assert metrics["rss_mib_first"] > 0
    assert metrics["dashboard_lost"] == 0


async def serve_once(context: Context) -> None:
    async with serving(context) as server:
        context.outcome.metrics["tenants"] = len(server.tenants)


@pytest.mark.slow
@pytest.mark.timeout(400)
async def test_profile_writes_a_flame_graph_of_the_gateway(tmp_path: Path) -> None:
    scenario = profiled(
        Scenario("a gateway", {"tenants": SCENARIOS["ingest"].metrics["sent"]}, serve_once), tmp_path / "p.svg"
    )
    report = await run("profile", scenario, SETTINGS)
    if any("py-spy is not installed" in failure or "ermission" in failure for failure in report.outcome.failures):
        pytest.skip("py-spy cannot be used here")
    assert report.outcome.failures == []
    assert report.outcome.metrics["profiles"] == report.outcome.metrics["tenants"] == 1
    assert "gateway/cli" in (tmp_path / "p.svg").read_text()


async def test_profile_says_that_py_spy_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path=None: None)
    report = await run("profile", profiled(SCENARIOS["ingest"], tmp_path / "p.svg"), SETTINGS)
    assert report.outcome.failures == ["py-spy is not installed: pip install py-spy."]
    assert report.outcome.metrics == {}


def test_a_peer_without_its_runtime_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(install.Missing, match="node is not on the PATH"):
        install.node("express_pg.mjs")


async def test_missing_peers_are_noted_and_failing_ones_are_failures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    @asynccontextmanager
    async def missing(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
        raise install.Missing("node is not on the PATH")
        yield

    @asynccontextmanager
    async def failing(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
        raise peers.PeerFailed("a peer did not start: no port")
        yield

    monkeypatch.setattr(peers, "_parley", lambda context: missing)
    monkeypatch.setattr(peers, "PEERS", {"express_pg": missing, "fastapi_asyncpg": failing})
    context = Context(SETTINGS, tmp_path, lambda text: None)
    await peers.run(context)
    assert context.outcome.metrics == {"missing_peers": 2}
    assert context.outcome.notes == [
        f"{name} is missing: node is not on the PATH." for name in ("parley", "express_pg")
    ]
    assert context.outcome.failures == ["fastapi_asyncpg: a peer did not start: no port"]


class Forgetful(Contender):
    """A contender that has stored `kept`."""

    def __init__(self, kept: int) -> None:
        super().__init__("http://127.0.0.1:1", BUSINESS, None, [], None)
        self.kept = kept

    def cpu(self) -> Cpu:
        return Cpu(0.0, 0.0)

    async def stored(self) -> int | None:
        return self.kept


@pytest.mark.parametrize(
    ("kept", "failures"), [(9, ["peer: 1 acknowledged messages are not stored."]), (10, []), (11, [])]
)
async def test_what_a_peer_loses_is_a_failure(kept: int, failures: list[str], tmp_path: Path) -> None:
    context = Context(SETTINGS, tmp_path, lambda text: None)
    loaded = Loaded(context, "peer", Forgetful(kept))
    loaded.sent, loaded.acknowledged = 11, 10
    await loaded.check(None)
    assert context.outcome.failures == failures
    assert context.outcome.metrics == {"sent": 11, "acknowledged": 10, "stored": kept, "lost": max(10 - kept, 0)}


def test_ratios_are_formed_within_each_round(tmp_path: Path) -> None:
    context = Context(SETTINGS, tmp_path, lambda text: None)
    ours = [Turn(per_s, per_s, cost, 0.0) for per_s, cost in ((100, 10), (300, 10), (1000, 10))]
    theirs = [Turn(per_s, per_s, cost, 5.0) for per_s, cost in ((50, 15), (100, 25), (1000, 45))]
    peers._report(context, {PARLEY: ours, "express_pg": theirs})
    metrics = context.outcome.metrics
    assert metrics["ratio_to_express_pg"] == 2  # of 2, 3 and 1, where the ratio of the medians is 3
    assert metrics["cpu_ratio_to_express_pg"] == 3
    assert metrics["saturation_per_s_parley"] == 300


def feed_of(*ids: str) -> Any:
    async def feed(key: str, after: int) -> list[FeedEvent]:
        return [FeedEvent(after + at, "message_recorded", each) for at, each in enumerate(ids, 1)]

    return feed


@pytest.mark.parametrize(
    ("ids", "failures"),
    [
        (("a", "b"), []),
        (("a",), ["Of A's messages 1 acknowledged ones are not stored, 0 are twice."]),
        (("a", "b", "b"), ["Of A's messages 0 acknowledged ones are not stored, 1 are twice."]),
    ],
)
async def test_what_the_noise_loses_is_a_failure(ids: tuple[str, ...], failures: list[str], tmp_path: Path) -> None:
    context = Context(SETTINGS, tmp_path, lambda text: None)
    server: Any = SimpleNamespace(feed=feed_of(*ids), keys=("k",))
    result: Result = SimpleNamespace(acknowledged_ever=2, sent_ever=2)  # type: ignore[assignment]  # as much as is read
    await Noise(context, server, 10, 0)._check(result, 0)
    assert context.outcome.failures == failures


@pytest.mark.parametrize(
    ("items", "failures"),
    [
        ((0, 1, 2), []),
        ((0, 2), ["1 acknowledged messages are not stored."]),
        ((0, 1, 1, 2), ["1 messages are stored more than once."]),
    ],
)
async def test_what_is_lost_or_repeated_by_a_kill_is_a_failure(
    items: tuple[int, ...], failures: list[str], tmp_path: Path
) -> None:
    context = Context(SETTINGS, tmp_path, lambda text: None)
    past = f"{MESSAGE_ID}{1_000_000_001}{7:016d}"  # a message that preload sent
    ids = [past, *(f"{MESSAGE_ID}{SETTINGS.seed}{item:016d}" for item in items)]
    server: Server = SimpleNamespace(feed=feed_of(*ids), keys=("k",))  # type: ignore[assignment]  # as much as is used
    await recover._check(context, server, 0, sent=3)
    assert context.outcome.failures == failures
