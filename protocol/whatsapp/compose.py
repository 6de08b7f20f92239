"""Webhook bodies as Meta writes them, from wire shapes: what the simulator of Meta and the tests send.

Source: WhatsApp Cloud API reference 1.2 and 2. The inverse of `split`'s first half. Must not know what a conversation is.
"""

import re

import msgspec

from protocol.whatsapp.wire import OBJECT, Change, Entry, Envelope

# Prices are JSON numbers (3.12); msgspec's default writes a Decimal as text.
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")


def raw(shape: object) -> msgspec.Raw:
    """Encode a wire shape for a place that holds items raw."""
    return msgspec.Raw(_ENCODER.encode(shape))


def change(field: str, value: object) -> Change:
    """Return a change of `field` to a wire value."""
    return Change(field=field, value=raw(value))


def body(entries: list[Entry]) -> bytes:
    r"""Return the body of a webhook: compact, and every character beyond ASCII as `\uXXXX`, which is the text Meta signs (1.2)."""
    text = _ENCODER.encode(Envelope(object=OBJECT, entry=entries))
    # ASCII bodies, the most, take no detour; UTF-8 ones are JSON text already, so only those characters are rewritten.
    return text if text.isascii() else _NOT_ASCII.sub(_escape, text.decode()).encode()


def _escape(run: re.Match[str]) -> str:
    # RFC 8259 section 7: the escapes are UTF-16 code units, two bytes each, so a surrogate pair comes by itself.
    return "\\u" + run[0].encode("utf-16-be").hex("|", 2).replace("|", "\\u")
