"""`parley bench` on the command line: what it refuses, what it writes, and that a broken promise is an exit code."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.scenario import Context, Metric, Scenario
from bench.scenarios import SCENARIOS
from gateway.cli.main import app

TENANT = "300000000000001:200000000000001:secret:4930000000"


def bench(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(app, ["bench", *arguments])
    return done.exit_code, done.stdout, done.stderr


@pytest.fixture
def scenario(monkeypatch: pytest.MonkeyPatch) -> str:
    async def run(context: Context) -> None:
        context.outcome.metrics["sent"] = context.settings.seed
        if context.deployment is not None:
            context.fail(f"{context.deployment.tenants[0].phone_number_id} lost a message")

    monkeypatch.setitem(SCENARIOS, "made-up", Scenario("nothing", {"sent": Metric("messages", "sent")}, run))
    monkeypatch.setitem(SCENARIOS, "alone", Scenario("nothing", {}, run, targets=False))
    return "made-up"


def test_the_list_names_every_scenario() -> None:
    code, out, _ = bench("--list")
    assert code == 0
    assert all(name in out for name in SCENARIOS)


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("made-up", "--tenant", TENANT),
        ("made-up", "--target", "https://gateway.test", "--tenant", TENANT, "--key", "pk_1"),
        ("made-up", "--target", "http://gateway.test"),
        ("made-up", "--target", "http://gateway.test", "--tenant", TENANT),
        ("made-up", "--target", "http://gateway.test", "--tenant", "nonsense", "--key", "pk_1"),
        ("alone", "--target", "http://gateway.test", "--tenant", TENANT, "--key", "pk_1"),
    ],
)
def test_what_cannot_be_measured_is_refused(scenario: str, arguments: tuple[str, ...]) -> None:
    assert bench(*arguments)[0] == 2


def test_json_on_standard_output_is_alone_there(scenario: str) -> None:
    code, out, err = bench(scenario, "--json", "-", "--quick", "--seed", "7")
    assert code == 0
    document = json.loads(out)
    assert document["scenario"] == scenario
    assert document["metrics"] == {"sent": 7}
    assert document["settings"]["quick"] is True
    assert "messages" in err


def test_files_are_written_and_a_broken_promise_is_an_exit_code(scenario: str, tmp_path: Path) -> None:
    figures, page = tmp_path / "figures.json", tmp_path / "report.html"
    target = ("--target", "http://gateway.test/", "--tenant", TENANT, "--key", "pk_secret")
    code, out, err = bench(scenario, *target, "--json", str(figures), "--report", str(page))
    assert code == 1
    assert "300000000000001 lost a message" in out and "300000000000001 lost a message" in err
    document = json.loads(figures.read_text())
    assert document["failures"] == ["300000000000001 lost a message"]
    assert document["settings"]["target"] == "http://gateway.test/"
    assert document["settings"]["seed"] > 1  # fresh ids: those of an earlier run would be duplicates
    written = figures.read_text() + page.read_text()
    assert "300000000000001 lost a message" in page.read_text()
    assert "pk_secret" not in written and ":secret:" not in written
