"""From Meta's shapes to the neutral model, one piece at a time: content, context, problems, numbers, times.

Source: WhatsApp Cloud API reference, sections 3, 4 and 12. Pure functions of one decoded item. Must not know envelopes, routing or
which item stood beside which: that is `split`.
"""

import binascii
import re
from collections.abc import Callable

import msgspec
from msgspec import UNSET

from protocol import content
from protocol.commands import ReceiptStatus
from protocol.errors import RemoteProtocolError
from protocol.whatsapp import wire

_NOT_DIGITS = re.compile(r"[^0-9]+")
_LARGEST_PRICE_EXPONENT = 18
"""Decimal digits a price may have before or after its point; `1e999999` would be a megabyte of zeros."""


def digits(phone: str | None) -> str | None:
    """Return a phone number as digits only, None if there are none: `+49 151…` and `49151…` are one person (12.3)."""
    if not phone:
        return None
    # isascii first: isdigit alone accepts digits of every script.
    if phone.isascii() and phone.isdigit():
        return phone
    return _NOT_DIGITS.sub("", phone) or None


def milliseconds(timestamp: wire.Timestamp | None) -> int:
    """Return Unix milliseconds; 0 if there is none or it is no time. Values of 1e12 and more are milliseconds already (2)."""
    if isinstance(timestamp, str):
        # At most 15 digits keeps the result within 48 bits, the range of our ids.
        if not (timestamp.isascii() and timestamp.isdigit() and len(timestamp) < 16):
            return 0
        timestamp = int(timestamp)
    if timestamp is None or not 0 <= timestamp < 1 << 48:
        return 0
    return timestamp if timestamp >= 1_000_000_000_000 else timestamp * 1000


def sha256_hex(digest: str | None) -> str | None:
    """Return a file digest as lower-case hex. Webhooks write base64, other places hex (3.2); None if it is neither."""
    if digest is None:
        return None
    if len(digest) == 64:  # base64 of a SHA-256 has 44 characters
        lowered = digest.lower()
        return None if lowered.strip("0123456789abcdef") else lowered
    try:
        return binascii.a2b_base64(digest.encode(), strict_mode=True).hex()
    except binascii.Error:
        return None


def problem_of(error: wire.Error) -> content.Problem:
    """Translate one error. `detail` is the most specific text it has."""
    data = error.error_data
    details = data.details if isinstance(data, wire.ErrorData) else data
    return content.Problem(code=error.code or 0, title=error.title, detail=details or error.message)


def problems_of(errors: list[wire.Error] | None) -> tuple[content.Problem, ...]:
    """Translate the errors of an item."""
    return tuple([problem_of(error) for error in errors]) if errors else ()


def kept(raw: content.RawJSON) -> content.RawJSON:
    """Return a copy of a part that is handed on as it is, UNSET if it is absent or null.

    A copy, or a small part would hold its whole batch (up to 3 MB) in memory.
    """
    if raw is UNSET:
        return UNSET
    copied = raw.copy()
    return UNSET if bytes(copied) == b"null" else copied


_RECEIPTS: dict[str, ReceiptStatus] = {
    "sent": "sent",
    "delivered": "delivered",
    "read": "read",
    "played": "played",
    "failed": "failed",
    "error": "failed",  # history's word
}


def receipt_of(status: str | None) -> ReceiptStatus | None:
    """Translate a status, None if it is not one of the five this version knows. History writes them in capitals."""
    if status is None:
        return None
    return _RECEIPTS.get(status) or _RECEIPTS.get(status.lower())


def context_of(message: wire.Message) -> content.Context | None:
    """Translate what a message answers, or how it was forwarded (3.14)."""
    context = message.context
    if context is None:
        return None
    return content.Context(
        message_id=context.id or None,
        sender=digits(context.from_),
        # Forwarded many times implies forwarded, and may come without it.
        forwarded=bool(context.forwarded or context.frequently_forwarded),
        frequently_forwarded=bool(context.frequently_forwarded),
        product=kept(context.referred_product),
    )


def content_of(message: wire.Message, payload: msgspec.Raw) -> content.Content:
    """Translate what a message says. `payload` is its JSON, kept where this version, or Meta, cannot express it.

    Raises RemoteProtocolError if the content contradicts itself.
    """
    translate = _CONTENTS.get(message.type)
    said = None if translate is None else translate(message)
    return _unsupported(message, payload) if said is None else said


