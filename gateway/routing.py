"""Who is meant and who is asking: tenants, endpoints and API keys, held in memory for every request to look at.

Owns the table's freshness and the shape of an API key. Must not know HTTP servers, SQL or what is done with an answer.

Theory of operation
-------------------
1. Look-ups are synchronous reads of dictionaries that are replaced as a whole, so no request ever sees half a change.
2. `run` reloads whenever the store says that something may have changed. While the database is away the old table goes on serving.
3. `find_endpoint` and `authenticate` do not believe a miss at once: what is missing may have been added by another process a moment ago
   (`parley tenant add` beside a running `serve`). They wait for a load that begins after they asked. Loads caused by misses begin
   MISS_INTERVAL apart and serve everybody who waits, so a flood of unknown ids costs four queries a second, and its senders a moment.
   A miss that cannot be checked because the database is away raises StoreUnavailable: "unknown" is only said when it is known.
4. A key is found by its SHA-256. What a look-up's time could tell about a digest tells nothing about a key, and keys are
   random enough (192 bits) that a fast digest is as good as a slow one.
"""

import hashlib
import re
import secrets
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple

import msgspec
import trio

from gateway.http import Headers
from protocol.ids import KEY, new_id
from store.contract import ApiKey, Endpoint, Routes, Store, StoreUnavailable, Tenant

MISS_INTERVAL = 0.25
"""Seconds between two loads that misses may cause; an unknown id is answered that much later at most."""
AWAY_SECONDS = 1.0
"""A load that failed answers for so long: while the database is away, misses are not made to wait for it."""
SETTLE = 0.05
"""Seconds that a notified change waits for its siblings: adding a thousand endpoints in a loop is some twenty reloads a second, not a thousand."""
LOAD_SECONDS = 2.0
"""A load that takes longer counts as the database being away; a webhook is to be answered 503 within about this time."""
BACKOFF = (0.25, 0.5, 1.0, 2.0)
"""Seconds between loads that fail, the last one for ever: recovery is noticed within 2 s."""

_TOKEN = re.compile(r"pk_[!-~]{1,200}")
"""What could be a key at all. Anything else is refused without a digest or a reload."""


class Identity(NamedTuple):
    """Who a request comes from."""

    tenant: Tenant
    key: ApiKey


class RouteStatistics(msgspec.Struct, frozen=True):
    """The table's size, and counts since the start. `misses`: look-ups that found nothing; `failures`: loads that did not succeed."""

    tenants: int
    endpoints: int
    keys: int
    loads: int
    failures: int
    misses: int


def new_key(tenant: str, *, at: int) -> tuple[str, ApiKey]:
    """Make an API key for `tenant`: the text to show once, `pk_<prefix>_<secret>`, and the row to store. `at` is Unix milliseconds."""
    prefix = f"pk_{secrets.token_hex(4)}"
    text = f"{prefix}_{secrets.token_hex(24)}"
    return text, ApiKey(new_id(KEY, at, secrets.token_bytes(10)), tenant, prefix, digest_of(text), at)


def digest_of(token: str) -> bytes:
    """Return what is stored of a key."""
    return hashlib.sha256(token.encode()).digest()


def presented_key(headers: Headers) -> str | None:
    """Return the API key a request shows in `authorization: Bearer …` or `x-api-key` (names in lower case).

    None when there is none, or when there are two different ones: which of them was meant is not ours to guess.
    """
    shown = set()
    for name, value in headers:
        if name == b"x-api-key":
            shown.add(value.strip())
        elif name == b"authorization":
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":  # another scheme is some proxy's affair
                shown.add(credentials.strip())
    return (shown.pop().decode("latin-1") or None) if len(shown) == 1 else None


class _Table:
    """One load, indexed."""

    def __init__(self, routes: Routes) -> None:
        self.routes = routes
        self.tenants = {tenant.id: tenant for tenant in routes.tenants}
        self.keys = {key.digest: key for key in routes.keys}
        self.endpoints = {(endpoint.provider, endpoint.external_id): endpoint for endpoint in routes.endpoints}
        accounts: dict[tuple[str, str], list[Endpoint]] = {}
        by_tenant: dict[str, list[Endpoint]] = {}
        secrets_: dict[
            str, dict[str, None]
        ] = {}  # a dict, not a set: the order is the store's, so which is tried first is stable
        for endpoint in routes.endpoints:
            by_tenant.setdefault(endpoint.tenant, []).append(endpoint)
            secrets_.setdefault(endpoint.provider, {})[endpoint.app_secret] = None
            if endpoint.account is not None:
                accounts.setdefault((endpoint.provider, endpoint.account), []).append(endpoint)
        self.accounts = {key: tuple(found) for key, found in accounts.items()}
        self.by_tenant = {key: tuple(found) for key, found in by_tenant.items()}
        self.app_secrets = {provider: tuple(found) for provider, found in secrets_.items()}


