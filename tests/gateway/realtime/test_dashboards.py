"""Dashboards on Socket.IO: what a client of the namespace `/` sees, packet by packet."""

import json
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.http import Headers
from gateway.realtime.dashboards import dashboard_namespace, event_packet
from gateway.realtime.socketio import SocketIOServer
from tests.gateway.realtime.test_websocket import TENANT, Gateway
from tests.support.memory_websocket import MemoryWebSocket


class Client(MemoryWebSocket):
    """Speaks Engine.IO and Socket.IO by hand."""

    def __init__(self, headers: Headers = ()) -> None:
        super().__init__("EIO=4&transport=websocket", headers=headers)

    def ask(self, name: str, *arguments: Any, ack: int | None = None) -> None:
        self.client_send(f"42{'' if ack is None else ack}{json.dumps([name, *arguments])}")

    async def packet(self) -> tuple[str, Any]:
        """The next packet as its digits and its JSON."""
        message = await self.client_receive()
        assert isinstance(message, str)
        body = message.lstrip("0123456789")
        return message[: len(message) - len(body)], json.loads(body) if body else None


class Server:
    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.server = SocketIOServer({"/": dashboard_namespace(gateway.sessions)})

    async def connect(self, nursery: trio.Nursery, auth: Any = None, headers: Headers = ()) -> Client:
        client = Client(headers)
        nursery.start_soon(self.server.websocket, client)
        assert (await client.packet())[0] == "0"
        client.client_send("40" if auth is None else f"40{json.dumps(auth)}")
        return client

    async def join(self, nursery: trio.Nursery) -> Client:
        client = await self.connect(nursery, {"token": "pk_alice"})
        assert (await client.packet())[0] == "40"
        assert (await client.packet())[1][0] == "welcome"
        return client


@pytest.fixture
async def server(nursery: trio.Nursery) -> Server:
    server = Server(Gateway())
    await nursery.start(server.server.run)
    return server


@pytest.mark.parametrize(
    ("auth", "headers"),
    [
        ({"token": "pk_alice"}, ()),
        (None, ((b"authorization", b"Bearer pk_alice"),)),
        ({}, ((b"x-api-key", b"pk_alice"),)),
    ],
)
async def test_a_key_is_welcomed(server: Server, nursery: trio.Nursery, auth: Any, headers: Headers) -> None:
    client = await server.connect(nursery, auth, headers)
    assert (await client.packet())[0] == "40"
    kind, [name, welcome] = await client.packet()
    assert (kind, name, welcome["tenant"], welcome["protocol"]) == ("42", "welcome", TENANT, 1)


@pytest.mark.parametrize("auth", [None, {}, {"token": "pk_eve"}, {"token": 5}, {"token": None}, {"token": ""}])
async def test_no_valid_key_is_refused_with_a_code(server: Server, nursery: trio.Nursery, auth: Any) -> None:
    client = await server.connect(nursery, auth)
    assert await client.packet() == ("44", {"message": "no valid API key", "data": {"code": "unauthenticated"}})
    assert server.gateway.sessions.statistics().open == 0


async def test_a_wrong_token_is_not_mended_by_a_header(server: Server, nursery: trio.Nursery) -> None:
    client = await server.connect(nursery, {"token": "pk_eve"}, ((b"x-api-key", b"pk_alice"),))
    assert (await client.packet())[0] == "44"


async def test_while_keys_cannot_be_checked_or_there_is_no_room_it_says_overloaded(
    nursery: trio.Nursery, server: Server
) -> None:
    server.gateway.unavailable = True
    client = await server.connect(nursery, {"token": "pk_alice"})
    kind, refusal = await client.packet()
    assert (kind, refusal["data"]) == ("44", {"code": "overloaded"})
    full = Server(Gateway(limit=0))
    await nursery.start(full.server.run)
    client = await full.connect(nursery, {"token": "pk_alice"})
    kind, refusal = await client.packet()
    assert (kind, refusal["data"]) == ("44", {"code": "overloaded"})


