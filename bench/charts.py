"""Plots as inline SVG: lines over a continuous axis, and bars made of parts.

Owns geometry and marks. Colours are CSS variables (`--series-1` …) and classes of the page's style sheet, so that one drawing serves light and
dark. Must not know what is plotted.

Every mark has a `<title>`, which browsers show under the pointer, and every plot comes with a table of the same figures beside it (`report_html`):
no figure is told by colour alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT = 720, 280
LEFT, RIGHT, TOP, BOTTOM = 62, 16, 12, 34
BAR, GAP = 22, 12
LABEL = 250
SERIES = 8
"""Colours there are. More curves than these are drawn in the muted one."""

Format = Callable[[float], str]


class Axis(NamedTuple):
    """A scale from values to 0 … 1: its marks, and how they are written."""

    position: Callable[[float], float]
    marks: Sequence[tuple[float, str]]


def linear(highest: float, write: Format) -> Axis:
    """Return a scale from 0 to a round number not below `highest`, with four to eight marks."""
    highest = highest if highest > 0 else 1.0
    step = 10 ** math.floor(math.log10(highest / 4))
    step *= next(factor for factor in (1, 2, 5, 10) if highest / (step * factor) <= 6)
    top = math.ceil(highest / step - 1e-9) * step
    return Axis(lambda value: value / top, [(at * step / top, write(at * step)) for at in range(round(top / step) + 1)])


def logarithmic(lowest: float, highest: float, write: Format) -> Axis:
    """Return a scale of whole decades around `lowest` and `highest`, both above 0."""
    first = math.floor(math.log10(lowest) + 1e-9)
    last = max(math.ceil(math.log10(highest) - 1e-9), first + 1)
    span = last - first
    marks = [((decade - first) / span, write(10.0**decade)) for decade in range(first, last + 1)]
    return Axis(lambda value: (math.log10(max(value, 10.0**first)) - first) / span, marks)


def percentiles(most: float) -> Axis:
    """Return the percentile scale of latency plots, up to `most` (below 100): each mark to the right leaves a tenth of what was left."""
    end = -math.log10(1 - most / 100)

    def position(percentile: float) -> float:
        return -math.log10(1 - min(percentile, most) / 100) / end

    nines = range(1, math.floor(end + 1e-9) + 1)
    return Axis(
        position, [(position(mark), f"{mark:.10g} %") for mark in (0.0, 50.0, *(100 - 10.0 ** (2 - n) for n in nines))]
    )


def lines(
    curves: Mapping[str, Sequence[tuple[float, float]]], across: Axis, up: Axis, tell: Callable[[float, float], str]
) -> str:
    """Draw curves of (x, y) points; `tell` says a point in words."""
    parts = [*_grid(across, up)]
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    for number, (name, points) in enumerate(curves.items()):
        placed = [(LEFT + across.position(x) * width, TOP + (1 - up.position(y)) * height) for x, y in points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in placed)
        parts.append(f'<polyline class="line" style="stroke:{colour(number)}" points="{path}"/>')
        few = max(len(points) // 40, 1)  # enough to point at, not a string of beads
        for (x, y), (left, top) in list(zip(points, placed, strict=True))[::few]:
            parts.append(
                f'<circle class="dot" cx="{left:.1f}" cy="{top:.1f}" r="7" style="--dot:{colour(number)}">'
                f"<title>{escape(f'{name}: {tell(x, y)}')}</title></circle>"
            )
    return _svg(HEIGHT, "".join(parts))


def bars(found: Mapping[str, Mapping[str, float]], write: Format) -> str:
    """Draw horizontal bars, each made of its parts, with its sum at the end."""
    names = list(dict.fromkeys(part for parts in found.values() for part in parts))
    highest = max((sum(parts.values()) for parts in found.values()), default=0.0) or 1.0
    width = WIDTH - LABEL - 70
    drawn = []
    for row, (name, parts) in enumerate(found.items()):
        top, left = row * (BAR + GAP) + GAP / 2, float(LABEL)
        middle = top + BAR / 2 + 4
        drawn.append(f'<text class="label" x="{LABEL - 10}" y="{middle:.0f}" text-anchor="end">{escape(name)}</text>')
        for part, value in parts.items():
            size = value / highest * width
            drawn.append(
                f'<rect x="{left:.1f}" y="{top:.1f}" width="{max(size - 2, 1):.1f}" height="{BAR}" rx="3" '
                f'style="fill:{colour(names.index(part))}"><title>{escape(f"{name}, {part}: {write(value)}")}</title></rect>'
            )
            left += size
        drawn.append(
            f'<text class="value" x="{left + 6:.1f}" y="{middle:.0f}">{escape(write(sum(parts.values())))}</text>'
        )
    return _svg(len(found) * (BAR + GAP) + GAP, "".join(drawn))


def legend(names: Sequence[str]) -> str:
    """Name the colours; nothing for a single one."""
    if len(names) < 2:
        return ""
    keys = (f'<li><i style="background:{colour(number)}"></i>{escape(name)}</li>' for number, name in enumerate(names))
    return f'<ul class="legend">{"".join(keys)}</ul>'


def colour(number: int) -> str:
    """Return the colour of a series by its number."""
    return f"var(--series-{number + 1})" if number < SERIES else "var(--muted)"


def _grid(across: Axis, up: Axis) -> list[str]:
    width, height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    parts = []
    for at, text in up.marks:
        y = TOP + (1 - at) * height
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text class="mark" x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{escape(text)}</text>')
    for at, text in across.marks:
        x = LEFT + at * width
        anchor = "end" if at > 0.97 else "start" if at < 0.03 else "middle"
        parts.append(f'<text class="mark" x="{x:.1f}" y="{HEIGHT - 12}" text-anchor="{anchor}">{escape(text)}</text>')
    return parts


def _svg(height: float, inside: str) -> str:
    return f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img">{inside}</svg>'
