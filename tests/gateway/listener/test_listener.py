"""The whole listener on loopback: lanes, hand-over, limits, shutdown."""

import logging
import socket
from contextlib import suppress
from itertools import pairwise

import msgspec
import pytest
import structlog
import trio
import trio.testing

from gateway.http import Request, Response
from gateway.listener import Limits

from .conftest import Client, Serve, Serving


def post(body: bytes, *fields: bytes, path: bytes = b"/hook") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n" % (path, len(body), b"".join(fields)) + body


def get(path: bytes, *fields: bytes) -> bytes:
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, b"".join(fields))


def code(body: bytes) -> str:
    found = msgspec.json.decode(body)["code"]
    assert isinstance(found, str)
    return found


MIXED = [
    (post(b"one"), b"hook:one"),
    (get(b"/hook?x"), b"hook:"),
    (get(b"/api/ping"), b"pong"),
    (post(b"two"), b"hook:two"),
    (post(b"12345", path=b"/api/upload"), b"5 bytes"),
    (post(b"three"), b"hook:three"),
    (get(b"http://example.org/hook"), b"hook:"),
    (get(b"/api/ping"), b"pong"),
]


async def in_one_segment(client: Client, data: bytes) -> None:
    await client.send(data)


async def byte_by_byte(client: Client, data: bytes) -> None:
    for at in range(len(data)):
        await client.send(data[at : at + 1])


async def test_a_mixed_connection(serve: Serve) -> None:
    async with serve() as serving:
        client = await serving.connect()
        for request, expected in MIXED:
            answer = await client.ask(request)
            assert (answer.status, answer.body) == (200, expected)
        assert serving.listener.statistics().connections == {"hypercorn": 1}
        assert serving.listener.statistics().answers == {200: 5}
        await client.stream.aclose()
    assert [request.body for request in serving.seen] == [b"one", b"", b"two", b"three", b""]
    assert {request.path for request in serving.seen} == {"/hook"}
    assert {request.client for request in serving.seen} == {"127.0.0.1"}
    assert serving.events == ["app started", "app stopped"]


@pytest.mark.parametrize("send", [in_one_segment, byte_by_byte])
async def test_a_mixed_connection_pipelined(serve: Serve, send: object) -> None:
    async with serve() as serving:
        client = await serving.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, client, b"".join(request for request, _ in MIXED))  # type: ignore[arg-type]
            for _, expected in MIXED:
                answer = await client.answer()
                assert (answer.status, answer.body) == (200, expected)
        await client.stream.aclose()


async def test_requests_are_the_same_in_both_lanes(serve: Serve) -> None:
    request = post(b"body", b"X-Sig: abc \r\nx-sig: d\r\nAccept: */*\r\n").replace(b"/hook", b"/hook?a=%2F&b")
    async with serve() as serving:
        client = await serving.connect()
        first = await client.ask(request)
        await client.ask(get(b"/api/ping"))
        second = await client.ask(request)
        assert (first.status, first.body) == (second.status, second.body)
        assert first.headers.keys() == second.headers.keys()
        await client.stream.aclose()
    assert serving.seen[0] == serving.seen[1]


@pytest.mark.parametrize("begin", [b"", get(b"/api/ping")], ids=["ingest", "hypercorn"])
@pytest.mark.parametrize(
    ("request_bytes", "status", "expected"),
    [
        (post(b"x", b"Content-Encoding: gzip\r\n"), 415, "unsupported_content_encoding"),
        (post(b"x" * 1001), 413, "body_too_large"),
        (
            b"POST /hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n"
            + b"x" * 1001
            + b"\r\n0\r\n\r\n",
            413,
            "body_too_large",
        ),
        (get(b"/hook").replace(b"GET", b"TRACE"), 405, "method_not_allowed"),
        (get(b"/fail"), 500, "internal_error"),
    ],
    ids=["gzip", "length", "chunked", "method", "fail"],
)
async def test_refusals_are_the_same_in_both_lanes(
    serve: Serve, begin: bytes, request_bytes: bytes, status: int, expected: str
) -> None:
    with structlog.testing.capture_logs() as logs:
        async with serve(Limits(body_bytes=1000)) as serving:
            client = await serving.connect()
            if begin:
                assert (await client.ask(begin)).status == 200
            answer = await client.ask(request_bytes)
            assert (answer.status, answer.closes, code(answer.body)) == (status, True, expected)
            assert await client.closed() == b""
            await client.stream.aclose()
            assert serving.seen == []
    assert [entry["event"] for entry in logs] == (["handler_failed"] if status == 500 else [])


