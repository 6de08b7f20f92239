from dataclasses import dataclass

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import Metrics


class Inner(msgspec.Struct, frozen=True):
    """A part."""

    depth: tuple[int, ...]
    refused: int


class Latency(msgspec.Struct, frozen=True):
    """How long commits took."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Commit(msgspec.Struct, frozen=True):
    """One journal."""

    seconds: Latency


@dataclass(frozen=True)
class Figures:
    """What is counted.

    And more.
    """

    handled: int
    load: float
    open: bool
    name: str
    missing: int | None
    by_code: dict[int, int]
    inner: Inner
    latency: Latency


FIGURES = Figures(7, 0.5, True, "text", None, {200: 3, 503: 1}, Inner((1, 2), 4), Latency((0.1, 1.0), (2, 3, 1), 4.5))


def samples(metrics: Metrics) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    page, content_type = metrics.render()
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def test_every_kind_of_figure() -> None:
    metrics = Metrics(process=False)
    metrics.register("x", lambda: FIGURES, counters=("handled", "by_code", "inner_refused"), labels={"by_code": "code"})
    assert samples(metrics) == {
        ("parley_x_handled_total", ()): 7,
        ("parley_x_load", ()): 0.5,
        ("parley_x_open", ()): 1,
        ("parley_x_by_code_total", (("code", "200"),)): 3,
        ("parley_x_by_code_total", (("code", "503"),)): 1,
        ("parley_x_inner_depth", (("key", "0"),)): 1,
        ("parley_x_inner_depth", (("key", "1"),)): 2,
        ("parley_x_inner_refused_total", ()): 4,
        ("parley_x_latency_bucket", (("le", "0.1"),)): 2,
        ("parley_x_latency_bucket", (("le", "1.0"),)): 5,
        ("parley_x_latency_bucket", (("le", "+Inf"),)): 6,
        ("parley_x_latency_count", ()): 6,
        ("parley_x_latency_sum", ()): 4.5,
    }
    page, _ = metrics.render()
    assert b"# HELP parley_x_handled_total handled: What is counted.\n" in page
    assert b"# TYPE parley_x_handled_total counter" in page and b"# TYPE parley_x_load gauge" in page


def test_one_family_for_many_objects() -> None:
    metrics = Metrics(process=False)
    pools = {"conversations": Inner((5,), 1), "journal": Inner((0,), 0)}
    metrics.register("pool", lambda: pools, counters=("refused",), labels={"depth": "lane"}, each="pool")
    page, _ = metrics.render()
    assert page.count(b"# TYPE parley_pool_depth gauge") == 1
    assert samples(metrics)["parley_pool_depth", (("lane", "0"), ("pool", "conversations"))] == 5
    assert samples(metrics)["parley_pool_refused_total", (("pool", "journal"),)] == 0
    latencies = {"a": Latency((1.0,), (1, 0), 0.5), "b": Latency((1.0,), (0, 2), 8.0)}
    metrics.register("commit", lambda: {name: Commit(one) for name, one in latencies.items()}, each="journal")
    assert metrics.render()[0].count(b"# TYPE parley_commit_seconds histogram") == 1
    assert samples(metrics)["parley_commit_seconds_count", (("journal", "a"),)] == 1
    assert samples(metrics)["parley_commit_seconds_sum", (("journal", "b"),)] == 8
    latencies.clear()
    pools.clear()
    assert samples(metrics) == {}


def test_figures_are_read_at_the_scrape() -> None:
    metrics = Metrics(process=False)
    count = iter(range(10))
    metrics.register("x", lambda: Inner((), next(count)))
    assert next(count) == 0  # registering read nothing
    assert samples(metrics)["parley_x_refused", ()] == 1
    assert samples(metrics)["parley_x_refused", ()] == 2


@pytest.mark.parametrize("wrong", [{"counters": ("handeld",)}, {"labels": {"by_cod": "code"}}])
def test_a_name_that_no_field_has(wrong: dict[str, object]) -> None:
    metrics = Metrics(process=False)
    metrics.register("x", lambda: FIGURES, **wrong)  # type: ignore[arg-type]  # one of the two
    with pytest.raises(LookupError, match=r"by_cod|handeld"):
        metrics.render()


def test_a_prefix_is_taken_once() -> None:
    metrics = Metrics(process=False)
    metrics.register("x", lambda: FIGURES)
    with pytest.raises(ValueError, match="'x'"):
        metrics.register("x", lambda: FIGURES)


def test_openmetrics_and_the_process() -> None:
    metrics = Metrics()
    page, content_type = metrics.render("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text") and page.endswith(b"# EOF\n")
    assert b"process_resident_memory_bytes" in page
