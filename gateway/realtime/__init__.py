r"""Realtime connections: Socket.IO (`engine`, `socketio`) and the buffer that every kind of client is sent through (`outbox`).

Owns what happens between a transport of the listener and the handler of a connection. Must not know tenants, topics,
the feed or how a lane parses bytes: it meets the network as `gateway.http.Request`, `WebSocket` and `Frame` only.

Close codes
-----------
Every WebSocket this package closes is closed with one of these, and a polling session that ends for the same cause
answers its pending GET with `1` (`6` when the client asked for the end).

| code | name | cause | what a client does |
|------|------|-------|--------------------|
| 1000 | NORMAL | the client said goodbye, or the handler disconnected it | nothing |
| 1001 | GOING_AWAY | the server is shutting down | reconnect, resume |
| 1002 | PROTOCOL_ERROR | a packet the protocol does not allow | report a bug |
| 1011 | INTERNAL_ERROR | a handler failed | reconnect with back-off |
| 4008 | SLOW_CONSUMER | more bytes waited for it than the outbox holds | reconnect, resume |
| 4009 | PING_TIMEOUT | no answer to a ping | reconnect, resume |
| 4010 | CONNECT_TIMEOUT | joined no namespace in time | send CONNECT first |

A handler may close with a code of its own (`protocol.frames` has the application's). 1009 (message too big) is the
lane's. 1005 and 1006 are never sent: they stand for a peer that left without a code.
"""

from enum import IntEnum


class CloseCode(IntEnum):
    """Why a connection was closed; see the table above."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    TRANSPORT_CLOSE = 1006
    INTERNAL_ERROR = 1011
    SLOW_CONSUMER = 4008
    PING_TIMEOUT = 4009
    CONNECT_TIMEOUT = 4010
