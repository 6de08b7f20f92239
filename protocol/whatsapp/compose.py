"""Webhook bodies as Meta writes them, from wire shapes: what the simulator of Meta and the tests send.

Source: WhatsApp Cloud API reference 1.2 and 2. The inverse of `split`'s first half. Must not know what a conversation is.
"""

import re

import msgspec

from protocol.whatsapp.wire import OBJECT, Change, Entry, Envelope

# Prices are JSON numbers (3.12); msgspec's default writes a Decimal as text.
_ENCODER = msgspec.json.Encoder(decimal_format="number")
_NOT_ASCII = re.compile(r"[^\x00-\x7f]")


def raw(shape: object) -> msgspec.Raw:
    """Encode a wire shape for a place that holds items raw."""
    return msgspec.Raw(_ENCODER.encode(shape))


def change(field: str, value: object) -> Change:
    """Return a change of `field` to a wire value."""
    return Change(field=field, value=raw(value))


def body(entries: list[Entry]) -> bytes:
    r"""Return the body of a webhook: compact, and every character beyond ASCII as `\uXXXX`, which is the text Meta signs (1.2)."""
    text = _ENCODER.encode(Envelope(object=OBJECT, entry=entries))
    # ASCII bodies, the most, take no detour; UTF-8 ones are JSON text already, so only single characters are rewritten.
    return text if text.isascii() else _NOT_ASCII.sub(_escape, text.decode()).encode()


def _escape(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code < 0x10000:
        return f"\\u{code:04x}"
    code -= 0x10000  # RFC 8259 section 7: beyond the basic plane, a surrogate pair
    return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
