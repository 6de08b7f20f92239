"""Whether webhooks would be acknowledged now. Must not know HTTP.

`reasons` of an answer that says no:

| code | what is missing |
|------|-----------------|
| store_unavailable | an append would not be accepted: the database is away, read-only, full, or fenced this process off |
| store_slow | the database did not answer within CHECK_SECONDS |
| routes_not_loaded | tenants and endpoints have not been read yet |
| journal_not_accepting | the journal has no room, or does not run |
"""

from collections.abc import Callable

import trio

from gateway.api.services import Readiness
from gateway.routing import RouteTable
from store.contract import Store, StoreUnavailable

CHECK_SECONDS = 1.0
FRESH_SECONDS = 0.2
"""How long an answer of the database serves other callers: anybody may ask, and must not make the database work by asking."""


class ReadinessProbe:
    """Answers `Readiness` when called. One check of the database at a time, shared by all who ask meanwhile."""

    def __init__(self, store: Store, routes: RouteTable, accepting: Callable[[], bool]) -> None:
        """`accepting` tells whether the journal has room."""
        self._store = store
        self._routes = routes
        self._accepting = accepting
        self._lock = trio.Lock()
        self._checked_at = float("-inf")
        self._store_reason: str | None = None

    async def __call__(self) -> Readiness:
        """Return within about CHECK_SECONDS whether webhooks would be acknowledged; never raises for what it finds."""
        async with self._lock:
            if trio.current_time() - self._checked_at >= FRESH_SECONDS:
                self._store_reason = await self._check_store()
                self._checked_at = trio.current_time()
            reasons = [] if self._store_reason is None else [self._store_reason]
        if not self._routes.loaded:
            reasons.append("routes_not_loaded")
        if not self._accepting():
            reasons.append("journal_not_accepting")
        return Readiness(not reasons, tuple(reasons))

    async def _check_store(self) -> str | None:
        try:
            with trio.fail_after(CHECK_SECONDS):
                await self._store.check()
        except StoreUnavailable:
            return "store_unavailable"
        except trio.TooSlowError:
            return "store_slow"
        return None
