"""A run's findings as one self-contained page."""

from collections.abc import Sequence

from bench.scenario import Report


def page(reports: Sequence[Report]) -> str:
    """Return the page."""
    return "".join(each.scenario for each in reports)
