"""`parley simulate`: a seeded stand-in for Meta sends signed webhooks to a gateway."""

import secrets
import signal
from pathlib import Path
from typing import Annotated

import trio
import typer

from bench.simulators.faults import Faults
from bench.simulators.meta import START_MS
from bench.simulators.sender import Report
from bench.simulators.simulate import Options, load_tenants, parse_tenant
from bench.simulators.simulate import simulate as run_simulation
from gateway.cli.context import Failed, Json, err, print_json, run
from gateway.node import clock


def simulate(
    url: Annotated[
        str, typer.Option(help="The gateway's webhook address.")
    ] = "http://127.0.0.1:8080/webhooks/whatsapp",
    tenant: Annotated[
        list[str] | None,
        typer.Option(help="PHONE_NUMBER_ID:WABA_ID:APP_SECRET:DISPLAY_PHONE_NUMBER; may be repeated."),
    ] = None,
    tenants: Annotated[
        Path | None, typer.Option(help="JSON or TOML file with tenants instead.", exists=True, dir_okay=False)
    ] = None,
    rate: Annotated[float, typer.Option(help="Webhooks a second; 0: as fast as they are answered.", min=0.0)] = 20.0,
    concurrency: Annotated[int, typer.Option(help="Connections at once.", min=1, max=1000)] = 32,
    contacts: Annotated[int, typer.Option(help="People who write to each tenant.", min=1)] = 50,
    seed: Annotated[str | None, typer.Option(help="Same seed, same traffic; random and printed if left out.")] = None,
    count: Annotated[int | None, typer.Option(help="Stop after so many webhooks.", min=1)] = None,
    duration: Annotated[float | None, typer.Option(help="Stop after so many seconds.", min=0.0)] = None,
    duplicate: Annotated[float, typer.Option(help="Share of webhooks sent twice.", min=0.0, max=1.0)] = 0.0,
    reorder: Annotated[float, typer.Option(help="Share that overtake one another.", min=0.0, max=1.0)] = 0.0,
    delay: Annotated[float, typer.Option(help="Share that come much later.", min=0.0, max=1.0)] = 0.0,
    drop: Annotated[float, typer.Option(help="Share whose first attempt breaks off.", min=0.0, max=1.0)] = 0.0,
    malformed: Annotated[float, typer.Option(help="Signed nonsense in addition.", min=0.0, max=1.0)] = 0.0,
    forged: Annotated[float, typer.Option(help="Forgeries in addition; to be answered 401.", min=0.0, max=1.0)] = 0.0,
    time_factor: Annotated[
        float, typer.Option(help="Seconds of Meta's retry schedule that pass in a real one.", min=0.001)
    ] = 60.0,
    ledger: Annotated[Path | None, typer.Option(help="File to record every answer in, for a checker.")] = None,
    real_time: Annotated[
        bool, typer.Option("--now", help="Date the traffic from now on; without, it is the same bytes on any day.")
    ] = False,
    json: Json = False,
) -> None:
    """Send realistic signed WhatsApp traffic to a gateway, with faults if wanted. Ctrl-C stops it and prints the counts."""
    try:
        businesses = load_tenants(tenants) if tenants else tuple(parse_tenant(each) for each in tenant or ())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    if not businesses:
        raise typer.BadParameter("at least one --tenant, or a file with --tenants")
    seed = seed or secrets.token_hex(4)
    options = Options(
        url=url,
        tenants=businesses,
        rate=rate or None,
        concurrency=concurrency,
        contacts=contacts,
        seed=seed,
        count=count,
        duration_s=duration,
        faults=Faults(duplicate=duplicate, reorder=reorder, delay=delay, drop=drop, malformed=malformed, forged=forged),
        time_factor=time_factor,
        ledger=ledger,
        start_ms=clock() if real_time else START_MS,
    )

    async def command() -> None:
        err.print(f"seed {seed} → {url}")
        report = Report()
        try:
            await until_interrupted(options, report)
        finally:
            show(report, json=json)
        if report.forged_accepted:
            raise Failed(f"{report.forged_accepted} forged webhooks were not refused")

    run(command)


async def until_interrupted(options: Options, report: Report) -> None:
    """Simulate until the options' end or a signal, whichever comes first."""
    stop = trio.Event()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                async for _ in signals:
                    stop.set()

            nursery.start_soon(watch)
            await run_simulation(options, stop=stop, report=report)
            nursery.cancel_scope.cancel()


def show(report: Report, *, json: bool) -> None:
    """Print what was sent and what was answered."""
    if json:
        print_json(report)
        return
    answers = ", ".join(f"{status}: {count}" for status, count in sorted(report.statuses.items()))
    err.print(
        f"{report.sent} webhooks sent, {report.acknowledged} acknowledged with {report.items} items; "
        f"answers {answers or 'none'}; {report.broken} broken attempts, {report.gave_up} given up"
    )