@pytest.mark.parametrize("begin", [b"", get(b"/api/ping")], ids=["ingest", "hypercorn"])
async def test_the_body_limit_is_exact_in_both_lanes(serve: Serve, begin: bytes) -> None:
    async with serve(Limits(body_bytes=1000)) as serving:
        client = await serving.connect()
        if begin:
            await client.ask(begin)
        assert (await client.ask(post(b"x" * 1000))).body == b"hook:" + b"x" * 1000
        await client.stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("begin", [b"", get(b"/api/ping")], ids=["ingest", "hypercorn"])
async def test_an_oversize_body_in_full_flight_gets_its_answer(serve: Serve, begin: bytes) -> None:
    """The client writes on without looking: a reset would take the 413 away from it."""
    async with serve(Limits(body_bytes=1_000_000)) as serving:
        client = await serving.connect()
        if begin:
            await client.ask(begin)

        async def write() -> None:
            await client.send(post(bytes(8_000_000)))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(write)
            answer = await client.answer()
        assert (answer.status, code(answer.body)) == (413, "body_too_large")
        await client.stream.aclose()


@pytest.mark.parametrize("data", [b"\x16\x03\x01", b"GET /\r\n\r\n", b"GET / HTTP/3.0\r\n\r\n", b"\x00" * 20_000])
async def test_garbage(serve: Serve, data: bytes) -> None:
    async with serve() as serving:
        client = await serving.connect()
        answer = await client.ask(data)
        assert 400 <= answer.status < 600
        assert await client.closed() == b""
        await client.stream.aclose()


async def test_a_path_that_only_decodes_to_a_handlers_is_nobodys(serve: Serve) -> None:
    async with serve() as serving:
        client = await serving.connect()
        assert (await client.ask(get(b"/h%6fok"))).status == 404
        assert (await client.ask(get(b"/h%6fok"))).status == 404
        await client.stream.aclose()
    assert serving.seen == []


async def test_http_2_with_prior_knowledge(serve: Serve) -> None:
    import h2.config
    import h2.connection
    import h2.events

    async with serve() as serving:
        stream = (await serving.connect()).stream
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        for number, path in ((1, "/api/ping"), (3, "/hook?q")):
            fields = [(":method", "GET"), (":path", path), (":authority", "x"), (":scheme", "http")]
            connection.send_headers(number, fields, end_stream=True)
        await stream.send_all(connection.data_to_send())
        bodies: dict[int, bytes] = {}
        ended: set[int] = set()
        while len(ended) < 2:
            for event in connection.receive_data(bytes(await stream.receive_some())):
                if isinstance(event, h2.events.DataReceived):
                    bodies[event.stream_id] = bodies.get(event.stream_id, b"") + event.data
                elif isinstance(event, h2.events.StreamEnded):
                    ended.add(event.stream_id)
            await stream.send_all(connection.data_to_send())
        assert bodies == {1: b"pong", 3: b"hook:"}
        await stream.aclose()


async def gone(client: Client, within: float) -> bytes:
    """Wait until the connection is closed or reset; what came before that."""
    with trio.fail_after(within):
        with suppress(trio.BrokenResourceError):
            await client.closed()
        return client.buffer


SLOW = [
    pytest.param(b"", b"", b"", id="silent"),
    pytest.param(b"", b"GET /hook HT", b"HTTP/1.1 408 ", id="line"),
    pytest.param(b"", b"GET /api/ping HTTP/1.1\r\nA", b"HTTP/1.1 408 ", id="head"),
    pytest.param(b"", post(b"hello")[:-1], b"HTTP/1.1 408 ", id="body"),
    pytest.param(b"", post(b"hello", path=b"/api/upload")[:-1], None, id="body handed over"),
    pytest.param(get(b"/api/ping"), b"", b"", id="silent in hypercorn"),
    pytest.param(get(b"/api/ping"), b"GET /hook HT", b"", id="line in hypercorn"),
    pytest.param(get(b"/api/ping"), b"GET /hook HTTP/1.1\r\nA", b"", id="head in hypercorn"),
    pytest.param(get(b"/api/ping"), post(b"hello")[:-1], None, id="body in hypercorn"),
    pytest.param(get(b"/api/ping"), post(b"hello", path=b"/api/upload")[:-1], None, id="app's body in hypercorn"),
    pytest.param(get(b"/api/ping") + post(b"hello")[:-1], b"", None, id="body behind pipelining"),
]


