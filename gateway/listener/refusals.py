"""Why the listener itself says no: one table of stable codes. Must not know lanes or sockets."""

import msgspec

from gateway.http import Headers, Response


class Refusal(msgspec.Struct, frozen=True):
    """One reason to refuse a request; `code` is stable and what a client should look at (RFC 9457)."""

    status: int
    code: str
    title: str
    headers: Headers = ()

    def response(self) -> Response:
        """Return the problem+json answer."""
        problem = {"type": "about:blank", "title": self.title, "status": self.status, "code": self.code}
        return Response(
            status=self.status,
            body=msgspec.json.encode(problem),
            headers=((b"content-type", b"application/problem+json"), *self.headers),
        )


MALFORMED = Refusal(400, "malformed_request", "The request is not valid HTTP.")
BAD_HANDSHAKE = Refusal(400, "malformed_handshake", "The WebSocket handshake is not valid.")
METHOD_NOT_ALLOWED = Refusal(
    405,
    "method_not_allowed",
    "This path does not serve the method.",
    ((b"allow", b"GET, HEAD, OPTIONS, POST"),),
)
TIMED_OUT = Refusal(408, "request_timeout", "The request did not arrive in time.")
BODY_TOO_LARGE = Refusal(413, "body_too_large", "The body is over the limit.")
ENCODED_BODY = Refusal(415, "unsupported_content_encoding", "The body must not be compressed.")
EXPECTATION = Refusal(417, "expectation_failed", "Only the expectation 100-continue is known.")
BAD_HANDSHAKE_VERSION = Refusal(
    426,
    "unsupported_websocket_version",
    "Only WebSocket version 13 is served.",
    ((b"sec-websocket-version", b"13"),),
)
HEAD_TOO_LARGE = Refusal(431, "head_too_large", "The request line and headers are over the limit.")
FAILED = Refusal(500, "internal_error", "The request could not be served.")
BAD_VERSION = Refusal(505, "unsupported_http_version", "Only HTTP/1.0, HTTP/1.1 and HTTP/2 are served.")
OVERLOADED = Refusal(
    503, "too_many_connections", "The server has no room for this connection.", ((b"retry-after", b"5"),)
)
DRAINING = Refusal(503, "shutting_down", "The server is about to stop; another will answer.", ((b"retry-after", b"1"),))
