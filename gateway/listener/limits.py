"""The listener's bounds, in one place. Owns the figures and their reasons; must not know how they are enforced."""

from dataclasses import dataclass

PROGRESS_BYTES_PER_SECOND = 64 * 1024
"""A body or an answer earns one more second for each 64 KiB that moved, so 16 MiB may take 30 s + 256 s over a slow
but steady line, while a sender of one byte a second is still gone after `body_seconds`."""

LINGER_SECONDS = 2.0
"""How long a connection that was answered with "close" is still read from: closing a socket with unread bytes makes
the kernel send a reset, which may destroy the answer on its way (RFC 9112, section 9.6)."""


@dataclass(frozen=True)
class Limits:
    """Every bound of one listener. Times are the longest a peer is borne: the sweep acts up to one tick *before*."""

    header_bytes: int = 16 * 1024
    """Request line and headers, with the empty line. More is 431."""
    body_bytes: int = 16 * 1024 * 1024
    """One request's body after chunked decoding. Exactly this much is accepted, one byte more is 413."""
    message_bytes: int = 1024 * 1024
    """One inbound WebSocket message. More closes with 1009."""
    header_seconds: float = 10.0
    """From the connection, or a request's first byte, to the end of its headers; also the TLS handshake.
    Connections owned by hypercorn idle no longer than this, because there an idle connection and one with half a
    head look the same."""
    body_seconds: float = 30.0
    """From the end of the headers to the end of the body, plus a second for each 64 KiB received."""
    send_seconds: float = 10.0
    """How long a write may wait for a peer that does not read, plus a second; each 64 KiB it takes start that anew."""
    idle_seconds: float = 75.0
    """Between two requests of a kept-alive connection; above the 60 s proxies keep theirs, so that they close first."""
    close_seconds: float = 5.0
    """A WebSocket's closing handshake, and the last words of a TLS connection."""
    drain_seconds: float = 10.0
    """At shutdown, for requests in flight and closing handshakes; whatever remains is cut."""
    connections: int = 10_000
    """Open at once. One more is answered 503 and closed."""

    @property
    def sweep_seconds(self) -> float:
        """The tick of the sweep: at most a quarter second, at most an eighth of the shortest time it enforces."""
        return min(0.25, min(self.header_seconds, self.body_seconds, self.idle_seconds) / 8)
