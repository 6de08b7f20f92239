"""A real PostgreSQL for tests: one embedded server a session, one database shared and emptied, or a new one where a test needs it.

The server's directory is short, because a Unix socket's path must be.
"""

import shutil
import tempfile
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import asyncpg
import pytest
import trio

from store.postgres.bridge import open_bridge
from store.postgres.embedded import SETTINGS, Server

_numbers = count(1)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Server]:
    """The session's embedded server, running."""
    home = Path(tempfile.mkdtemp(prefix="parley-"))
    # Nothing is promised to outlive the machine here; syncing each test's files would take most of the time.
    server = Server(home, {**SETTINGS, "fsync": "off"})
    users = server.enter()
    try:
        yield server
    finally:
        server.stop("immediate")  # thrown away: no last checkpoint of every database the tests made
        server.leave(users)
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def postgres_url(postgres_server: Server) -> str:
    """The address of one database for all tests that `empty` it."""
    return create_database(postgres_server)


@pytest.fixture
def postgres_database(postgres_server: Server) -> str:
    """The address of a database of the test's own, without a schema."""
    return create_database(postgres_server)


def create_database(server: Server) -> str:
    """Create a database; return its address. Not for use inside a running trio."""
    name = f"test_{next(_numbers)}"
    trio.run(execute, server.url, f"create database {name}")
    return address(server, name)


def address(server: Server, database: str) -> str:
    """Return the address of one of the server's databases."""
    return f"postgresql://postgres@/{database}?host={server.socket_dir}"


async def execute(url: str, *statements: str) -> object:
    """Run statements on a connection of their own; return the last one's first value."""

    async def run() -> object:
        connection = await asyncpg.connect(url)
        try:
            for statement in statements[:-1]:
                await connection.execute(statement)
            return await connection.fetchval(statements[-1])
        finally:
            await connection.close()

    async with open_bridge() as bridge:
        return await bridge.run(run)


TABLES = [
    "partitions",
    "streams",
    "snapshots",
    "feeds",
    "events",
    "dedupe",
    "aliases",
    "conversations",
    "messages",
    "raw_webhooks",
    "quarantine",
    "tenants",
    "endpoints",
    "api_keys",
]


async def empty(url: str) -> None:
    """Delete all rows. Few as they are in a test, that is faster than TRUNCATE, which makes new files."""
    await execute(url, ";".join(f"delete from {table}" for table in TABLES), "select 1")
