"""How a figure is spread: counted in buckets, cheap enough for a hot path. Must not know what is measured."""

from bisect import bisect_left

import msgspec

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Bounds for times of commits and answers."""
SIZES = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)
"""Bounds for how many things were done at once."""


class Histogram(msgspec.Struct, frozen=True):
    """`counts[i]` observations were at most `bounds[i]` and above the bound before; the last of `counts` were above them all."""

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float


class Distribution:
    """Counts observations. One bisection and two additions each."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count one observation."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def snapshot(self) -> Histogram:
        """Return what was counted so far."""
        return Histogram(self._bounds, tuple(self._counts), self._total)
