"""The chunked transfer coding, inwards (RFC 9112, section 7.1).

Owns the framing of a body that does not tell its length. Own code, and not the C parser, because that one does not say
where in a segment the body ended, and the next request's first bytes may lie behind it. Pure; must not know sockets.

Strict where leniency lets two readers disagree: sizes are plain hexadecimal with no blank, every line ends in CRLF.
Extensions and trailers are read over and dropped.
"""

import enum
import re
from io import BytesIO

from gateway.listener.refusals import BODY_TOO_LARGE, HEAD_TOO_LARGE, MALFORMED, Refusal

_SIZE_LINE = re.compile(rb"([0-9A-Fa-f]{1,8})(?:;[\t -~\x80-\xff]*)?\r\n")
_TRAILER_LINE = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~\x80-\xff]*\r\n")
_SIZE_LINE_BYTES = 256


class _Part(enum.Enum):
    SIZE = enum.auto()
    DATA = enum.auto()
    DATA_END = enum.auto()
    TRAILERS = enum.auto()


class ChunkedBody:
    """Collects one body of at most `limit` bytes, with trailers of at most `trailer_limit`."""

    def __init__(self, limit: int, trailer_limit: int) -> None:
        self._limit = limit
        self._trailer_limit = trailer_limit
        self._part = _Part.SIZE
        self._line = b""
        self._left = 0
        self._trailer_bytes = 0
        self._body = BytesIO()
        self._size = 0

    @property
    def received(self) -> int:
        """Bytes of body so far; what a size line merely announces does not count."""
        return self._body.tell()

    def body(self) -> bytes:
        """Return what has been collected."""
        return self._body.getvalue()

    def receive(self, data: bytes) -> bytes | Refusal | None:
        """Take the next segment. Returns the bytes behind the body once it is complete, None before."""
        at = 0
        while at < len(data):
            if self._part is _Part.DATA:
                piece = data[at : at + self._left]
                self._body.write(piece)
                at += len(piece)
                self._left -= len(piece)
                if not self._left:
                    self._part = _Part.DATA_END
                continue
            line_end = data.find(b"\n", at) + 1 or len(data)
            self._line += data[at:line_end]
            at = line_end
            if len(self._line) > self._line_limit():
                return HEAD_TOO_LARGE if self._part is _Part.TRAILERS else MALFORMED
            if not self._line.endswith(b"\n"):
                return None
            line, self._line = self._line, b""
            if self._part is _Part.SIZE:
                refusal = self._read_size(line)
                if refusal is not None:
                    return refusal
            elif self._part is _Part.DATA_END:
                if line != b"\r\n":
                    return MALFORMED
                self._part = _Part.SIZE
            elif line == b"\r\n":
                return data[at:]
            elif not _TRAILER_LINE.fullmatch(line):
                return MALFORMED
            else:
                self._trailer_bytes += len(line)
        return None

    def _line_limit(self) -> int:
        if self._part is _Part.TRAILERS:
            return self._trailer_limit - self._trailer_bytes
        return _SIZE_LINE_BYTES if self._part is _Part.SIZE else 2

    def _read_size(self, line: bytes) -> Refusal | None:
        match = _SIZE_LINE.fullmatch(line)
        if match is None:
            return MALFORMED
        self._left = int(match[1], 16)
        self._size += self._left
        if self._size > self._limit:
            return BODY_TOO_LARGE  # before a byte of the chunk is read
        self._part = _Part.DATA if self._left else _Part.TRAILERS
        return None
