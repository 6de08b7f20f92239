"""The spine without a network: ingress, actors, journal and feed on a store in memory, and webhooks to put in."""

import itertools
import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import trio

from actors.feed import Feed
from actors.journal import Journal
from actors.tree import Tree
from gateway.http import Request, Response
from gateway.ingress import Ingress
from gateway.providers.whatsapp_cloud import WhatsAppCloud
from gateway.routing import RouteTable
from protocol.events import ConversationEvent, decode
from protocol.ids import new_id
from protocol.signatures import sign
from store.contract import Endpoint, Store, StoredEvent, Tenant
from store.memory import MemoryDatabase, MemoryStore

NUMBER, ACCOUNT, SECRET = "300000000000001", "200000000000001", "app-secret-one"
OTHER_NUMBER, OTHER_ACCOUNT, OTHER_SECRET = "300000000000002", "200000000000002", "app-secret-two"
TENANT, OTHER_TENANT = "tnt_one", "tnt_two"
NOW = 1_790_000_000_000


class Spine:
    """One process's worth of gateway, in memory."""

    def __init__(self, store: Store, **settings: Any) -> None:
        self.store = store
        self.now = NOW
        count = itertools.count(1)
        self.fenced: list[int] = []
        self.feed = Feed(store)
        self.journal = Journal(store, self.feed, lambda: self.now, on_fenced=self.fenced.append)
        self.tree = Tree(
            store,
            self.feed,
            self.journal,
            lambda: self.now,
            lambda prefix: new_id(prefix, self.now, next(count).to_bytes(10, "big")),
            **settings,
        )
        self.routes = RouteTable(store)
        self.ingress = Ingress(
            WhatsAppCloud(),
            self.routes,
            self.tree,
            store,
            lambda: self.now,
            lambda prefix: new_id(prefix, self.now, next(count).to_bytes(10, "big")),
        )

    async def post(self, body: bytes, secret: str = SECRET, **headers: str) -> Response:
        named = {"x-hub-signature-256": sign(secret.encode(), body).decode(), **headers}
        fields = tuple((key.encode(), value.encode()) for key, value in named.items())
        return await self.ingress.handle(Request("POST", "/webhooks/whatsapp", b"", fields, body, "test"))

    async def events(self, tenant: str = TENANT) -> list[StoredEvent]:
        return await self.store.read_feed(tenant, after=0, limit=100_000)

    async def decoded(self, tenant: str = TENANT) -> list[ConversationEvent]:
        return [decode(event.body) for event in await self.events(tenant) if event.kind != "notice_recorded"]


async def add_tenants(store: Store) -> None:
    for tenant, number, account, secret in (
        (TENANT, NUMBER, ACCOUNT, SECRET),
        (OTHER_TENANT, OTHER_NUMBER, OTHER_ACCOUNT, OTHER_SECRET),
    ):
        await store.add_tenant(Tenant(tenant, tenant.replace("_", "-"), tenant))
        await store.add_endpoint(Endpoint("whatsapp", number, tenant, secret, f"verify-{number}", account))


@asynccontextmanager
async def spine(database: MemoryDatabase | None = None, **settings: Any) -> AsyncIterator[Spine]:
    store = MemoryStore(database or MemoryDatabase())
    if database is None:
        await add_tenants(store)
    made = Spine(store, **settings)
    async with trio.open_nursery() as services:
        await services.start(made.routes.run)
        await services.start(made.ingress.deadlines.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(made.tree.run)
            yield made
            made.tree.stop()
        services.cancel_scope.cancel()


# --- webhooks, as Meta writes them


def text(
    message_id: str, body: str = "hello", *, sender: str | None = "4915100000000", at: int = 1_790_000_000, **more: Any
) -> dict[str, Any]:
    found = {"id": message_id, "timestamp": str(at), "type": "text", "text": {"body": body}, **more}
    return found if sender is None else {"from": sender, **found}


def contact(phone: str | None = "4915100000000", user_id: str | None = None, name: str = "Mira") -> dict[str, Any]:
    found: dict[str, Any] = {"profile": {"name": name}}
    if phone is not None:
        found["wa_id"] = phone
    if user_id is not None:
        found["user_id"] = user_id
    return found


def status(
    message_id: str, value: str, *, recipient: str | None = "4915100000000", at: int = 1_790_000_010
) -> dict[str, Any]:
    found = {"id": message_id, "status": value, "timestamp": str(at)}
    return found if recipient is None else {**found, "recipient_id": recipient}


def echo(
    message_id: str, body: str = "we are open", *, to: str = "4915100000000", at: int = 1_790_000_005
) -> dict[str, Any]:
    return {
        "from": "4930000000",
        "to": to,
        "id": message_id,
        "timestamp": str(at),
        "type": "text",
        "text": {"body": body},
    }


def change(
    messages: Iterable[Any] = (),
    *,
    contacts: Iterable[Any] = (),
    statuses: Iterable[Any] = (),
    echoes: Iterable[Any] = (),
    number: str = NUMBER,
) -> dict[str, Any]:
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "4930000000", "phone_number_id": number},
    }
    for key, found in (
        ("contacts", contacts),
        ("messages", messages),
        ("statuses", statuses),
        ("message_echoes", echoes),
    ):
        if found:
            value[key] = list(found)
    return {"field": "smb_message_echoes" if echoes else "messages", "value": value}


def webhook(*changes: dict[str, Any], account: str = ACCOUNT) -> bytes:
    entry = {"id": account, "changes": list(changes)}
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
