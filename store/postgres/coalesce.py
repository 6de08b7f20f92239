"""Many callers' lookups in few queries: what is asked while one query runs goes out together in the next.

Generic: knows trio, and neither SQL nor the store. When ten thousand idle conversations wake at once, each asks for its own stream; asked
one by one they would queue for the connections, together they are twenty queries.
"""

import copy
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Generic, TypeVar

import trio

from store.contract import StoreUnavailable

K = TypeVar("K")
V = TypeVar("V")

BATCH = 500
"""Keys in one query."""
WAITING = 50_000
"""Keys that may wait; more are refused (BOUNDED)."""


class _Request(Generic[K, V]):
    __slots__ = ("done", "error", "found", "keys")

    def __init__(self, keys: Sequence[K]) -> None:
        self.keys = keys
        self.found: Mapping[K, V] = {}
        self.error: Exception | None = None
        self.done = trio.Event()


class Coalescer(Generic[K, V]):
    """Joins concurrent `get`s into calls of `fetch`, which returns what it found by key. `run` must be running."""

    def __init__(self, fetch: Callable[[Sequence[K]], Awaitable[Mapping[K, V]]]) -> None:
        self._fetch = fetch
        self._requests: deque[_Request[K, V]] = deque()
        self._waiting = 0
        self._asked = trio.Event()

    async def get(self, keys: Sequence[K]) -> Mapping[K, V]:
        """Return what is known of `keys` (and perhaps of others). Raises what `fetch` raised; StoreUnavailable when too many wait."""
        if self._waiting + len(keys) > WAITING:
            raise StoreUnavailable("too many lookups are waiting for the database")
        request: _Request[K, V] = _Request(keys)
        self._requests.append(request)
        self._waiting += len(keys)
        self._asked.set()
        await request.done.wait()
        if request.error is not None:
            raise copy.copy(request.error) from request.error  # a traceback of its own for each caller
        return request.found

    async def run(self) -> None:
        """Serve requests until cancelled."""
        while True:
            await self._asked.wait()
            # One turn of the scheduler: whoever is about to ask for the same reason still joins.
            await trio.lowlevel.checkpoint()
            taken, keys = self._take()
            if not taken:
                self._asked = trio.Event()
                continue
            found: dict[K, V] = {}
            error: Exception | None = None
            try:
                for start in range(0, len(keys), BATCH):
                    found.update(await self._fetch(keys[start : start + BATCH]))
            except Exception as reason:  # handed to everyone who asked: it is theirs, as if they had asked alone
                error = reason
            for request in taken:
                request.found, request.error = found, error
                request.done.set()

    def _take(self) -> tuple[list[_Request[K, V]], list[K]]:
        taken: list[_Request[K, V]] = []
        keys: dict[K, None] = {}
        while self._requests and len(keys) < BATCH:
            request = self._requests.popleft()
            self._waiting -= len(request.keys)
            taken.append(request)
            keys.update(dict.fromkeys(request.keys))
        return taken, list(keys)
