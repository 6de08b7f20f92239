"""Socket.IO v5 packets: `<type>[<attachments>-][<namespace>,][<ack id>][<JSON>]`, and the bytes that follow them.

Owns the text of a packet, the placeholders of binary arguments and the state of a half-received binary packet. Must
not know Engine.IO (whose `4` stands before every packet on the wire), rooms, connections or trio.

Rules
-----
1. A type outside 0 to 6, JSON that does not parse, a payload of the wrong shape for its type: `RemoteProtocolError`.
2. An event is a non-empty array whose first element is a string or a number, and not a reserved name.
3. An ack id is a non-negative integer of at most 2**53 - 1 (what JavaScript counts exactly); 0 is one. Only an event
   may carry one, an ack must.
4. A namespace begins with `/` and ends at the first comma or at the end. A query in it (`/ops?x=1`) is legacy and cut.
5. Binary attachments follow their packet at once, in order, at most `MAX_ATTACHMENTS`. Text in between, bytes that
   nothing asked for and a placeholder that points nowhere are errors.

JSON is read and written by orjson rather than msgspec: its `default` hook is called for bytes, so that encoding finds
the attachments in the same pass (msgspec turns bytes into base64 text by itself), and it bounds the nesting it reads.
Written instead of taken from python-socketio, whose `Packet` accepts what rules 1 to 3 refuse (it leaves them to its
server, which does not check them) and lets `TypeError`, `IndexError` and `RecursionError` out; a property test holds
both to the same wire text.

Source: the Socket.IO protocol document, revision 5; the reference parser for what it leaves open.
"""

import re
from collections.abc import Sequence
from enum import IntEnum
from typing import Any

import msgspec
import orjson

from protocol.errors import LocalProtocolError, RemoteProtocolError

MAX_ATTACHMENTS = 10  # the reference parser's limit
MAX_ACK_ID = 2**53 - 1
RESERVED_EVENTS = frozenset(
    ("connect", "connect_error", "disconnect", "disconnecting", "newListener", "removeListener")
)


class PacketType(IntEnum):
    """The digit a packet begins with."""

    CONNECT = 0
    DISCONNECT = 1
    EVENT = 2
    ACK = 3
    CONNECT_ERROR = 4
    BINARY_EVENT = 5
    BINARY_ACK = 6


class Packet(msgspec.Struct, frozen=True):
    """One packet. `data` is the payload, with `bytes` in place of attachments, None where there is none.

    A decoded packet never has a BINARY type: whether arguments travelled as attachments is the codec's affair.
    """

    type: PacketType
    namespace: str = "/"
    id: int | None = None
    data: Any = None


class Encoded(msgspec.Struct, frozen=True):
    """A packet as it leaves: its text in UTF-8, then its attachments in order."""

    text: bytes
    attachments: Sequence[bytes] = ()


# Digits are ASCII only and bounded, so that neither pattern nor int() ever meets a number of megabytes.
_HEAD = re.compile(r"(?:([0-4])|([56])([0-9]{1,4})-)(?:(/[^,]*)(?:,|\Z))?([0-9]{1,16})?")


class Decoder:
    """Turns the messages of one connection into packets. Holds at most one packet that waits for its attachments."""

    __slots__ = ("_attachments", "_expected", "_pending")

    def __init__(self) -> None:
        self._pending: Packet | None = None
        self._expected = 0
        self._attachments: list[bytes] = []

    def feed(self, message: str | bytes) -> Packet | None:
        """Take one Engine.IO message. Returns a packet once it is complete, None while attachments are missing.

        Raises:
            RemoteProtocolError: see the rules; the connection is to be closed, the decoder not used again.
        """
        if isinstance(message, str):
            if self._pending is not None:
                raise RemoteProtocolError("text in place of a binary attachment")
            packet, expected = _decode_text(message)
            if not expected:
                return packet
            self._pending, self._expected = packet, expected
            return None
        if self._pending is None:
            raise RemoteProtocolError("binary message without a packet that announces it")
        self._attachments.append(message)
        if len(self._attachments) < self._expected:
            return None
        packet, attachments = self._pending, self._attachments
        self._pending, self._attachments = None, []
        _fill_placeholders(packet.data, attachments)
        return packet


