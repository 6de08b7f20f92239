"""A tenant's conversations: the list, and one of them."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from gateway.api.operation import Operations, not_found
from gateway.api.parameters import MAX_EXACT, Cursor, Id, Limit, Name, Query, decode_cursor, encode_cursor
from gateway.api.services import Services
from gateway.api.shapes import Conversation, FeedPosition, conversation, feed_position
from gateway.routing import Identity
from store.contract import ConversationRow

operations = Operations("conversations")

ConversationId = Annotated[Id, Meta(description="A conversation's id.")]


class ConversationsQuery(Query, frozen=True):
    """Filters of the list."""

    endpoint: Annotated[Name, Meta(description="Only those on this endpoint (the provider's id).")] | None = None
    unanswered: (
        Annotated[bool, Meta(description="Only those that wait for an answer, or only those that do not.")] | None
    ) = None
    q: Annotated[Name, Meta(description="Only those whose contact matches this text.")] | None = None
    cursor: Cursor | None = None
    limit: Limit = 50


class ConversationPage(msgspec.Struct, frozen=True):
    """One page of the list. `next_cursor` null: the last one."""

    data: list[Conversation]
    next_cursor: str | None
    feed: FeedPosition


class OneConversation(msgspec.Struct, frozen=True):
    """One conversation."""

    data: Conversation
    feed: FeedPosition


class _Cursor(msgspec.Struct, frozen=True, tag="c", array_like=True, forbid_unknown_fields=True):
    """The last row already seen."""

    at: Annotated[int, Meta(ge=0, le=MAX_EXACT)]
    id: Id


EXAMPLE = Conversation(
    id="cnv_01JZ8Y3V9Q6N5W4T7R2K1M0HXC",
    endpoint="300000000000001",
    contact=Raw(b'{"phone":"4915100000000","name":"Mira K."}'),
    name="Mira K.",
    preview="Do you have rye bread today?",
    last_at=1790000000000,
    last_outbound=False,
    last_status=None,
    unanswered=1,
    messages=7,
    version=12,
    merged_into=None,
)
FEED_EXAMPLE = FeedPosition("01JZ8Y3V9Q6N5W4T7R2K1M0HXE", 4711)


@operations.get("/api/v1/conversations", example=ConversationPage([EXAMPLE], None, FEED_EXAMPLE))
async def list_conversations(services: Services, identity: Identity, query: ConversationsQuery) -> ConversationPage:
    """List conversations, newest activity first.

    Merged conversations are left out. The list moves while it is read: a conversation with new activity goes to its top, where a
    cursor never comes again. Follow the feed from `feed` of the first page to learn of those; `version` tells what is already folded in.
    """
    cursor = decode_cursor(query.cursor, _Cursor)
    # The position comes first: an event between the two reads is then delivered again, and recognised by its version. The other way it is lost.
    head = await services.store.feed_head(identity.tenant.id)
    rows = await services.store.list_conversations(
        identity.tenant.id,
        endpoint=query.endpoint,
        unanswered=query.unanswered,
        search=query.q,
        before=None if cursor is None else (cursor.at, cursor.id),
        limit=query.limit + 1,  # one more tells whether there is a next page
    )
    page = rows[: query.limit]
    following = encode_cursor(_Cursor(page[-1].last_at, page[-1].id)) if len(rows) > query.limit else None
    return ConversationPage([conversation(row) for row in page], following, feed_position(head))


@operations.get("/api/v1/conversations/<conversation_id>", example=OneConversation(EXAMPLE, FEED_EXAMPLE))
async def get_conversation(services: Services, identity: Identity, conversation_id: ConversationId) -> OneConversation:
    """Return one conversation, merged or not."""
    head = await services.store.feed_head(identity.tenant.id)
    row = await require_conversation(services, identity, conversation_id)
    return OneConversation(conversation(row), feed_position(head))


async def require_conversation(services: Services, identity: Identity, conversation_id: str) -> ConversationRow:
    """Return the tenant's conversation. Raises Refusal `not_found`, the same whether it is unknown or another tenant's."""
    row = await services.store.get_conversation(identity.tenant.id, conversation_id)
    if row is None:
        raise not_found()
    return row
