"""A gateway with two tenants, seven conversations each, over the store in memory."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import quart
import trio
from quart.typing import TestClientProtocol
from quart_trio import QuartTrio

from gateway.api.app import create_app
from gateway.api.readiness import ReadinessProbe
from gateway.api.services import Services
from gateway.dashboard import assets
from gateway.http import Request, Response
from gateway.metrics import Metrics
from gateway.routing import RouteTable, new_key
from protocol.ids import PARTITIONS, partition_of
from protocol.machines.timeline import RANK
from store.contract import (
    ApiKey,
    Append,
    ConversationWrite,
    Endpoint,
    FeedHead,
    MessageWrite,
    NewEvent,
    QuarantineEntry,
    Routes,
    StoredEvent,
    Tenant,
)
from store.memory import MemoryDatabase, MemoryStore

T0 = 1790000000000
BAKERY, FLORIST = Tenant("tnt_bakery", "bakery", "The Bakery"), Tenant("tnt_florist", "florist", "The Florist")
ENDPOINTS = {BAKERY.id: "300000000000001", FLORIST.id: "300000000000002"}


def conversation_id(tenant: Tenant, number: int) -> str:
    return f"cnv_{tenant.slug}{number:03}"


class WatchedStore(MemoryStore):
    """The store in memory, with places to look at and to interfere: `before_read` runs in every call, `checks` counts `check`.

    `oldest` is what the feed's head claims, `pruned` what `read_feed` really lacks.
    """

    def __init__(self) -> None:
        super().__init__()
        self.before_read: Callable[[], Awaitable[None]] | None = None
        self.reads = 0
        self.checks = 0
        self.oldest = 1
        self.pruned = 0

    async def _reach(self) -> MemoryDatabase:
        self.reads += 1
        if self.before_read is not None:
            await self.before_read()
        return await super()._reach()

    async def load_routes(self) -> Routes:
        try:
            return await super().load_routes()
        finally:
            self.reads -= 1  # who is who is looked up for strangers too; what belongs to somebody is not

    async def check(self) -> None:
        self.checks += 1
        await super().check()

    async def feed_head(self, tenant: str) -> FeedHead:
        return msgspec.structs.replace(await super().feed_head(tenant), oldest=self.oldest)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 500) -> list[StoredEvent]:
        return [
            event for event in await super().read_feed(tenant, after=after, limit=limit) if event.offset > self.pruned
        ]


def append_of(tenant: Tenant, number: int, epochs: Mapping[int, int]) -> Append:
    """Conversation `number` of seven, with as many messages as its number, each an event."""
    stream = conversation_id(tenant, number)
    events, messages = [], []
    for version in range(1, number + 1):
        at = T0 + number * 1000 + version
        content = b'{"type":"text","body":"%s %d/%d \\u00e9"}' % (tenant.slug.encode(), number, version)
        message_id = f"wamid.{tenant.slug}.{number}.{version}"
        body = b'{"type":"message_recorded","at":%d,"message_id":"%s","content":%s}' % (
            at,
            message_id.encode(),
            content,
        )
        events.append(NewEvent("message_recorded", body, at))
        ours = version % 2 == 0
        messages.append(
            MessageWrite(
                message_id=message_id,
                status=RANK["delivered"] if ours else 0,
                status_at=at + 9 if ours else None,
                seq=version,
                at=at,
                outbound=ours,
                origin="customer",
                kind="text",
                content=content,
                context=b'{"message_id":"wamid.before"}' if version == 2 else None,
                problems=b'[{"code":131047,"title":"Re-engagement"}]' if version == 4 else None,
            )
        )
    partition = partition_of(stream)
    return Append(
        tenant=tenant.id,
        stream=stream,
        partition=partition,
        epoch=epochs[partition],
        expected=0,
        events=tuple(events),
        endpoint=ENDPOINTS[tenant.id],
        messages=tuple(messages),
        conversation=ConversationWrite(
            endpoint=ENDPOINTS[tenant.id],
            contact=b'{"phone":"49151%d","name":"Mira"}' % number,
            name=f"{tenant.slug} contact {number}",
            preview="hello",
            last_at=T0 + number // 2 * 1000,  # pairs at the same moment: the id decides
            last_outbound=number % 2 == 0,
            unanswered=number % 2,
            messages=number,
        ),
    )


@dataclass
class Gateway:
    """The application under test, with what stands behind it."""

    app: QuartTrio
    store: WatchedStore
    metrics: Metrics
    keys: dict[str, tuple[str, ApiKey]]
    accepting: bool = True
    requests: list[Request] = field(default_factory=list)

    @property
    def client(self) -> TestClientProtocol:
        return self.app.test_client()

    async def get(self, path: str, tenant: Tenant | None = BAKERY, **headers: str) -> quart.Response:
        """Get with the tenant's key."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if tenant is not None:
            named.setdefault("authorization", f"Bearer {self.keys[tenant.id][0]}")
        response: quart.Response = await self.client.get(path, headers=named)
        return response

    async def json(self, path: str, tenant: Tenant | None = BAKERY, *, status: int = 200, **headers: str) -> Any:
        """Get, check the status, and return the JSON."""
        response = await self.get(path, tenant, **headers)
        body = await body_of(response)
        assert response.status_code == status, body
        return msgspec.json.decode(body)


