"""What a scenario is: what it is told, what it finds, and how one is run.

Owns the vocabulary of all scenarios: settings, the machine, metrics, plots, findings. Must not know any scenario, nor how findings are shown.
"""

import os
import platform
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import psutil

from bench.simulators.world import SimTenant

GIB = 1024**3

DISTURBED = 0.25
"""Cores used by other programs beyond which a note warns."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What the user may choose. `seconds` are those of each measured stretch, `warmup` those before it.

    `quick` is the form that shows that a scenario works, in seconds: the figures are true but mean little. `target` is the address of the
    deployment that is measured, None if the scenario starts a gateway of its own.
    """

    seconds: float = 10.0
    warmup: float = 2.0
    quick: bool = False
    seed: int = 1
    target: str | None = None


class Deployment(msgspec.Struct, frozen=True):
    """A running gateway to measure instead of an own one: its address, and tenants of it with a key for each."""

    url: str
    tenants: tuple[SimTenant, ...]
    keys: tuple[str, ...]


class Machine(msgspec.Struct, frozen=True):
    """Where the figures come from. `cores` are those this process may use."""

    cpu: str
    cores: int
    memory_gib: float
    kernel: str
    python: str
    postgresql: str | None


class Metric(NamedTuple):
    """A figure's unit and meaning, for people."""

    unit: str
    meaning: str


class Latencies(msgspec.Struct, frozen=True, tag="latencies"):
    """A plot of times by percentile: HdrHistogram texts (microseconds) by the curve's name."""

    title: str
    curves: dict[str, str]


class Timeline(msgspec.Struct, frozen=True, tag="timeline"):
    """A plot over time: points (seconds, value) by the line's name."""

    title: str
    unit: str
    lines: dict[str, list[tuple[float, float]]]


class Bars(msgspec.Struct, frozen=True, tag="bars"):
    """A comparison: for each bar's name the parts it is made of, each with the part's name."""

    title: str
    unit: str
    bars: dict[str, dict[str, float]]


Plot = Latencies | Timeline | Bars


class Outcome(msgspec.Struct):
    """What a scenario found.

    `notes` are what a reader has to know to judge the figures. `failures` are promises that did not hold; with one of them the run has failed.
    """

    metrics: dict[str, float] = msgspec.field(default_factory=dict)
    plots: list[Plot] = msgspec.field(default_factory=list)
    notes: list[str] = msgspec.field(default_factory=list)
    failures: list[str] = msgspec.field(default_factory=list)


class Context:
    """What a scenario is given. `directory` is its own and goes when it ends."""

    def __init__(
        self, settings: Settings, directory: Path, say: Callable[[str], None], deployment: Deployment | None = None
    ) -> None:
        self.settings = settings
        self.directory = directory
        self.deployment = deployment
        self.outcome = Outcome()
        self.postgresql: str | None = None
        self.now = ""
        """The present stage."""
        self.others = 0.0
        """The most cores that programs which have nothing to do with the measurement used during a stretch of it."""
        self._say = say

    def stage(self, text: str) -> None:
        """Say what begins."""
        self.now = text
        self._say(text)

    def progress(self, text: str) -> None:
        """Say how the stage goes."""
        self._say(f"{self.now}: {text}")

    def note(self, text: str) -> None:
        """Add to the notes, once."""
        if text not in self.outcome.notes:
            self.outcome.notes.append(text)

    def fail(self, text: str) -> None:
        """Add to the failures."""
        self.outcome.failures.append(text)

    def fresh_directory(self) -> Path:
        """Return a path in `directory` that does not exist yet."""
        return Path(tempfile.mkdtemp(dir=self.directory)) / "data"


class Scenario(NamedTuple):
    """A scenario: what it measures, every metric it may report, and how it is run (its findings go into the context's outcome)."""

    about: str
    metrics: Mapping[str, Metric]
    run: Callable[[Context], Awaitable[None]]
    targets: bool = True
    """Whether it can measure a deployment."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run, to be shown or kept."""

    scenario: str
    about: str
    machine: Machine
    settings: Settings
    outcome: Outcome
    meanings: dict[str, Metric]
    """Of the metrics that were found, in the order of their declaration."""

    def document(self) -> dict[str, object]:
        """Return what `--json` prints."""
        return {
            "scenario": self.scenario,
            "machine": self.machine,
            "settings": self.settings,
            "metrics": self.outcome.metrics,
            "notes": self.outcome.notes,
            "failures": self.outcome.failures,
        }


async def run(
    name: str,
    scenario: Scenario,
    settings: Settings,
    *,
    deployment: Deployment | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Report:
    """Run a scenario to its end.

    Raises:
        ValueError: it cannot measure a deployment, or found a metric that it does not declare.
    """
    if deployment is not None and not scenario.targets:
        raise ValueError(f"{name} measures a gateway of its own; it cannot be pointed at a deployment")
    with tempfile.TemporaryDirectory(prefix="parley-bench-", ignore_cleanup_errors=True) as directory:
        context = Context(settings, Path(directory), say, deployment)
        await scenario.run(context)
    outcome = context.outcome
    if unknown := outcome.metrics.keys() - scenario.metrics.keys():
        raise ValueError(f"{name} reports metrics it does not declare: {', '.join(sorted(unknown))}")
    machine = this_machine(context.postgresql)
    if deployment is not None:
        context.note(
            "The machine named is the generator's. What the deployment runs on is not known here, nor is its CPU time."
        )
    elif context.others > DISTURBED:
        context.note(
            f"Other programs used up to {context.others:.1f} of {machine.cores} cores meanwhile: trust CPU per operation, not rates and times."
        )
    if settings.quick:
        context.note("Quick form: it shows that everything works and is far too short to measure by.")
    outcome.metrics = {key: round(outcome.metrics[key], 4) for key in scenario.metrics if key in outcome.metrics}
    return Report(
        scenario=name,
        about=scenario.about,
        machine=machine,
        settings=settings,
        outcome=outcome,
        meanings={key: scenario.metrics[key] for key in outcome.metrics},
    )


def this_machine(postgresql: str | None) -> Machine:
    """Describe this machine."""
    names = [line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")]
    return Machine(
        cpu=names[0] if names else platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else psutil.cpu_count() or 1,
        memory_gib=round(psutil.virtual_memory().total / GIB, 1),
        kernel=f"{platform.system()} {platform.release()}",
        python=platform.python_version(),
        postgresql=postgresql,
    )


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:  # not Linux
        return []
