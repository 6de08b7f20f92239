"""What was kept aside of a tenant's traffic: items that could not be read, or that crashed their conversation."""

import msgspec

from gateway.api.operation import Operations
from gateway.api.parameters import Cursor, Id, Limit, Query, decode_cursor, encode_cursor
from gateway.api.services import Services
from gateway.api.shapes import Quarantined, quarantined
from gateway.routing import Identity

operations = Operations("quarantine")


class QuarantineQuery(Query, frozen=True):
    """Which page."""

    cursor: Cursor | None = None
    limit: Limit = 50


class QuarantinePage(msgspec.Struct, frozen=True):
    """One page, newest first. `next_cursor` null: the last one."""

    data: list[Quarantined]
    next_cursor: str | None


class _Cursor(msgspec.Struct, frozen=True, tag="q", array_like=True, forbid_unknown_fields=True):
    """The last entry already seen."""

    id: Id


_EXAMPLE = Quarantined(
    id="qrt_01JZ8Y3V9Q6N5W4T7R2K1M0HXF",
    at=1790000000350,
    reason="bad_item",
    detail="messages[0].timestamp: expected a number as text",
    payload='{"from":"4915100000000","timestamp":"soon"}',
    encoding="utf-8",
    size=43,
    truncated=False,
    webhook="whk_01JZ8Y3V9Q6N5W4T7R2K1M0HXG",
    conversation=None,
)


@operations.get("/api/v1/quarantine", example=QuarantinePage([_EXAMPLE], None))
async def list_quarantine(services: Services, identity: Identity, query: QuarantineQuery) -> QuarantinePage:
    """List what was kept aside, newest first."""
    cursor = decode_cursor(query.cursor, _Cursor)
    entries = await services.store.list_quarantine(
        tenant=identity.tenant.id, before=None if cursor is None else cursor.id, limit=query.limit + 1
    )
    page = entries[: query.limit]
    following = encode_cursor(_Cursor(page[-1].id)) if len(entries) > query.limit else None
    return QuarantinePage([quarantined(entry) for entry in page], following)
