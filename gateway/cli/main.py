"""`parley`: the commands, put together."""

import importlib.metadata
from typing import Annotated

import typer

from gateway.cli.bench import bench
from gateway.cli.bench_actors import bench_actors
from gateway.cli.configuration import config
from gateway.cli.demo import demo
from gateway.cli.doctor import doctor
from gateway.cli.migrate import migrate
from gateway.cli.quarantine import quarantine
from gateway.cli.replay import replay
from gateway.cli.serve import serve
from gateway.cli.simulate import simulate
from gateway.cli.tenants import key, tenant

app = typer.Typer(
    name="parley",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,  # a bug shows Python's own traceback
    help="Parley: an actor-based realtime messaging gateway.",
)
app.command()(serve)
app.command()(demo)
app.command()(simulate)
app.command()(bench)
app.command(hidden=True)(bench_actors)
app.command()(migrate)
app.add_typer(tenant, name="tenant")
app.add_typer(key, name="key")
app.add_typer(quarantine, name="quarantine")
app.command()(doctor)
app.command()(replay)
app.command()(config)


def _version(shown: bool) -> None:
    if shown:
        typer.echo(importlib.metadata.version("parley-gateway"))
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Parley: an actor-based realtime messaging gateway."""


def main() -> None:
    """Run the command line."""
    app()
