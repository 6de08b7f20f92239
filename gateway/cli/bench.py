"""`parley bench`: measure a gateway, an own one or a deployment, and report."""

import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer

from bench.dashboards import most_files
from bench.gateway_process import GatewayFailed
from bench.report import show
from bench.report_html import page
from bench.scenario import Deployment, Report, Settings
from bench.scenario import run as run_scenario
from bench.scenarios import SCENARIOS
from bench.scenarios.profile import profiled
from bench.simulators.simulate import parse_tenant
from bench.worker import WorkerFailed
from gateway.cli.context import Failed, err, leaves, out, print_table, run

SECONDS, WARMUP = 10.0, 2.0
QUICK_SECONDS, QUICK_WARMUP = 1.0, 0.5


def bench(
    scenario: Annotated[str | None, typer.Argument(help="What to measure; --list shows all.")] = None,
    seconds: Annotated[
        float | None, typer.Option(help=f"Seconds of each measured stretch [{SECONDS:g}].", min=1.0)
    ] = None,
    warmup: Annotated[float | None, typer.Option(help=f"Seconds before each [{WARMUP:g}].", min=0.0)] = None,
    target: Annotated[
        str | None, typer.Option(help="Address of a running gateway; without it one is started.", metavar="URL")
    ] = None,
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="Of the target: PHONE_NUMBER_ID:WABA_ID:APP_SECRET:DISPLAY_PHONE_NUMBER; may be repeated."),
    ] = None,
    key: Annotated[list[str] | None, typer.Option(help="An API key of each --tenant, in the same order.")] = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the messages' ids: same seed, same ids. A target gets a fresh one.", min=1)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="In seconds: to see that it works.")] = False,
    json: Annotated[
        str | None, typer.Option(help="File for the figures; - is standard output.", metavar="FILE")
    ] = None,
    report: Annotated[
        Path | None, typer.Option(help="File for a page with plots.", metavar="FILE.html", dir_okay=False)
    ] = None,
    flames: Annotated[
        Path | None,
        typer.Option(
            "--profile",
            help="Flame graph of the gateway, by py-spy: .svg, or .json for speedscope.",
            metavar="FILE",
            dir_okay=False,
        ),
    ] = None,
    every: Annotated[bool, typer.Option("--list", help="List the scenarios.")] = False,
) -> None:
    """Measure throughput, answer times and CPU per operation. Exits with 1 when a promise did not hold."""
    if every or scenario is None:
        print_table(["scenario", "what it measures"], [(name, each.about) for name, each in SCENARIOS.items()])
        return
    if scenario not in SCENARIOS:
        raise typer.BadParameter(f"there is no scenario {scenario!r}; there are {', '.join(SCENARIOS)}")
    chosen = profiled(SCENARIOS[scenario], flames) if flames else SCENARIOS[scenario]
    if target is not None and not chosen.targets:
        raise typer.BadParameter(f"{scenario} measures a gateway of its own; it takes no --target")
    deployment = _deployment(target, tenant or [], key or [])
    settings = Settings(
        seconds=seconds or (QUICK_SECONDS if quick else SECONDS),
        warmup=(QUICK_WARMUP if quick else WARMUP) if warmup is None else warmup,
        quick=quick,
        # An id that was sent before is a duplicate to the deployment: it would be measured doing nothing.
        seed=seed or (1 if deployment is None else int.from_bytes(os.urandom(4), "big") + 1),
        target=target,
    )
    most_files()

    async def command() -> None:
        found: Report | None = None
        try:
            async with unless_stopped():
                with progress() as say:
                    found = await run_scenario(scenario, chosen, settings, deployment=deployment, say=say)
        except* (GatewayFailed, WorkerFailed) as group:
            raise Failed(str(leaves(group)[0])) from group
        if found is None:
            raise Failed("stopped")
        _put_out(found, json, report)
        if found.outcome.failures:
            raise Failed("; ".join(found.outcome.failures))

    run(command)


def _deployment(target: str | None, tenants: list[str], keys: list[str]) -> Deployment | None:
    if target is None:
        if tenants or keys:
            raise typer.BadParameter("--tenant and --key belong to a --target")
        return None
    if not target.startswith("http://"):
        raise typer.BadParameter("--target takes an http:// address: measure behind what ends TLS")
    if not tenants or len(tenants) != len(keys):
        raise typer.BadParameter("--target needs at least one --tenant, and a --key for each")
    try:
        return Deployment(target.rstrip("/"), tuple(parse_tenant(each) for each in tenants), tuple(keys))
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


@asynccontextmanager
async def unless_stopped() -> AsyncIterator[None]:
    """Cancel the block at SIGTERM or SIGHUP, so that the gateway it started and its database end as well; Ctrl-C does so by itself."""

    async def watch(scope: trio.CancelScope) -> None:
        async for _ in signals:
            scope.cancel()

    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGHUP) as signals:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(watch, nursery.cancel_scope)
            yield
            nursery.cancel_scope.cancel()


@contextmanager
def progress() -> Iterator[Callable[[str], None]]:
    """Show what is going on, on a terminal; elsewhere say nothing."""
    if not err.is_terminal:
        yield lambda _: None
        return
    with err.status("") as status:
        yield status.update


def _put_out(found: Report, json: str | None, html: Path | None) -> None:
    document = msgspec.json.format(msgspec.json.encode(found.document()), indent=2) + b"\n"
    show(found, err if json == "-" else out)
    if json == "-":
        sys.stdout.write(document.decode())
    elif json is not None:
        Path(json).write_bytes(document)
    if html is not None:
        html.write_text(page([found]), encoding="utf-8")
        err.print(f"\n{html} has the plots.")
