"""A whole node on a store in memory: what it is wired to, and that it serves again when a part had to be restarted."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from gateway.config import Settings
from gateway.node import Node
from gateway.routing import new_key
from protocol.signatures import sign
from store.memory import MemoryStore
from tests.support.spine import SECRET, TENANT, add_tenants, change, contact, text, webhook

pytestmark = pytest.mark.slow


class Running:
    """A running node, and what a provider and a dashboard do to it."""

    def __init__(self, node: Node, key: str) -> None:
        self.node = node
        [(self.host, self.port)] = node.addresses
        self._key = key

    async def deliver(self, *message_ids: str) -> None:
        """POST a webhook for each, all on one connection; they have to be acknowledged."""
        requests = b""
        for message_id in message_ids:
            body = webhook(change([text(message_id)], contacts=[contact()]))
            close = "connection: close\r\n" if message_id == message_ids[-1] else ""
            requests += (
                f"POST /webhooks/whatsapp HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n{close}"
                f"x-hub-signature-256: {sign(SECRET.encode(), body).decode()}\r\n\r\n"
            ).encode() + body
        answers = await self._talk(requests)
        assert answers.count(b"HTTP/1.1 200 ") == len(message_ids), answers

    async def get(self, path: str) -> bytes:
        """GET something from the application behind hypercorn."""
        return await self._talk(f"GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n".encode())

    @asynccontextmanager
    async def dashboard(self) -> AsyncIterator[WebSocketConnection]:
        """Connect to `/ws` and subscribe to everything."""
        headers = [(b"authorization", f"Bearer {self._key}".encode())]
        # Not `open_websocket`: it leaves a connection that the server closed to the garbage collector.
        async with await trio.open_tcp_stream(self.host, self.port) as stream, trio.open_nursery() as nursery:
            ws = await wrap_client_stream(nursery, stream, "localhost", "/ws", extra_headers=headers)
            await ws.send_message(json.dumps({"type": "subscribe", "topics": ["tenant"]}))
            assert [json.loads(await ws.get_message())["type"] for _ in range(2)] == ["welcome", "subscribed"]
            yield ws
            nursery.cancel_scope.cancel()

    async def _talk(self, data: bytes) -> bytes:
        async with await trio.open_tcp_stream(self.host, self.port) as stream:
            await stream.send_all(data)
            answer = b""
            while chunk := await stream.receive_some():
                answer += chunk
        return answer


@pytest.fixture
async def running(nursery: trio.Nursery) -> AsyncIterator[Running]:
    store = MemoryStore()
    await add_tenants(store)
    key, stored = new_key(TENANT, at=time.time_ns() // 1_000_000)
    await store.add_key(stored)
    node = Node(Settings(port=0, drain_seconds=1.0), store)
    await nursery.start(node.run)
    yield Running(node, key)
    node.stop()
    await node.ended.wait()


class Broken:
    """A queue that breaks the pump."""

    def flush(self) -> bool:
        raise ZeroDivisionError("a bug in a queue")


async def test_dashboards_are_written_to_by_the_pump(running: Running) -> None:
    async with running.dashboard() as ws:
        before = running.node.pump.statistics()
        await running.deliver("wamid.1")
        assert json.loads(await ws.get_message())["type"] == "event"
        assert running.node.pump.statistics().writes > before.writes
        assert running.node.pump.statistics().left == before.left, "the client reads: nothing is left to its own task"
    page = running.node.metrics.render()[0].decode()
    assert "parley_pump_writes_total" in page
    assert "parley_pump_left_total" in page


async def test_a_restart_of_a_part_in_the_middle_ends_with_all_of_it_served_again(running: Running) -> None:
    for round_ in range(2):
        async with running.dashboard() as ws:
            await running.deliver(f"wamid.{round_}")
            assert json.loads(await ws.get_message())["type"] == "event"
            assert (await running.get("/health/live")).startswith(b"HTTP/1.1 200 ")
            running.node.pump.mark(Broken())
            with pytest.raises(ConnectionClosed) as closed:
                while True:  # a webhook is more than one event
                    await ws.get_message()
            assert closed.value.reason is not None
            assert closed.value.reason.code == 1001
        await served_again(running, restarts=round_ + 1)
    async with running.dashboard() as ws:
        await running.deliver("wamid.7", "wamid.8", "wamid.9")
        assert json.loads(await ws.get_message())["type"] == "event"
    assert (await running.get("/health/live")).startswith(b"HTTP/1.1 200 ")
    assert (await running.get("/socket.io/?EIO=4&transport=polling")).startswith(b"HTTP/1.1 200 ")


async def served_again(running: Running, *, restarts: int) -> None:
    """Wait until the pump was restarted so often and everything behind it runs."""

    with trio.fail_after(10):
        while True:  # a supervisor has no event to wait for
            children = {child.name: child for child in running.node._supervisor.children()}
            if children["pump"].restarts == restarts and {child.state for child in children.values()} == {"running"}:
                return
            await trio.sleep(0.01)
