"""Static assets: the dashboard's files and the OpenAPI document, from memory, with ETags.

Must not know what is in them. There is no look-up by file name at request time, hence no path to traverse.
"""

from collections.abc import Awaitable, Callable, Mapping

import quart

from gateway.api.operation import as_quart
from gateway.dashboard import HEADERS, Asset
from gateway.http import Response

_HEADERS = tuple((name.encode("ascii"), value.encode("ascii")) for name, value in HEADERS)


def blueprint(assets: Mapping[str, Asset]) -> quart.Blueprint:
    """Return the routes of `assets`, by path."""
    pages = quart.Blueprint("pages", __name__)
    for path, asset in assets.items():
        pages.add_url_rule(path, endpoint=path.replace(".", "-"), view_func=_view(asset), methods=["GET"])
    return pages


def _view(asset: Asset) -> Callable[[], Awaitable[quart.Response]]:
    tag = ((b"etag", asset.etag.encode("ascii")), *_HEADERS)
    whole = Response(200, asset.body, ((b"content-type", asset.content_type.encode("ascii")), *tag))
    unchanged = Response(304, headers=tag)

    async def view() -> quart.Response:
        # Weak comparison, also of `*` (RFC 9110, section 13.1.2); werkzeug reads lists of tags.
        known = quart.request.if_none_match.contains_weak(asset.etag.strip('"'))
        return as_quart(unchanged if known else whole)

    return view
