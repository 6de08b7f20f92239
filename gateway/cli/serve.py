"""`parley serve`: run the gateway until told to stop."""

import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated

import structlog
import trio
import typer

from gateway.cli import logging
from gateway.cli.context import Config, DataDir, run, settings_of
from gateway.config import Settings
from gateway.node import Node
from store.postgres.store import PostgresStore, open_store

log = structlog.get_logger("parley")


def serve(
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port; 0 picks a free one.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    take_over: Annotated[
        bool, typer.Option("--take-over", help="Serve even if another process serves this database; that one stops.")
    ] = False,
) -> None:
    """Run the gateway until SIGINT or SIGTERM; a second one ends it at once."""
    settings = settings_of(config, host=host, port=port, data_dir=data_dir).settings
    logging.configure(settings)

    async def command() -> None:
        async with trio.open_nursery() as nursery:
            stop = await nursery.start(listen_for_signals, nursery.cancel_scope)
            async with serving(settings, take_over=take_over) as (node, _):
                await stopped(node, stop)
            nursery.cancel_scope.cancel()

    run(command)


class Stop:
    """What a signal does: it cancels a start, and asks whoever serves to stop in order."""

    def __init__(self, starting: trio.CancelScope) -> None:
        self.asked = trio.Event()
        self._starting = starting
        self._serving = False

    def served(self) -> None:
        """Take note that the start is over."""
        self._serving = True

    def ask(self) -> None:
        """Ask for a stop."""
        self.asked.set()
        if not self._serving:
            self._starting.cancel()


async def listen_for_signals(starting: trio.CancelScope, *, task_status: trio.TaskStatus[Stop]) -> None:
    """Wait for SIGINT or SIGTERM. From then on they do what they do by default: a second one ends the process at once."""
    stop = Stop(starting)
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        task_status.started(stop)
        async for number in signals:
            log.info("stopping", signal=signal.Signals(number).name)
            stop.ask()
            return


@asynccontextmanager
async def serving(settings: Settings, *, take_over: bool = False) -> AsyncIterator[tuple[Node, PostgresStore]]:
    """Run a node for as long as the block lasts; then it stops in order."""
    began = time.monotonic()
    store_dir = Path(settings.data_dir)
    async with (
        open_store(settings.database_url or None, store_dir, take_over=take_over) as store,
        trio.open_nursery() as nursery,
    ):
        node = Node(settings, store)
        addresses = await nursery.start(node.run)
        for host, port in addresses:
            log.info("ready", address=f"{host}:{port}", seconds=round(time.monotonic() - began, 2))
        yield node, store
        node.stop()


async def stopped(node: Node, stop: Stop) -> None:
    """Wait until a stop is asked for, or until the node ends by itself."""
    stop.served()
    async with trio.open_nursery() as nursery:
        for event in (stop.asked, node.ended):
            nursery.start_soon(_cancel_after, event, nursery.cancel_scope)


async def _cancel_after(event: trio.Event, scope: trio.CancelScope) -> None:
    await event.wait()
    scope.cancel()
