"""Connections that are hypercorn's from some byte on: the REST API, pages, HTTP/2.

Owns how a connection changes hands, how the application under hypercorn starts and stops, and what hypercorn does not
do about slow peers. Must not know lanes or routes.

What hypercorn 0.18 and quart-trio 0.12 leave undone about slow peers, and where it is done here:
- a body that does not come is answered 408 by the application at best, with the connection left open: `BodyClock`
  measures the waiting at the ASGI boundary, the one place that looks alike for HTTP/1 and HTTP/2, and cuts the connection;
- the keep-alive timer is started by the task of the finished request, which quart-trio cancels just then: often there is
  none. `HandedOver` counts the requests in progress, and without one a connection has `header_seconds` to begin one;
- writes are shielded from cancellation and wait for ever for a peer that does not read: a wire's do not.
"""

import logging
import socket
from collections.abc import Awaitable, Callable
from math import inf
from typing import Any

import trio
from hypercorn.config import Config
from hypercorn.trio.lifespan import Lifespan
from hypercorn.trio.tcp_server import TCPServer
from hypercorn.trio.worker_context import WorkerContext
from hypercorn.typing import ConnectionState, LifespanState
from hypercorn.utils import wrap_app

from gateway.listener.limits import PROGRESS_BYTES_PER_SECOND, Limits
from gateway.listener.watch import Life, Phase
from gateway.listener.wire import Wire

# The ASGI types of hypercorn are closed unions of literal dictionaries, those of Quart other ones; what the
# specification calls a mapping is one here.
Scope = dict[str, Any]
Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Any, Any, Any], Awaitable[Any]]

CONNECTION = "parley.connection"
"""Where an ASGI scope's `state` holds the HandedOver it came by."""


class _Addresses:
    """The part of a socket that hypercorn looks at: who is talking to whom."""

    def __init__(self, peer: tuple[Any, ...], own: tuple[Any, ...]) -> None:
        self.family = socket.AF_INET6 if ":" in peer[0] else socket.AF_INET
        self._peer = peer
        self._own = own

    def getpeername(self) -> tuple[Any, ...]:
        return self._peer

    def getsockname(self) -> tuple[Any, ...]:
        return self._own


class HandedOver(trio.abc.HalfCloseableStream):
    """A wire as the stream hypercorn expects, beginning with the bytes that were read already."""

    def __init__(
        self,
        wire: Wire,
        life: Life,
        rest: bytes,
        limits: Limits,
        peer: tuple[Any, ...],
        own: tuple[Any, ...],
    ) -> None:
        self.socket = _Addresses(peer, own)
        self._wire = wire
        self._life = life
        self._rest = rest
        self._limits = limits
        self._requests = 0
        self.gone = False
        """Whether the connection has ended. hypercorn drops what is sent to a WebSocket after that in silence."""

    def begin_request(self) -> None:
        """Note that a request, or a WebSocket, is in progress."""
        self._requests += 1
        self._life.phase = Phase.WORKING
        self._life.deadline = inf

    def end_request(self) -> None:
        """Note that one has ended; with the last of them the connection is idle."""
        self._requests -= 1
        if not self._requests:
            self.await_request()

    def await_request(self) -> None:
        """Give the peer `header_seconds` for its next request."""
        self._life.phase = Phase.IDLE
        self._life.deadline = trio.current_time() + self._limits.header_seconds

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return what was read before the hand-over, then what comes, in the wire's portions."""
        if self._rest:
            await trio.lowlevel.checkpoint()
            data, self._rest = self._rest, b""
            return data
        data = await self._wire.receive()
        self.gone = self.gone or not data
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send everything; a peer that does not read is cut off and reported as gone."""
        try:
            await self._wire.send(bytes(data))
        except trio.BrokenResourceError:
            self.gone = True
            raise

    async def wait_send_all_might_not_block(self) -> None:
        """Return at once: how long a write may wait is the wire's business."""
        await trio.lowlevel.checkpoint()

    async def send_eof(self) -> None:
        """Say that no more will come, as far as the transport can."""
        await self._wire.finish()

    async def aclose(self) -> None:
        """Close in bounded time."""
        self.gone = True
        await self._wire.close()

    def cut(self) -> None:
        """Drop the connection now."""
        self.gone = True
        self._wire.abort()


