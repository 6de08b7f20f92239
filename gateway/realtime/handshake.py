"""What an opening request says about who asks: the API key it shows, and the page it comes from.

Owns the reading of those headers. Must not know what a key is good for.
"""

from gateway.http import Request


def presented_key(request: Request) -> str | None:
    """Return the API key in `Authorization: Bearer KEY` or `x-api-key: KEY`, None where there is neither.

    A header sent twice shows no key: two readers might each believe another one.
    """
    bearer = request.header_values(b"authorization")
    plain = request.header_values(b"x-api-key")
    if len(bearer) + len(plain) != 1:
        return None
    if plain:
        return plain[0].strip().decode("latin-1") or None
    scheme, _, key = bearer[0].partition(b" ")
    return key.strip().decode("latin-1") or None if scheme.lower() == b"bearer" else None


def origin_allowed(request: Request, origins: frozenset[str]) -> bool:
    """Tell whether the page that asks may: the gateway's own, one of `origins` (`*`: any), or no page at all.

    A browser sends `Origin` with every WebSocket handshake and lets no page forge it (RFC 6455, section 10.2). The scheme is not
    compared with the gateway's: behind a proxy that ends TLS it does not know its own.
    """
    sent = request.header_values(b"origin")
    if not sent:
        return True
    origin = sent[0].decode("latin-1").lower()
    host = request.header(b"host")
    own = host is not None and origin.partition("://")[2] == host.decode("latin-1").lower()
    return len(sent) == 1 and (own or origin in origins or "*" in origins)
