"""README's performance section: made from runs, and from nothing else."""

from pathlib import Path

import pytest

from bench.readme import BEGIN, END, SHOWN, rewrite, section
from bench.scenarios import SCENARIOS

MACHINE = {
    "cpu": "Some CPU",
    "cores": 2,
    "memory_gib": 24.0,
    "kernel": "Linux 6",
    "python": "3.11.7",
    "postgresql": "18.1",
}
RUNS = [
    {"scenario": "ingest", "machine": MACHINE, "metrics": {"saturation_per_s": 5432.1, "p50_ms_at_3300": 3.25}},
    {"scenario": "peers", "machine": MACHINE, "metrics": {"ratio_to_express_pg": 2.5}},
]


def test_it_says_where_and_what_was_measured() -> None:
    text = section(RUNS)
    assert "Some CPU, 2 cores, 24 GiB" in text
    assert "| durable webhooks/s, every promise kept, one dashboard subscribed | 5,432 |" in text
    assert "| times Express + pg + Socket.IO, in the same run | 2.50 × |" in text
    assert "FastAPI" not in text
    assert "`parley bench ingest` · `parley bench peers`" in text


def test_it_replaces_what_stood_between_the_marks() -> None:
    once = rewrite(f"before\n{BEGIN}\nold\n{END}\nafter", RUNS)
    assert "old" not in once
    assert once.startswith("before\n")
    assert once.endswith("\nafter")
    assert rewrite(once, RUNS) == once
    with pytest.raises(ValueError, match="marks"):
        rewrite("no marks", RUNS)


def test_every_figure_it_shows_is_one_that_a_scenario_declares() -> None:
    for scenario, metric, _, _ in SHOWN:
        assert metric in SCENARIOS[scenario].metrics, (scenario, metric)


def test_the_readme_has_the_marks() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    assert BEGIN in readme
    assert END in readme
