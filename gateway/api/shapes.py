"""What the API answers: one struct a thing, made from the store's rows.

Owns the names and meanings that clients see. JSON that the store holds (a message's content, a contact, an event) goes out as the very bytes it
was stored as: `Stored` fields carry them, and name in the schema what is inside. Must not know HTTP.
"""

from binascii import b2a_base64
from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from protocol.commands import Origin, ReceiptStatus
from protocol.content import Problem
from protocol.machines.timeline import STATUS
from store.contract import ConversationRow, FeedHead, MessageRow, QuarantineEntry, StoredEvent

StoredContact = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/ContactRef"})]
StoredContent = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/Content"})]
StoredContext = Annotated[
    Raw, Meta(extra_json_schema={"anyOf": [{"$ref": "#/components/schemas/Context"}, {"type": "null"}]})
]
StoredEventBody = Annotated[Raw, Meta(extra_json_schema={"$ref": "#/components/schemas/EventBody"})]
StoredProblems = Annotated[
    Raw, Meta(extra_json_schema={"type": "array", "items": {"$ref": f"#/components/schemas/{Problem.__name__}"}})
]

MAX_PAYLOAD = 16 * 1024
"""How much of a quarantined payload a list shows, in characters or bytes: a page of whole webhooks could be hundreds of megabytes."""


class FeedPosition(msgspec.Struct, frozen=True):
    """Where the tenant's feed stood before the answer was read: follow it from here, and nothing is missed."""

    epoch: str
    offset: int


class Conversation(msgspec.Struct, frozen=True):
    """One line of the conversation list. Times are Unix milliseconds.

    `version` says which of its events are folded in; `merged_into` names the conversation in which this one goes on.
    """

    id: str
    endpoint: str
    contact: StoredContact
    name: str
    preview: str
    last_at: int
    last_outbound: bool
    last_status: ReceiptStatus | None
    unanswered: int
    messages: int
    version: int
    merged_into: str | None


class Message(msgspec.Struct, frozen=True):
    """One message of a thread. `seq` orders the thread; `at` is the provider's time, `recorded_at` ours, in Unix milliseconds."""

    message_id: str
    conversation: str
    seq: int
    at: int
    recorded_at: int
    outbound: bool
    origin: Origin
    content: StoredContent
    context: StoredContext
    author: str | None
    status: ReceiptStatus | None
    status_at: int | None
    problems: StoredProblems
    edited: bool
    revoked: bool


class Event(msgspec.Struct, frozen=True):
    """One event, as the feed pushes it: `offset` is its place in the tenant's feed, `version` that in its conversation."""

    offset: int
    conversation: str
    endpoint: str | None
    version: int
    recorded_at: int
    event: StoredEventBody


class Quarantined(msgspec.Struct, frozen=True):
    """Something kept aside. `payload` is what arrived, at most its first 16 Ki characters (or bytes, where base64); `size` is the whole in bytes."""

    id: str
    at: int
    reason: str
    detail: str
    payload: str
    encoding: Literal["utf-8", "base64"]
    size: int
    truncated: bool
    webhook: str | None
    conversation: str | None


def feed_position(head: FeedHead) -> FeedPosition:
    """Return the position to follow from."""
    return FeedPosition(head.epoch, head.head)


def conversation(row: ConversationRow) -> Conversation:
    """Return a row as clients see it."""
    return Conversation(
        id=row.id,
        endpoint=row.endpoint,
        contact=Raw(row.contact),
        name=row.name,
        preview=row.preview,
        last_at=row.last_at,
        last_outbound=row.last_outbound,
        last_status=STATUS.get(row.last_status),
        unanswered=row.unanswered,
        messages=row.messages,
        version=row.version,
        merged_into=row.merged_into,
    )


def message(row: MessageRow) -> Message:
    """Return a row as clients see it."""
    return Message(
        message_id=row.message_id,
        conversation=row.conversation,
        seq=row.seq,
        at=row.at,
        recorded_at=row.recorded_at,
        outbound=row.outbound,
        origin=msgspec.convert(row.origin, Origin),
        content=Raw(row.content),
        context=Raw(row.context or b"null"),
        author=row.author,
        status=STATUS.get(row.status),
        status_at=row.status_at,
        problems=Raw(row.problems or b"[]"),
        edited=row.edited,
        revoked=row.revoked,
    )


def event(stored: StoredEvent) -> Event:
    """Return an event as clients see it, here and in the realtime feed (`protocol.frames.event_fields`)."""
    return Event(
        offset=stored.offset,
        conversation=stored.stream,
        endpoint=stored.endpoint,
        version=stored.version,
        recorded_at=stored.recorded_at,
        event=Raw(stored.body),
    )


def quarantined(entry: QuarantineEntry) -> Quarantined:
    """Return an entry as clients see it: text where it is text, base64 where not."""
    encoding: Literal["utf-8", "base64"] = "utf-8"
    try:
        whole = entry.payload.decode()
        payload, truncated = whole[:MAX_PAYLOAD], len(whole) > MAX_PAYLOAD
    except UnicodeDecodeError:
        encoding = "base64"
        payload = b2a_base64(entry.payload[:MAX_PAYLOAD], newline=False).decode("ascii")
        truncated = len(entry.payload) > MAX_PAYLOAD
    return Quarantined(
        id=entry.id,
        at=entry.at,
        reason=entry.reason,
        detail=entry.detail,
        payload=payload,
        encoding=encoding,
        size=len(entry.payload),
        truncated=truncated,
        webhook=entry.webhook,
        conversation=entry.stream,
    )