def _decode_text(text: str) -> tuple[Packet, int]:
    """Read a packet's text. Returns it with the number of attachments it announces."""
    head = _HEAD.match(text)
    if head is None:
        raise RemoteProtocolError("not a Socket.IO packet")
    plain, binary, count, namespace, ack_id = head.groups()
    kind = PacketType(int(plain)) if plain else PacketType(int(binary) - 3)  # BINARY_EVENT, BINARY_ACK: as their plain
    attachments = int(count) if count else 0
    if attachments > MAX_ATTACHMENTS:
        raise RemoteProtocolError("too many attachments")
    body = text[head.end() :]
    try:
        data = orjson.loads(body) if body else None
    except orjson.JSONDecodeError as error:
        raise RemoteProtocolError("payload is not JSON") from error
    packet = Packet(kind, (namespace or "/").partition("?")[0], int(ack_id) if ack_id else None, data)
    _check(packet, has_payload=bool(body))
    return packet, attachments


def _check(packet: Packet, *, has_payload: bool) -> None:
    data = packet.data
    match packet.type:
        case PacketType.CONNECT:
            valid = packet.id is None and (isinstance(data, dict) or not has_payload)
        case PacketType.DISCONNECT:
            valid = packet.id is None and not has_payload
        case PacketType.CONNECT_ERROR:
            valid = packet.id is None and isinstance(data, (dict, str))
        case PacketType.EVENT:
            valid = isinstance(data, list) and len(data) > 0 and _is_event_name(data[0]) and _is_ack_id(packet.id)
        case _:
            valid = isinstance(data, list) and packet.id is not None and _is_ack_id(packet.id)
    if not valid:
        raise RemoteProtocolError(f"invalid {packet.type.name} packet")


def _is_event_name(name: object) -> bool:
    if isinstance(name, str):
        return name not in RESERVED_EVENTS
    return isinstance(name, (int, float)) and not isinstance(name, bool)


def _is_ack_id(ack_id: int | None) -> bool:
    return ack_id is None or ack_id <= MAX_ACK_ID


def _fill_placeholders(data: Any, attachments: list[bytes]) -> None:
    """Put the attachments in the place of their placeholders. Not recursive: the nesting is the peer's choice."""
    containers = [data]
    while containers:
        container = containers.pop()
        for key, value in enumerate(container) if isinstance(container, list) else container.items():
            if isinstance(value, dict) and value.get("_placeholder") is True:
                number = value.get("num")
                if type(number) is not int or not 0 <= number < len(attachments):
                    raise RemoteProtocolError("placeholder without an attachment")
                container[key] = attachments[number]
            elif isinstance(value, (dict, list)):
                containers.append(value)


def encode(packet: Packet) -> Encoded:
    """Write a packet. An EVENT or ACK with bytes in it becomes the BINARY type; a BINARY type is not to be asked for.

    Raises:
        LocalProtocolError: the packet breaks a rule of this module, or holds something that JSON cannot say.
    """
    attachments: list[bytes] = []

    def take(value: object) -> dict[str, object]:
        if isinstance(value, (bytes, bytearray, memoryview)):
            attachments.append(bytes(value))
            return {"_placeholder": True, "num": len(attachments) - 1}
        raise TypeError(f"{type(value).__name__} has no place in a Socket.IO packet")

    try:
        _check(packet, has_payload=packet.data is not None)
        body = b"" if packet.data is None else orjson.dumps(packet.data, default=take)
    except (RemoteProtocolError, orjson.JSONEncodeError) as error:
        raise LocalProtocolError(str(error)) from error
    if len(attachments) > MAX_ATTACHMENTS:
        raise LocalProtocolError("too many attachments")
    kind = b"%d" % packet.type
    if attachments:
        if packet.type not in (PacketType.EVENT, PacketType.ACK):
            raise LocalProtocolError(f"{packet.type.name} carries no bytes")
        kind = b"%d%d-" % (packet.type + 3, len(attachments))
    ack_id = b"" if packet.id is None else b"%d" % packet.id
    return Encoded(kind + _namespace_prefix(packet.namespace) + ack_id + body, attachments)


def encode_event(name: str, arguments: Sequence[bytes], namespace: str = "/") -> bytes:
    """Write an event whose arguments are JSON already, so that a payload is encoded once whatever it is sent in.

    Raises:
        LocalProtocolError: a reserved name.
    """
    if name in RESERVED_EVENTS:
        raise LocalProtocolError(f"{name} is a reserved event")
    return b"2" + _namespace_prefix(namespace) + b"[" + b",".join((orjson.dumps(name), *arguments)) + b"]"


def _namespace_prefix(namespace: str) -> bytes:
    if namespace == "/":
        return b""
    if not namespace.startswith("/") or "," in namespace or "?" in namespace:
        raise LocalProtocolError(f"{namespace!r} is not a namespace")
    return namespace.encode() + b","
