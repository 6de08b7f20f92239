"""The realtime protocol for client authors: what a dashboard and the gateway say to each other, whichever transport carries it.

Owns the frames' shapes, the topics, the close codes and the encoding of feed events. On `/ws` each frame is one JSON text message with a
`type`; on Socket.IO the type is the event's name and the rest its argument (an answer to a request travels as the acknowledgement).
Must not know sockets, sessions or actors.

The way of a session:

1. `authenticate {token}` unless the handshake carried the API key (`Authorization: Bearer`, `x-api-key`, or Socket.IO's `auth`) → `welcome`.
2. `subscribe {topics, epoch?, offset?}`: one subscription a connection; a new one replaces it at once. With a position, everything after it is
   sent first, then live events follow with nothing missing and nothing twice → `subscribed`. Where the gateway no longer has what lies
   between, → `snapshot_required`: read the REST snapshot (it names its feed position) and subscribe again from there. The latter may also
   come later and unasked (without `id`), when the store lost what a live subscription needs; the subscription has ended then.
3. `event` frames, by rising offset. Remember the newest offset and the epoch: that is the position to resume from. The offsets of a
   filtered subscription have gaps by nature.
4. `ping` → `pong`, whenever the client likes. Socket.IO probes its connections itself; on `/ws` it is the client who finds out by a ping
   whether the gateway is still there, and the gateway notices a client that has gone when it does not take its events.

Every request is answered exactly once, refusals included, and in the order of the events around it: what comes before `subscribed` is
catch-up, nothing of the subscription comes after `unsubscribed`.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec

from protocol.errors import RemoteProtocolError

# Close codes of `/ws` (RFC 6455 section 7.4.2: 4000-4999 are for applications). A client should reconnect after all but the refusals.
GOING_AWAY = 1001
"""The gateway stops: reconnect, and resume from the last position."""
TOO_BIG = 1009
BAD_FRAME = 4000
"""The client sent something that is no frame of this protocol. A bug in the client: do not retry blindly."""
UNAUTHENTICATED = 4001
"""No valid key within the time allowed, or the key was revoked. Refusal: do not retry with the same key."""
SLOW_CONSUMER = 4008
"""The client did not read what it asked for until its bounded queue was full. Reconnect and resume from the last position."""
OVERLOADED = 4013
"""The gateway has no room for another connection. Reconnect later."""

MAX_TOPICS = 100

# Codes of `error`. The connection goes on.
BAD_TOPIC = "bad_topic"
TOO_MANY_TOPICS = "too_many_topics"
BAD_POSITION = "bad_position"
"""`epoch` without `offset` or the other way round."""
BAD_REQUEST = "bad_request"
"""No frame of this protocol. On Socket.IO only: `/ws` is closed with BAD_FRAME."""
NOT_AUTHENTICATED = "not_authenticated"
ALREADY_AUTHENTICATED = "already_authenticated"
SUPERSEDED = "superseded"
"""A newer `subscribe`, or an `unsubscribe`, came before this `subscribe` had caught up."""
STORE_UNAVAILABLE = "store_unavailable"
"""The database cannot be read now. Nothing is subscribed: try again in a few seconds, from the newest offset that came."""

# Codes of a refused Socket.IO CONNECT (`connect_error`, in `data.code`).
REFUSED_UNAUTHENTICATED = "unauthenticated"
"""No valid key, or it was revoked. Do not retry with the same key."""
REFUSED_OVERLOADED = "overloaded"
"""No room for another connection. Retry later."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
"""What JavaScript counts exactly."""


class Authenticate(msgspec.Struct, frozen=True, tag="authenticate", forbid_unknown_fields=True):
    """Show an API key."""

    token: str


class Subscribe(msgspec.Struct, frozen=True, tag="subscribe", forbid_unknown_fields=True):
    """Follow topics: `tenant`, `endpoint:<id>` or `conversation:<id>`; at most MAX_TOPICS. `epoch` and `offset` together say where from.

    `id` comes back in the answer.
    """

    topics: tuple[str, ...]
    id: Count | None = None
    epoch: str | None = None
    offset: Count | None = None


class Unsubscribe(msgspec.Struct, frozen=True, tag="unsubscribe", forbid_unknown_fields=True):
    """Follow nothing."""

    id: Count | None = None


class Ping(msgspec.Struct, frozen=True, tag="ping", forbid_unknown_fields=True):
    """Ask for a `pong`."""

    id: Count | None = None


ClientFrame = Authenticate | Subscribe | Unsubscribe | Ping


class Welcome(msgspec.Struct, frozen=True, tag="welcome"):
    """The key is good. `connection` names this connection in logs."""

    connection: str
    tenant: str
    protocol: int = 1


