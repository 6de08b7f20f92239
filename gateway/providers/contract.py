"""What a provider's file offers the ingress. Small on purpose: a second provider is one more file.

Must not know actors or the store.
"""

from typing import Protocol

import msgspec

from gateway.http import Request, Response
from gateway.routing import RouteTable
from protocol.commands import BadItem, Item
from store.contract import Endpoint


class Authentic(msgspec.Struct, frozen=True, gc=False):
    """A webhook whose signature holds. `secret` is what signed it: only endpoints under the same secret are reached by it."""

    secret: str


class Decoded(msgspec.Struct, frozen=True, gc=False):
    """A webhook's items, and those that could not be decoded."""

    items: list[Item]
    bad: list[BadItem]


class WebhookProvider(Protocol):
    """One provider's webhooks."""

    name: str
    path: str

    async def verify(self, request: Request, routes: RouteTable) -> Authentic | Response:
        """Tell who signed the request, over its raw bytes and before any decoding; or the refusal to answer with.

        Raises StoreUnavailable when that cannot be known now.
        """

    def decode(self, body: bytes) -> Decoded:
        """Split a body into items. Raises RemoteProtocolError when it is no webhook of this provider."""

    def challenge(self, request: Request, routes: RouteTable) -> Response:
        """Answer the provider's own check of the callback address."""

    def secret_of(self, endpoint: Endpoint) -> str:
        """Return the secret that signs this endpoint's webhooks."""
