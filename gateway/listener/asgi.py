"""The same handlers, under any ASGI server: what makes no request depend on its lane.

A connection that hypercorn owns may later carry a webhook or a WebSocket, and HTTP/2 is hypercorn's from the start. Owns
the conversion between ASGI and `gateway.http`, with the ingest lane's limits and refusals. Must not know Quart or routes.
"""

from collections.abc import Mapping
from contextlib import suppress
from io import BytesIO

import structlog
import trio

from gateway.http import Frame, Handler, Request, Response, SocketClosed, SocketHandler
from gateway.listener.answers import check_headers
from gateway.listener.handover import CONNECTION, AsgiApp, BodyClock, HandedOver, Message, Receive, Scope, Send
from gateway.listener.limits import LINGER_SECONDS, Limits
from gateway.listener.realtime_lane import OpenSockets
from gateway.listener.refusals import (
    BODY_TOO_LARGE,
    ENCODED_BODY,
    FAILED,
    METHOD_NOT_ALLOWED,
    TIMED_OUT,
    Refusal,
)
from gateway.listener.sniff import METHODS, split_target
from gateway.listener.statistics import Counters

log = structlog.get_logger("parley.listener")


class HandlersFirst:
    """An ASGI application that serves the handlers' paths itself and passes everything else to `app`."""

    def __init__(
        self,
        app: AsgiApp,
        handlers: Mapping[str, Handler],
        sockets: Mapping[str, SocketHandler],
        open_sockets: OpenSockets,
        counters: Counters,
        limits: Limits,
    ) -> None:
        self._app = app
        self._handlers = handlers
        self._socket_handlers = sockets
        self._open_sockets = open_sockets
        self._counters = counters
        self._limits = limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI scope."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        connection: HandedOver | None = scope.get("state", {}).get(CONNECTION)
        if connection is None:  # under another server than ours, which has its own ways with connections
            await self._serve(scope, receive, send, None)
            return
        connection.begin_request()
        try:
            await self._serve(scope, receive, send, connection)
        finally:
            connection.end_request()

    async def _serve(self, scope: Scope, receive: Receive, send: Send, connection: HandedOver | None) -> None:
        if scope["type"] == "http":
            clock = BodyClock(receive, connection, self._limits)
            handler = self._handlers.get(_path(scope))
            if handler is None:
                await self._app(scope, clock, send)
            else:
                await self._serve_http(scope, clock, send, handler)
            if clock.timed_out:
                self._counters.refused[TIMED_OUT.code] += 1
        elif socket_handler := self._socket_handlers.get(_path(scope)):
            with suppress(SocketClosed):  # gone before it could be told
                socket = AsgiWebSocket(scope, receive, send, self._limits)
                await self._open_sockets.serve(socket_handler, socket)
        else:
            await self._app(scope, receive, send)

    async def _serve_http(self, scope: Scope, clock: BodyClock, send: Send, handler: Handler) -> None:
        request = _request(scope)
        received = self._check(scope, request) or await self._receive_body(clock)
        if received is None:
            return
        if isinstance(received, Refusal):
            self._counters.refused[received.code] += 1
            await self._answer_last(scope, clock, send, received.response())
            return
        try:
            response = await handler(_request(scope, received))
            check_headers(response.headers)
        except Exception:
            self._counters.failed += 1
            log.exception("handler_failed", method=request.method, path=request.path)
            await self._answer_last(scope, clock, send, FAILED.response())
            return
        self._counters.answers[response.status] += 1
        await send(_start(response))
        await send({"type": "http.response.body", "body": response.body})

    def _check(self, scope: Scope, request: Request) -> Refusal | None:
        if scope["method"].encode() not in METHODS:
            return METHOD_NOT_ALLOWED
        if any(value.lower() not in (b"", b"identity") for value in request.header_values(b"content-encoding")):
            return ENCODED_BODY
        # The server has checked that it is a number, and one.
        if int(request.header(b"content-length") or 0) > self._limits.body_bytes:
            return BODY_TOO_LARGE
        return None

    async def _receive_body(self, clock: BodyClock) -> bytes | Refusal | None:
        collected = BytesIO()
        while True:
            message = await clock()
            if message["type"] != "http.request":
                return None
            collected.write(message.get("body", b""))
            if collected.tell() > self._limits.body_bytes:
                return BODY_TOO_LARGE
            if not message.get("more_body", False):
                return collected.getvalue()

    async def _answer_last(self, scope: Scope, clock: BodyClock, send: Send, response: Response) -> None:
        """Answer a request whose body may still be coming.

        The body of the answer is sent whole but not called finished while there is more to read: hypercorn closes as
        soon as it is, and a reset would overtake the answer.
        """
        closing = ((b"connection", b"close"),) if scope["http_version"].startswith("1") else ()
        await send(_start(response, closing))
        await send({"type": "http.response.body", "body": response.body, "more_body": True})
        with trio.move_on_after(LINGER_SECONDS):
            while not clock.whole:
                await clock()
        await send({"type": "http.response.body", "body": b""})


