import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor import Intensity, RestartWindow


@given(
    restarts=st.integers(0, 5),
    period=st.sampled_from([0.5, 1.0, 5.0]),
    steps=st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.5, 5.0, 9.0]), max_size=40),
)
def test_agrees_with_counting_everything(restarts: int, period: float, steps: list[float]) -> None:
    window = RestartWindow(Intensity(restarts, period))
    now, seen = 100.0, []
    for step in steps:
        now += step
        seen.append(now)
        assert window.add(now) is (sum(now - at <= period for at in seen) > restarts)


def test_a_restart_exactly_one_period_ago_counts() -> None:
    window = RestartWindow(Intensity(1, 5.0))
    assert [window.add(now) for now in (0.0, 5.0, 10.5)] == [False, True, False]


def test_no_restarts_allowed_means_none() -> None:
    assert RestartWindow(Intensity(0)).add(0.0)


@pytest.mark.parametrize(("restarts", "period"), [(-1, 5.0), (1, 0.0), (1, -1.0), (1, float("nan"))])
def test_senseless_intensity_is_refused(restarts: int, period: float) -> None:
    with pytest.raises(ValueError, match="intensity"):
        Intensity(restarts, period)
