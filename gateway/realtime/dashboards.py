"""Dashboards on Socket.IO: the frames of `protocol.frames` as events and acknowledgements of the namespace `/`.

Owns how a session's requests, answers and events travel there. Must not know topics or the feed (`session`), nor packets and transports
(`socketio`, `engine`).

| frame | Socket.IO |
|-------|-----------|
| `authenticate` | `auth: {token}` of CONNECT, or the API key in a header of the opening request |
| `welcome` | event `welcome` after the acceptance; a refusal is `connect_error` with `data.code` |
| a request | the event of that name with at most one object |
| its answer | the acknowledgement, one object with its `type`; without one asked for, an event named by the type |
| `event` | event `event`, the object without `type` |
| what no `/ws` frame may be | the answer `bad_request`: the close codes of `/ws` cannot be seen by a Socket.IO client |
| closed with UNAUTHENTICATED | event `error` with code `unauthenticated`, then DISCONNECT: the client stays away |
"""

from collections.abc import Callable
from typing import Any

import msgspec
import trio

from gateway.http import Frame
from gateway.realtime.session import Answer, Identity, SessionRefused, Sessions
from gateway.realtime.socketio import ConnectRefused, Disconnected, Event, NamespaceHandler, Socket, event_frame
from gateway.routing import presented_key
from protocol import frames
from protocol.errors import RemoteProtocolError
from protocol.frames import Refused, ServerFrame, read_request
from store.contract import StoreUnavailable

AUTHENTICATION_SECONDS = 10.0


def event_packet(fields: bytes) -> Frame:
    """Frame an event once for all who follow on Socket.IO."""
    return event_frame("event", b"{" + fields + b"}")


class _SocketIOLink:
    """A `session.Link` to one Socket.IO client. Its queue is the connection's, and the engine closes it when it is full."""

    encode: Callable[[bytes], Frame] = staticmethod(event_packet)

    def __init__(self, socket: Socket) -> None:
        self._socket = socket

    def push(self, frame: Frame) -> bool:
        return self._socket.emit_frame(frame)

    def send(self, frame: ServerFrame) -> None:
        fields: dict[str, Any] = msgspec.to_builtins(frame)
        self._socket.emit(fields.pop("type"), fields)

    async def wait_below(self, mark: int) -> None:
        await self._socket.wait_below(mark)

    def close(self, code: int, reason: str) -> None:
        if code == frames.UNAUTHENTICATED:
            self.send(Refused(frames.REFUSED_UNAUTHENTICATED, reason))
            self._socket.disconnect()
        else:
            self._socket.close(code, reason)

    @property
    def queued_bytes(self) -> int:
        return self._socket.queued_bytes

    def answer_to(self, event: Event) -> Answer:
        """Return what takes the answer to `event`."""
        ack_id = event.ack_id
        if ack_id is None:
            return self.send

        def acknowledge(frame: ServerFrame) -> None:
            self._socket.ack(ack_id, msgspec.to_builtins(frame))

        return acknowledge


def dashboard_namespace(sessions: Sessions) -> NamespaceHandler:
    """Return the handler of the namespace `/`."""

    async def serve(socket: Socket) -> None:
        identity = await _identify(socket, sessions)
        link = _SocketIOLink(socket)
        try:
            async with sessions.open(link) as session:
                socket.accept()
                link.send(session.identify(identity))
                try:
                    while True:
                        event = await socket.receive()
                        answer = link.answer_to(event)
                        try:
                            session.request(read_request(event.name, event.args), answer)
                        except RemoteProtocolError as error:
                            answer(Refused(frames.BAD_REQUEST, error.detail))
                except Disconnected:
                    return
        except SessionRefused as refused:
            raise _overloaded(refused.reason) from refused

    return serve


async def _identify(socket: Socket, sessions: Sessions) -> Identity:
    """Find out who asks. Raises ConnectRefused."""
    token = socket.auth.get("token", presented_key(socket.request.headers))
    identity = None
    if isinstance(token, str):
        try:
            with trio.fail_after(AUTHENTICATION_SECONDS):
                identity = await sessions.authenticate(token)
        except (StoreUnavailable, trio.TooSlowError) as error:
            raise _overloaded("keys cannot be checked now") from error
    if identity is None:
        raise ConnectRefused("no valid API key", {"code": frames.REFUSED_UNAUTHENTICATED})
    return identity


def _overloaded(reason: str) -> ConnectRefused:
    return ConnectRefused(reason, {"code": frames.REFUSED_OVERLOADED})