@pytest.mark.slow
@pytest.mark.parametrize(("begin", "data", "answer"), SLOW)
async def test_slow_senders_are_gone_in_time(
    serve: Serve, quick: Limits, begin: bytes, data: bytes, answer: bytes | None
) -> None:
    async with serve(quick) as serving:
        client = await serving.connect()
        if begin:
            assert (await client.ask(begin)).body == b"pong"
        if data:
            await client.send(data)
        # The longest limit is 0.4 s; a machine with other work gets ten times that.
        received = await gone(client, 4)
        if answer is not None:
            assert received.startswith(answer)
            assert answer or not received
        await client.stream.aclose()
        await serving.connections({})
    assert serving.seen == []


@pytest.mark.slow
async def test_slow_http_2_bodies_are_gone_in_time(serve: Serve, quick: Limits) -> None:
    import h2.config
    import h2.connection

    async with serve(quick) as serving:
        client = await serving.connect()
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        connection.initiate_connection()
        fields = [(":method", "POST"), (":path", "/hook"), (":authority", "x"), (":scheme", "http")]
        connection.send_headers(1, fields)
        connection.send_data(1, b"half")
        await client.send(connection.data_to_send())
        await gone(client, 4)
        await client.stream.aclose()
    assert serving.seen == []
    assert serving.listener.statistics().refused == {"request_timeout": 1}


@pytest.mark.slow
@pytest.mark.parametrize("path", [b"/api/big", b"/big"])
async def test_slow_readers_are_gone_in_time(serve: Serve, quick: Limits, path: bytes) -> None:
    async def big(request: Request) -> Response:
        return Response(200, bytes(64 * 1024 * 1024))

    # 64 MiB may take 17 minutes over a slow line: nobody may wait that long for one that does not move at all.
    async with serve(quick, handlers={"/big": big}) as serving:
        client = await serving.connect()
        await client.send(get(path))
        await serving.connections({})
        await client.stream.aclose()


async def test_the_cap_on_connections(serve: Serve) -> None:
    async with serve(Limits(connections=2)) as serving:
        clients = [await serving.connect() for _ in range(2)]
        for client in clients:
            assert (await client.ask(post(b"1"))).status == 200
        third = await serving.connect()
        answer = await third.answer()
        assert (answer.status, code(answer.body), answer.closes) == (503, "too_many_connections", True)
        assert b"retry-after" in answer.headers
        assert await third.closed() == b""
        await third.stream.aclose()
        assert (await clients[0].ask(post(b"2"))).status == 200
        await clients[0].stream.aclose()
        await serving.connections({"ingest": 1})
        fourth = await serving.connect()
        assert (await fourth.ask(post(b"4"))).status == 200
        statistics = serving.listener.statistics()
        assert (statistics.accepted, statistics.refused) == (4, {"too_many_connections": 1})
        await fourth.stream.aclose()
        await clients[1].stream.aclose()


@pytest.mark.slow
async def test_an_app_that_does_not_heed_the_end_of_a_slow_body(serve: Serve, quick: Limits) -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            await no_lifespan(scope, receive, send)
        else:
            while (await receive())["type"] != "http.disconnect":  # type: ignore[operator]
                pass
            await trio.sleep_forever()

    async with serve(quick, app=app) as serving:
        client = await serving.connect()
        await client.send(post(b"hello", path=b"/api/upload")[:-1])
        assert await gone(client, 4) == b""
        await client.stream.aclose()


async def test_many_pipelined_requests_let_others_run(serve: Serve) -> None:
    served = [0]

    async with serve() as serving:

        async def other() -> None:
            while True:
                served.append(len(serving.seen))
                await trio.lowlevel.checkpoint()

        client = await serving.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(other)
            await client.send(post(b"x") * 200)
            for _ in range(200):
                await client.answer()
            nursery.cancel_scope.cancel()
        await client.stream.aclose()
    # 16 requests a turn, and trio may give two tasks their turns in either order.
    assert max(after - before for before, after in pairwise(served)) <= 2 * 16


async def test_an_empty_line_before_a_request_of_the_app(serve: Serve) -> None:
    async with serve() as serving:
        client = await serving.connect()
        assert (await client.ask(post(b"x") + b"\r\n" + get(b"/api/ping"))).body == b"hook:x"
        assert (await client.answer()).body == b"pong"
        await client.stream.aclose()


async def refused_port(serving: Serving) -> bool:
    try:
        client = await serving.connect()
    except OSError:
        return True
    await client.stream.aclose()
    return False


