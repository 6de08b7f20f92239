"""Reads the head of a request and says which lane it belongs to.

Owns the syntax of request line and headers, and every refusal that needs no more than the head. Pure: bytes in,
verdict out, whatever the segments the bytes came in. Must not know sockets, trio or the answers' form.

Rules:
1. The request line is judged as soon as it is complete, so that garbage is refused at once and with the same answer
   however it was cut.
2. Of a request for the application only the request line is read; everything else is hypercorn's to judge.
3. What could be read in two ways (two lengths, folded headers, a bare line feed, two hosts) is refused, never mended:
   a proxy in front may have read it the other way (RFC 9112, section 11.2).
"""

import enum
import re
from collections.abc import Mapping
from typing import Literal

import httptools
import msgspec

from gateway.http import Handler, Headers, SocketHandler
from gateway.listener.limits import Limits
from gateway.listener.refusals import (
    BAD_VERSION,
    BODY_TOO_LARGE,
    ENCODED_BODY,
    EXPECTATION,
    HEAD_TOO_LARGE,
    MALFORMED,
    Refusal,
)

METHODS = frozenset((b"GET", b"HEAD", b"POST", b"OPTIONS", b"PUT", b"PATCH", b"DELETE"))
"""What a Handler is asked, and refuses itself where it does not serve it; other methods on its path are refused by the application's side."""

CHUNKED = -1
"""`Head.length` of a body whose end only the chunked coding tells."""

_REQUEST_LINE = re.compile(rb"([!#$%&'*+\-.^_`|~0-9A-Za-z]+) ([!-~]+) HTTP/([0-9])\.([0-9])\r\n")
_AUTHORITY = re.compile(rb"\A[^/?]*")
_TOKEN_BYTES = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_READ_HERE = frozenset(
    (
        b"host",
        b"content-length",
        b"transfer-encoding",
        b"content-encoding",
        b"connection",
        b"expect",
        b"upgrade",
    )
)


class Verdict(enum.Enum):
    """What a head can be besides one of ours or a refusal."""

    NEED_MORE = enum.auto()
    HAND_OVER = enum.auto()


class Head(msgspec.Struct, frozen=True):
    """The head of a request for a Handler (`socket` is None) or for a SocketHandler (`handler` is None)."""

    method: str
    path: str
    query: bytes
    headers: Headers
    handler: Handler | None
    socket: SocketHandler | None
    end: int
    """Where the body begins in the sniffed buffer."""
    length: int
    """Bytes of body, or CHUNKED."""
    http10: bool
    keep_alive: bool
    expects_continue: bool


Sniffed = Head | Refusal | Literal[Verdict.NEED_MORE, Verdict.HAND_OVER]


class _Target(msgspec.Struct, frozen=True):
    method: str
    path: str
    query: bytes
    handler: Handler | None
    socket: SocketHandler | None
    http10: bool


class _Fields:
    """Collects what the C parser finds; one parser and one of these a request is 2 µs and leaves no state behind."""

    __slots__ = ("headers",)

    def __init__(self) -> None:
        self.headers: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value.rstrip(b" \t")))


