"""WebSockets in both lanes, against trio-websocket's client and by hand."""

import base64
from collections.abc import Awaitable, Callable

import pytest
import structlog
import trio
import trio.testing
import trio_websocket
import wsproto.events
from trio_websocket import CloseReason, ConnectionClosed, WebSocketConnection
from wsproto.connection import Connection, ConnectionType

from gateway.http import Frame, SocketClosed, WebSocket
from gateway.listener import Limits

from .conftest import Answer, Client, Serve, Serving

KEY = base64.b64encode(b"0123456789abcdef")
PING = b"GET /api/ping HTTP/1.1\r\nHost: x\r\n\r\n"
LANES = pytest.mark.parametrize("begin", [b"", PING], ids=["realtime", "hypercorn"])

Talk = Callable[[WebSocketConnection], Awaitable[None]]


async def talk_over(serving: Serving, begin: bytes, talk: Talk, subprotocols: list[str] | None = None) -> None:
    """Open /ws, in hypercorn's lane when something else comes first on the connection, and talk."""
    client = await serving.connect()
    if begin:
        assert (await client.ask(begin)).body == b"pong"
    async with trio.open_nursery() as nursery:
        connection = await trio_websocket.wrap_client_stream(
            nursery, client.stream, "localhost", "/ws", subprotocols=subprotocols
        )
        lane = "hypercorn" if begin else "realtime"
        assert serving.listener.statistics().connections == {lane: 1}
        await talk(connection)
        await connection.aclose()
        nursery.cancel_scope.cancel()
    await client.stream.aclose()


