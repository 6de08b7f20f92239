"""What a message says, whichever provider carried it.

One tagged union, `Content`, that the dashboards, bots and later providers share. A provider's codec translates its own wire shapes into
these; what it does not understand becomes `Unsupported` with the original JSON inside, never nothing.
Must not know any provider's field names.

All of it is data without cycles: `gc=False` spares the collector from looking at every message, receipt and event.
"""

from typing import Literal

import msgspec

MediaKind = Literal["image", "video", "audio", "document", "sticker"]
RawJSON = msgspec.Raw | msgspec.UnsetType
"""An optional part of a provider's JSON, as it is; UNSET (false) where it is absent. Not `Raw | None`: msgspec would then accept null alone."""

ReplySource = Literal["button", "list", "flow", "template_button", "call_permission"]


class Text(msgspec.Struct, frozen=True, tag="text", omit_defaults=True, gc=False):
    """Plain text, up to 4096 characters on WhatsApp."""

    body: str


class Media(msgspec.Struct, frozen=True, tag="media", omit_defaults=True, gc=False):
    """A file the provider holds. `sha256` is lower-case hex of the file's digest; `url` is short-lived and needs the provider's token."""

    kind: MediaKind
    media_id: str
    mime_type: str | None = None
    sha256: str | None = None
    caption: str | None = None
    filename: str | None = None
    url: str | None = None
    voice: bool = False
    animated: bool = False


class Location(msgspec.Struct, frozen=True, tag="location", omit_defaults=True, gc=False):
    """A place in WGS 84 degrees."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None
    url: str | None = None


class Contacts(msgspec.Struct, frozen=True, tag="contacts", omit_defaults=True, gc=False):
    """Shared address-book cards, as the provider described them. `requested` when they answer a request for the person's number."""

    cards: tuple[msgspec.Raw, ...]
    requested: bool = False


class Reply(msgspec.Struct, frozen=True, tag="reply", omit_defaults=True, gc=False):
    """A tap on something the business offered. `id` is the business's own; `data` is a flow's or permission's JSON text, user-controlled."""

    source: ReplySource
    id: str | None = None
    title: str | None = None
    description: str | None = None
    data: str | None = None


class Reaction(msgspec.Struct, frozen=True, tag="reaction", omit_defaults=True, gc=False):
    """An emoji on `target` (the provider's message id); None takes it back."""

    target: str
    emoji: str | None = None


class OrderItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One line of an order. `price` is a decimal written as text: money is never a float."""

    product: str
    quantity: int
    price: str
    currency: str


class Order(msgspec.Struct, frozen=True, tag="order", omit_defaults=True, gc=False):
    """A cart sent from a catalogue."""

    catalog_id: str
    items: tuple[OrderItem, ...]
    text: str | None = None


class Welcome(msgspec.Struct, frozen=True, tag="welcome", gc=False):
    """The person opened the chat for the first time and wrote nothing yet."""


class Unsupported(msgspec.Struct, frozen=True, tag="unsupported", omit_defaults=True, gc=False):
    """Something this version, or the provider, cannot express. `payload` is the whole original item, so nothing is dropped."""

    provider_type: str
    payload: msgspec.Raw
    reason: str | None = None


Content = Text | Media | Location | Contacts | Reply | Reaction | Order | Welcome | Unsupported


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An error the provider reported, on a message, a receipt or by itself."""

    code: int
    title: str | None = None
    detail: str | None = None


class Context(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """What a message answers, or how it was forwarded."""

    message_id: str | None = None
    sender: str | None = None
    forwarded: bool = False
    frequently_forwarded: bool = False
    product: RawJSON = msgspec.UNSET


def preview(content: Content) -> str:
    """One line for a conversation list, at most 160 characters, in no particular language where the content has none."""
    match content:
        case Text(body=body):
            line = body
        case Media(kind=kind, caption=caption, filename=filename):
            line = caption or filename or f"[{kind}]"
        case Location(name=name, address=address):
            line = name or address or "[location]"
        case Reply(title=title, source=source):
            line = title or f"[{source}]"
        case Reaction(emoji=emoji):
            line = emoji or "[reaction removed]"
        case Order(items=items):
            line = f"[order: {len(items)}]"
        case Contacts():
            line = "[contacts]"
        case Welcome():
            line = "[opened the chat]"
        case Unsupported(provider_type=provider_type):
            line = f"[{provider_type}]"
    return " ".join(line.split())[:160]