def split_target(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a request target in origin or absolute form (RFC 9112, section 3.2), as sent.

    Percent-encoding is kept: a path that only decodes to a handler's is not the handler's path.
    """
    if target[:1] != b"/":
        scheme, separator, rest = target.partition(b"://")
        if separator and scheme.lower() in (b"http", b"https"):
            target = _AUTHORITY.sub(b"", rest, count=1)
    path, _, query = target.partition(b"?")
    return path or b"/", query


class Sniffer:
    """Knows the paths that have lanes of their own."""

    def __init__(self, handlers: Mapping[str, Handler], sockets: Mapping[str, SocketHandler], limits: Limits) -> None:
        self._handlers = {path.encode("ascii"): handler for path, handler in handlers.items()}
        self._sockets = {path.encode("ascii"): handler for path, handler in sockets.items()}
        self._limits = limits
        # Providers send the same request line for ever: remembering it saves the regular expression, the split and
        # two look-ups. Only plain paths that are ours are kept, so no client can fill it with inventions.
        self._lines: dict[bytes, _Target] = {}

    def sniff(self, buffer: bytes, start: int = 0) -> Sniffed:
        """Judge the request that begins at `start`, or behind one empty line there (RFC 9112, section 2.2)."""
        if buffer.startswith(b"\r\n", start):
            start += 2
        line_end = buffer.find(b"\n", start) + 1
        limit = start + self._limits.header_bytes
        if not line_end or line_end > limit:
            if len(buffer) > start and buffer[start] not in _TOKEN_BYTES and buffer[start:] != b"\r":
                return MALFORMED  # TLS on the plain port, mostly: no use in waiting for its line to end
            return HEAD_TOO_LARGE if len(buffer) >= limit else Verdict.NEED_MORE
        line = buffer[start:line_end]
        target = self._lines.get(line) or self._read_line(line)
        if isinstance(target, Refusal):
            return target
        head_end = buffer.find(b"\r\n\r\n", line_end - 2, limit) + 4
        if head_end == 3:
            return HEAD_TOO_LARGE if len(buffer) >= limit else Verdict.NEED_MORE
        if target is Verdict.HAND_OVER:
            return target
        return self._read_headers(buffer, start, head_end, target)

    def _read_line(self, line: bytes) -> _Target | Refusal | Literal[Verdict.HAND_OVER]:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None:
            return MALFORMED
        method, raw_target, major, minor = match.groups()
        if (major, minor) not in ((b"1", b"0"), (b"1", b"1")):
            # RFC 9113, section 3.4: the preface of HTTP/2 looks like a request so that servers notice.
            return Verdict.HAND_OVER if line == b"PRI * HTTP/2.0\r\n" else BAD_VERSION
        path, query = split_target(raw_target)
        handler = self._handlers.get(path)
        socket = self._sockets.get(path)
        if method not in METHODS or (handler is None and socket is None):
            return Verdict.HAND_OVER
        target = _Target(method.decode(), path.decode(), query, handler, socket, minor == b"0")
        if raw_target == path:
            self._lines[line] = target
        return target

    def _read_headers(
        self, buffer: bytes, start: int, head_end: int, target: _Target
    ) -> Head | Refusal | Literal[Verdict.HAND_OVER]:
        fields = _Fields()
        try:
            httptools.HttpRequestParser(fields).feed_data(buffer[start:head_end])
        except httptools.HttpParserUpgrade:
            pass  # only says that the headers ask for one
        except httptools.HttpParserError:
            return MALFORMED  # two lengths, a length beside a coding, folding, bad signs: rule 3
        length = hosts = 0
        connection = upgrade = b""
        expects_continue = encoded = False
        for name, value in fields.headers:
            if name not in _READ_HERE:
                continue
            if name == b"host":
                hosts += 1
            elif name == b"content-length":
                length = int(value)
            elif name == b"transfer-encoding":
                if value.lower() != b"chunked" or target.http10:
                    return MALFORMED
                length = CHUNKED
            elif name == b"connection":
                connection += b"," + value.lower()
            elif name == b"upgrade":
                upgrade = value.lower()
            elif name == b"content-encoding":
                encoded = encoded or value.lower() not in (b"", b"identity")
            elif value.lower() == b"100-continue":
                expects_continue = not target.http10
            else:
                return EXPECTATION
        if hosts != 1 and not (target.http10 and hosts == 0):
            return MALFORMED  # RFC 9112, section 3.2
        options = [option.strip() for option in connection.split(b",")] if connection else ()
        handler, socket = target.handler, None
        asks_for_socket = upgrade == b"websocket" and b"upgrade" in options and length == 0
        if asks_for_socket and target.socket is not None and target.method == "GET":
            handler, socket = None, target.socket
        if handler is None and socket is None:
            return Verdict.HAND_OVER
        if length != 0 and encoded:
            return ENCODED_BODY
        if length > self._limits.body_bytes:
            return BODY_TOO_LARGE
        return Head(
            method=target.method,
            path=target.path,
            query=target.query,
            headers=tuple(fields.headers),
            handler=handler,
            socket=socket,
            end=head_end,
            length=length,
            http10=target.http10,
            keep_alive=b"keep-alive" in options if target.http10 else b"close" not in options,
            expects_continue=expects_continue,
        )