class Subscribed(msgspec.Struct, frozen=True, tag="subscribed", omit_defaults=True):
    """Everything up to `offset` of `epoch` has been sent as far as the topics want it; what follows is live."""

    epoch: str
    offset: int
    id: int | None = None


class Unsubscribed(msgspec.Struct, frozen=True, tag="unsubscribed", omit_defaults=True):
    """No more events will come."""

    id: int | None = None


class SnapshotRequired(msgspec.Struct, frozen=True, tag="snapshot_required", omit_defaults=True):
    """The position cannot be resumed. `reason`: epoch_changed, too_old or ahead. Nothing was subscribed."""

    reason: str
    epoch: str
    offset: int
    id: int | None = None


class Pong(msgspec.Struct, frozen=True, tag="pong", omit_defaults=True):
    """The answer to a ping."""

    id: int | None = None


class Refused(msgspec.Struct, frozen=True, tag="error", omit_defaults=True):
    """A request was refused and the connection goes on. `code`: one of the list above; `detail` is for people."""

    code: str
    detail: str
    id: int | None = None


ServerFrame = Welcome | Subscribed | Unsubscribed | SnapshotRequired | Pong | Refused

encode = msgspec.json.Encoder().encode
_decoder: msgspec.json.Decoder[ClientFrame] = msgspec.json.Decoder(ClientFrame)
_REQUESTS: Mapping[str, type[ClientFrame]] = {"subscribe": Subscribe, "unsubscribe": Unsubscribe, "ping": Ping}
"""What a Socket.IO client may ask for; there the key is part of CONNECT."""


def decode_client(message: str | bytes) -> ClientFrame:
    """Read a client's frame from JSON. Raises RemoteProtocolError for anything else."""
    try:
        return _decoder.decode(message)
    except (msgspec.DecodeError, UnicodeError) as error:
        raise RemoteProtocolError(str(error)) from error
    except RecursionError as error:
        raise RemoteProtocolError("nested too deeply") from error


def read_request(name: str, arguments: Sequence[object]) -> ClientFrame:
    """Read a client's Socket.IO event as a frame: its name is the type, its one argument (or none) the rest.

    Raises RemoteProtocolError for an event that is no request.
    """
    frame = _REQUESTS.get(name)
    if frame is None or len(arguments) > 1:
        raise RemoteProtocolError("a request is subscribe, unsubscribe or ping, with one object")
    try:
        return msgspec.convert(arguments[0] if arguments else {}, frame)
    except msgspec.ValidationError as error:
        raise RemoteProtocolError(str(error)) from error


class Topics(msgspec.Struct, frozen=True):
    """A parsed subscription filter. `everything`: the whole tenant."""

    everything: bool
    endpoints: frozenset[str]
    conversations: frozenset[str]

    def want(self, endpoint: str | None, conversation: str) -> bool:
        """Tell whether an event of `conversation` on `endpoint` is to be sent."""
        return self.everything or conversation in self.conversations or (endpoint in self.endpoints)


def parse_topics(topics: tuple[str, ...]) -> Topics | Refused:
    """Parse topic names; refuse unknown ones, an empty list and too many."""
    if len(topics) > MAX_TOPICS:
        return Refused(TOO_MANY_TOPICS, f"at most {MAX_TOPICS} topics a subscription")
    endpoints, conversations = set(), set()
    everything = False
    for topic in topics:
        kind, _, name = topic.partition(":")
        if topic == "tenant":
            everything = True
        elif kind == "endpoint" and name:
            endpoints.add(name)
        elif kind == "conversation" and name:
            conversations.add(name)
        else:
            return Refused(BAD_TOPIC, f"{topic[:100]!r}: a topic is tenant, endpoint:<id> or conversation:<id>")
    if not topics:
        return Refused(BAD_TOPIC, "a subscription needs at least one topic")
    return Topics(everything, frozenset(endpoints), frozenset(conversations))


def event_fields(stream: str, endpoint: str | None, offset: int, version: int, recorded_at: int, event: bytes) -> bytes:
    """Return the inside of an event frame, without braces, around the event's stored JSON: nothing is encoded twice.

    `"offset":…,"conversation":…,"endpoint":…,"version":…,"recorded_at":…,"event":{…}`; `conversation` is the stream's id (for a notice the
    tenant's), which holds no character that JSON escapes, and an endpoint's id is checked for the same when it is added.
    """
    shown = b"null" if endpoint is None else b'"' + endpoint.encode() + b'"'
    return b'"offset":%d,"conversation":"%b","endpoint":%b,"version":%d,"recorded_at":%d,"event":%b' % (
        offset,
        stream.encode(),
        shown,
        version,
        recorded_at,
        event,
    )