@LANES
async def test_messages(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        for message in ("héllo", "", b"\x00\xff", b"", "x" * 70_000, b"y" * 70_000):
            await connection.send_message(message)
            assert await connection.get_message() == message
        await connection.send_message("many")
        for number in range(100):
            assert await connection.get_message() == f"frame {number}"

    async with serve() as serving:
        await talk_over(serving, begin, talk)
        await serving.connections({})
    # hypercorn tells its application 1006 whatever the peer said.
    assert serving.events == ["app started", f"socket closed {1006 if begin else 1000}", "app stopped"]


@LANES
async def test_subprotocol(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        assert connection.subprotocol == "chat"

    async with serve() as serving:
        await talk_over(serving, begin, talk, subprotocols=["other", "chat"])


@LANES
async def test_ping_is_answered(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        with trio.fail_after(2):
            await connection.ping(b"are you there")

    async with serve() as serving:
        await talk_over(serving, begin, talk)


@LANES
async def test_our_close_code_arrives(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        await connection.send_message("close")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert reason(caught.value) == (4000, "as you wish")

    async with serve() as serving:
        await talk_over(serving, begin, talk)


@LANES
async def test_their_close_code_arrives(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        await connection.aclose(4321, "enough")

    async with serve() as serving:
        await talk_over(serving, begin, talk)
    assert f"socket closed {1006 if begin else 4321}" in serving.events


@LANES
@pytest.mark.parametrize("message", ["x" * 1001, "é" * 501, b"x" * 1001, b"x" * 300_000])
async def test_oversize_messages_close_1009(serve: Serve, begin: bytes, message: str | bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        fits = message[:1000] if len(message) > 1000 else message[:500]
        await connection.send_message(fits)
        assert await connection.get_message() == fits
        await connection.send_message(message)
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert reason(caught.value)[0] == 1009

    async with serve(Limits(message_bytes=1000)) as serving:
        await talk_over(serving, begin, talk)


@LANES
async def test_a_handler_that_fails_closes_1011(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        await connection.send_message("fail")
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert reason(caught.value)[0] == 1011

    with structlog.testing.capture_logs() as logs:
        async with serve() as serving:
            await talk_over(serving, begin, talk)
    assert [entry["event"] for entry in logs] == ["socket_handler_failed"]
    assert serving.listener.statistics().failed == 1


@LANES
async def test_shutdown_closes_1001(serve: Serve, begin: bytes) -> None:
    async def talk(connection: WebSocketConnection) -> None:
        await connection.send_message("hello")
        assert await connection.get_message() == "hello"
        serving.scope.cancel()
        with pytest.raises(ConnectionClosed) as caught:
            await connection.get_message()
        assert reason(caught.value)[0] == 1001
        with trio.fail_after(2):
            await serving.stopped.wait()

    async with serve() as serving:
        await talk_over(serving, begin, talk)
    assert serving.events[-1] == "app stopped"


def reason(closed: ConnectionClosed) -> tuple[int, str | None]:
    assert isinstance(closed.reason, CloseReason)
    return closed.reason.code, closed.reason.reason


async def upgrade(
    serving: Serving, begin: bytes, *changes: tuple[bytes, bytes], path: bytes = b"/ws"
) -> tuple[Client, Answer]:
    request = (
        b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n" % (path, KEY)
    )
    for old, new in changes:
        assert old in request
        request = request.replace(old, new)
    client = await serving.connect()
    if begin:
        assert (await client.ask(begin)).body == b"pong"
    return client, await client.ask(request)


@LANES
async def test_a_rejected_handshake(serve: Serve, begin: bytes) -> None:
    async with serve() as serving:
        client, answer = await upgrade(serving, begin, path=b"/ws?no")
        assert (answer.status, answer.body, answer.headers[b"x-why"]) == (403, b"no", b"no")
        await client.closed()
        await client.stream.aclose()


@LANES
async def test_a_handler_that_fails_before_it_accepts(serve: Serve, begin: bytes) -> None:
    with structlog.testing.capture_logs():
        async with serve() as serving:
            client, answer = await upgrade(serving, begin, path=b"/ws?fail")
            assert answer.status == 500
            await client.stream.aclose()


@LANES
async def test_a_handler_on_the_same_path_gets_the_rest(serve: Serve, begin: bytes) -> None:
    async with serve() as serving:
        client, answer = await upgrade(serving, begin, path=b"/both")
        assert answer.status == 101
        await client.stream.aclose()
        client, answer = await upgrade(serving, begin, (b"GET", b"POST"), path=b"/both")
        assert answer.body == b"hook:"
        await client.stream.aclose()


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"Sec-WebSocket-Version: 13\r\n", b"", 426),
        (KEY, b"short", 400),
        (KEY, b"!" * 24, 400),
        (KEY, base64.b64encode(b"x" * 15), 400),
        (b"Sec-WebSocket-Key: " + KEY + b"\r\n", b"", 400),
        (b"Sec-WebSocket-Key", b"Sec-WebSocket-Key: a\r\nSec-WebSocket-Key", 400),
    ],
)
async def test_bad_handshakes(serve: Serve, old: bytes, new: bytes, status: int) -> None:
    async with serve() as serving:
        client, answer = await upgrade(serving, b"", (old, new))
        assert (answer.status, answer.closes) == (status, True)
        assert await client.closed() == b""
        await client.stream.aclose()


async def test_frames_behind_the_upgrade_are_not_lost(serve: Serve) -> None:
    frames = Connection(ConnectionType.CLIENT)
    early = frames.send(wsproto.events.TextMessage("early"))
    async with serve() as serving:
        client, answer = await upgrade(serving, b"", (b"\r\n\r\n", b"\r\n\r\n" + bytes(early)))
        assert answer.status == 101
        assert await events(client, frames, 1) == [wsproto.events.TextMessage("early")]
        await client.stream.aclose()


@LANES
async def test_fragments_with_a_ping_between_byte_by_byte(serve: Serve, begin: bytes) -> None:
    frames = Connection(ConnectionType.CLIENT)
    data = b"".join(
        frames.send(event)
        for event in (
            wsproto.events.TextMessage("a", message_finished=False),
            wsproto.events.Ping(b"?"),
            wsproto.events.TextMessage("", message_finished=False),
            wsproto.events.TextMessage("é", message_finished=True),
            wsproto.events.BytesMessage(b"next"),
        )
    )
    async with serve() as serving:
        client, _ = await upgrade(serving, begin)
        for at in range(len(data)):
            await client.send(data[at : at + 1])
        got = await events(client, frames, 3)
        assert got[0] == wsproto.events.Pong(b"?")
        assert [event.data for event in got[1:]] == ["aé", b"next"]  # type: ignore[attr-defined]
        await client.stream.aclose()


async def events(client: Client, frames: Connection, count: int) -> list[wsproto.events.Event]:
    """Read until `count` events have come; none follow."""
    found: list[wsproto.events.Event] = []
    data, client.buffer = client.buffer, b""
    while True:
        frames.receive_data(data)
        found += frames.events()
        if len(found) >= count:
            return found
        data = bytes(await client.stream.receive_some())
        assert data, found


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x81\x01x", 1002),  # not masked
        (b"\xc1\x80\0\0\0\0", 1002),  # a reserved bit: there is no compression
        (b"\x83\x80\0\0\0\0", 1002),  # an unknown opcode
        (b"\x80\x80\0\0\0\0", 1002),  # a continuation of nothing
        (b"\x09\x80\0\0\0\0", 1002),  # a fragment of a ping
        (b"\x89\xfe\x00\x80\0\0\0\0", 1002),  # a ping of 128 bytes
        (b"\x81\x82\0\0\0\0\xff\xff", 1007),  # not UTF-8
        (b"\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xff\0\0\0\0" + b"x" * 1001, 1009),  # never to be complete
        (b"\x88\x81\0\0\0\0\x00", 1002),  # half a close code
    ],
)
async def test_broken_frames(serve: Serve, data: bytes, code: int) -> None:
    frames = Connection(ConnectionType.CLIENT)
    async with serve(Limits(message_bytes=1000)) as serving:
        client, _ = await upgrade(serving, b"")
        await client.send(data)
        (event,) = await events(client, frames, 1)
        assert isinstance(event, wsproto.events.CloseConnection)
        assert event.code == code
        assert await client.closed() == b""
        await client.stream.aclose()
    assert f"socket closed {code}" in serving.events


@pytest.mark.slow
async def test_1009_reaches_a_peer_that_is_still_sending(serve: Serve) -> None:
    async with serve(Limits(message_bytes=1000)) as serving:
        client, _ = await upgrade(serving, b"")
        await client.send(b"\x82\xff" + (8_000_000).to_bytes(8, "big") + bytes(4))
        await client.send(bytes(8_000_000))
        (event,) = await events(client, Connection(ConnectionType.CLIENT), 1)
        assert isinstance(event, wsproto.events.CloseConnection)
        assert event.code == 1009
        await client.stream.aclose()


@pytest.mark.slow
@LANES
async def test_closing_a_silent_peer_is_bounded(serve: Serve, quick: Limits, begin: bytes) -> None:
    async with serve(quick) as serving:
        client, _ = await upgrade(serving, begin)
        await client.send(bytes(Connection(ConnectionType.CLIENT).send(wsproto.events.TextMessage("close"))))
        with trio.fail_after(4):
            assert await client.closed() == b"\x88\x0d\x0f\xa0as you wish"
            await serving.connections({})
        await client.stream.aclose()


async def flood(socket: WebSocket) -> None:
    await socket.accept()
    frame = Frame(b"x" * 60_000)
    while True:
        await socket.send_frames([frame] * 16)


@pytest.mark.slow
@LANES
async def test_a_peer_that_does_not_read_is_cut_off(serve: Serve, quick: Limits, begin: bytes) -> None:
    async with serve(quick, sockets={"/ws": flood}) as serving:
        client, _ = await upgrade(serving, begin)
        await serving.connections({})
        await client.stream.aclose()
    assert serving.listener.statistics().failed == 0


@pytest.mark.slow
async def test_closing_a_peer_that_does_not_read_is_bounded(serve: Serve, quick: Limits) -> None:
    closed_after: list[float] = []

    async def handler(socket: WebSocket) -> None:
        await socket.accept()

        async def pump() -> None:
            with pytest.raises(SocketClosed):
                while True:
                    await socket.send_frames([Frame(b"x" * 60_000)] * 16)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pump)
            await trio.testing.wait_all_tasks_blocked(0.05)  # the kernel's buffers are full
            began = trio.current_time()
            await socket.close(4008, "too slow")
            closed_after.append(trio.current_time() - began)

    limits = Limits(close_seconds=quick.close_seconds)
    async with serve(limits, sockets={"/ws": handler}) as serving:
        client, _ = await upgrade(serving, b"")
        await serving.connections({})
        await client.stream.aclose()
    assert closed_after[0] < 4 * quick.close_seconds


async def test_sends_from_many_tasks_do_not_mix(serve: Serve) -> None:
    async def handler(socket: WebSocket) -> None:
        await socket.accept()

        async def speak(letter: str) -> None:
            for _ in range(5):
                await socket.send_frames([Frame(letter.encode() * 90_000)] * 3)
                await socket.send(letter.encode() * 70_000)

        async with trio.open_nursery() as nursery:
            for letter in "abcd":
                nursery.start_soon(speak, letter)

    async def talk(connection: WebSocketConnection) -> None:
        for _ in range(4 * 5 * 4):
            message = await connection.get_message()
            assert len(set(message)) == 1

    async with serve(sockets={"/ws": handler}) as serving:
        await talk_over(serving, b"", talk)


async def test_a_peer_that_vanishes(serve: Serve) -> None:
    async with serve() as serving:
        client, _ = await upgrade(serving, b"")
        await client.stream.aclose()
        await serving.connections({})
    assert "socket closed 1006" in serving.events


async def test_what_comes_after_our_close_is_not_delivered(serve: Serve) -> None:
    async def handler(socket: WebSocket) -> None:
        await socket.accept()

        async def receive() -> None:
            with pytest.raises(SocketClosed) as caught:
                await socket.receive()
            assert caught.value.code == 1000
            ended.set()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive)
            await trio.testing.wait_all_tasks_blocked()
            await socket.close(4000)

    ended = trio.Event()
    frames = Connection(ConnectionType.CLIENT)
    async with serve(sockets={"/ws": handler}) as serving:
        client, _ = await upgrade(serving, b"")
        (closing,) = await events(client, frames, 1)
        assert isinstance(closing, wsproto.events.CloseConnection)
        assert closing.code == 4000
        late = Connection(ConnectionType.CLIENT).send(wsproto.events.TextMessage("late"))
        await client.send(bytes(late) + bytes(frames.send(wsproto.events.CloseConnection(1000))))
        with trio.fail_after(4):
            await ended.wait()
        await client.stream.aclose()
    assert serving.listener.statistics().failed == 0
