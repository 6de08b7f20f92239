"""The dashboard on a whole gateway with its store in memory: a signed webhook goes in at one end and is seen at the other."""

import hashlib
import hmac
import json
import time
from typing import Any

import pytest
import trio

from gateway.config import Settings
from gateway.node import Node
from gateway.routing import new_key
from store.contract import Endpoint, Tenant
from store.memory import MemoryStore
from tests.support.chromium import Page

pytestmark = pytest.mark.slow

SECRET = "not-a-secret"
NUMBER = "300000000000001"
TENANT = "tnt_01JZ8Y3V9Q6N5W4T7R2K1M0HXA"


def webhook(value: dict[str, Any]) -> bytes:
    metadata = {"display_phone_number": "4930000000", "phone_number_id": NUMBER}
    change = {"field": "messages", "value": {"messaging_product": "whatsapp", "metadata": metadata, **value}}
    return json.dumps({"object": "whatsapp_business_account", "entry": [{"id": "2", "changes": [change]}]}).encode()


def message(number: int, text: str) -> bytes:
    contact = {"profile": {"name": "Mira K."}, "wa_id": "4915100000000"}
    said = {"from": "4915100000000", "id": f"wamid.IN{number}", "timestamp": str(int(time.time())), "type": "text"}
    return webhook({"contacts": [contact], "messages": [{**said, "text": {"body": text}}]})


async def deliver(port: int, body: bytes) -> None:
    """POST a webhook, signed; the gateway has to acknowledge it."""
    signature = hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
    head = (
        f"POST /webhooks/whatsapp HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-hub-signature-256: sha256={signature}\r\nconnection: close\r\n\r\n"
    )
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(head.encode() + body)
        answer = b""
        while chunk := await stream.receive_some():
            answer += chunk
    assert answer.startswith(b"HTTP/1.1 200 "), answer[:200]


async def test_a_webhook_is_seen_and_survives_a_restart_of_the_gateway(page: Page, nursery: trio.Nursery) -> None:
    store = MemoryStore()
    await store.add_tenant(Tenant(TENANT, "bakery", "The Bakery"))
    await store.add_endpoint(Endpoint("whatsapp", NUMBER, TENANT, SECRET, "verify-me", display="+49 30 000000"))
    key, stored = new_key(TENANT, at=int(time.time() * 1000))
    await store.add_key(stored)
    node = Node(Settings(port=0), store)
    ((host, port),) = await nursery.start(node.run)
    await deliver(port, message(1, "Do you have rye bread today?"))

    await page.navigate(f"http://{host}:{port}/#key={key}")
    await page.wait_for("document.querySelector('parley-app[data-connection=live]')")
    await page.click(".row")
    shown = "[...document.querySelectorAll('.message .text')].map((one) => one.textContent).join('|')"
    await page.wait_for(f"{shown} === 'Do you have rye bread today?'")
    await deliver(port, message(2, "And rolls?"))
    await page.wait_for(f"{shown} === 'Do you have rye bread today?|And rolls?'")

    node.stop()
    await page.wait_for("document.querySelector('parley-app[data-connection=reconnecting]')")
    restarted = Node(Settings(port=port, conversation_idle_seconds=60), store)
    await nursery.start(restarted.run)
    await deliver(port, message(3, "Hello?"))
    await page.wait_for(f"{shown} === 'Do you have rye bread today?|And rolls?|Hello?'")
    await page.wait_for("document.querySelector('.badge').textContent === '3'")
    assert [problem for problem in page.problems if not problem.startswith("network:")] == []
    restarted.stop()