def _unsupported(message: wire.Message, payload: msgspec.Raw) -> content.Unsupported:
    kind = message.unsupported.type if message.unsupported is not None else None
    if kind is None and message.interactive is not None:
        kind = f"{message.type}.{message.interactive.type}"
    problems = problems_of(message.errors)
    return content.Unsupported(
        provider_type=kind or message.type,
        payload=payload.copy(),
        reason=problems[0].detail or problems[0].title if problems else None,
    )


# Each of these returns None when the object that the type announces is not there: then the message is Unsupported.


def _text(message: wire.Message) -> content.Text | None:
    return None if message.text is None else content.Text(message.text.body)


def _media(kind: content.MediaKind, media: wire.Media | None, *, voice: bool = False) -> content.Media | None:
    if media is None or not media.id:
        return None
    return content.Media(
        kind=kind,
        media_id=media.id,
        mime_type=media.mime_type,
        sha256=sha256_hex(media.sha256),
        caption=media.caption,
        filename=media.filename,
        url=media.url,
        voice=voice or bool(media.voice),
        animated=bool(media.animated),
    )


def _location(message: wire.Message) -> content.Location | None:
    place = message.location
    if place is None:
        return None
    return content.Location(place.latitude, place.longitude, place.name, place.address, place.url)


class _CardOrigin(msgspec.Struct):
    origin: str | None = None


_CARD_ORIGIN = msgspec.json.Decoder(_CardOrigin)


def _contacts(message: wire.Message) -> content.Contacts | None:
    if message.contacts is None:
        return None
    cards = tuple([card.copy() for card in message.contacts])
    # The origin has been seen in both places (3.8).
    origins = [message.origin, *(_CARD_ORIGIN.decode(card).origin for card in cards)]
    return content.Contacts(cards, requested="contact_request" in origins)


_CALL_PERMISSION = msgspec.json.Decoder(wire.CallPermissionReply)


def _interactive(message: wire.Message) -> content.Reply | None:
    reply = message.interactive
    if reply is None:
        return None
    if (button := reply.button_reply) is not None:
        return content.Reply("button", button.id, button.title)
    if (row := reply.list_reply) is not None:
        return content.Reply("list", row.id, row.title, row.description)
    if (form := reply.nfm_reply) is not None:
        return content.Reply("flow", title=form.body, description=form.name, data=form.response_json)
    if permission := kept(reply.call_permission_reply):
        answer = _CALL_PERMISSION.decode(permission)
        return content.Reply("call_permission", title=answer.response, data=bytes(permission).decode())
    return None


def _button(message: wire.Message) -> content.Reply | None:
    tapped = message.button
    return None if tapped is None else content.Reply("template_button", tapped.payload, tapped.text)


def _reaction(message: wire.Message) -> content.Reaction | None:
    reaction = message.reaction
    # Taking a reaction back has two encodings: no emoji, and an empty one (12.7).
    return None if reaction is None else content.Reaction(reaction.message_id, reaction.emoji or None)


def _order(message: wire.Message) -> content.Order | None:
    cart = message.order
    if cart is None:
        return None
    return content.Order(cart.catalog_id, tuple([_order_item(item) for item in cart.product_items]), cart.text)


def _order_item(item: wire.ProductItem) -> content.OrderItem:
    price = item.item_price
    exponent = price.as_tuple().exponent
    if not isinstance(exponent, int) or max(abs(exponent), abs(price.adjusted())) > _LARGEST_PRICE_EXPONENT:
        raise RemoteProtocolError("an item's price is not a plausible decimal")
    return content.OrderItem(item.product_retailer_id, item.quantity, f"{price:f}", item.currency)


def _welcome(message: wire.Message) -> content.Welcome:
    return content.Welcome()


_CONTENTS: dict[str, Callable[[wire.Message], content.Content | None]] = {
    "text": _text,
    "image": lambda message: _media("image", message.image),
    "video": lambda message: _media("video", message.video),
    "audio": lambda message: _media("audio", message.audio),
    "voice": lambda message: _media("audio", message.voice, voice=True),  # the On-Premises API's word (3.4)
    "document": lambda message: _media("document", message.document),
    "sticker": lambda message: _media("sticker", message.sticker),
    "location": _location,
    "contacts": _contacts,
    "interactive": _interactive,
    "button": _button,
    "reaction": _reaction,
    "order": _order,
    "request_welcome": _welcome,
}
