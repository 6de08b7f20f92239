"""The messages of a conversation."""

from typing import Annotated

import msgspec
from msgspec import Meta, Raw

from gateway.api.conversations import EXAMPLE as CONVERSATION
from gateway.api.conversations import FEED_EXAMPLE, ConversationId, require_conversation
from gateway.api.operation import Operations
from gateway.api.parameters import MAX_EXACT, Cursor, Limit, Query, decode_cursor, encode_cursor
from gateway.api.services import Services
from gateway.api.shapes import FeedPosition, Message, feed_position, message
from gateway.routing import Identity

operations = Operations("messages")


class MessagesQuery(Query, frozen=True):
    """Where in the thread, and how much of it."""

    cursor: Cursor | None = None
    limit: Limit = 50


class MessagePage(msgspec.Struct, frozen=True):
    """One page of a thread, newest first. `next_cursor` leads to older messages; null: there are none."""

    data: list[Message]
    next_cursor: str | None
    feed: FeedPosition


class _Cursor(msgspec.Struct, frozen=True, tag="m", array_like=True, forbid_unknown_fields=True):
    """The last message already seen."""

    seq: Annotated[int, Meta(ge=0, le=MAX_EXACT)]


_EXAMPLE = Message(
    message_id="wamid.EXAMPLE",
    conversation=CONVERSATION.id,
    seq=4711,
    at=1790000000000,
    recorded_at=1790000000350,
    outbound=False,
    origin="customer",
    content=Raw(b'{"type":"text","body":"Do you have rye bread today?"}'),
    context=Raw(b"null"),
    author=None,
    status=None,
    status_at=None,
    problems=Raw(b"[]"),
    edited=False,
    revoked=False,
)


@operations.get("/api/v1/conversations/<conversation_id>/messages", example=MessagePage([_EXAMPLE], None, FEED_EXAMPLE))
async def list_messages(
    services: Services, identity: Identity, conversation_id: ConversationId, query: MessagesQuery
) -> MessagePage:
    """List a conversation's messages, newest first.

    A merged conversation has none: they stand in the thread that `merged_into` names.
    """
    cursor = decode_cursor(query.cursor, _Cursor)
    head = await services.store.feed_head(identity.tenant.id)  # before the rows; see conversations.py
    await require_conversation(services, identity, conversation_id)
    rows = await services.store.list_messages(
        identity.tenant.id,
        conversation_id,
        before=None if cursor is None else cursor.seq,
        limit=query.limit + 1,
    )
    page = rows[: query.limit]
    following = encode_cursor(_Cursor(page[-1].seq)) if len(rows) > query.limit else None
    return MessagePage([message(row) for row in page], following, feed_position(head))
