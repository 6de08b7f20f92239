"""Dashboards on `/ws`: the frames of `protocol.frames` as JSON text messages on a plain WebSocket.

Owns the way of one such connection: handshake, authentication, reading, writing, closing. Must not know topics or the feed (`session`), nor
how a lane frames bytes (`gateway.http.WebSocket`).

Theory of operation
-------------------
1. The handshake decides what HTTP can say: 403 for a foreign Origin, 401 for a wrong key in a header, 503 while keys cannot be checked. Everything
   else is said by a close code, which a page's script can read.
2. One task reads and one writes. What is queued is written by the pump, for all clients on one beat; the writer has what a client's kernel buffer
   does not take, and takes all that has gathered meanwhile as one write, so a client that falls behind costs fewer writes, not more.
3. Closing is begun by anybody (`close`), synchronously. The writer then still writes what is queued (nothing for a slow consumer), within
   CLOSE_SECONDS, and closes with the code. A write that is already under way is not cut within that time: bytes of a close frame in the
   middle of another frame would tell the client nothing.
"""

from collections.abc import Callable

import trio

from gateway.http import Frame, Response, SocketClosed, SocketHandler, WebSocket
from gateway.listener.refusals import Refusal
from gateway.realtime.handshake import origin_allowed
from gateway.realtime.outbox import DEFAULT_MAX_BYTES, Outbox
from gateway.realtime.pump import Pump
from gateway.realtime.session import Identity, Session, SessionRefused, Sessions
from gateway.routing import presented_key
from protocol import frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Authenticate, ClientFrame, ServerFrame, decode_client
from store.contract import StoreUnavailable

AUTHENTICATION_SECONDS = 10.0
CLOSE_SECONDS = 5.0
"""How long a closing connection may go on taking what is queued for it. With the lane's own limit it ends in less than 10 s."""
REASON_BYTES = 123
"""What a close frame has room for (RFC 6455, section 5.5: 125 bytes, two of them the code)."""

_FOREIGN_ORIGIN = Refusal(403, "forbidden_origin", "Pages of this origin may not connect.")
_UNAUTHENTICATED = Refusal(401, "unauthenticated", "This key is not valid.", ((b"www-authenticate", b"Bearer"),))
_UNAVAILABLE = Refusal(503, "store_unavailable", "Keys cannot be checked now.", ((b"retry-after", b"5"),))


def event_message(fields: bytes) -> Frame:
    """Frame an event once for all who follow on `/ws`."""
    return Frame(b'{"type":"event",' + fields + b"}")


class _SocketLink:
    """A `session.Link` to one WebSocket."""

    encode: Callable[[bytes], Frame] = staticmethod(event_message)

    def __init__(self, max_queue_bytes: int, pump: Pump | None, direct: Callable[[list[Frame]], list[Frame]]) -> None:
        self.code = 1000
        self.reason = ""
        self.scope = trio.CancelScope()
        self._outbox: Outbox[Frame] = Outbox(max_queue_bytes, pump)
        self._outbox.write_through(direct)
        self._closing = False

    def push(self, frame: Frame) -> bool:
        if self._outbox.push(frame):
            return True
        self.close(frames.SLOW_CONSUMER, "slow consumer")
        return False

    def send(self, frame: ServerFrame) -> None:
        self.push(Frame(frames.encode(frame)))

    async def wait_below(self, mark: int) -> None:
        await self._outbox.wait_below(mark)

    def close(self, code: int, reason: str) -> None:
        if self._closing:
            return
        self._closing = True
        self.code, self.reason = code, reason
        self._outbox.close(discard=code == frames.SLOW_CONSUMER)
        self.scope.deadline = trio.current_time() + CLOSE_SECONDS

    @property
    def queued_bytes(self) -> int:
        return self._outbox.held_bytes

    async def write(self, ws: WebSocket) -> None:
        """Write what the pump leaves until the link is closed and all of it written. Raises SocketClosed."""
        while batch := await self._outbox.drain():
            await ws.send_frames(batch)


def dashboard_socket(
    sessions: Sessions,
    *,
    origins: frozenset[str] = frozenset(),
    max_queue_bytes: int = DEFAULT_MAX_BYTES,
    pump: Pump | None = None,
) -> SocketHandler:
    """Return the handler of `/ws`.

    `origins` are those allowed beside the gateway's own (`https://inbox.example`; `*`: any). A client for which more than
    `max_queue_bytes` wait is closed; with less than the default, resuming from a full ring may do that. Without a `pump` every
    client's own task writes everything.
    """

    async def serve(ws: WebSocket) -> None:
        identity = await _admit(ws, sessions, origins)
        if isinstance(identity, Response):
            await ws.reject(identity)
            return
        await ws.accept()
        link = _SocketLink(max_queue_bytes, pump, ws.try_send_frames)
        try:
            async with sessions.open(link) as session:
                if identity is not None:
                    link.send(session.identify(identity))
                with link.scope:
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(_read, ws, link, session, sessions)
                        await _write(ws, link)
                        nursery.cancel_scope.cancel()
        except SessionRefused as refused:
            link.close(refused.code, refused.reason)
        finally:
            with trio.CancelScope(shield=True):  # the lane bounds it
                await ws.close(link.code, link.reason)

    return serve


async def _admit(ws: WebSocket, sessions: Sessions, origins: frozenset[str]) -> Identity | Response | None:
    """Judge the opening request. None: it may go on, and has to show its key in the first frame."""
    if not origin_allowed(ws.request, origins):
        return _FOREIGN_ORIGIN.response()
    key = presented_key(ws.request.headers)
    if key is None:
        return None
    try:
        with trio.fail_after(AUTHENTICATION_SECONDS):
            identity = await sessions.authenticate(key)
    except (StoreUnavailable, trio.TooSlowError):
        return _UNAVAILABLE.response()
    return identity or _UNAUTHENTICATED.response()


async def _read(ws: WebSocket, link: _SocketLink, session: Session, sessions: Sessions) -> None:
    """Take the client's frames until it is gone or says what it must not."""
    try:
        if session.identity is None:
            with trio.move_on_after(AUTHENTICATION_SECONDS):
                await _authenticate(ws, link, session, sessions)
            if session.identity is None:
                link.close(frames.UNAUTHENTICATED, "no key was shown in time")
                return
        while True:
            session.request(await _receive(ws), link.send)
    except RemoteProtocolError as error:
        link.close(frames.BAD_FRAME, error.detail.encode()[:REASON_BYTES].decode(errors="ignore"))
    except SocketClosed:
        link.scope.cancel()


async def _authenticate(ws: WebSocket, link: _SocketLink, session: Session, sessions: Sessions) -> None:
    """Refuse all requests until one shows a key. Leaves the session without identity when the link was closed for it."""
    while True:
        frame = await _receive(ws)
        if isinstance(frame, Authenticate):
            break
        session.request(frame, link.send)
    try:
        identity = await sessions.authenticate(frame.token)
    except StoreUnavailable:
        link.close(frames.OVERLOADED, "keys cannot be checked now")
        return
    if identity is None:
        link.close(frames.UNAUTHENTICATED, "this key is not valid")
        return
    link.send(session.identify(identity))


async def _receive(ws: WebSocket) -> ClientFrame:
    message = await ws.receive()
    if isinstance(message, bytes):
        raise RemoteProtocolError("frames are text messages")
    return decode_client(message)


async def _write(ws: WebSocket, link: _SocketLink) -> None:
    try:
        await link.write(ws)
    except SocketClosed:
        return  # whatever was still queued, its client resumes without it
