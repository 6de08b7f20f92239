"""HTTP/1.1 on one kept-alive connection: requests out, answers in, nothing else.

httptools parses (it is what the load figures of the gateway were measured with); trio carries. Requests come ready as bytes, because a load
generator must not spend its time composing heads. Must not know webhooks, retries or rates.
"""

import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import NamedTuple
from urllib.parse import urlsplit

import httptools
import trio

_RECEIVE_SIZE = 65536
_LARGEST_ANSWER = 1 << 20
"""Bytes of body; a webhook's answer has a few."""


class BrokenConnection(Exception):
    """No whole answer came: nobody can say whether the request was carried out."""


class Answer(NamedTuple):
    """One whole HTTP answer."""

    status: int
    body: bytes


class Target(NamedTuple):
    """Where requests go: the parts of a URL."""

    host: str
    port: int
    path: str
    secure: bool


def target_of(url: str) -> Target:
    """Split an http or https URL. Raises ValueError if it is neither."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"{url!r} is not an http or https address")
    secure = parts.scheme == "https"
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Target(parts.hostname, parts.port or (443 if secure else 80), path, secure)


Connect = Callable[[], Awaitable[trio.abc.Stream]]


def connector(target: Target) -> Connect:
    """Return what opens a stream to a target. It raises OSError when nobody answers there."""
    context = ssl.create_default_context() if target.secure else None

    async def connect() -> trio.abc.Stream:
        if context is None:
            return await trio.open_tcp_stream(target.host, target.port)
        return await trio.open_ssl_over_tcp_stream(target.host, target.port, ssl_context=context)

    return connect


def post_head(target: Target) -> bytes:
    """Return the part of a POST's head that is the same for every request to a target."""
    return (
        f"POST {target.path} HTTP/1.1\r\nHost: {target.host}:{target.port}\r\n"
        "User-Agent: facebookexternalua\r\nContent-Type: application/json\r\n"
    ).encode()


class Connection:
    """One stream, one request at a time."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self._stream = stream
        self._parser = httptools.HttpResponseParser(self)
        self._body = bytearray()
        self._status = 0
        self._complete = False
        self.reusable = True
        """False once the server asked to close, or anything broke."""

    async def request(self, data: bytes) -> Answer:
        """Send a whole request and return its whole answer.

        Raises BrokenConnection if the connection ends or speaks no HTTP; then, and when cancelled, it must be closed.
        """
        reusable, self.reusable = self.reusable, False  # until a whole answer has been read
        if not reusable:
            raise BrokenConnection("the connection is used up")
        self._complete = False
        self._body.clear()
        try:
            await self._stream.send_all(data)
            while not self._complete:
                received = await self._stream.receive_some(_RECEIVE_SIZE)
                if not received:
                    raise BrokenConnection("the server closed the connection")
                self._parser.feed_data(received)
                if len(self._body) > _LARGEST_ANSWER:
                    raise BrokenConnection("the answer is too large")
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise BrokenConnection("the connection broke") from error
        except httptools.HttpParserError as error:
            raise BrokenConnection("the answer is not HTTP") from error
        return Answer(self._status, bytes(self._body))

    async def break_off(self, data: bytes) -> None:
        """Send a part of a request and close, as a failing network does."""
        self.reusable = False
        # Broken is what it is meant to become.
        with suppress(trio.BrokenResourceError, trio.ClosedResourceError):
            await self._stream.send_all(data)
        await self.aclose()

    async def aclose(self) -> None:
        """Close without ceremony."""
        self.reusable = False
        await trio.aclose_forcefully(self._stream)

    # httptools' callbacks.

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._body += body

    def on_message_complete(self) -> None:
        """Note the end of an answer; an interim one (1xx) is not the answer."""
        self._status = self._parser.get_status_code()
        if self._status >= 200:
            self._complete = True
            self.reusable = self._parser.should_keep_alive()
