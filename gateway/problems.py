"""The one table of problem codes, and the RFC 9457 answers made from it.

Owns what each code means, which status it has and whether the same request may succeed later. A code, once published, keeps its meaning.
`title` is the same for every occurrence of a code and `detail` is about this one (RFC 9457, section 3.1); neither ever holds a secret
or anything that would tell a tenant what another one has. Must not know routes, handlers or servers.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from gateway.http import Headers, Response

CONTENT_TYPE = "application/problem+json"


class Kind(msgspec.Struct, frozen=True):
    """What stands behind one code. `retryable`: the same request, unchanged, may succeed later. `headers` go with every such answer."""

    status: int
    title: str
    retryable: bool = False
    headers: Headers = ()


_SOON = ((b"retry-after", b"1"),)
"""Seconds. Refusals for want of room or of a database pass quickly; providers and dashboards have their own, longer back-off."""

PROBLEMS: Mapping[str, Kind] = {
    # the request itself
    "malformed_request": Kind(400, "The request is not valid HTTP."),
    "malformed_handshake": Kind(400, "The WebSocket handshake is not valid."),
    "bad_request": Kind(400, "A parameter is unknown or not valid."),
    "bad_cursor": Kind(400, "The cursor was not made by this list."),
    "not_found": Kind(404, "There is no such thing here."),
    "method_not_allowed": Kind(405, "This path does not serve the method."),
    "request_timeout": Kind(408, "The request did not arrive in time.", retryable=True),
    "snapshot_required": Kind(
        410, "The feed cannot be resumed from this position: read a snapshot and go on from there."
    ),
    "body_too_large": Kind(413, "The body is over the limit."),
    "unsupported_media_type": Kind(415, "The body's media type is not served here."),
    "unsupported_content_encoding": Kind(415, "The body must not be compressed."),
    "expectation_failed": Kind(417, "Only the expectation 100-continue is known."),
    "unsupported_websocket_version": Kind(
        426, "Only WebSocket version 13 is served.", headers=((b"sec-websocket-version", b"13"),)
    ),
    "head_too_large": Kind(431, "The request line and headers are over the limit."),
    "unsupported_http_version": Kind(505, "Only HTTP/1.0, HTTP/1.1 and HTTP/2 are served."),
    # who is asking
    "unauthenticated": Kind(401, "A valid API key is needed.", headers=((b"www-authenticate", b"Bearer"),)),
    "signature_missing": Kind(401, "The webhook is not signed."),
    "signature_invalid": Kind(401, "The webhook's signature does not fit its body."),
    "verification_failed": Kind(403, "The verify token is not that of any endpoint."),
    "forbidden_origin": Kind(403, "Pages of this origin may not connect."),
    # ourselves
    "internal_error": Kind(500, "The request could not be served.", retryable=True),
    "not_ready": Kind(503, "Webhooks would not be acknowledged now.", retryable=True, headers=_SOON),
    "overloaded": Kind(503, "There is no room for the request now.", retryable=True, headers=_SOON),
    "shutting_down": Kind(503, "The server is about to stop; another will answer.", retryable=True, headers=_SOON),
    "store_unavailable": Kind(503, "The database cannot serve the request now.", retryable=True, headers=_SOON),
    "too_many_connections": Kind(
        503, "The server has no room for this connection.", retryable=True, headers=((b"retry-after", b"5"),)
    ),
}


class ProblemDetails(msgspec.Struct, frozen=True):
    """Every error's body (RFC 9457). Look at `code`; `type` is where the code is described; `retryable` says whether to try again."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    retryable: bool


class Refusal(Exception):
    """Raised by a handler to answer with a problem. Arguments as for `problem`."""

    def __init__(self, code: str, detail: str, *, members: Mapping[str, Any] | None = None, **headers: str) -> None:
        super().__init__(code, detail)
        self.code = code
        self.response = problem(code, detail, members=members, **headers)


def problem(code: str, detail: str, *, members: Mapping[str, Any] | None = None, **headers: str) -> Response:
    """Return the answer for `code`. `members` are extension members of the body; `headers` replace those of the table (`retry_after="30"`).

    Raises:
        KeyError: a code that is not in the table.
    """
    kind = PROBLEMS[code]
    details = ProblemDetails(f"/problems/{code}", kind.title, kind.status, detail, code, kind.retryable)
    named = {name.replace("_", "-").encode("ascii"): value.encode("latin-1") for name, value in headers.items()}
    body = {**msgspec.structs.asdict(details), **(members or {})}
    fields = {b"content-type": CONTENT_TYPE.encode("ascii"), **dict(kind.headers), **named}
    return Response(kind.status, msgspec.json.encode(body), tuple(fields.items()))
