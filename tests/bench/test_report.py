"""The report: figures as people read them, scales, and a page that needs nothing else and hides nothing."""

import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from io import StringIO

import pytest
from hdrh.histogram import HdrHistogram
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from bench import charts
from bench.report import number, show
from bench.report_html import page
from bench.scenario import Bars, Latencies, Machine, Metric, Outcome, Plot, Report, Settings, Timeline

MACHINE = Machine("A <fast> CPU", 2, 8.0, "Linux 6", "3.11.9", "17.2")
VOID = {"meta", "br"}


def histogram(*values: int) -> str:
    made = HdrHistogram(1, 60_000_000, 3)
    for value in values:
        made.record_value(value)
    return str(made.encode().decode())


def report(*plots: Plot, notes: tuple[str, ...] = (), failures: tuple[str, ...] = ()) -> Report:
    return Report(
        scenario="ingest",
        about="what it measures",
        machine=MACHINE,
        settings=Settings(),
        outcome=Outcome({"p50_ms": 1.5, "sent": 123456}, list(plots), list(notes), list(failures)),
        meanings={"p50_ms": Metric("ms", "median <time>"), "sent": Metric("messages", "sent")},
    )


class Page(HTMLParser):
    """Checks that every element is closed, and collects what could reach outside."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.outside: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)
        self.outside += [tag for tag in [tag] if tag in ("script", "link", "img", "iframe")]
        self.outside += [name for name, _ in attrs if name in ("src", "href", "srcset")]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        pass

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.text += data


PLOTS: tuple[Plot, ...] = (
    Latencies("Times", {"3,300/s": histogram(*range(1000, 3000)), "<idle>": histogram(7), "nothing": histogram()}),
    Timeline("Over time", "webhooks/s", {"saturation": [(0.5, 4000.0), (1.5, 4100.0)], "empty": []}),
    Bars("CPU", "µs", {"3,300/s": {"gateway": 80.0, "database": 40.0}, "saturation": {"gateway": 60.0}}),
)


def test_the_page_is_whole_and_needs_nothing_else() -> None:
    text = page([report(*PLOTS, notes=("a <note>",), failures=("3 messages are lost",))])
    found = Page(text)
    assert found.outside == []
    assert "url(" not in text and "@import" not in text
    for shown in (
        "median <time>",
        "p50_ms",
        "1.50",
        "123,456",
        "a <note>",
        "3 messages are lost",
        "A <fast> CPU",
        "<idle>",
    ):
        assert shown in found.text
    drawings = re.findall(r"<svg.*?</svg>", text, re.DOTALL)
    assert len(drawings) == len(PLOTS)
    for drawing in drawings:
        ElementTree.fromstring(drawing)


@pytest.mark.parametrize(
    "plot", [Latencies("t", {}), Timeline("t", "s", {}), Bars("t", "s", {}), Bars("t", "s", {"a": {}})]
)
def test_a_plot_of_nothing_is_still_a_page(plot: Plot) -> None:
    Page(page([report(plot)]))


def test_bars_are_as_long_as_their_parts() -> None:
    drawing = ElementTree.fromstring(
        charts.bars({"a": {"x": 30.0, "y": 10.0}, "b": {"y": 20.0}}, lambda value: f"{value:g}")
    )
    widths = [float(each.attrib["width"]) + 2 for each in drawing.iter("rect")]
    assert widths[0] / widths[1] == pytest.approx(3, abs=0.05)
    assert widths[2] / widths[1] == pytest.approx(2, abs=0.05)
    colours = [each.attrib["style"] for each in drawing.iter("rect")]
    assert colours[1] == colours[2] != colours[0]  # a part has one colour in all bars


@given(st.floats(1e-6, 1e12))
def test_linear_scales_hold_their_values(highest: float) -> None:
    axis = charts.linear(highest, str)
    assert axis.position(0) == 0
    assert 0 < axis.position(highest) <= 1.0 + 1e-9
    assert 2 <= len(axis.marks) <= 12
    assert [at for at, _ in axis.marks][-1] == pytest.approx(1.0)


@given(st.floats(1e-3, 1e6), st.floats(1.0, 1e6))
def test_logarithmic_scales_hold_their_values(lowest: float, factor: float) -> None:
    axis = charts.logarithmic(lowest, lowest * factor, str)
    assert -1e-9 <= axis.position(lowest) <= axis.position(lowest * factor) <= 1.0 + 1e-6
    assert axis.position(0) == 0


def test_percentiles_are_a_tenth_of_what_is_left_apart() -> None:
    axis = charts.percentiles(99.9)
    assert [axis.position(each) for each in (0.0, 90.0, 99.0, 99.9)] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert [text for _, text in axis.marks] == ["0 %", "50 %", "90 %", "99 %", "99.9 %"]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (7, "7"), (123456.0, "123,456"), (1234.56, "1,235"), (123.4, "123"), (12.34, "12.3"), (1.234, "1.23"),
     (0.01234, "0.0123"), (-12.34, "-12.3")],
)  # fmt: skip
def test_figures_are_written_as_people_read_them(value: float, text: str) -> None:
    assert number(value) == text


@pytest.mark.parametrize("width", [60, 200])
def test_the_terminal_shows_every_figure_and_what_has_to_be_known(width: int) -> None:
    out = StringIO()
    show(report(notes=("[a] note",), failures=("3 are lost",)), Console(file=out, width=width, soft_wrap=True))
    text = out.getvalue()
    for shown in ("p50_ms", "1.50", "123,456", "[a] note", "3 are lost", "A <fast> CPU"):
        assert shown in text
    assert ("median <time>" in text) == (width == 200)
