"""A run's findings for people at a terminal."""

from rich.console import Console
from rich.table import Table
from rich.text import Text

from bench.scenario import Machine, Report

WIDE = 150
"""Columns of a terminal from which on the meanings are shown beside the figures."""


def show(report: Report, console: Console) -> None:
    """Print the findings as a table, with what a reader has to know below it."""
    wide = console.width >= WIDE
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("metric", no_wrap=True)
    table.add_column("value", justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    if wide:
        table.add_column("meaning", style="dim", overflow="fold")
    for key, value in report.outcome.metrics.items():
        unit, meaning = report.meanings[key]
        table.add_row(key, number(value), unit, *([meaning] if wide else []))
    console.print(Text(f"{report.scenario}: {report.about}", style="bold"))
    console.print(Text(describe(report.machine), style="dim"))
    console.print()
    console.print(table, soft_wrap=False)
    if report.outcome.notes or report.outcome.failures:
        console.print()
    for note in report.outcome.notes:
        console.print(Text(f"• {note}", style="yellow"))
    for failure in report.outcome.failures:
        console.print(Text(f"✗ {failure}", style="bold red"))


def describe(machine: Machine) -> str:
    """Return the machine in one line."""
    parts = [
        f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB",
        machine.kernel,
        f"Python {machine.python}",
    ]
    if machine.postgresql:
        parts.append(f"PostgreSQL {machine.postgresql}")
    return " · ".join(parts)


def number(value: float) -> str:
    """Return a figure as people read it: three significant digits, all digits of whole numbers."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    for limit, digits in ((100, 0), (10, 1), (1, 2)):
        if abs(value) >= limit:
            return f"{value:.{digits}f}"
    return f"{value:.3g}"