async def test_requests_are_answered_by_their_acknowledgement(server: Server, nursery: trio.Nursery) -> None:
    gateway = server.gateway
    gateway.publish(3)
    client = await server.join(nursery)
    client.ask("ping", ack=0)
    assert await client.packet() == ("430", [{"type": "pong"}])
    client.ask("subscribe", {"topics": ["tenant"], "epoch": "one", "offset": 1}, ack=1)
    assert (await client.packet())[1][1]["offset"] == 2
    kind, [name, event] = await client.packet()
    assert (kind, name) == ("42", "event")
    assert event == {
        "offset": 3,
        "conversation": "cnv_1",
        "endpoint": "whatsapp:1",
        "version": 3,
        "recorded_at": 0,
        "event": {},
    }
    assert await client.packet() == ("431", [{"type": "subscribed", "epoch": "one", "offset": 3}])
    gateway.publish()
    assert (await client.packet())[1][1]["offset"] == 4
    client.ask("unsubscribe", {}, ack=2)
    assert await client.packet() == ("432", [{"type": "unsubscribed"}])
    client.ask("subscribe", {"topics": ["tenant"], "epoch": "zero", "offset": 1}, ack=3)
    assert await client.packet() == (
        "433",
        [{"type": "snapshot_required", "reason": "epoch_changed", "epoch": "one", "offset": 4}],
    )


async def test_without_acknowledgement_the_answer_is_an_event(server: Server, nursery: trio.Nursery) -> None:
    client = await server.join(nursery)
    client.ask("subscribe", {"topics": ["tenant"], "id": 5})
    assert await client.packet() == ("42", ["subscribed", {"epoch": "one", "offset": 0, "id": 5}])
    client.ask("subscribe", {"topics": ["all"]})
    kind, [name, refusal] = await client.packet()
    assert (kind, name, refusal["code"]) == ("42", "error", "bad_topic")


@pytest.mark.parametrize(
    "event",
    [
        ["authenticate", {"token": "pk_alice"}],
        ["dance"],
        [7],
        ["ping", {}, {}],
        ["ping", "now"],
        ["ping", None],
        ["ping", {"type": "subscribe"}],
        ["subscribe"],
        ["subscribe", {"topics": "tenant"}],
        ["subscribe", {"topics": ["tenant"], "since": 1}],
        ["subscribe", {"topics": ["tenant"], "epoch": "one", "offset": 2**53}],
    ],
    ids=str,
)
async def test_what_is_no_request_is_refused_and_the_connection_goes_on(
    server: Server, nursery: trio.Nursery, event: list[Any]
) -> None:
    client = await server.join(nursery)
    client.ask(*event, ack=1)
    kind, [answer] = await client.packet()
    assert (kind, answer["type"], answer["code"]) == ("431", "error", "bad_request")
    client.ask("ping", ack=2)
    assert (await client.packet())[0] == "432"


async def test_events_are_framed_once_for_all_and_as_the_engine_sends_them() -> None:
    assert event_packet(b'"offset":1').payload == b'42["event",{"offset":1}]'


async def test_a_revoked_key_is_told_and_put_out(server: Server, nursery: trio.Nursery) -> None:
    client = await server.join(nursery)
    client.ask("subscribe", {"topics": ["tenant"]}, ack=1)
    await client.packet()
    assert server.gateway.sessions.close_key("key_1") == 1
    kind, [name, refusal] = await client.packet()
    assert (kind, name, refusal["code"]) == ("42", "error", "unauthenticated")
    assert (await client.packet())[0] == "41"
    await wait_all_tasks_blocked()
    assert server.gateway.sessions.statistics().open == 0
    assert server.gateway.feed.statistics().subscribers == 0


async def test_a_slow_consumer_is_closed_and_let_go(
    server: Server, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    gateway = server.gateway
    client, reader = await server.join(nursery), await server.join(nursery)
    for socket in (client, reader):
        socket.ask("subscribe", {"topics": ["tenant"]}, ack=1)
        await socket.packet()
    client.client_stop_reading()
    for _ in range(110):
        gateway.publish(1, b'"%b"' % (b"x" * 10_000))
        await reader.packet()
    assert gateway.feed.statistics().subscribers == 1
    await trio.sleep(10)
    assert client.close_code == 4008
    assert gateway.sessions.statistics().open == 1


async def test_shutdown_closes_with_going_away(server: Server, nursery: trio.Nursery) -> None:
    client = await server.join(nursery)
    await server.gateway.sessions.shutdown(grace=5)
    await client.closed.wait()
    assert client.close_code == 1001


async def test_the_client_leaves(server: Server, nursery: trio.Nursery) -> None:
    client = await server.join(nursery)
    client.ask("subscribe", {"topics": ["tenant"]}, ack=1)
    await client.packet()
    assert server.gateway.sessions.statistics().queued_bytes == 0
    client.client_close()
    await wait_all_tasks_blocked()
    assert server.gateway.sessions.statistics().open == 0
    assert server.gateway.feed.statistics().subscribers == 0
