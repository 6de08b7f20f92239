"""The events of a conversation: its whole history, as it was recorded."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from gateway.api.conversations import EXAMPLE as CONVERSATION
from gateway.api.conversations import ConversationId, require_conversation
from gateway.api.operation import Operations
from gateway.api.parameters import Limit, Position, Query
from gateway.api.services import Services
from gateway.api.shapes import Event, event
from gateway.routing import Identity

operations = Operations("events")


class EventsQuery(Query, frozen=True):
    """Where in the history, and how much of it."""

    after: Annotated[Position, Meta(description="Only events with a version above this one.")] = 0
    limit: Limit = 50


class EventList(msgspec.Struct, frozen=True):
    """Events by rising version. Fewer than `limit`: the newest is among them."""

    data: list[Event]


EXAMPLE = Event(
    offset=4711,
    conversation=CONVERSATION.id,
    endpoint=CONVERSATION.endpoint,
    version=12,
    recorded_at=1790000000350,
    event=Raw(
        b'{"type":"message_recorded","at":1790000000000,"message_id":"wamid.EXAMPLE",'
        b'"content":{"type":"text","body":"Do you have rye bread today?"}}'
    ),
)


@operations.get("/api/v1/conversations/<conversation_id>/events", example=EventList([EXAMPLE]))
async def list_events(
    services: Services, identity: Identity, conversation_id: ConversationId, query: EventsQuery
) -> EventList:
    """List a conversation's events, oldest first."""
    await require_conversation(services, identity, conversation_id)
    stored = await services.store.read_stream(identity.tenant.id, conversation_id, after=query.after, limit=query.limit)
    return EventList([event(one) for one in stored])
