"""Any scenario under a sampling profiler: py-spy attached to its gateways, a flame graph of each.

Owns finding the gateways and the profiler beside them; the scenario does not know that it is watched. py-spy reads the process's memory from
outside and changes nothing in it. It needs the right to trace other processes, which root has.
"""

import shutil
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psutil
import trio

from bench.gateway_process import PARLEY
from bench.scenario import Context, Metric, Scenario

ABOUT = "a scenario under a sampling profiler: writes a flame graph of each of its gateways"

RATE = 100
"""Samples a second. The gateway stands still for each, a fraction of a millisecond, so that no stack is read half changed."""
LOOK_SECONDS = 0.1
"""Between two looks for a new gateway."""
WRITE_SECONDS = 60.0
"""How long the last profile may take to be written after its gateway has ended."""

METRICS: dict[str, Metric] = {
    "profiles": Metric("files", "flame graphs written: one for each gateway of the scenario"),
    "profiled_s": Metric("s", "that gateways were watched"),
}


def profiled(scenario: Scenario, file: Path) -> Scenario:
    """Return a scenario that runs another one and writes flame graphs to `file` (.svg; for speedscope's viewer .json), `file-2`, ….

    Its figures are the other one's; sampling costs them a little.
    """
    return Scenario(ABOUT, {**METRICS, **scenario.metrics}, partial(_run, scenario, file), targets=False)


async def _run(scenario: Scenario, file: Path, context: Context) -> None:
    program = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if program is None:
        context.fail("py-spy is not installed: pip install py-spy.")
        return
    profiler = Profiler(context, program, file)
    async with trio.open_nursery() as recordings:
        async with trio.open_nursery() as watching:
            watching.start_soon(profiler.watch, recordings)
            await scenario.run(context)
            watching.cancel_scope.cancel()
        recordings.cancel_scope.deadline = trio.current_time() + WRITE_SECONDS
    context.outcome.metrics["profiles"] = len(profiler.files)
    context.outcome.metrics["profiled_s"] = profiler.seconds
    for written in profiler.files:
        context.note(f"The flame graph is in {written}.")
    if not profiler.files:
        context.fail("No profile was written.")


class Profiler:
    """py-spy beside every gateway among this process's children."""

    def __init__(self, context: Context, program: str, file: Path) -> None:
        self.files: list[Path] = []
        self.seconds = 0.0
        self._context = context
        self._program = program
        self._names = _names(file)

    async def watch(self, recordings: trio.Nursery) -> None:
        """Record every gateway that appears. Recordings are in a nursery of their own, for each ends with its gateway, after this."""
        known: set[int] = set()
        while True:
            for process in psutil.Process().children():
                if process.pid not in known and _is_gateway(process):
                    known.add(process.pid)
                    recordings.start_soon(self._record, process.pid, next(self._names))
            await trio.sleep(LOOK_SECONDS)

    async def _record(self, pid: int, file: Path) -> None:
        form = "flamegraph" if file.suffix == ".svg" else "speedscope"
        command = [self._program, "record", "--pid", str(pid), "--output", str(file), "--format", form]
        began = trio.current_time()
        done = await trio.run_process(
            [*command, "--rate", str(RATE), "--duration", "unlimited"],
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
        if done.returncode:
            said = done.stderr.decode(errors="replace").strip()[-500:]
            self._context.fail(f"py-spy could not record process {pid}: {said}")
            return
        self.seconds += trio.current_time() - began
        self.files.append(file)


def _names(file: Path) -> Iterator[Path]:
    yield file
    number = 2
    while True:
        yield file.with_stem(f"{file.stem}-{number}")
        number += 1


def _is_gateway(process: psutil.Process) -> bool:
    """Whether a process is `parley serve`, already as itself (not still as the fork of this one)."""
    try:
        return bool(process.cmdline()[: len(PARLEY) + 1] == [*PARLEY, "serve"])
    except psutil.NoSuchProcess:
        return False
