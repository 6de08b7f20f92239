"""Engine.IO v4 (`EIO=4`): packets, polling payloads, the handshake, the heartbeat and the transport's life.

Owns every rule of the protocol that needs neither a socket nor a clock. Must not know Socket.IO, trio, HTTP servers or
where bytes come from; time arrives as an argument, session ids as text.

Theory of operation
-------------------
1. A packet is one type digit and its data. In a WebSocket frame it stands alone; in a polling body several are joined
   by U+001E, and a binary message is `b` and base64. A binary WebSocket frame is a message without a digit.
2. Decoding is strict: anything a conforming client cannot have sent raises `RemoteProtocolError`, and nothing else is
   ever raised. The separator is one byte and never part of a longer UTF-8 sequence, so a body is split before it is
   decoded.
3. A session begins on polling or on WebSocket. Only polling moves on, along `TRANSITIONS`. Until the client's `5` the
   session's packets belong to polling, after it to the WebSocket: there is one owner at any time, so each packet
   leaves once.
4. The server pings (in v3 it was the client). The next interval counts from the pong. The time-out counts from when
   the ping was *due*, not from when a busy loop got round to it, so a peer is declared dead `interval + timeout`
   seconds after its last pong; only after a stall of our own does the peer get half the time-out to answer in.

Source: the Engine.IO protocol document, revision 4, and the order of checks of the reference server.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from enum import Enum, IntEnum, auto
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from protocol.errors import LocalProtocolError, RemoteProtocolError

PROTOCOL_VERSION = "4"
SEPARATOR = b"\x1e"
MAX_QUERY_FIELDS = 64  # a client's own query rides along; more fields than this is an attack on the parser


class PacketType(IntEnum):
    """The digit a packet begins with."""

    OPEN = 0
    CLOSE = 1
    PING = 2
    PONG = 3
    MESSAGE = 4
    UPGRADE = 5
    NOOP = 6


class Packet(NamedTuple):
    """One packet. `data` is bytes for a binary message and text for everything else."""

    type: PacketType
    data: str | bytes = ""


_TYPES = {str(int(kind)): kind for kind in PacketType}


def decode_packet(data: str | bytes) -> Packet:
    """Read one WebSocket message, text or binary, as a packet.

    `b` + base64 is read in text too: clients with `forceBase64` send it over WebSocket.

    Raises:
        RemoteProtocolError: empty text, an unknown type digit, bad base64.
    """
    if isinstance(data, bytes):
        return Packet(PacketType.MESSAGE, data)
    kind = _TYPES.get(data[:1])
    if kind is not None:
        return Packet(kind, data[1:])
    if data[:1] == "b":
        return Packet(PacketType.MESSAGE, _decode_base64(data[1:]))
    raise RemoteProtocolError("unknown packet type" if data else "empty packet")


def iter_payload(body: bytes) -> Iterator[Packet]:
    """Read the packets of a polling request one by one, so that a body of many tiny packets costs no list of them.

    Raises:
        RemoteProtocolError: at the first packet that is not valid, after the valid ones before it were yielded, as the
            reference server does. An empty body is an empty packet, hence invalid.
    """
    start = 0
    while True:
        end = body.find(SEPARATOR, start)
        piece = body[start:] if end < 0 else body[start:end]
        try:
            text = piece.decode()
        except UnicodeDecodeError as error:
            raise RemoteProtocolError("payload is not UTF-8") from error
        yield decode_packet(text)
        if end < 0:
            return
        start = end + 1


def encode_packet(packet: Packet) -> bytes:
    """Write one packet as polling and text frames carry it. A binary message becomes `b` + base64.

    Raises:
        LocalProtocolError: bytes in anything but a message.
    """
    if isinstance(packet.data, bytes):
        if packet.type is not PacketType.MESSAGE:
            raise LocalProtocolError("only a message carries bytes")
        return encode_binary(packet.data)
    return b"%d" % packet.type + packet.data.encode()


def encode_binary(data: bytes) -> bytes:
    """Write a binary message as polling carries it."""
    return b"b" + base64.b64encode(data)


def encode_payload(packets: Iterable[bytes]) -> bytes:
    """Join packets that are already encoded into a polling body."""
    return SEPARATOR.join(packets)


def _decode_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii"), validate=True)
    except (UnicodeEncodeError, binascii.Error) as error:
        raise RemoteProtocolError("bad base64 in a binary packet") from error


# --- handshake -------------------------------------------------------------------------------------------------------


class Transport(Enum):
    """What carries a request: the `transport` query parameter."""

    POLLING = "polling"
    WEBSOCKET = "websocket"


class Refusal(Enum):
    """Why a request is refused: (code, message, HTTP status). Codes 0 to 5 are the protocol's, 6 and up are ours."""

    UNKNOWN_TRANSPORT = (0, "Transport unknown", 400)
    UNKNOWN_SID = (1, "Session ID unknown", 400)
    BAD_HANDSHAKE_METHOD = (2, "Bad handshake method", 400)
    BAD_REQUEST = (3, "Bad request", 400)
    FORBIDDEN = (4, "Forbidden", 403)
    UNSUPPORTED_VERSION = (5, "Unsupported protocol version", 400)
    TOO_MANY_SESSIONS = (6, "Too many sessions", 503)
    SHUTTING_DOWN = (7, "Server shutting down", 503)

    def __init__(self, code: int, message: str, status: int) -> None:
        self.code = code
        self.message = message
        self.status = status

    def body(self) -> bytes:
        """Write the JSON body of the answer."""
        return msgspec.json.encode({"code": self.code, "message": self.message})


