"""What has happened: the immutable events of conversations and tenants, and their codec.

One tagged union per kind of stream. An event's tag (`type` inside its JSON) is its name in the store, in the feed and in the documentation.
Each carries `at`, the provider's time in Unix milliseconds; the time of the commit is the journal's and stands beside it.
Old shapes are upcast in `decode`, so machines only ever see the newest. Must not know any provider's field names.
"""

import msgspec

from protocol.commands import ContactRef, Origin, ReceiptStatus
from protocol.content import Content, Context, Problem, RawJSON


class ConversationStarted(msgspec.Struct, frozen=True, tag="conversation_started", omit_defaults=True, gc=False):
    """The first event of every conversation: whom it is with, on which endpoint (the provider's id of our side)."""

    at: int
    endpoint: str
    contact: ContactRef


class ContactIdentified(msgspec.Struct, frozen=True, tag="contact_identified", omit_defaults=True, gc=False):
    """More, or something else, is known of the contact. `contact` is the whole; `added` and `removed` are external ids that changed."""

    at: int
    contact: ContactRef
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    reason: str | None = None
    note: str | None = None


class MessageRecorded(msgspec.Struct, frozen=True, tag="message_recorded", omit_defaults=True, gc=False):
    """A message stands in the thread. `status` is set where receipts had come before it, or an imported past says so."""

    at: int
    message_id: str
    content: Content
    origin: Origin = "customer"
    outbound: bool = False
    context: Context | None = None
    referral: RawJSON = msgspec.UNSET
    problems: tuple[Problem, ...] = ()
    status: ReceiptStatus | None = None
    author: str | None = None
    author_name: str | None = None


class MessageCompleted(msgspec.Struct, frozen=True, tag="message_completed", omit_defaults=True, gc=False):
    """What stood in the thread as a placeholder (an imported message whose media came later) now has its content."""

    at: int
    message_id: str
    content: Content


class MessageEdited(msgspec.Struct, frozen=True, tag="message_edited", omit_defaults=True, gc=False):
    """`original_id` now says `content`. The earlier wording stays in its own event."""

    at: int
    message_id: str
    original_id: str
    content: Content
    outbound: bool = False


class MessageRevoked(msgspec.Struct, frozen=True, tag="message_revoked", omit_defaults=True, gc=False):
    """`original_id` was taken back by its author."""

    at: int
    message_id: str
    original_id: str
    outbound: bool = False


class ReceiptRecorded(msgspec.Struct, frozen=True, tag="receipt_recorded", omit_defaults=True, gc=False):
    """One raw receipt, kept whatever it says. `current` is the message's status after it: never behind what it was (FORWARD-ONLY).

    `waiting`: the message itself is not known yet; the receipt waits for it.
    """

    at: int
    message_id: str
    raw_status: str
    current: ReceiptStatus | None = None
    waiting: bool = False
    participant: str | None = None
    callback_data: str | None = None
    problems: tuple[Problem, ...] = ()
    pricing: RawJSON = msgspec.UNSET
    conversation: RawJSON = msgspec.UNSET


class CallRecorded(msgspec.Struct, frozen=True, tag="call_recorded", omit_defaults=True, gc=False):
    """One step of a voice call."""

    at: int
    call_id: str
    event: str
    payload: msgspec.Raw
    by_customer: bool = False


class PreferenceSet(msgspec.Struct, frozen=True, tag="preference_set", omit_defaults=True, gc=False):
    """The customer allowed or stopped a category of messages."""

    at: int
    category: str
    value: str
    detail: str | None = None
    reference: str | None = None


class UnknownKept(msgspec.Struct, frozen=True, tag="unknown_kept", omit_defaults=True, gc=False):
    """Something of this conversation that this version does not understand."""

    at: int
    what: str
    payload: msgspec.Raw


class ConversationMerged(msgspec.Struct, frozen=True, tag="conversation_merged", omit_defaults=True, gc=False):
    """The last event of a conversation whose contact turned out to be another conversation's: all goes on in `into`."""

    at: int
    into: str


class Standing(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Where a conversation stood when it ended: what the list showed of it (`protocol.machines.summary`), and when its window last opened."""

    message_id: str = ""
    preview: str = ""
    last_at: int = 0
    outbound: bool = False
    unanswered: int = 0
    messages: int = 0
    opened_at: int = 0


class ConversationAbsorbed(msgspec.Struct, frozen=True, tag="conversation_absorbed", omit_defaults=True, gc=False):
    """`other` ended in this conversation; its messages now stand in this thread. `contact` and `standing` are what was known there."""

    at: int
    other: str
    contact: ContactRef
    standing: Standing = Standing()


ConversationEvent = (
    ConversationStarted
    | ContactIdentified
    | MessageRecorded
    | MessageCompleted
    | MessageEdited
    | MessageRevoked
    | ReceiptRecorded
    | CallRecorded
    | PreferenceSet
    | UnknownKept
    | ConversationMerged
    | ConversationAbsorbed
)


class NoticeRecorded(msgspec.Struct, frozen=True, tag="notice_recorded", omit_defaults=True, gc=False):
    """Something about a tenant's account, templates, numbers or groups. `known` False: of a topic this version has never heard of."""

    at: int
    account: str
    topic: str
    payload: msgspec.Raw
    endpoint: str | None = None
    known: bool = True


TenantEvent = NoticeRecorded

_encoder = msgspec.json.Encoder()
_conversation_decoder: msgspec.json.Decoder[ConversationEvent] = msgspec.json.Decoder(ConversationEvent)


def encode(event: ConversationEvent | TenantEvent) -> bytes:
    """Return the event's JSON: stored, pushed and exported as these very bytes."""
    return _encoder.encode(event)


def decode(body: bytes) -> ConversationEvent:
    """Return a conversation's event. Raises msgspec.ValidationError on bytes no release of Parley wrote."""
    return _conversation_decoder.decode(body)


def kind_of(event: ConversationEvent | TenantEvent) -> str:
    """Return the event's name, e.g. `message_recorded`."""
    return _KINDS[type(event)]


_KINDS: dict[type, str] = {
    struct: struct.__struct_config__.tag for struct in (*ConversationEvent.__args__, NoticeRecorded)
}
