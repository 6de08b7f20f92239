"""Every test of this folder runs on memory and on PostgreSQL."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

import pytest

from store.contract import Store
from store.memory import MemoryDatabase, MemoryStore
from store.postgres.store import open_store
from tests.support.postgres import empty


class World(Protocol):
    """One empty database, on which several stores may be opened at once."""

    def open(self) -> AbstractAsyncContextManager[Store]:
        """Open one more store."""


class MemoryWorld:
    def __init__(self) -> None:
        self.database = MemoryDatabase()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        yield MemoryStore(self.database)


class PostgresWorld:
    def __init__(self, url: str) -> None:
        self.url = url
        self.fresh = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Store]:
        async with open_store(self.url, Path(), serve=False) as store:
            if not self.fresh:
                await empty(self.url)
                self.fresh = True
            yield store


@pytest.fixture(params=["memory", "postgres"])
def world(request: pytest.FixtureRequest) -> World:
    if request.param == "memory":
        return MemoryWorld()
    return PostgresWorld(request.getfixturevalue("postgres_url"))


@pytest.fixture
async def store(world: World) -> AsyncIterator[Store]:
    async with world.open() as one:
        yield one


@pytest.fixture
async def epoch(store: Store) -> int:
    """The epoch under which `store` holds partitions 1 to 4."""
    return (await store.acquire_partitions([1, 2, 3, 4]))[1]
