"""Parts of Parley alone, each as a process, for `parley bench peers` to measure beside the whole.

`python -m gateway.cli.bench_parts listener PORT`: the listener answering webhooks without doing any work, the limit of what a gateway can
reach. `… database DIR`: the embedded PostgreSQL with Parley's own settings, so that every peer stores with the same.
Each runs until SIGINT or SIGTERM; `database` prints its URL first.
"""

import gc
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import trio
import typer

from gateway.cli.context import run
from gateway.http import Request, Response
from gateway.listener import Limits, Listener
from store.postgres.embedded import attach

app = typer.Typer(help=__doc__, add_completion=False, pretty_exceptions_enable=False)

OK = Response(200)
SIGNALS = (signal.SIGINT, signal.SIGTERM)


@app.command()
def listener(port: int) -> None:
    """Answer every webhook 200 and do nothing."""

    async def answer(request: Request) -> Response:
        return OK

    serving = Listener(
        handlers={"/webhooks/whatsapp": answer}, sockets={}, app=_nothing_else, limits=Limits(drain_seconds=0.0)
    )

    async def command() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(serving.serve, "127.0.0.1", port)
            gc.collect()
            gc.freeze()  # as the whole gateway does once it is ready
            with trio.open_signal_receiver(*SIGNALS) as signals:
                await anext(signals)
            nursery.cancel_scope.cancel()

    run(command)


@app.command()
def database(data_dir: Path) -> None:
    """Run the embedded PostgreSQL of a directory."""

    async def command() -> None:
        # Open for as long as the server takes to stop: a second signal meanwhile must not leave it behind.
        with trio.open_signal_receiver(*SIGNALS) as signals:
            async with attach(data_dir, keep=False) as url:
                print(url, flush=True)
                await anext(signals)

    run(command)


async def _nothing_else(
    scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """An ASGI application that starts, stops, and has no pages."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            kind = (await receive())["type"]
            await send({"type": f"{kind}.complete"})
    else:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})


if __name__ == "__main__":
    app()
