"""The dashboard: one static page, without a build step, that follows a tenant's conversations live.

Owns the page's files and the headers they need. The page speaks the same public REST API and `/ws` as any other client, so nothing here
knows tenants, keys or the feed; whoever serves HTTP maps `assets()` to routes.

Where things are:

    index.html          the frame; loads css/ and js/app.js
    css/                tokens (colour, space, type) · layout (panes) · list · thread · panels
    js/app.js           session, routing, and the wiring of everything below
    js/api.js live.js   the two ways to the gateway: REST, and the resumable event stream
    js/inbox.js         the model of the conversation list; js/timeline.js: the model of one thread. No DOM in either
    js/*-*.js           one custom element a file: conversation-list, thread-view, contact-panel, quarantine-panel, status-bar, sign-in
    js/content.js       one renderer a content type; js/notes.js: one a system event

Data never becomes markup: nodes are built by `h()` in js/dom.js, and `CONTENT_SECURITY_POLICY` makes the browser refuse anything else.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self'",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",  # innerHTML and its kin throw: the browser enforces what js/dom.js promises
        "trusted-types 'none'",
    )
)

HEADERS: tuple[tuple[str, str], ...] = (
    ("content-security-policy", CONTENT_SECURITY_POLICY),
    ("cache-control", "no-cache"),  # names carry no hash, so every load revalidates: 304 by ETag
    ("referrer-policy", "no-referrer"),
    ("x-content-type-options", "nosniff"),
    ("cross-origin-opener-policy", "same-origin"),
)
"""To be sent with every asset, besides its content type and ETag."""

_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file as served. `etag` is quoted, as in the header."""

    body: bytes
    content_type: str
    etag: str


def assets() -> Mapping[str, Asset]:
    """Return every file of the page by the URL path it is served at: `/` and `/static/…`.

    Reads the disk: to be called once, at start. There is no look-up by file name at request time, hence no path to traverse.
    """
    root = Path(__file__).parent
    found = {}
    for file in sorted(root.rglob("*")):
        content_type = _CONTENT_TYPES.get(file.suffix)
        if content_type is None or not file.is_file():
            continue
        body = file.read_bytes()
        path = "/" if file.name == "index.html" else f"/static/{file.relative_to(root).as_posix()}"
        found[path] = Asset(body, content_type, f'"{hashlib.sha256(body).hexdigest()[:32]}"')
    return found
