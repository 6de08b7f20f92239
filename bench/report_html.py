"""Findings as one self-contained page: figures, plots, notes; light or dark as the reader's system is. No script, no outside reference."""

from collections.abc import Sequence
from datetime import UTC, datetime
from html import escape

from hdrh.histogram import HdrHistogram

from bench import charts
from bench.report import describe, number
from bench.scenario import Bars, Latencies, Plot, Report, Timeline

PERCENTILES = (1.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 97.5, 99.0, 99.5, 99.9, 99.95, 99.99, 99.999)
TABLED = (50.0, 90.0, 99.0, 99.9)

STYLE = """
:root {
  color-scheme: light dark;
  --page: #f9f9f7; --card: #fcfcfb; --ink: #0b0b0b; --ink-2: #52514e; --muted: #898781; --rule: #e1e0d9; --edge: rgba(11,11,11,.10);
  --bad: #c23030; --note: #fff6df; --note-edge: #e8cf8a;
  --series-1: #2a78d6; --series-2: #1baf7a; --series-3: #eda100; --series-4: #008300;
  --series-5: #4a3aa7; --series-6: #e34948; --series-7: #e87ba4; --series-8: #eb6834;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #0d0d0d; --card: #1a1a19; --ink: #ffffff; --ink-2: #c3c2b7; --muted: #898781; --rule: #2c2c2a; --edge: rgba(255,255,255,.10);
    --bad: #ff7b7b; --note: #2a2416; --note-edge: #5c4d22;
    --series-1: #3987e5; --series-2: #199e70; --series-3: #c98500; --series-4: #008300;
    --series-5: #9085e9; --series-6: #e66767; --series-7: #d55181; --series-8: #d95926;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); font: 15px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 820px; margin: 0 auto; padding: 40px 20px 60px; }
h1 { font-size: 26px; line-height: 1.25; margin: 0; letter-spacing: -.01em; }
h2 { font-size: 17px; margin: 0 0 12px; }
header p { margin: 6px 0 0; color: var(--ink-2); }
section { background: var(--card); border: 1px solid var(--edge); border-radius: 10px; padding: 20px 24px; margin-top: 20px; overflow-x: auto; }
.notes { background: var(--note); border-color: var(--note-edge); }
.notes ul { margin: 0; padding-left: 20px; }
.failed { color: var(--bad); font-weight: 600; }
svg { display: block; width: 100%; height: auto; overflow: visible; }
svg text { font: 12px system-ui, -apple-system, "Segoe UI", sans-serif; fill: var(--muted); font-variant-numeric: tabular-nums; }
svg .label { fill: var(--ink-2); } svg .value { fill: var(--ink); font-weight: 600; }
.grid { stroke: var(--rule); stroke-width: 1; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.dot { fill: transparent; } .dot:hover { fill: var(--dot); }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; list-style: none; margin: 0 0 10px; padding: 0; color: var(--ink-2); font-size: 13px; }
.legend i { display: inline-block; width: 10px; height: 10px; border-radius: 3px; margin-right: 6px; }
table { border-collapse: collapse; width: 100%; font-size: 14px; }
th { text-align: left; font-weight: 600; color: var(--ink-2); font-size: 13px; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--rule); vertical-align: top; }
tr:last-child td { border-bottom: 0; }
td.figure, th.figure { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
td.figure { font-weight: 600; } td.unit { color: var(--ink-2); white-space: nowrap; }
td small { display: block; color: var(--muted); font-size: 12px; font-family: ui-monospace, Menlo, Consolas, monospace; }
details { margin-top: 12px; font-size: 14px; } summary { cursor: pointer; color: var(--ink-2); }
"""


