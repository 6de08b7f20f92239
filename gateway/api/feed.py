"""The tenant's feed by polling: the same events, offsets and refusals as the realtime connections (promise NO-GAP)."""

from typing import Annotated

import msgspec
from msgspec import Meta

from gateway.api.conversations import FEED_EXAMPLE
from gateway.api.events import EXAMPLE
from gateway.api.operation import Operations
from gateway.api.parameters import Limit, Name, Position, Query
from gateway.api.services import Services
from gateway.api.shapes import Event, event
from gateway.problems import Refusal
from gateway.routing import Identity
from store.contract import FeedHead

operations = Operations("feed")


class FeedQuery(Query, frozen=True):
    """Where to go on."""

    after: Annotated[Position, Meta(description="The last offset already seen; 0 is the feed's beginning.")] = 0
    epoch: Annotated[Name, Meta(description="The epoch that offset belongs to.")] | None = None
    limit: Limit = 50


class FeedPage(msgspec.Struct, frozen=True):
    """Events by rising offset, without holes. `offset` is where to go on; once it equals `head`, that was all."""

    epoch: str
    offset: int
    head: int
    data: list[Event]


@operations.get(
    "/api/v1/feed", example=FeedPage(FEED_EXAMPLE.epoch, 4711, 4711, [EXAMPLE]), errors=("snapshot_required",)
)
async def read_feed(services: Services, identity: Identity, query: FeedQuery) -> FeedPage:
    """Read the events after an offset.

    `snapshot_required` has the members `reason` (epoch_changed, too_old or ahead), `epoch` and `offset`: read the lists again and
    go on from the position they name.
    """
    tenant = identity.tenant.id
    head = await services.store.feed_head(tenant)
    if query.epoch is not None and query.epoch != head.epoch:
        raise _snapshot_required("epoch_changed", head)
    if query.after > head.head:
        raise _snapshot_required("ahead", head)
    if query.after < head.oldest - 1:
        raise _snapshot_required("too_old", head)
    data = [event(one) for one in await services.store.read_feed(tenant, after=query.after, limit=query.limit)]
    if data[0].offset != query.after + 1 if data else query.after < head.head:
        raise _snapshot_required("too_old", head)  # what came next was pruned since the head was read
    offset = data[-1].offset if data else query.after
    return FeedPage(head.epoch, offset, max(head.head, offset), data)


def _snapshot_required(reason: str, head: FeedHead) -> Refusal:
    return Refusal(
        "snapshot_required",
        f"The position cannot be resumed: {reason}.",
        members={"reason": reason, "epoch": head.epoch, "offset": head.head},
    )
