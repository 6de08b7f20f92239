"""What all commands share: the settings of this call, the store, the error that ends a command, and how output is printed.

Must not know any command.
"""

import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import msgspec
import trio
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from gateway.config import ConfigError, Loaded, Settings, load
from store.contract import StoreError
from store.postgres.store import PostgresStore, open_store
from supervisor import SupervisionError

WIDE = 240
"""Columns where no terminal says how many: what is piped is searched, and should not be wrapped."""

out = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Config = Annotated[str | None, typer.Option("--config", help="TOML file with settings.", metavar="FILE")]
DataDir = Annotated[str | None, typer.Option("--data-dir", help="Directory of the embedded database.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, for scripts.")]


class Failed(Exception):
    """The command cannot do what it was asked. The text is for a person: what is wrong, and what to do."""


def settings_of(config: str | None, **overrides: Any) -> Loaded:
    """Return the settings of this call; a bad one ends the command with exit code 2."""
    try:
        return load(os.environ, file=config, overrides=overrides)
    except ConfigError as error:
        stop(f"configuration: {error}", code=2)


def stop(message: str, *, code: int = 1) -> NoReturn:
    """End the command with a message on standard error."""
    err.print(f"[bold red]parley:[/] {escape(message)}")
    raise typer.Exit(code)


def run(command: Callable[[], Awaitable[None]]) -> None:
    """Run a command on trio. What it is expected to fail with becomes one line and exit code 1."""
    try:
        trio.run(command)
    except BaseException as raised:
        for error in leaves(raised):
            if isinstance(error, KeyboardInterrupt):
                raise typer.Exit(130) from None
            if isinstance(error, Failed | StoreError | SupervisionError | OSError):
                stop(explain(error))
        raise


def leaves(error: BaseException) -> Sequence[BaseException]:
    """Return what is inside a group of exceptions, or the exception itself."""
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in leaves(inner)]
    return [error]


def explain(error: BaseException) -> str:
    """Return an error and its causes, outermost first, as one line."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        for leaf in leaves(current)[:1]:
            text = str(leaf) or type(leaf).__name__
            if text not in parts:
                parts.append(text)
            current = leaf.__cause__
    return ": ".join(parts)


@asynccontextmanager
async def beside(settings: Settings) -> AsyncIterator[PostgresStore]:
    """Open the store for a tool: works beside a running `parley serve` on the same database."""
    async with open_store(settings.database_url or None, Path(settings.data_dir), serve=False) as store:
        yield store


def print_json(value: Any) -> None:
    """Print one JSON document on standard output."""
    sys.stdout.write(msgspec.json.format(msgspec.json.encode(value), indent=2).decode() + "\n")


def print_table(columns: Sequence[str], rows: Sequence[Mapping[str, Any] | Sequence[Any]]) -> None:
    """Print rows for a person."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        values = row.values() if isinstance(row, Mapping) else row
        table.add_row(*(_cell(value) for value in values))
    out.print(table)


def _cell(value: Any) -> Text:
    """Return a value as it is: what people wrote may look like markup and is none."""
    if isinstance(value, Text):
        return value
    if isinstance(value, list | tuple):
        return Text(", ".join(map(str, value)))
    return Text("" if value is None else str(value))
