"""WebSockets on the raw stream.

Owns the opening handshake, framing, the size limit and the closing handshake (RFC 6455) of sockets with a lane of their
own. Must not know what is said on them.

No permessage-deflate: its per-client state would end the sharing of framed bytes, which is what makes fan-out cheap.
Dead peers are the business of whoever speaks on the socket (Engine.IO pings) and, at last, of TCP keep-alive.
"""

import base64
import binascii
from collections import deque
from typing import Protocol

import structlog
import trio
from wsproto.connection import Connection, ConnectionState, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, TextMessage
from wsproto.frame_protocol import CloseReason
from wsproto.utilities import generate_accept_token

from gateway.http import NOTHING, Frame, Request, Response, SocketClosed, SocketHandler, WebSocket
from gateway.listener.answers import CLOSE, Answers
from gateway.listener.limits import LINGER_SECONDS, Limits
from gateway.listener.refusals import BAD_HANDSHAKE, BAD_HANDSHAKE_VERSION, DRAINING, FAILED, Refusal
from gateway.listener.sniff import Head
from gateway.listener.statistics import Counters
from gateway.listener.wire import Wire

log = structlog.get_logger("parley.listener")


def check_handshake(request: Request) -> Refusal | None:
    """Return why an upgrade request is not a WebSocket handshake (RFC 6455, section 4.2.1), None if it is."""
    if request.header_values(b"sec-websocket-version") != [b"13"]:
        return BAD_HANDSHAKE_VERSION
    keys = request.header_values(b"sec-websocket-key")
    try:
        valid = len(keys) == 1 and len(base64.b64decode(keys[0], validate=True)) == 16
    except binascii.Error:
        valid = False
    return None if valid else BAD_HANDSHAKE


def offered_subprotocols(request: Request) -> list[str]:
    """Return the subprotocols the client offers, in its order of preference."""
    values = b",".join(request.header_values(b"sec-websocket-protocol")).decode("latin-1")
    return [name for name in (part.strip() for part in values.split(",")) if name]


