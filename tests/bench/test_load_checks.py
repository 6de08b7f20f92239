"""The checks of a stretch of load can fail; and times at the dashboards count from when a webhook was due."""

from collections import Counter
from pathlib import Path

import pytest
from hdrh.histogram import HdrHistogram

from bench.bodies import Work
from bench.dashboards import Seen
from bench.following import delivered
from bench.gateway_process import Usage
from bench.load import Plan, Result
from bench.measure import Ledger, Measured
from bench.scenario import Context, Settings


def test_all_is_well() -> None:
    ledger = Ledger()
    assert ledger.compare(range(10), set(), Counter(range(10))) == []
    assert ledger.compare(range(10, 20), {11}, Counter(range(12, 20)) + Counter([10])) == []
    kept = ledger.kept
    assert (kept.sent, kept.acknowledged, kept.stored, kept.lost, kept.repeated) == (20, 19, 19, 0, 0)


def test_what_is_acknowledged_and_not_stored_is_lost() -> None:
    ledger = Ledger()
    assert ledger.compare(range(10), {4}, Counter(range(4))) == ["5 acknowledged messages are not stored."]
    assert ledger.kept.lost == 5


def test_twice_is_repeated_also_over_stretches() -> None:
    ledger = Ledger()
    assert ledger.compare(range(3), set(), Counter([0, 1, 1, 2])) == ["1 messages are stored more than once."]
    assert ledger.compare(range(3, 5), set(), Counter([0, 3, 4])) == ["1 messages are stored more than once."]
    assert ledger.kept.repeated == 2


def test_what_was_refused_may_be_stored_later_once() -> None:
    ledger = Ledger()
    assert ledger.compare(range(3), {1, 2}, Counter([0])) == []
    assert ledger.compare(range(3, 5), set(), Counter([2, 3, 4])) == []
    assert (ledger.kept.stored, ledger.kept.lost) == (4, 0)
    assert ledger.compare(range(5, 6), set(), Counter([2, 5])) == ["1 messages are stored more than once."]


def test_what_nobody_sent_is_told() -> None:
    assert Ledger().compare(range(2), set(), Counter([0, 1, 99])) == ["1 messages are stored that were never sent."]


def stretch(*, rate: float | None) -> Measured:
    work = Work((), batch=2)
    plan = Plan(url="http://gateway.test", work=work, rate=rate, seconds=1.0, warmup=1.0, first=100)
    result = Result(
        seconds=1.0, answers={200: 10}, per_second=[10], overdue=0, histogram="", p50_us=1, p90_us=1, p99_us=1, p999_us=1, max_us=1,
        broken=0, sent_ever=20, acknowledged_ever=20, last=120, unacknowledged=[], cpu_seconds=0.001, limited=False,
        started_at=50.0, begun_at=51.0,
    )  # fmt: skip
    usages = [Usage(51.0, 7.0, 10**8, 3.0), Usage(52.0, 7.5, 10**8, 3.2)]
    return Measured(plan, result, usages)


def seen(items: list[int], arrivals: list[float]) -> Seen:
    buckets = [0] * 30
    buckets[25] = 4
    return Seen(
        dashboards=1, refused=0, closed={}, events=4, lost=0, repeated=0, items=items, arrivals=arrivals, began_at=49.0,
        buckets=buckets, cpu=[0.0] * 20 + [0.1] * 10, bytes_received=0,
    )  # fmt: skip


def test_times_at_the_dashboards_count_from_when_the_webhook_was_due(tmp_path: Path) -> None:
    context = Context(Settings(), tmp_path, lambda _: None)
    # At 10/s from 50.0 on, webhook 110 is due at 51.0, where the measured time begins; it carries the items 220 and 221.
    found = delivered(context, stretch(rate=10.0), seen([221, 222, 218, 7], [51.25, 51.6, 51.0, 51.0]))
    times = HdrHistogram.decode(found.histogram)
    assert times.get_total_count() == 2  # 218 was due in the warm-up, 7 belongs to another stretch
    assert (times.get_min_value(), times.get_max_value()) == (
        pytest.approx(250_000, 1e-3),
        pytest.approx(500_000, 1e-3),
    )
    assert found.events == 4
    assert context.outcome.notes == []


def test_cpu_is_counted_per_acknowledged_webhook() -> None:
    measured = stretch(rate=10.0)
    assert measured.cpu_us() == pytest.approx({"gateway": 50_000, "database": 20_000, "generator": 100})
    assert measured.gateway_percent() == pytest.approx(50)