class AsgiWebSocket:
    """A `gateway.http.WebSocket` over an ASGI websocket scope."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, limits: Limits) -> None:
        self._scope = scope
        self._receive = receive
        self._send = send
        self._limits = limits
        self._request = _request(scope)
        self._answered = False
        self._closed: SocketClosed | None = None
        self._connection: HandedOver | None = scope.get("state", {}).get(CONNECTION)

    @property
    def request(self) -> Request:
        """The upgrade request."""
        return self._request

    @property
    def answered(self) -> bool:
        """Whether the handshake was accepted or rejected."""
        return self._answered

    async def accept(self, subprotocol: str | None = None) -> None:
        """Finish the handshake. Raises SocketClosed."""
        if subprotocol is not None and subprotocol not in self._scope["subprotocols"]:
            raise ValueError(f"subprotocol {subprotocol!r} was not offered")
        await self._connected()
        await self._send({"type": "websocket.accept", "subprotocol": subprotocol})

    async def reject(self, response: Response) -> None:
        """Answer with `response` instead of the handshake. Raises SocketClosed."""
        await self._connected()
        if "websocket.http.response" in self._scope.get("extensions", {}):
            await self._send(_start(response, kind="websocket"))
            await self._send({"type": "websocket.http.response.body", "body": response.body})
        else:
            await self._send({"type": "websocket.close"})
        self._closed = SocketClosed()

    async def receive(self) -> str | bytes:
        """Return the next message. Raises SocketClosed."""
        self._check_open()
        message = await self._receive()
        if message["type"] == "websocket.disconnect":
            self._closed = self._closed or SocketClosed(message.get("code", 1006), message.get("reason") or "")
            self._check_open()
        # Either key may be missing or None, and an empty message of the one kind is not one of the other.
        text = message.get("text")
        data: str | bytes = bytes(message["bytes"]) if text is None else text
        size = len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        if size > self._limits.message_bytes:
            await self.close(1009, "message too big")
            self._check_open()
        return data

    async def send(self, data: str | bytes) -> None:
        """Send one message. Raises SocketClosed."""
        self._check_open()
        # A server need not wait in `send`, and one that has lost the peer does not.
        await trio.lowlevel.checkpoint()
        kind = "text" if isinstance(data, str) else "bytes"
        await self._send({"type": "websocket.send", kind: data})

    async def send_frames(self, frames: list[Frame]) -> None:
        """Send many messages, each in its turn: ASGI has no way to share framed bytes. Raises SocketClosed."""
        for frame in frames:
            await self.send(frame.payload.decode())

    def try_send_frames(self, frames: list[Frame]) -> list[Frame]:
        """Send nothing: under ASGI every send waits."""
        return frames

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with `code`, in at most `close_seconds`."""
        if self._closed is not None:
            return
        self._closed = SocketClosed(code, reason)
        with trio.move_on_after(self._limits.close_seconds):
            await self._send({"type": "websocket.close", "code": code, "reason": reason})

    async def _connected(self) -> None:
        assert not self._answered, "the handshake was answered before"  # noqa: S101 - the contract of WebSocket
        self._answered = True
        message = await self._receive()
        if message["type"] != "websocket.connect":
            self._closed = SocketClosed()
        self._check_open()

    def _check_open(self) -> None:
        if self._closed is None and self._connection is not None and self._connection.gone:
            self._closed = SocketClosed()
        if self._closed is not None:
            raise SocketClosed(self._closed.code, self._closed.reason)


def _path(scope: Scope) -> str:
    """Return the path as it was sent: a percent-encoded one is not the handler's, in no lane."""
    raw: bytes | None = scope.get("raw_path")
    return scope["path"] if raw is None else split_target(raw)[0].decode("latin-1")


def _request(scope: Scope, body: bytes = b"") -> Request:
    client = scope.get("client")
    return Request(
        method=scope.get("method", "GET"),
        path=_path(scope),
        query=scope["query_string"],
        headers=tuple((bytes(name).lower(), bytes(value)) for name, value in scope["headers"]),
        body=body,
        client=client[0] if client else "",
    )


def _start(response: Response, extra: tuple[tuple[bytes, bytes], ...] = (), kind: str = "http") -> Message:
    prefix = "http" if kind == "http" else "websocket.http"
    headers = [*check_headers(response.headers), *extra]
    if response.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(response.body)))
    return {"type": f"{prefix}.response.start", "status": response.status, "headers": headers}
