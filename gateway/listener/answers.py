"""Turns a Response into the bytes of an HTTP/1.1 answer.

Owns status lines, the Date line and the framing headers. Must not know requests, lanes or sockets.
"""

import re
from email.utils import formatdate
from http import HTTPStatus

from gateway.http import Headers, Response

KEEP = b""
KEEP_HTTP10 = b"connection: keep-alive\r\n"
CLOSE = b"connection: close\r\n"

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

_LANE_OWNED = frozenset((b"content-length", b"transfer-encoding", b"connection", b"keep-alive", b"date"))
_NAME = re.compile(rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_VALUE = re.compile(rb"[\t -~\x80-\xff]*")
_REMEMBERED_HEADS = 256


def check_headers(headers: Headers) -> list[tuple[bytes, bytes]]:
    """Return the headers without those the lane writes itself.

    Raises:
        ValueError: a name or value would break out of its line (response splitting).
    """
    for name, value in headers:
        if not _NAME.fullmatch(name) or not _VALUE.fullmatch(value):
            raise ValueError(f"response header {name!r} is not valid")
    return [(name, value) for name, value in headers if name.lower() not in _LANE_OWNED]


class Answers:
    """Writes answers; one for a listener, because what it remembers is worth sharing."""

    def __init__(self) -> None:
        # Handlers answer with few different heads, so each is put together once. What varies without bound (a
        # Retry-After, a cookie) can fill this only so far: then it is emptied and the common ones come back.
        self._heads: dict[tuple[int, Headers], bytes] = {}
        self._date = b""
        self.refresh_date()

    def refresh_date(self) -> None:
        """Write the Date line anew; called every fraction of a second, so that no answer formats a date."""
        self._date = b"date: %b\r\n" % formatdate(usegmt=True).encode("ascii")

    def encode(self, response: Response, connection: bytes, *, without_body: bool = False) -> bytes:
        """Return the whole answer. `connection` is KEEP, KEEP_HTTP10 or CLOSE; `without_body` is for HEAD.

        Raises:
            ValueError: the response's headers or status are not valid.
        """
        head = self._heads.get((response.status, response.headers)) or self._encode_head(response)
        body = response.body
        if response.status in (204, 304):
            # RFC 9110, section 8.6: no length with 204; 304 may have one, but ours would be that of no body at all.
            return b"%b%b%b\r\n" % (head, self._date, connection)
        return b"%b%b%bcontent-length: %d\r\n\r\n%b" % (
            head,
            self._date,
            connection,
            len(body),
            b"" if without_body else body,
        )

    def _encode_head(self, response: Response) -> bytes:
        if not 200 <= response.status <= 599:
            raise ValueError(f"{response.status} is not the status of a whole answer")
        phrase = HTTPStatus(response.status).phrase if response.status in _STATUSES else ""
        lines = [b"HTTP/1.1 %d %b\r\n" % (response.status, phrase.encode("ascii"))]
        lines += [b"%b: %b\r\n" % field for field in check_headers(response.headers)]
        head = b"".join(lines)
        if len(self._heads) >= _REMEMBERED_HEADS:
            self._heads.clear()
        self._heads[response.status, response.headers] = head
        return head


_STATUSES = frozenset(status.value for status in HTTPStatus)