class RouteTable:
    """The routes of this moment. Start `run` with `nursery.start`; everything may be called before, and finds nothing until loaded."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._table = _Table(Routes((), (), ()))
        self._loaded = False
        self._loading = trio.Lock()
        self._tried_at = float("-inf")
        self._begun = self._ended = 0
        """The number of the newest load that began, and of the newest that came to an end (one at a time: under the lock)."""
        self._away = False
        self._loads = 0
        self._failures = 0
        self._misses = 0
        self._on_revoked: list[Callable[[Collection[ApiKey]], None]] = []

    @property
    def loaded(self) -> bool:
        """Whether the table has been loaded at least once."""
        return self._loaded

    def on_keys_revoked(self, callback: Callable[[Collection[ApiKey]], None]) -> None:
        """Call `callback` with the keys that a reload no longer found, so that what was opened with them can be closed. Synchronous."""
        self._on_revoked.append(callback)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Load, report started, and keep the table fresh for ever.

        Started also when the first load fails: the process is then alive and not ready, and becomes ready by itself.
        """
        failed = 0
        started = False
        while True:
            try:
                async with self._loading:
                    await self._load()
                if not started:
                    task_status.started()
                    started = True
                failed = 0
                await self._store.wait_routes_changed()
                await trio.sleep(SETTLE)
            except StoreUnavailable:
                if not started:
                    task_status.started()
                    started = True
                await trio.sleep(BACKOFF[min(failed, len(BACKOFF) - 1)])
                failed += 1

    def endpoint(self, provider: str, external_id: str) -> Endpoint | None:
        """Return the endpoint with the provider's id, as far as the table knows."""
        return self._table.endpoints.get((provider, external_id))

    def endpoints_of_account(self, provider: str, account: str) -> Sequence[Endpoint]:
        """Return the endpoints under a provider's account (WABA); several tenants may share one."""
        return self._table.accounts.get((provider, account), ())

    def endpoints_of(self, tenant: str) -> Sequence[Endpoint]:
        """Return a tenant's endpoints."""
        return self._table.by_tenant.get(tenant, ())

    def tenant(self, tenant: str) -> Tenant | None:
        """Return the tenant with this id."""
        return self._table.tenants.get(tenant)

    def app_secrets(self, provider: str) -> Sequence[str]:
        """Return the distinct app secrets of a provider's endpoints: where the sender is not known yet, one of them must have signed."""
        return self._table.app_secrets.get(provider, ())

    def endpoints_at(self, provider: str) -> Sequence[Endpoint]:
        """Return all endpoints of a provider, for its verification challenge, which names nothing but a token."""
        return [endpoint for endpoint in self._table.routes.endpoints if endpoint.provider == provider]

    async def find_endpoint(self, provider: str, external_id: str) -> Endpoint | None:
        """Return the endpoint, having looked once more where the table did not know it.

        Raises:
            StoreUnavailable: not in the table, and the database cannot say.
        """
        found = self.endpoint(provider, external_id)
        if found is None:
            await self._reload_after_miss()
            found = self.endpoint(provider, external_id)
        return found

    async def authenticate(self, token: str) -> Identity | None:
        """Return whose key `token` is, having looked once more where the table did not know it.

        Raises:
            StoreUnavailable: not in the table, and the database cannot say.
        """
        if not _TOKEN.fullmatch(token):
            return None
        digest = digest_of(token)
        identity = self._identity(digest)
        if identity is None:
            await self._reload_after_miss()
            identity = self._identity(digest)
        return identity

    def statistics(self) -> RouteStatistics:
        """Return sizes and counts."""
        routes = self._table.routes
        return RouteStatistics(
            tenants=len(routes.tenants),
            endpoints=len(routes.endpoints),
            keys=len(routes.keys),
            loads=self._loads,
            failures=self._failures,
            misses=self._misses,
        )

    def _identity(self, digest: bytes) -> Identity | None:
        key = self._table.keys.get(digest)
        tenant = None if key is None else self._table.tenants.get(key.tenant)
        return None if key is None or tenant is None else Identity(tenant, key)

    async def _reload_after_miss(self) -> None:
        self._misses += 1
        if self._away and trio.current_time() - self._tried_at < AWAY_SECONDS:
            raise StoreUnavailable("the routes could not be loaded a moment ago")
        begun = self._begun
        async with self._loading:
            if self._ended <= begun:  # or else whoever held the lock began a load after we asked: it was for us too
                await trio.sleep_until(self._tried_at + MISS_INTERVAL)
                await self._load()
        if self._away:
            raise StoreUnavailable("the routes could not be loaded a moment ago")

    async def _load(self) -> None:
        self._begun += 1
        try:
            with trio.fail_after(LOAD_SECONDS):
                routes = await self._store.load_routes()
        except StoreUnavailable:
            self._note_failure()
            raise
        except trio.TooSlowError as error:
            self._note_failure()
            raise StoreUnavailable("loading the routes took too long") from error
        # A load that was cancelled does not count: its caller gave up, the next one in the queue asks for itself.
        self._ended = self._begun
        self._tried_at = trio.current_time()
        self._away = False
        self._loads += 1
        self._loaded = True
        if routes == self._table.routes:
            return
        old, self._table = self._table, _Table(routes)
        revoked = [key for digest, key in old.keys.items() if digest not in self._table.keys]
        if revoked:
            for callback in self._on_revoked:
                callback(revoked)

    def _note_failure(self) -> None:
        self._failures += 1
        self._ended = self._begun
        self._tried_at = trio.current_time()
        self._away = True
