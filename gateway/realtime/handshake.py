"""From which page an opening request comes, and whether that page may. Must not know keys (`gateway.routing`)."""

from gateway.http import Request


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
