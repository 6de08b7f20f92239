"""A gateway with two tenants, over a store that holds rows in plain lists."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import pytest
import quart
from quart.typing import TestClientProtocol
from quart_trio import QuartTrio

from gateway.api.app import create_app
from gateway.api.readiness import ReadinessProbe
from gateway.api.services import Services
from gateway.dashboard import assets
from gateway.http import Request, Response
from gateway.metrics import Metrics
from gateway.routing import RouteTable, new_key
from store.contract import (
    ApiKey,
    ConversationRow,
    Endpoint,
    FeedHead,
    MessageRow,
    QuarantineEntry,
    Routes,
    StoredEvent,
    StoreUnavailable,
    Tenant,
)

BAKERY, FLORIST = Tenant("tnt_bakery", "bakery", "The Bakery"), Tenant("tnt_florist", "florist", "The Florist")
ENDPOINTS = {BAKERY.id: "300000000000001", FLORIST.id: "300000000000002"}


def conversation_id(tenant: Tenant, number: int) -> str:
    return f"cnv_{tenant.slug}{number:03}"


@dataclass
class RowsStore:
    """What the API reads of a store, over lists that a test fills; `away` makes every call fail."""

    routes: Routes
    conversations: dict[str, list[ConversationRow]] = field(default_factory=dict)
    messages: dict[str, list[MessageRow]] = field(default_factory=dict)
    events: dict[str, list[StoredEvent]] = field(default_factory=dict)
    quarantine: list[QuarantineEntry] = field(default_factory=list)
    oldest: int = 1
    epoch: str = "epoch-1"
    away: bool = False
    before_read: Callable[[], Awaitable[None]] | None = None
    calls: list[str] = field(default_factory=list)

    async def _serve(self, name: str) -> None:
        self.calls.append(name)
        if self.before_read is not None:
            await self.before_read()
        if self.away:
            raise StoreUnavailable("the database at db.internal is away")

    async def load_routes(self) -> Routes:
        await self._serve("load_routes")
        return self.routes

    async def check(self) -> None:
        await self._serve("check")

    async def feed_head(self, tenant: str) -> FeedHead:
        await self._serve("feed_head")
        return FeedHead(self.epoch, len(self.events[tenant]), self.oldest)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 500) -> list[StoredEvent]:
        await self._serve("read_feed")
        return [event for event in self.events[tenant] if event.offset > after][:limit]

    async def read_stream(self, tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> list[StoredEvent]:
        await self._serve("read_stream")
        return [one for one in self.events[tenant] if one.stream == stream and one.version > after][:limit]

    async def list_conversations(
        self,
        tenant: str,
        *,
        endpoint: str | None = None,
        unanswered: bool | None = None,
        search: str | None = None,
        before: tuple[int, str] | None = None,
        limit: int = 50,
    ) -> list[ConversationRow]:
        await self._serve("list_conversations")
        rows = sorted(self.conversations[tenant], key=lambda row: (row.last_at, row.id), reverse=True)
        return [
            row
            for row in rows
            if (endpoint is None or row.endpoint == endpoint)
            and (unanswered is None or (row.unanswered > 0) == unanswered)
            and (search is None or search in row.name)
            and (before is None or (row.last_at, row.id) < before)
        ][:limit]

    async def get_conversation(self, tenant: str, conversation: str) -> ConversationRow | None:
        await self._serve("get_conversation")
        return next((row for row in self.conversations[tenant] if row.id == conversation), None)

    async def list_messages(
        self, tenant: str, conversation: str, *, before: int | None = None, limit: int = 50
    ) -> list[MessageRow]:
        await self._serve("list_messages")
        assert any(row.id == conversation for row in self.conversations[tenant])
        rows = sorted(self.messages.get(conversation, []), key=lambda row: row.seq, reverse=True)
        return [row for row in rows if before is None or row.seq < before][:limit]

    async def list_quarantine(
        self, *, tenant: str | None = None, limit: int = 50, before: str | None = None
    ) -> list[QuarantineEntry]:
        await self._serve("list_quarantine")
        entries = sorted(self.quarantine, key=lambda entry: entry.id, reverse=True)
        return [one for one in entries if one.tenant == tenant and (before is None or one.id < before)][:limit]


def rows_of(tenant: Tenant) -> tuple[list[ConversationRow], list[MessageRow], list[StoredEvent]]:
    """Seven conversations; number n of them with n messages, each message an event."""
    conversations, messages, events = [], [], []
    for number in range(1, 8):
        stream = conversation_id(tenant, number)
        for version in range(1, number + 1):
            at = 1790000000000 + number * 1000 + version
            content = b'{"type":"text","body":"%s %d/%d \\u00e9"}' % (tenant.slug.encode(), number, version)
            identity = f"wamid.{tenant.slug}.{number}.{version}"
            body = b'{"type":"message_recorded","at":%d,"message_id":"%s","content":%s}'
            body %= (at, identity.encode(), content)
            events.append(
                StoredEvent(
                    tenant.id,
                    len(events) + 1,
                    stream,
                    version,
                    "message_recorded",
                    body,
                    at,
                    at + 5,
                    ENDPOINTS[tenant.id],
                )
            )
            messages.append(
                MessageRow(
                    message_id=identity,
                    conversation=stream,
                    seq=len(events),
                    at=at,
                    recorded_at=at + 5,
                    outbound=version % 2 == 0,
                    origin="customer",
                    kind="text",
                    content=content,
                    context=b'{"message_id":"wamid.before"}' if version == 2 else None,
                    author=None,
                    status=30 if version % 2 == 0 else 0,
                    status_at=at + 9 if version % 2 == 0 else None,
                    problems=b'[{"code":131047,"title":"Re-engagement"}]' if version == 4 else None,
                    edited=False,
                    revoked=False,
                )
            )
        conversations.append(
            ConversationRow(
                id=stream,
                endpoint=ENDPOINTS[tenant.id],
                contact=b'{"phone":"49151%d","name":"Mira"}' % number,
                name=f"{tenant.slug} contact {number}",
                preview="hello",
                last_at=1790000000000 + number // 2 * 1000,  # pairs at the same moment: the id decides
                last_outbound=number % 2 == 0,
                last_status=40 if number % 2 == 0 else 0,
                unanswered=number % 2,
                messages=number,
                version=number,
                merged_into=None,
            )
        )
    return conversations, messages, events


@dataclass
class Gateway:
    """The application under test, with what stands behind it."""

    app: QuartTrio
    store: RowsStore
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
        response: quart.Response = await self.client.get(path, headers=named)  # type: ignore[assignment]
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
async def gateway() -> AsyncIterator[Gateway]:
    yield await make_gateway()


async def make_gateway(tenants: Sequence[Tenant] = (BAKERY, FLORIST)) -> Gateway:
    keys = {tenant.id: new_key(tenant.id, at=1790000000000) for tenant in tenants}
    endpoints = tuple(
        Endpoint("whatsapp", ENDPOINTS[tenant.id], tenant.id, f"app-secret-{tenant.slug}", f"verify-{tenant.slug}")
        for tenant in tenants
    )
    store = RowsStore(Routes(tuple(tenants), endpoints, tuple(key for _, key in keys.values())))
    for tenant in tenants:
        store.conversations[tenant.id], messages, store.events[tenant.id] = rows_of(tenant)
        for message in messages:
            store.messages.setdefault(message.conversation, []).append(message)
        store.quarantine += [
            QuarantineEntry(f"qrt_{tenant.slug}{number}", number, "bad_item", "why", b'{"n":%d}' % number, tenant.id)
            for number in range(5)
        ]
    store.quarantine.append(QuarantineEntry("qrt_nobody", 9, "unrouted", "unknown number", b"{}"))
    routes = RouteTable(store)  # type: ignore[arg-type]  # the part that is used
    metrics = Metrics(process=False)

    async def echo(request: Request) -> Response:
        gateway.requests.append(request)
        return Response(202, request.body, ((b"x-lane", b"none"),))

    services = Services(
        store=store,  # type: ignore[arg-type]  # the part that is used
        routes=routes,
        metrics=metrics,
        readiness=ReadinessProbe(store, routes, lambda: gateway.accepting),  # type: ignore[arg-type]  # as above
        statistics=lambda: {"routes": routes.statistics()},
        clock=lambda: 1790000000000,
        assets=assets(),
        handlers={"/webhooks/whatsapp": echo},
        body_bytes=1000,
    )
    gateway = Gateway(create_app(services), store, metrics, keys)
    await routes.authenticate(keys[tenants[0].id][0])  # loads the table
    return gateway