class HandedOverTLS(HandedOver):
    """The same behind TLS; hypercorn asks such a stream for more, and takes a stream without for plain text."""

    def __init__(
        self,
        wire: Wire,
        life: Life,
        rest: bytes,
        limits: Limits,
        peer: tuple[Any, ...],
        own: tuple[Any, ...],
        alpn_protocol: str | None,
    ) -> None:
        super().__init__(wire, life, rest, limits, peer, own)
        self._alpn_protocol = alpn_protocol

    @property
    def transport_stream(self) -> "HandedOverTLS":
        """Where hypercorn looks for the socket."""
        return self

    async def do_handshake(self) -> None:
        """Do nothing: it was done when the connection came in."""
        await trio.lowlevel.checkpoint()

    def selected_alpn_protocol(self) -> str | None:
        """Return what was agreed on."""
        return self._alpn_protocol


class BodyClock:
    """An ASGI `receive` that gives a request's body `body_seconds` of waiting, and a second for each 64 KiB received.

    Only time spent waiting for the peer counts, not what the application takes between two messages. When it is used
    up the connection is cut, and the application told that the peer disconnected.
    """

    def __init__(self, receive: Receive, connection: HandedOver | None, limits: Limits) -> None:
        self.timed_out = False
        self._receive = receive
        self._connection = connection
        self._seconds_left = limits.body_seconds - limits.sweep_seconds
        self.whole = False

    async def __call__(self) -> Message:
        """Return the next message of the request."""
        if self.whole:
            return await self._receive()
        began = trio.current_time()
        with trio.move_on_after(self._seconds_left):
            message = await self._receive()
            self.whole = not message.get("more_body", False)
            self._seconds_left -= trio.current_time() - began
            self._seconds_left += len(message.get("body", b"")) / PROGRESS_BYTES_PER_SECOND
            return message
        self.timed_out = True
        self.whole = True
        if self._connection is not None:
            self._connection.cut()
        return {"type": "http.disconnect"}


class HypercornLane:
    """The application, and the hypercorn that serves it."""

    def __init__(self, app: AsgiApp, limits: Limits) -> None:
        config = Config()
        config.accesslog = None
        config.errorlog = logging.getLogger("parley.hypercorn")  # handlers are the process's business
        config.include_server_header = False
        config.h11_max_incomplete_size = limits.header_bytes
        config.keep_alive_timeout = inf  # see HandedOver
        config.keep_alive_max_requests = 100_000  # counting buys nothing, and every closing costs a client a try
        # Its own size limit tells the client, but neither ends the connection nor tells the application; ours, behind
        # it, does both. So this one is only there to stop what is over by far.
        config.websocket_max_message_size = 4 * limits.message_bytes
        self._config = config
        self._limits = limits
        self._app = wrap_app(app, 0, "asgi")
        self._context = WorkerContext(None)
        self._state: LifespanState = {}
        self._ended = trio.Event()

    async def run_lifespan(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Start the application, report, and stop it after `end`. Once started, only `end` ends it.

        Raises:
            ExceptionGroup: holding hypercorn's LifespanFailureError or LifespanTimeoutError.
        """
        self._context = WorkerContext(None)
        self._state = {}
        self._ended = trio.Event()
        lifespan = Lifespan(self._app, self._config, self._state)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(lifespan.handle_lifespan)
                await lifespan.wait_for_startup()
                # The application's own tasks live in here and serve until the last request is answered.
                scope.shield = True
                task_status.started()
                await self._ended.wait()
                await lifespan.wait_for_shutdown()
                nursery.cancel_scope.cancel()

    async def serve(self, stream: HandedOver, life: Life) -> None:
        """Serve one connection to its end."""
        state = ConnectionState(LifespanState({**self._state, CONNECTION: stream}))
        stream.await_request()
        with life.renew():
            # typed for TLS streams only; it tells plain ones by their missing do_handshake
            await TCPServer(self._app, self._config, self._context, state, stream)  # type: ignore[arg-type]

    async def drain(self) -> None:
        """Close idle connections and let the others close behind their present request."""
        await self._context.terminated.set()

    def end(self) -> None:
        """Stop the application; `run_lifespan` returns when it has stopped."""
        self._ended.set()
