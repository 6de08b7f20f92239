"""What a scenario loads: a gateway of its own with as many tenants as it wants, or a deployment with those it was given.

Owns the difference between the two. Must not know what is sent.
"""

import http.client
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import msgspec
import trio

from bench.gateway_process import GatewayFailed, GatewayProcess, Usage
from bench.scenario import Context
from bench.simulators.world import SimTenant

APP_SECRET = "bench-app-secret-0123456789"  # noqa: S105  invented
PAGE = 200
"""Events a page of the feed has at most."""


class FeedEvent(msgspec.Struct, frozen=True):
    """As much of an event as a check wants: its place, what it is, and which message it is about."""

    offset: int
    kind: str
    message_id: str | None


class _Body(msgspec.Struct):
    type: str
    message_id: str | None = None


class _Event(msgspec.Struct):
    offset: int
    event: _Body


class _Page(msgspec.Struct):
    head: int
    data: list[_Event]


class Server:
    """A gateway under load. `process` is None when it is a deployment: then nothing is known of its CPU."""

    def __init__(
        self, url: str, tenants: tuple[SimTenant, ...], keys: tuple[str, ...], process: GatewayProcess | None
    ) -> None:
        self.url = url
        self.webhooks = f"{url}/webhooks/whatsapp"
        self.tenants = tenants
        self.keys = keys
        self.process = process

    def usage(self) -> Usage | None:
        """Return CPU and memory used so far, where they can be seen."""
        return self.process.usage() if self.process is not None else None

    async def head(self, key: str) -> int:
        """Return the newest offset of a tenant's feed."""
        return await trio.to_thread.run_sync(_head, self.url, key)

    async def feed(self, key: str, after: int) -> list[FeedEvent]:
        """Return the events of a tenant's feed after an offset."""
        return await trio.to_thread.run_sync(_feed, self.url, key, after)


def _connect(url: str) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    if parts.scheme == "https":
        return http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=30)
    return http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=30)


def _get(connection: http.client.HTTPConnection, path: str, key: str) -> bytes:
    connection.request("GET", path, headers={"x-api-key": key})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status != 200:
        raise GatewayFailed(f"GET {path}: {answer.status} {body[:500].decode(errors='replace')}")
    return body


def _head(url: str, key: str) -> int:
    connection = _connect(url)
    try:
        found: Any = json.loads(_get(connection, "/api/v1/conversations?limit=1", key))
        return int(found["feed"]["offset"])
    finally:
        connection.close()


def _feed(url: str, key: str, after: int) -> list[FeedEvent]:
    connection = _connect(url)
    decoder = msgspec.json.Decoder(_Page)
    events: list[FeedEvent] = []
    try:
        while True:
            page = decoder.decode(_get(connection, f"/api/v1/feed?after={after}&limit={PAGE}", key))
            events += (FeedEvent(each.offset, each.event.type, each.event.message_id) for each in page.data)
            if not page.data or (after := page.data[-1].offset) >= page.head:
                return events
    finally:
        connection.close()


@asynccontextmanager
async def serving(
    context: Context, *, tenants: int = 1, settings: Mapping[str, str] | None = None
) -> AsyncIterator[Server]:
    """Provide a server with so many tenants; `settings` are an own gateway's, as environment variables.

    A deployment serves with as many of its tenants as are wanted; if it has fewer, with those, and a note says so.
    """
    if (deployment := context.deployment) is not None:
        if len(deployment.tenants) < tenants:
            context.note(f"{tenants} tenants were wanted, the deployment offers {len(deployment.tenants)}.")
        yield Server(deployment.url, deployment.tenants[:tenants], deployment.keys[:tenants], None)
        return
    context.progress("starting a gateway")
    async with GatewayProcess(context.fresh_directory(), more=settings) as process:
        context.postgresql = process.database_version()
        context.progress(f"adding {tenants} tenants" if tenants > 1 else "adding a tenant")
        numbers = [str(300000000000001 + number) for number in range(tenants)]
        made = await trio.to_thread.run_sync(process.import_tenants, numbers, APP_SECRET)
        businesses = tuple(
            SimTenant(each.phone_number_id, each.waba_id, each.app_secret, f"4930{number:07d}")
            for number, each in enumerate(made)
        )
        yield Server(process.url, businesses, tuple(each.api_key for each in made), process)