class LaneWebSocket:
    """A `gateway.http.WebSocket` on a wire."""

    def __init__(self, wire: Wire, request: Request, rest: bytes, answers: Answers, limits: Limits) -> None:
        self._wire = wire
        self._request = request
        self._rest = rest
        self._answers = answers
        self._limits = limits
        # Only once accepted; before that there is nobody to speak frames with.
        self._frames: Connection | None = None
        self._answered = False
        self._closed: SocketClosed | None = None
        self._gone = trio.Event()
        self._reading = False
        # Whole messages a segment brought besides the one that was asked for: at most a segment's worth.
        self._inbox: deque[str | bytes] = deque()
        self._texts: list[str] = []
        self._pieces: list[bytes] = []
        self._size = 0
        # One frame's bytes must not get between another's, whichever tasks they come from.
        self._send_lock = trio.Lock()
        self._unsent = b""  # what `try_send_frames` left behind: it comes before anything else

    @property
    def request(self) -> Request:
        """The upgrade request."""
        return self._request

    @property
    def answered(self) -> bool:
        """Whether the handshake was accepted or rejected."""
        return self._answered

    async def accept(self, subprotocol: str | None = None) -> None:
        """Finish the handshake.

        Raises:
            ValueError: the client did not offer `subprotocol`.
            SocketClosed: the peer is gone.
        """
        self._answer_once()
        lines = [
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n",
            b"sec-websocket-accept: %b\r\n" % generate_accept_token(self._request.header(b"sec-websocket-key") or b""),
        ]
        if subprotocol is not None:
            if subprotocol not in offered_subprotocols(self._request):
                raise ValueError(f"subprotocol {subprotocol!r} was not offered")
            lines.append(b"sec-websocket-protocol: %b\r\n" % subprotocol.encode("latin-1"))
        lines.append(b"\r\n")
        await self._write(b"".join(lines))
        self._frames = Connection(ConnectionType.SERVER, trailing_data=self._rest)
        self._rest = b""
        await self._take_in()

    async def reject(self, response: Response) -> None:
        """Answer with `response` instead of the handshake, and close. Raises SocketClosed when the peer is gone."""
        self._answer_once()
        await self._write(self._answers.encode(response, CLOSE))
        self._end(SocketClosed())
        await self._wire.finish()

    async def receive(self) -> str | bytes:
        """Return the next message. Raises SocketClosed."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._inbox:
            self._check_open()
            await self._read_on()
        return self._inbox.popleft()

    async def send(self, data: str | bytes) -> None:
        """Send one message. Raises SocketClosed."""
        if isinstance(data, str):
            await self.send_frames([Frame(data.encode())])
        else:
            frames = self._open_frames()
            await trio.lowlevel.checkpoint_if_cancelled()
            await self._write(bytes(frames.send(BytesMessage(data=data))))

    async def send_frames(self, frames: list[Frame]) -> None:
        """Send many messages with one write. Raises SocketClosed.

        A checkpoint for cancellation, but a trip round the scheduler only when the kernel's buffer is full.
        """
        self._open_frames()
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._write(b"".join([frame.wire for frame in frames]))

    def try_send_frames(self, frames: list[Frame]) -> list[Frame]:
        """Send what the kernel's buffer takes; [NOTHING] says that something is left for `send_frames`. Raises SocketClosed."""
        self._open_frames()
        if self._send_lock.locked():
            return frames  # somebody waits for the peer to read
        data = frames[0].wire if len(frames) == 1 else b"".join([frame.wire for frame in frames])
        try:
            self._unsent = self._wire.try_send(self._unsent + data if self._unsent else data)
        except trio.BrokenResourceError:
            self._end(SocketClosed())
            self._check_open()
        return [NOTHING] if self._unsent else []

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with `code`, in at most `close_seconds`; a peer that does not answer is cut off."""
        if self._closed is not None:
            return  # how it ended is decided; the lane gives the last frame time to arrive
        try:
            with trio.move_on_after(self._limits.close_seconds):
                await self._shake_hands(code, reason)
        finally:
            self._end(SocketClosed(code, reason))
            self._wire.abort()

    async def _shake_hands(self, code: int, reason: str) -> None:
        if self._frames is None:
            return
        try:
            async with self._send_lock:
                if self._frames.state is ConnectionState.OPEN:
                    last = bytes(self._frames.send(CloseConnection(code=code, reason=reason)))
                    await self._wire.send(self._unsent + last)
        except trio.BrokenResourceError:
            return
        while self._closed is None:
            await self._read_on()
        await self._wire.finish()

    async def _read_on(self) -> None:
        """Wait for bytes and take them in; or, while another task does, for the end.

        The other task is `receive` while this one closes, or the other way round: no message matters any more.
        """
        if self._reading:
            await self._gone.wait()
            return
        self._reading = True
        try:
            data = await self._wire.receive()
        finally:
            self._reading = False
        if self._closed is not None:
            return
        if not data:
            self._end(SocketClosed())
            return
        assert self._frames is not None, "accept comes first"  # noqa: S101 - the contract of WebSocket
        self._frames.receive_data(data)
        await self._take_in()

    async def linger(self) -> None:
        """Give a last frame time to arrive: a peer in the middle of a big message would get a reset instead."""
        with trio.move_on_after(LINGER_SECONDS):
            await self._wire.finish()
            while await self._wire.receive():
                pass

    async def _take_in(self) -> None:
        """Sort what was received: messages into the inbox, pings answered in one write, the end noted."""
        frames = self._frames
        assert frames is not None  # noqa: S101 - called behind accept only
        pongs = bytearray()
        for event in frames.events():
            if isinstance(event, TextMessage | BytesMessage):
                if frames.state is ConnectionState.OPEN and not self._collect(event):
                    await self._fail(CloseReason.MESSAGE_TOO_BIG, "message too big")
                    return
            elif isinstance(event, Ping):
                if frames.state is ConnectionState.OPEN:
                    pongs += frames.send(event.response())
            elif isinstance(event, CloseConnection):
                if frames.state is ConnectionState.OPEN:
                    # wsproto's way to say that the peer broke the protocol: the code is ours to send.
                    await self._fail(event.code, event.reason or "")
                    return
                if frames.state is ConnectionState.REMOTE_CLOSING:
                    pongs += frames.send(event.response())
                    await self._write_last(pongs)
                self._end(SocketClosed(int(event.code), event.reason or ""))
                return
        if pongs:
            await self._write(bytes(pongs))

    def _collect(self, event: TextMessage | BytesMessage) -> bool:
        """Add a piece to the message in progress. False when that makes it too big."""
        data = event.data
        self._size += len(data.encode()) if isinstance(data, str) and not data.isascii() else len(data)
        if self._size > self._limits.message_bytes:
            return False
        if isinstance(data, str):
            if data:  # empty fragments cost the peer next to nothing, so they must not cost us memory
                self._texts.append(data)
            if event.message_finished:
                self._inbox.append("".join(self._texts))
        else:
            if data:
                self._pieces.append(bytes(data))
            if event.message_finished:
                self._inbox.append(b"".join(self._pieces))
        if event.message_finished:
            self._texts, self._pieces, self._size = [], [], 0
        return True

    async def _fail(self, code: int, reason: str) -> None:
        """End the connection because of what the peer sent; it has `close_seconds` to take the code."""
        assert self._frames is not None  # noqa: S101 - called behind accept only
        if self._frames.state is ConnectionState.OPEN:
            await self._write_last(self._frames.send(CloseConnection(code=code, reason=reason)))
        self._end(SocketClosed(int(code), reason))

    async def _write_last(self, data: bytes | bytearray) -> None:
        """Write what ends the conversation; that the peer may be gone already changes nothing."""
        with trio.move_on_after(self._limits.close_seconds):
            try:
                async with self._send_lock:
                    await self._wire.send(self._unsent + data)
            except trio.BrokenResourceError:
                return

    async def _write(self, data: bytes) -> None:
        self._check_open()
        try:
            # Not `async with`: that makes a trip round the scheduler even when nobody holds the lock, a fifth of a write's cost.
            try:
                self._send_lock.acquire_nowait()
            except trio.WouldBlock:
                await self._send_lock.acquire()
            try:
                unsent, self._unsent = self._unsent, b""
                await self._wire.send(unsent + data if unsent else data)
            finally:
                self._send_lock.release()
        except trio.BrokenResourceError:
            self._end(SocketClosed())
        except trio.Cancelled:
            # Cut off within a frame, perhaps: whatever came next would be read as its middle.
            self._end(SocketClosed())
            self._wire.abort()
            raise
        self._check_open()

    def _open_frames(self) -> Connection:
        self._check_open()
        assert self._frames is not None, "accept comes first"  # noqa: S101 - the contract of WebSocket
        if self._frames.state is not ConnectionState.OPEN:
            raise SocketClosed(CloseReason.NORMAL_CLOSURE)  # our own close is under way
        return self._frames

    def _answer_once(self) -> None:
        assert not self._answered, "the handshake was answered before"  # noqa: S101 - the contract of WebSocket
        self._answered = True

    def _end(self, closed: SocketClosed) -> None:
        if self._closed is None:
            self._closed = closed
            self._gone.set()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise SocketClosed(self._closed.code, self._closed.reason)


class ServedSocket(WebSocket, Protocol):
    """A WebSocket as the side that serves it sees it."""

    @property
    def answered(self) -> bool:
        """Whether the handshake was accepted or rejected."""


class OpenSockets:
    """The WebSockets being served, in whichever lane; runs their handlers and ends them together."""

    def __init__(self, counters: Counters) -> None:
        self._counters = counters
        self._sockets: set[ServedSocket] = set()
        self._draining = False

    async def serve(self, handler: SocketHandler, socket: ServedSocket) -> None:
        """Run the handler of one socket to its end: the connection's boundary to its bugs."""
        if self._draining:
            self._counters.refused[DRAINING.code] += 1
            await socket.reject(DRAINING.response())
            return
        self._sockets.add(socket)
        failed = False
        try:
            await handler(socket)
        except* SocketClosed:
            pass  # the usual end
        except* Exception:
            failed = True
            self._counters.failed += 1
            log.exception("socket_handler_failed", path=socket.request.path)
        finally:
            self._sockets.discard(socket)
        if socket.answered:
            await socket.close(1011 if failed else 1000)
        else:
            await socket.reject(FAILED.response())

    def reopen(self) -> None:
        """Let sockets in again after a `close_all`."""
        self._draining = False

    async def close_all(self, code: int, reason: str) -> None:
        """Close every socket and let no new one in."""
        self._draining = True
        async with trio.open_nursery() as nursery:
            for socket in self._sockets:
                nursery.start_soon(socket.close, code, reason)


class RealtimeLane:
    """Serves WebSocket upgrades."""

    def __init__(self, sockets: OpenSockets, answers: Answers, counters: Counters, limits: Limits) -> None:
        self._sockets = sockets
        self._answers = answers
        self._counters = counters
        self._limits = limits

    async def serve(self, wire: Wire, head: Head, rest: bytes) -> None:
        """Serve the connection whose upgrade request is `head`, followed by `rest`, to its end."""
        assert head.socket is not None  # noqa: S101 - the sniffer's promise
        request = Request(
            method=head.method,
            path=head.path,
            query=head.query,
            headers=head.headers,
            body=b"",
            client=wire.client,
        )
        socket = LaneWebSocket(wire, request, rest, self._answers, self._limits)
        try:
            refusal = check_handshake(request)
            if refusal is None:
                await self._sockets.serve(head.socket, socket)
            else:
                self._counters.refused[refusal.code] += 1
                await socket.reject(refusal.response())
        except SocketClosed:
            return  # gone before it could be told
        await socket.linger()
