"""`parley demo`: the gateway, a demo tenant and live traffic, with one command."""

import secrets
from itertools import takewhile
from pathlib import Path
from typing import Annotated

import msgspec
import trio
import typer

from bench.simulators.sender import Report
from bench.simulators.sender import run as run_sender
from bench.simulators.simulate import Forgetful, Options, deliveries
from bench.simulators.world import SimTenant
from gateway.cli import logging
from gateway.cli.context import Config, err, out, run, settings_of
from gateway.cli.serve import Stop, listen_for_signals, serving, stopped
from gateway.cli.tenants import provision
from gateway.node import Node, clock
from gateway.routing import new_key
from store.contract import Endpoint
from store.postgres.store import PostgresStore

SLUG = "demo"
KEPT_KEYS = 4
"""So that a page that is still open from the run before goes on by itself."""
PAST_MINUTES = 10
"""Sent at once, so that the dashboard opens on a working day and not on an empty page."""
DEMO_NUMBER = SimTenant(
    phone_number_id="300000000000001",
    waba_id="200000000000001",
    app_secret="",  # made when the tenant is
    display_phone_number="4930000000",
)


def demo(
    port: Annotated[int | None, typer.Option(help="TCP port; 0 picks a free one.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    contacts: Annotated[
        int, typer.Option(help="People who write; 100 of them make about 0.6 webhooks a second.", min=1)
    ] = 400,
    seed: Annotated[str | None, typer.Option(help="Same seed, same traffic; random if left out.")] = None,
    data_dir: Annotated[
        str | None, typer.Option(help="Directory of the demo's database; its conversations are there next time.")
    ] = None,
    config: Config = None,
) -> None:
    """Serve, with a demo tenant and simulated WhatsApp traffic. Prints the dashboard's address with a ready login; Ctrl-C stops all."""
    loaded = settings_of(config, host=host, port=port, data_dir=data_dir)
    settings = loaded.settings
    if "data_dir" not in loaded.sources:
        settings = msgspec.structs.replace(settings, data_dir=str(Path(settings.data_dir).with_name("parley-demo")))
    if "log_level" not in loaded.sources:
        settings = msgspec.structs.replace(settings, log_level="warning")
    logging.configure(settings)

    async def command() -> None:
        err.print("Starting the database and the gateway …")
        async with trio.open_nursery() as nursery:
            stop = await nursery.start(listen_for_signals, nursery.cancel_scope)
            async with serving(settings) as (node, store):
                number, token = await demo_tenant(store)
                address = shown_address(node)
                out.print("\n[bold]Parley demo[/]")
                out.print(f"  dashboard   [link]{address}/#key={token}[/link]")
                out.print(f"  API         {address}/api/v1/conversations   (Authorization: Bearer {token})")
                out.print(f"  health      {address}/health/ready   metrics  {address}/metrics")
                out.print(f"  traffic     {contacts} people write, in real time, after {PAST_MINUTES} minutes of past")
                out.print("  Ctrl-C stops everything.\n")
                options = Options(
                    url=f"{address}/webhooks/whatsapp",
                    tenants=(number,),
                    rate=None,
                    concurrency=8,
                    contacts=contacts,
                    seed=seed or secrets.token_hex(4),
                    start_ms=clock() - PAST_MINUTES * 60_000,
                )
                await with_traffic(node, options, stop)
            nursery.cancel_scope.cancel()

    run(command)


async def demo_tenant(store: PostgresStore) -> tuple[SimTenant, str]:
    """Return the demo tenant's number and a fresh key for it; made on the first run, its oldest keys revoked on later ones."""
    routes = await store.load_routes()
    for tenant in routes.tenants:
        if tenant.slug != SLUG:
            continue
        keys = sorted((key for key in routes.keys if key.tenant == tenant.id), key=lambda key: key.created_at)
        for key in keys[:-KEPT_KEYS]:
            await store.revoke_key(key.id, clock())
        token, api_key = new_key(tenant.id, at=clock())
        await store.add_key(api_key)
        endpoint = next(each for each in routes.endpoints if each.tenant == tenant.id)
        return msgspec.structs.replace(DEMO_NUMBER, app_secret=endpoint.app_secret), token
    secret = secrets.token_hex(16)
    endpoint = Endpoint(
        "whatsapp",
        DEMO_NUMBER.phone_number_id,
        "",
        secret,
        secrets.token_hex(8),
        account=DEMO_NUMBER.waba_id,
        display=f"+{DEMO_NUMBER.display_phone_number}",
    )
    _, token, _ = await provision(store, routes, slug=SLUG, name="Demo", endpoint=endpoint)
    return msgspec.structs.replace(DEMO_NUMBER, app_secret=secret), token


def shown_address(node: Node) -> str:
    """Return where the node can be reached from this machine."""
    host, port = node.addresses[0]
    scheme = "https" if node.settings.tls_certificate else "http"
    return f"{scheme}://{'localhost' if host in ('0.0.0.0', '::') else host}:{port}"  # noqa: S104  shown, not bound


async def with_traffic(node: Node, options: Options, stop: Stop) -> None:
    """Send the past at once and then what comes when it is due, until the node is told to stop; show how it goes."""
    report = Report()
    traffic = deliveries(options)
    now = clock()
    past = list(takewhile(lambda delivery: delivery.due_ms <= now, traffic))

    async def send() -> None:
        with Forgetful() as ledger:
            await run_sender(past, options.url, ledger=ledger, report=report)
            await run_sender(traffic, options.url, ledger=ledger, report=report, speed=1.0)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        nursery.start_soon(_show, node, report)
        await stopped(node, stop)
        nursery.cancel_scope.cancel()


async def _show(node: Node, report: Report) -> None:
    if not err.is_terminal:
        return
    with err.status("") as status:
        while True:
            events = node.journal.statistics().events
            watching = node.sessions.statistics().open
            status.update(
                f"{report.acknowledged} webhooks acknowledged, {events} events committed, {watching} dashboards watching"
            )
            await trio.sleep(0.5)