@pytest.mark.slow
@pytest.mark.parametrize("begin", [b"", get(b"/api/ping")], ids=["ingest", "hypercorn"])
async def test_draining_finishes_what_is_in_flight(serve: Serve, begin: bytes) -> None:
    async with serve() as serving:
        busy, idle = await serving.connect(), await serving.connect()
        if begin:
            await busy.ask(begin)
            await idle.ask(begin)
        assert (await idle.ask(post(b"1"))).status == 200
        await busy.send(get(b"/slow"))
        await serving.gates["entered"].wait()
        serving.scope.cancel()
        assert await idle.closed() == b""
        assert await refused_port(serving)
        assert not serving.stopped.is_set()
        assert "app stopped" not in serving.events
        serving.gates["go"].set()
        answer = await busy.answer()
        assert (answer.status, answer.body) == (200, b"slow")
        assert await busy.closed() == b""
        await busy.stream.aclose()
        with trio.fail_after(4):
            await serving.stopped.wait()
        assert serving.events == ["app started", "app stopped"]
        await idle.stream.aclose()


@pytest.mark.slow
@pytest.mark.parametrize("begin", [b"", get(b"/api/ping")], ids=["ingest", "hypercorn"])
async def test_draining_is_bounded(serve: Serve, quick: Limits, begin: bytes) -> None:
    async with serve(quick) as serving:
        client = await serving.connect()
        if begin:
            await client.ask(begin)
        await client.send(get(b"/slow"))
        await serving.gates["entered"].wait()
        with trio.fail_after(4):
            await serving.stop()
        await gone(client, 1)
        await client.stream.aclose()
    assert serving.events == ["app started", "app stopped"]


@pytest.mark.slow
async def test_draining_cuts_a_peer_that_does_not_read(serve: Serve, quick: Limits) -> None:
    limits = Limits(send_seconds=60, drain_seconds=quick.drain_seconds)
    async with serve(limits) as serving:
        client = await serving.connect()
        await client.send(get(b"/api/big"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        with trio.fail_after(4):
            await serving.stop()
        await client.stream.aclose()


async def test_an_app_that_cannot_start(serve: Serve) -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        await receive()  # type: ignore[operator]
        await send({"type": "lifespan.startup.failed", "message": "no database"})  # type: ignore[operator]

    with pytest.raises(ExceptionGroup) as caught:
        async with serve(app=app):
            raise AssertionError("it was started")
    assert "no database" in str(innermost(caught.value))


async def test_a_port_that_is_taken(serve: Serve) -> None:
    async with serve() as serving:
        events_before = list(serving.events)
        with pytest.raises(ExceptionGroup) as caught:
            await serving.listener.__class__(handlers={}, sockets={}, app=no_lifespan).serve("127.0.0.1", serving.port)
        assert isinstance(innermost(caught.value), OSError)
        assert serving.events == events_before


async def no_lifespan(scope: dict[str, object], receive: object, send: object) -> None:
    assert scope["type"] == "lifespan"
    await receive()  # type: ignore[operator]
    await send({"type": "lifespan.startup.complete"})  # type: ignore[operator]
    await receive()  # type: ignore[operator]
    await send({"type": "lifespan.shutdown.complete"})  # type: ignore[operator]


def innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


async def test_a_bug_in_the_app_ends_its_request_only(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: dict[str, object], receive: object, send: object) -> None:
        if scope["type"] == "lifespan":
            await no_lifespan(scope, receive, send)
        else:
            raise RuntimeError("a bug in the application")

    with caplog.at_level(logging.ERROR, "parley.hypercorn"):
        async with serve(app=app) as serving:
            client = await serving.connect()
            assert (await client.ask(get(b"/"))).status == 500
            await client.stream.aclose()
            client = await serving.connect()
            assert (await client.ask(post(b"1"))).status == 200
            await client.stream.aclose()
    assert "a bug in the application" in caplog.text


async def test_resets_are_nobodys_error(serve: Serve) -> None:
    async with serve() as serving:
        for data in (b"", b"GET ", post(b"x")[:-1], get(b"/api/ping"), post(b"x", path=b"/api/upload")[:-1]):
            client = await serving.connect()
            await client.send(data)
            assert isinstance(client.stream, trio.SocketStream)
            client.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            await client.stream.aclose()
        last = await serving.connect()
        assert (await last.ask(post(b"x"))).status == 200
        assert serving.listener.statistics().accepted == 6
        await last.stream.aclose()
        await serving.connections({})
    assert serving.listener.statistics().failed == 0