def page(reports: Sequence[Report]) -> str:
    """Return the page."""
    title = "Parley bench: " + ", ".join(report.scenario for report in reports)
    body = "".join(_report(report) for report in reports)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _report(report: Report) -> str:
    settings, outcome = report.settings, report.outcome
    when = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    measured = settings.target or "a gateway of its own"
    parts = [
        f"<header><h1>{escape(report.scenario)}</h1><p>{escape(report.about[:1].upper() + report.about[1:])}.</p>"
        f"<p>{escape(describe(report.machine))}<br>{when} · {escape(measured)} · "
        f"stretches of {settings.seconds:g} s after {settings.warmup:g} s of warm-up</p></header>"
    ]
    if outcome.notes or outcome.failures:
        lines = [f'<li class="failed">{escape(failure)}</li>' for failure in outcome.failures]
        lines += [f"<li>{escape(note)}</li>" for note in outcome.notes]
        parts.append(f'<section class="notes"><ul>{"".join(lines)}</ul></section>')
    parts += [_plot(plot) for plot in outcome.plots]
    rows = []
    for key, value in outcome.metrics.items():
        unit, meaning = report.meanings[key]
        rows.append(
            f'<tr><td>{escape(meaning)}<small>{escape(key)}</small></td><td class="figure">{number(value)}</td>'
            f'<td class="unit">{escape(unit)}</td></tr>'
        )
    parts.append(f"<section><h2>Figures</h2><table>{''.join(rows)}</table></section>")
    return "".join(parts)


def _plot(plot: Plot) -> str:
    match plot:
        case Latencies():
            drawing, names, table = _latencies(plot)
        case Timeline():
            drawing, names, table = _timeline(plot)
        case Bars():
            drawing, names, table = _bars(plot)
    return f"<section><h2>{escape(plot.title)}</h2>{charts.legend(names)}{drawing}{table}</section>"


def _latencies(plot: Latencies) -> tuple[str, list[str], str]:
    histograms = {name: HdrHistogram.decode(text) for name, text in plot.curves.items()}
    histograms = {name: histogram for name, histogram in histograms.items() if histogram.get_total_count()}
    # A percentile that fewer than ten observations lie beyond says something of those ten only.
    most = max((_last_percentile(histogram.get_total_count()) for histogram in histograms.values()), default=99.0)
    curves = {}
    for name, histogram in histograms.items():
        last = _last_percentile(histogram.get_total_count())
        shown = [percentile for percentile in PERCENTILES if percentile <= last]
        curves[name] = [(each, histogram.get_value_at_percentile(each) / 1e3) for each in shown]
    values = [value for points in curves.values() for _, value in points if value > 0] or [1.0]
    up = charts.logarithmic(min(values), max(values), lambda value: f"{value:,.10g} ms")
    drawing = charts.lines(curves, charts.percentiles(most), up, lambda x, y: f"{x:g} % within {number(y)} ms")
    head = [f"{each:g} %" for each in TABLED]
    rows = {
        name: [f"{number(histogram.get_value_at_percentile(each) / 1e3)} ms" for each in TABLED]
        for name, histogram in histograms.items()
    }
    return drawing, list(curves), _table(head, rows)


def _last_percentile(count: int) -> float:
    return next((each for each in reversed(PERCENTILES) if count * (1 - each / 100) >= 10), 90.0)


def _timeline(plot: Timeline) -> tuple[str, list[str], str]:
    seconds = max((x for points in plot.lines.values() for x, _ in points), default=1.0)
    highest = max((y for points in plot.lines.values() for _, y in points), default=1.0)
    across = charts.linear(seconds, lambda value: f"{value:g} s")
    up = charts.linear(highest, number)
    drawing = charts.lines(plot.lines, across, up, lambda x, y: f"{number(y)} {plot.unit} at {x:g} s")
    rows = {}
    for name, points in plot.lines.items():
        values = [y for _, y in points] or [0.0]
        rows[name] = [number(each) for each in (min(values), sum(values) / len(values), max(values))]
    return drawing, list(plot.lines), _table(["lowest", "mean", f"highest ({plot.unit})"], rows)


def _bars(plot: Bars) -> tuple[str, list[str], str]:
    parts = list(dict.fromkeys(part for found in plot.bars.values() for part in found))
    drawing = charts.bars(plot.bars, lambda value: f"{number(value)} {plot.unit}")
    rows = {name: [number(found[part]) if part in found else "" for part in parts] for name, found in plot.bars.items()}
    return drawing, parts, _table([f"{part} ({plot.unit})" for part in parts], rows)


def _table(head: Sequence[str], rows: dict[str, list[str]]) -> str:
    heads = "".join(f'<th class="figure">{escape(each)}</th>' for each in head)
    lines = []
    for name, values in rows.items():
        cells = "".join(f'<td class="figure">{escape(each)}</td>' for each in values)
        lines.append(f"<tr><td>{escape(name)}</td>{cells}</tr>")
    table = f"<table><tr><th></th>{heads}</tr>{''.join(lines)}</table>"
    return f"<details><summary>The same in figures</summary>{table}</details>"
