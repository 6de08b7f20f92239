"""docs/benchmarks.md describes every metric that any scenario may report."""

import re
from pathlib import Path

import pytest

from bench.scenarios import SCENARIOS

DOCS = (Path(__file__).parent.parent.parent / "docs" / "benchmarks.md").read_text()
EVERYWHERE = ("sent", "acknowledged", "stored", "lost", "repeated")


def section(name: str) -> str:
    found = re.search(rf"^### {name}\n(.*?)(?=^##)", DOCS, re.MULTILINE | re.DOTALL)
    assert found is not None, f"docs/benchmarks.md has no section {name}"
    return found[1]


def pattern(code: str) -> str:
    """`{a,b}` is one of them, `{word}` anything."""
    parts = re.split(r"\{([^}]*)\}", code)
    for place in range(1, len(parts), 2):
        alternatives = parts[place].split(",")
        parts[place] = f"(?:{'|'.join(alternatives)})" if len(alternatives) > 1 else "[a-z0-9_]+"
    return "".join(parts)


@pytest.mark.parametrize("name", list(SCENARIOS))
def test_every_metric_is_described(name: str) -> None:
    described = [pattern(code) for code in re.findall(r"`([a-z0-9_{},]+)`", section(name))]
    metrics = SCENARIOS[name].metrics.keys() - set(EVERYWHERE)
    if name == "profile":  # which reports those of the scenario that it watches as well
        metrics -= SCENARIOS["ingest"].metrics.keys()
    assert not [key for key in sorted(metrics) if not any(re.fullmatch(each, key) for each in described)]
