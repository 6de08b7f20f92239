"""A small HTTP and WebSocket server on h11 and wsproto, for tests that need sockets but not the listener.

It implements the contract of `gateway.http` by its letter and nothing more: one request at a time per connection, a
handler is cancelled when its client goes away, no limits. Loopback only.
"""

from collections.abc import Iterator, Mapping

import h11
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Message,
    Ping,
    RejectConnection,
    RejectData,
    TextMessage,
)
from wsproto.events import (
    Request as WsRequest,
)

from gateway.http import Frame, Handler, Headers, Request, Response, SocketClosed, SocketHandler

CHUNK = 65536


class MiniWebSocket:
    """A `gateway.http.WebSocket` on a trio stream."""

    def __init__(self, stream: trio.abc.Stream, request: Request) -> None:
        self.request = request
        self._stream = stream
        self._ws = WSConnection(ConnectionType.SERVER)
        self._ws.initiate_upgrade_connection(list(request.headers), f"{request.path}?{request.query.decode()}")
        self._events = self._ws.events()
        assert isinstance(next(self._events), WsRequest)
        self._sending = trio.Lock()
        self._parts: list[str] | list[bytes] = []
        self._closed = False

    async def accept(self, subprotocol: str | None = None) -> None:
        await self._send(self._ws.send(AcceptConnection(subprotocol=subprotocol)))

    async def reject(self, response: Response) -> None:
        headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
        reject = RejectConnection(status_code=response.status, headers=headers, has_body=True)
        await self._send(self._ws.send(reject) + self._ws.send(RejectData(data=response.body)))
        self._closed = True

    async def receive(self) -> str | bytes:
        while True:
            for event in self._pending():
                if isinstance(event, Message):
                    self._parts.append(event.data)
                    if event.message_finished:
                        parts, self._parts = self._parts, []
                        return ("" if isinstance(event, TextMessage) else b"").join(parts)
                elif isinstance(event, Ping):
                    await self._send(self._ws.send(event.response()))
                elif isinstance(event, CloseConnection):
                    if self._ws.state is ConnectionState.REMOTE_CLOSING:
                        await self._send(self._ws.send(event.response()))
                    self._closed = True
                    raise SocketClosed(event.code, event.reason or "")
            try:
                data = await self._stream.receive_some(CHUNK)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data:
                self._closed = True
                raise SocketClosed
            self._ws.receive_data(data)

    async def send(self, data: str | bytes) -> None:
        message = TextMessage(data=data) if isinstance(data, str) else BytesMessage(data=data)
        await self._send(self._ws.send(message))

    async def send_frames(self, frames: list[Frame]) -> None:
        await self._send(b"".join(frame.wire for frame in frames))

    def try_send_frames(self, frames: list[Frame]) -> list[Frame]:
        return frames

    async def close(self, code: int = 1000, reason: str = "") -> None:
        if not self._closed:
            with trio.move_on_after(1):
                try:
                    await self._send(self._ws.send(CloseConnection(code=code, reason=reason)))
                    while True:
                        await self.receive()
                except SocketClosed:
                    pass
        self._closed = True
        await trio.aclose_forcefully(self._stream)

    def _pending(self) -> Iterator[object]:
        yield from self._ws.events()

    async def _send(self, data: bytes) -> None:
        if self._closed:
            raise SocketClosed
        async with self._sending:
            try:
                await self._stream.send_all(data)
            except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
                raise SocketClosed from error


class MiniServer:
    """Serves `http` and `websocket` on 127.0.0.1."""

    def __init__(self, handlers: Mapping[str, Handler], sockets: Mapping[str, SocketHandler]) -> None:
        self._handlers = handlers
        self._sockets = sockets

    async def serve(self, port: int = 0, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED) -> None:
        listeners = await trio.open_tcp_listeners(port, host="localhost")
        if port == 0:
            port = listeners[0].socket.getsockname()[1]
            for listener in listeners[1:]:
                await listener.aclose()
            del listeners[1:]
        task_status.started(port)
        await trio.serve_listeners(self.connection, listeners)

    async def connection(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it closes or becomes a WebSocket."""
        http = h11.Connection(h11.SERVER)
        async with stream:
            while http.our_state is h11.IDLE:
                request = await _read_request(stream, http)
                if request is None:
                    return
                if (request.header(b"upgrade") or b"").lower() == b"websocket":
                    await self._sockets[request.path](MiniWebSocket(stream, request))
                    return
                response = await self._answer(stream, http, request)
                if response is None:
                    return
                headers = [*response.headers, (b"content-length", b"%d" % len(response.body))]
                data = http.send(h11.Response(status_code=response.status, headers=headers)) or b""
                data += http.send(h11.Data(data=response.body)) or b""
                data += http.send(h11.EndOfMessage()) or b""
                try:
                    await stream.send_all(data)
                except trio.BrokenResourceError:
                    return
                if http.our_state is h11.DONE and http.their_state is h11.DONE:
                    http.start_next_cycle()

    async def _answer(self, stream: trio.abc.Stream, http: h11.Connection, request: Request) -> Response | None:
        """Run the handler; None when the client went away meanwhile."""
        response: Response | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch, stream, http, nursery.cancel_scope)
            response = await self._handlers[request.path](request)
            nursery.cancel_scope.cancel()
        return response


async def _watch(stream: trio.abc.Stream, http: h11.Connection, scope: trio.CancelScope) -> None:
    try:
        while data := await stream.receive_some(CHUNK):
            http.receive_data(data)
    except trio.BrokenResourceError:
        pass
    scope.cancel()


async def _read_request(stream: trio.abc.Stream, http: h11.Connection) -> Request | None:
    head: h11.Request | None = None
    body = b""
    while True:
        event = http.next_event()
        if event is h11.NEED_DATA:
            try:
                http.receive_data(await stream.receive_some(CHUNK))
            except trio.BrokenResourceError:
                return None
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            assert head is not None
            path, _, query = bytes(head.target).partition(b"?")
            headers: Headers = tuple((bytes(name), bytes(value)) for name, value in head.headers)
            return Request(head.method.decode(), path.decode(), query, headers, body, "127.0.0.1")
        else:
            return None  # ConnectionClosed