async def body_of(response: quart.Response) -> bytes:
    data = await response.get_data(as_text=False)
    assert isinstance(data, bytes)
    return data


async def exchange(app: QuartTrio, path: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> list[dict[str, Any]]:
    """Get straight through ASGI, for what the test client hides or cannot send. Returns the messages the application sent."""
    sent: list[dict[str, Any]] = []
    scope: Any = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 5),
        "server": ("127.0.0.1", 80),
        "extensions": {},
    }
    messages = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if not messages:
            await trio.sleep_forever()
        return messages.pop()

    async def send(message: Any) -> None:
        await trio.lowlevel.checkpoint()
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def problem_of(response: quart.Response, status: int, code: str) -> dict[str, Any]:
    """Check that the answer is the problem `code`, and return it."""
    body = await body_of(response)
    assert response.status_code == status, body
    assert response.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = msgspec.json.decode(body)
    assert found["code"] == code and found["status"] == status and found["type"] == f"/problems/{code}"
    assert response.headers["x-request-id"]
    return found


@pytest.fixture
async def gateway() -> Gateway:
    return await make_gateway()


async def make_gateway(tenants: Sequence[Tenant] = (BAKERY, FLORIST), *, load: bool = True) -> Gateway:
    """Fill a store and put the application before it; `load`: the route table knows the tenants already."""
    store = WatchedStore()
    epochs = await store.acquire_partitions(range(PARTITIONS))
    keys = {}
    for tenant in tenants:
        keys[tenant.id] = new_key(tenant.id, at=T0)
        await store.add_tenant(tenant)
        await store.add_key(keys[tenant.id][1])
        number, secret, token = ENDPOINTS[tenant.id], f"app-secret-{tenant.slug}", f"verify-{tenant.slug}"
        await store.add_endpoint(Endpoint("whatsapp", number, tenant.id, secret, token))
        quarantine = [
            QuarantineEntry(f"qrt_{tenant.slug}{number}", number, "bad_item", "why", b'{"n":%d}' % number, tenant.id)
            for number in range(5)
        ]
        appends = [append_of(tenant, number, epochs) for number in range(1, 8)]
        await store.append_batch(appends, quarantine=quarantine, at=T0 + 500)
    await store.append_batch([], quarantine=[QuarantineEntry("qrt_nobody", 9, "unrouted", "unknown", b"{}")], at=T0)
    routes = RouteTable(store)
    metrics = Metrics(process=False)

    async def echo(request: Request) -> Response:
        made.requests.append(request)
        return Response(202, request.body, ((b"x-lane", b"none"),))

    services = Services(
        store=store,
        routes=routes,
        metrics=metrics,
        readiness=ReadinessProbe(store, routes, lambda: made.accepting),
        statistics=lambda: {"routes": routes.statistics()},
        clock=lambda: T0,
        assets=assets(),
        handlers={"/webhooks/whatsapp": echo},
        body_bytes=1000,
    )
    made = Gateway(create_app(services), store, metrics, keys)
    if load:
        await routes.authenticate(keys[tenants[0].id][0])
    return made
