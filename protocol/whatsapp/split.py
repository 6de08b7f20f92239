"""A webhook body becomes items: each message, status, call, preference or notice by itself, decoded and translated alone.

Source: WhatsApp Cloud API reference, sections 2 and 12. Owns the walk through entries and changes; `reader` reads one change. Must not know
tenants, actors or storage, nor verify signatures.

Rules
1. A body that is not a WhatsApp webhook is refused whole (RemoteProtocolError). Inside one, a bad item is set aside and harms no sibling.
2. Nothing unknown is dropped: a field or array becomes a `RecordNotice(known=False)`, a message type `Unsupported`, a status keeps its name.
3. Order is the payload's: entries, changes, then the elements of each array.

Speed: a text message takes three typed decodes (envelope, value, message), because each leaves the next level raw. No dict of a body is
built or walked. The strict shapes are tried first; what does not fit them takes the slow way, member by member.
"""

from collections.abc import Iterator

import msgspec

from protocol.commands import BadItem, Item
from protocol.errors import RemoteProtocolError
from protocol.whatsapp import wire
from protocol.whatsapp.document import admit
from protocol.whatsapp.reader import UNDECODABLE, Reader


class Webhook(msgspec.Struct, frozen=True):
    """What a body held, in its order."""

    items: list[Item]
    bad: list[BadItem]


def split(body: bytes) -> Webhook:
    """Decode a webhook whose signature has been verified.

    Raises RemoteProtocolError if the body as a whole cannot be read: not JSON, ambiguous, too deep, or not of WhatsApp.
    """
    body = admit(body)
    webhook = Webhook([], [])
    try:
        envelope = _ENVELOPE.decode(body)
    except UNDECODABLE:
        entries = _loose_entries(body, webhook.bad)
    else:
        _require_whatsapp(envelope.object)
        entries = iter(envelope.entry)
    for entry in entries:
        for change in entry.changes:
            Reader(webhook.items, webhook.bad, entry, change).read()
    return webhook


class _LooseEnvelope(msgspec.Struct):
    object: str
    entry: list[msgspec.Raw]


class _LooseEntry(msgspec.Struct):
    changes: list[msgspec.Raw]
    id: str = ""
    time: object = None


_ENVELOPE = msgspec.json.Decoder(wire.Envelope)
_LOOSE_ENVELOPE = msgspec.json.Decoder(_LooseEnvelope)
_ENTRY = msgspec.json.Decoder(wire.Entry)
_LOOSE_ENTRY = msgspec.json.Decoder(_LooseEntry)
_CHANGE = msgspec.json.Decoder(wire.Change)


def _require_whatsapp(name: str) -> None:
    if name != wire.OBJECT:
        raise RemoteProtocolError("the body's object is not a WhatsApp business account")


def _loose_entries(body: bytes, bad: list[BadItem]) -> Iterator[wire.Entry]:
    """Yield every entry and change that is sound, for a body in which one is not."""
    try:
        envelope = _LOOSE_ENVELOPE.decode(body)
    except UNDECODABLE as error:
        raise RemoteProtocolError("the body is not a webhook") from error
    _require_whatsapp(envelope.object)
    for raw in envelope.entry:
        try:
            yield _ENTRY.decode(raw)
            continue
        except UNDECODABLE:
            pass  # one of its members is at fault: find out which
        try:
            loose = _LOOSE_ENTRY.decode(raw)
        except UNDECODABLE as error:
            bad.append(BadItem("", None, bytes(raw), str(error)))
            continue
        time = loose.time if type(loose.time) is int else None  # True is an int too
        for each in loose.changes:
            try:
                sound = _CHANGE.decode(each)
            except UNDECODABLE as error:
                bad.append(BadItem(loose.id, None, bytes(each), str(error)))
            else:
                yield wire.Entry(id=loose.id, time=time, changes=[sound])
