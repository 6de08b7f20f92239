"""A listener on loopback with a small Quart application behind it, and a client that takes answers apart."""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import trio
from quart import request as quart_request
from quart_trio import QuartTrio

from gateway.http import Handler, Request, Response, SocketClosed, SocketHandler, WebSocket
from gateway.listener import Limits, Listener


@dataclass
class Answer:
    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def closes(self) -> bool:
        return self.headers.get(b"connection") == b"close"


@dataclass
class Client:
    """Reads answers one by one from a stream, whatever segments they come in."""

    stream: trio.abc.Stream
    buffer: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def ask(self, data: bytes) -> Answer:
        await self.send(data)
        return await self.answer()

    async def answer(self, *, without_body: bool = False) -> Answer:
        while b"\r\n\r\n" not in self.buffer:
            await self._more()
        head, _, self.buffer = self.buffer.partition(b"\r\n\r\n")
        first, *lines = head.split(b"\r\n")
        headers = {name.lower(): value for name, value in (line.split(b": ", 1) for line in lines)}
        status = int(first.split()[1])
        length = 0 if without_body or status == 100 else int(headers.get(b"content-length", 0))
        while len(self.buffer) < length:
            await self._more()
        body, self.buffer = self.buffer[:length], self.buffer[length:]
        return Answer(status, headers, body)

    async def closed(self) -> bytes:
        """Read to the end and return what came on the way."""
        while data := await self.stream.receive_some():
            self.buffer += data
        return self.buffer

    async def _more(self) -> None:
        data = await self.stream.receive_some()
        assert data, f"closed after {self.buffer!r}"
        self.buffer += data


@dataclass
class Serving:
    listener: Listener
    port: int
    seen: list[Request]
    events: list[str]
    scope: trio.CancelScope
    stopped: trio.Event
    client_tls: ssl.SSLContext | None = None
    gates: dict[str, trio.Event] = field(default_factory=dict)

    async def connect(self) -> Client:
        stream: trio.abc.Stream = await trio.open_tcp_stream("127.0.0.1", self.port)
        if self.client_tls is not None:
            stream = trio.SSLStream(stream, self.client_tls, server_hostname="localhost", https_compatible=True)
        return Client(stream)

    async def connections(self, lanes: dict[str, int], within: float = 4) -> None:
        """Wait until no more than these are left, by lane; the machine may have other work."""
        with trio.fail_after(within):
            while self.listener.statistics().connections != lanes:
                await self.listener._watch.wait_left()

    async def stop(self) -> None:
        self.scope.cancel()
        await self.stopped.wait()


Serve = Callable[..., AbstractAsyncContextManager[Serving]]


async def echo_socket(socket: WebSocket) -> None:
    """Say everything back; "close" and "many" are commands."""
    from gateway.http import Frame

    if socket.request.query == b"no":
        await socket.reject(Response(403, b"no", ((b"x-why", b"no"),)))
        return
    if socket.request.query == b"fail":
        raise RuntimeError("a bug in a socket handler")
    offered = socket.request.header(b"sec-websocket-protocol")
    await socket.accept("chat" if offered else None)
    while True:
        message = await socket.receive()
        if message == "close":
            await socket.close(4000, "as you wish")
        elif message == "many":
            await socket.send_frames([Frame(b"frame %d" % number) for number in range(100)])
        elif message == "fail":
            raise RuntimeError("a bug in a socket handler")
        else:
            await socket.send(message)


@pytest.fixture
def serve() -> Serve:
    @asynccontextmanager
    async def serve(
        limits: Limits | None = None,
        *,
        tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None,
        handlers: dict[str, Handler] | None = None,
        sockets: dict[str, SocketHandler] | None = None,
        app: Callable[..., Awaitable[Any]] | None = None,
    ) -> AsyncIterator[Serving]:
        seen: list[Request] = []
        events: list[str] = []
        gates: dict[str, trio.Event] = {"entered": trio.Event(), "go": trio.Event()}

        async def hook(request: Request) -> Response:
            seen.append(request)
            return Response(200, b"hook:" + request.body, ((b"content-type", b"text/plain"),))

        async def slow(request: Request) -> Response:
            gates["entered"].set()
            await gates["go"].wait()
            return Response(200, b"slow")

        async def fail(request: Request) -> Response:
            raise RuntimeError("a bug in a handler")

        async def socket(socket: WebSocket) -> None:
            try:
                await echo_socket(socket)
            except SocketClosed as closed:
                events.append(f"socket closed {closed.code}")
                raise

        quart = QuartTrio(__name__)

        @quart.before_serving
        async def started() -> None:
            events.append("app started")

        @quart.after_serving
        async def stopped() -> None:
            events.append("app stopped")

        @quart.get("/api/ping")
        async def ping() -> str:
            return "pong"

        @quart.post("/api/upload")
        async def upload() -> str:
            return f"{len(await quart_request.get_data(as_text=False))} bytes"

        @quart.get("/api/big")
        async def big() -> bytes:
            return bytes(64 * 1024 * 1024)

        listener = Listener(
            handlers=handlers or {"/hook": hook, "/slow": slow, "/fail": fail, "/both": hook},
            sockets=sockets or {"/ws": socket, "/both": socket},
            app=app or quart,
            limits=limits,
            ssl_context=tls[0] if tls else None,
        )
        done = trio.Event()
        scope = trio.CancelScope()

        async def run(task_status: trio.TaskStatus[list[tuple[str, int]]]) -> None:
            with scope:
                await listener.serve("127.0.0.1", 0, task_status=task_status)
            done.set()

        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(run)
            yield Serving(listener, addresses[0][1], seen, events, scope, done, tls[1] if tls else None, gates)
            gates["go"].set()
            scope.cancel()

    return serve


@pytest.fixture
def quick() -> Limits:
    """Limits for tests in which a peer is slow."""
    return Limits(
        header_seconds=0.4,
        body_seconds=0.4,
        send_seconds=0.4,
        idle_seconds=0.8,
        close_seconds=0.3,
        drain_seconds=0.5,
    )
