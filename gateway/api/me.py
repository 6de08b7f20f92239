"""Who the caller is: tenant, endpoints and key."""

from typing import Literal

import msgspec

from gateway.api.operation import Operations
from gateway.api.services import Services
from gateway.routing import Identity

operations = Operations("me")


class TenantView(msgspec.Struct, frozen=True):
    """A tenant."""

    id: str
    slug: str
    name: str
    status: Literal["active", "suspended"]


class EndpointView(msgspec.Struct, frozen=True):
    """A number (or mailbox, widget) at a provider; never its secrets. `external_id` is what conversations and topics call the endpoint."""

    provider: str
    external_id: str
    display: str | None
    account: str | None


class KeyView(msgspec.Struct, frozen=True):
    """The key in use: `prefix` is how people recognise it."""

    id: str
    prefix: str


class Me(msgspec.Struct, frozen=True):
    """Who the API key belongs to, and what it reaches."""

    tenant: TenantView
    endpoints: list[EndpointView]
    key: KeyView


_EXAMPLE = Me(
    TenantView("tnt_01JZ8Y3V9Q6N5W4T7R2K1M0HXA", "bakery", "The Bakery", "active"),
    [EndpointView("whatsapp", "300000000000001", "+49 30 000000", "200000000000001")],
    KeyView("key_01JZ8Y3V9Q6N5W4T7R2K1M0HXB", "pk_1f2e3d4c"),
)


@operations.get("/api/v1/me", example=_EXAMPLE)
async def me(services: Services, identity: Identity) -> Me:
    """Tell whom the API key belongs to."""
    tenant, key = identity
    return Me(
        TenantView(tenant.id, tenant.slug, tenant.name, "active" if tenant.status == "active" else "suspended"),
        [
            EndpointView(endpoint.provider, endpoint.external_id, endpoint.display, endpoint.account)
            for endpoint in services.routes.endpoints_of(tenant.id)
        ],
        KeyView(key.id, key.prefix),
    )
