"""What every lane and every handler agree on: one request, one answer, one socket, one frame.

Owns the small types between the network and the handlers, so that a handler (the webhook ingress,
Engine.IO polling, a realtime session) never knows which lane or which server brought its request.
Must not know trio, hypercorn, Quart, or any route.
"""

from collections.abc import Awaitable, Callable
from typing import Protocol

import msgspec

Headers = tuple[tuple[bytes, bytes], ...]


class Request(msgspec.Struct, frozen=True, gc=False):
    """One whole HTTP request. Header names are lower-case; `body` is already complete and within its limit."""

    method: str
    path: str
    query: bytes
    headers: Headers
    body: bytes
    client: str

    def header(self, name: bytes) -> bytes | None:
        """Return the value of the first header called `name` (lower-case), or None."""
        for key, value in self.headers:
            if key == name:
                return value
        return None

    def header_values(self, name: bytes) -> list[bytes]:
        """Return every value sent under `name` (lower-case), in order: a repeated security header is refused by its reader."""
        return [value for key, value in self.headers if key == name]


class Response(msgspec.Struct, frozen=True, gc=False):
    """One whole HTTP answer. `headers` need not name content-length: the lane writes it."""

    status: int
    body: bytes = b""
    headers: Headers = ()


Handler = Callable[[Request], Awaitable[Response]]


class Frame:
    """One outgoing text message, framed once for every client that receives it.

    `payload` is the UTF-8 text; `wire` is the same as an unmasked RFC 6455 text frame (section 5.2: FIN, opcode 1),
    ready for the socket of any number of clients. Frames from server to client are never masked (section 5.1), which is
    what makes sharing the bytes possible.
    """

    __slots__ = ("payload", "wire")

    def __init__(self, payload: bytes) -> None:
        size = len(payload)
        if size < 126:
            head = bytes((0x81, size))
        elif size < 65536:
            head = b"\x81\x7e" + size.to_bytes(2, "big")
        else:
            head = b"\x81\x7f" + size.to_bytes(8, "big")
        self.payload = payload
        self.wire = head + payload

    def __len__(self) -> int:
        return len(self.wire)


NOTHING = Frame(b"")
"""No message at all: what `WebSocket.send_frames` is given to write only what a `try_send_frames` left behind."""
NOTHING.wire = b""


class SocketClosed(Exception):
    """The WebSocket is gone. `code` is the peer's RFC 6455 close code, 1006 when it vanished without one."""

    def __init__(self, code: int = 1006, reason: str = "") -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class WebSocket(Protocol):
    """One WebSocket connection, whichever lane carries it.

    Exactly one of `accept` and `reject` is called first. One task receives; sends may come from another.
    """

    @property
    def request(self) -> Request:
        """The upgrade request (empty body)."""

    async def accept(self, subprotocol: str | None = None) -> None:
        """Finish the handshake."""

    async def reject(self, response: Response) -> None:
        """Refuse the handshake with a plain HTTP answer and close."""

    async def receive(self) -> str | bytes:
        """Return the next whole message. Pings are answered on the way.

        Raises:
            SocketClosed: the peer closed or vanished, or sent a message over the size limit (answered 1009).
        """

    async def send(self, data: str | bytes) -> None:
        """Send one message. Raises SocketClosed."""

    async def send_frames(self, frames: list[Frame]) -> None:
        """Send many text messages in as few writes as the lane allows. Raises SocketClosed."""

    def try_send_frames(self, frames: list[Frame]) -> list[Frame]:
        """Send what can be sent without waiting; return what `send_frames` still has to be called with (perhaps `NOTHING`). Raises SocketClosed."""

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with `code`; returns within a bounded time even when the peer does not read. Never raises SocketClosed."""


SocketHandler = Callable[[WebSocket], Awaitable[None]]
