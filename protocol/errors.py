"""The two ways a protocol can be broken: by the peer, or by us.

Nothing else is raised by a codec or machine of this package. An expected refusal is no exception: see `protocol.outcomes`.
"""


class RemoteProtocolError(Exception):
    """The peer sent something its protocol does not allow. `status_hint` is the HTTP status that fits an answer."""

    def __init__(self, detail: str, *, status_hint: int = 400) -> None:
        super().__init__(detail)
        self.detail = detail
        self.status_hint = status_hint


class LocalProtocolError(Exception):
    """Our own code misused a machine: a bug, never the peer's fault."""