class Query(NamedTuple):
    """The parameters Engine.IO reads from a query string; empty text where one is missing."""

    version: str = ""
    transport: str = ""
    sid: str = ""


_QUERY_FIELDS = {"EIO": "version", "transport": "transport", "sid": "sid"}


def parse_query(query: bytes) -> Query:
    """Read a query string. The application's own parameters and the cache buster `t` are skipped.

    Raises:
        RemoteProtocolError: too many fields, or one of ours sent twice (two readers might each believe another one).
    """
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_QUERY_FIELDS)
    except ValueError as error:
        raise RemoteProtocolError("too many query fields") from error
    fields: dict[str, str] = {}
    for key, value in pairs:
        name = _QUERY_FIELDS.get(key)
        if name is None:
            continue
        if name in fields:
            raise RemoteProtocolError(f"query field {key} is repeated")
        fields[name] = value
    return Query(**fields)


def check_request(query: Query, method: str, via: Transport, current: "State | None") -> Refusal | None:
    """Say why a request is refused, or None when it may go on. The order of the checks is the reference server's.

    `via` is what actually brought the request (a WebSocket upgrade or plain HTTP); `current` is the state of the
    session that `query.sid` names, None when there is no such session.
    """
    if query.transport not in ("polling", "websocket"):
        return Refusal.UNKNOWN_TRANSPORT
    if query.sid:
        if current is None:
            return Refusal.UNKNOWN_SID
        # A second WebSocket is not refused here: it is accepted and closed, by whoever fails to take its ATTACH step.
        fits = query.transport == via.value and (via is Transport.WEBSOCKET or current is not State.WEBSOCKET)
        return None if fits else Refusal.BAD_REQUEST
    if method != "GET":
        return Refusal.BAD_HANDSHAKE_METHOD
    if query.transport != via.value:
        return Refusal.BAD_REQUEST
    return None if query.version == PROTOCOL_VERSION else Refusal.UNSUPPORTED_VERSION


def encode_open(
    sid: str, transport: Transport, *, ping_interval: float, ping_timeout: float, max_payload: int
) -> bytes:
    """Write the `open` packet. Times are given in seconds and sent in milliseconds, `max_payload` is in bytes."""
    handshake = {
        "sid": sid,
        "upgrades": [Transport.WEBSOCKET.value] if transport is Transport.POLLING else [],
        "pingInterval": round(ping_interval * 1000),
        "pingTimeout": round(ping_timeout * 1000),
        "maxPayload": max_payload,
    }
    return b"0" + msgspec.json.encode(handshake)


# --- the life of a session -------------------------------------------------------------------------------------------


class State(Enum):
    """Which transport owns the session's packets, and how far an upgrade has come."""

    POLLING = auto()
    ATTACHED = auto()  # a WebSocket is open beside polling and has not probed yet
    PROBED = auto()  # it was answered `3probe`; polling goes on, but no GET is held any more
    WEBSOCKET = auto()
    CLOSED = auto()


class Step(Enum):
    """What moves a session from one state to the next."""

    ATTACH = auto()  # a WebSocket came with the sid of a polling session
    PROBE = auto()  # it sent `2probe`
    UPGRADE = auto()  # it sent `5`
    DETACH = auto()  # it went away, timed out or sent something else
    CLOSE = auto()


TRANSITIONS: dict[tuple[State, Step], State] = {
    (State.POLLING, Step.ATTACH): State.ATTACHED,
    (State.ATTACHED, Step.PROBE): State.PROBED,
    (State.PROBED, Step.UPGRADE): State.WEBSOCKET,
    (State.ATTACHED, Step.DETACH): State.POLLING,
    (State.PROBED, Step.DETACH): State.POLLING,
    (State.POLLING, Step.CLOSE): State.CLOSED,
    (State.ATTACHED, Step.CLOSE): State.CLOSED,
    (State.PROBED, Step.CLOSE): State.CLOSED,
    (State.WEBSOCKET, Step.CLOSE): State.CLOSED,
}


def upgrade_step(packet: Packet) -> Step:
    """Read what a probing WebSocket sent. Everything but the two packets of the upgrade ends the attempt."""
    if packet == (PacketType.PING, "probe"):
        return Step.PROBE
    if packet == (PacketType.UPGRADE, ""):
        return Step.UPGRADE
    return Step.DETACH


class Beat(Enum):
    """What the heartbeat asks for."""

    WAIT = auto()
    PING = auto()
    DEAD = auto()


class Heartbeat:
    """When to ping and when silence is death. `deadline` is the next instant at which `tick` may say something new."""

    __slots__ = ("_awaiting_pong", "_interval", "_timeout", "deadline")

    def __init__(self, interval: float, timeout: float, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._awaiting_pong = False
        self.deadline = now + interval

    def tick(self, now: float) -> Beat:
        """Look at the clock. PING is said once per interval; DEAD again and again from the deadline on."""
        if now < self.deadline:
            return Beat.WAIT
        if self._awaiting_pong:
            return Beat.DEAD
        self._awaiting_pong = True
        self.deadline = max(self.deadline + self._timeout, now + self._timeout / 2)
        return Beat.PING

    def pong(self, now: float) -> None:
        """Take a pong. One that was not asked for changes nothing: a peer cannot talk its way out of being pinged."""
        if self._awaiting_pong:
            self._awaiting_pong = False
            self.deadline = now + self._interval
