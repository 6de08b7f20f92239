"""Socket.IO v5 server over `gateway.realtime.engine`: namespaces, sockets, events, acks and rooms.

Owns what a handler of a namespace sees. The text of packets is `protocol.socketio`'s, transports are the engine's; must
not know tenants, topics or the feed.

Theory of operation
-------------------
1. A namespace is one async function. It is called with a `Socket` when a client asks to join, decides (from
   `socket.auth` and `socket.request`) and then either raises `ConnectRefused` or calls `socket.accept()`. From then on
   it receives events until it returns (the client is told `41` and stays away) or the client is gone:

       async def inbox(socket: Socket) -> None:
           agent = await identify(socket.auth)      # may raise ConnectRefused
           socket.accept()
           while True:
               event = await socket.receive()       # raises Disconnected at the end
               ...

2. When a client leaves, events it sent before are still received; then `receive` raises `Disconnected`, which a handler
   need not catch. A handler that does not return is cancelled `close_grace` seconds later.
3. Sending is synchronous and bounded (see `outbox`): a broadcast encodes and frames its event once (`event_frame`) and
   pushes the same object to every socket of the room.
4. Receiving is bounded too: `INBOX_EVENTS` per socket, then the reader of the connection waits and with it the client.
   So a handler that awaits an ack while its inbox is full waits until the ack's time-out.
5. A handler that fails takes its connection with it (1011): the client reconnects, which it would not do after `41`.

| what the client did | reaction |
|---------------------|----------|
| first packet is no CONNECT, CONNECT twice, CONNECT_ERROR, anything the codec refuses | closed, 1002 |
| joined nothing within `connect_timeout` | closed, 4010 |
| CONNECT to a namespace there is none of | CONNECT_ERROR `Invalid namespace`, the connection goes on |
| event, ack or DISCONNECT for a namespace it is not in | ignored: it may have crossed our DISCONNECT |
| ack nobody waits for | ignored |

Room bookkeeping is a dictionary of sets rather than python-socketio's `BaseManager`, which wants its own server, tells
sockets by pairs of ids and copies a room for every broadcast. No connection state recovery: resuming is by feed offset.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec
import structlog
import trio

from gateway.http import Frame, Request, Response, WebSocket
from gateway.realtime import CloseCode
from gateway.realtime.engine import EngineServer, EngineSettings, EngineStatistics, Session
from gateway.realtime.pump import Pump
from protocol import socketio
from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socketio import Packet, PacketType

log = structlog.get_logger(__name__)

INBOX_EVENTS = 16
MAX_HANDLERS = 32  # of one connection, those that are winding up after a DISCONNECT included
DEFAULT_CONNECT_TIMEOUT = 45.0  # seconds; the reference server's
_MESSAGE = b"4"  # what Engine.IO puts before every packet of ours


class ConnectRefused(Exception):
    """Raised by a handler instead of `accept`: the client gets CONNECT_ERROR with `message` and `data`."""

    def __init__(self, message: str, data: Any = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data


class Disconnected(Exception):
    """The socket is gone and everything it sent before has been received."""


class Event(msgspec.Struct, frozen=True):
    """One event of a client. `ack_id` is what `Socket.ack` answers with, None when no answer is wanted (0 is an id)."""

    name: str
    args: list[Any]
    ack_id: int | None = None


def event_frame(name: str, *json_args: bytes, namespace: str = "/") -> Frame:
    """Frame an event once for all its receivers. The arguments are JSON already.

    Raises:
        LocalProtocolError: a reserved name, or a namespace that is none.
    """
    return Frame(_MESSAGE + socketio.encode_event(name, json_args, namespace))


class Socket:
    """One client in one namespace. Methods that send never wait, and say False when the client is gone."""

    def __init__(self, server: "SocketIOServer", session: Session, namespace: str, auth: dict[str, Any]) -> None:
        self.sid = secrets.token_urlsafe(15)
        """Public: names this socket, authorises nothing."""
        self.namespace = namespace
        self.auth = auth
        self.request = session.request
        self.rooms: set[str] = set()
        self.accepted = False
        self.gone = trio.Event()
        self.scope = trio.CancelScope()
        self._server = server
        self._session = session
        self._events, self._inbox = trio.open_memory_channel[Event](INBOX_EVENTS)
        self._acks: dict[int, _Ack] = {}
        self._next_ack = 0

    def accept(self) -> None:
        """Let the client in. What is sent afterwards arrives after the acceptance.

        Raises:
            LocalProtocolError: accepted already.
        """
        if self.accepted:
            raise LocalProtocolError("accepted already")
        self.accepted = self._send(PacketType.CONNECT, data={"sid": self.sid})

    async def receive(self) -> Event:
        """Wait for the next event.

        Raises:
            Disconnected: the client has left, or was disconnected.
        """
        try:
            return await self._inbox.receive()
        except trio.EndOfChannel:
            raise Disconnected from None

    def emit(self, name: str, *args: Any) -> bool:
        """Send an event to this client alone. Arguments are what JSON can say, and bytes.

        Raises:
            LocalProtocolError: a reserved name, too many attachments or a value that JSON cannot say.
        """
        return self._send(PacketType.EVENT, data=[name, *args])

    def emit_frame(self, frame: Frame) -> bool:
        """Send an event that `event_frame` made for this namespace."""
        return not self.gone.is_set() and self._session.send(frame)

    def ack(self, ack_id: int, *args: Any) -> bool:
        """Answer the event that carried `ack_id`. To be called once for each."""
        return self._send(PacketType.ACK, ack_id, list(args))

    async def emit_with_ack(self, name: str, *args: Any, timeout: float) -> list[Any]:  # noqa: ASYNC109  the protocol's
        """Send an event and wait for the client's answer, its arguments. Cancellation forgets the ack.

        Raises:
            trio.TooSlowError: no answer within `timeout` seconds. The event may have arrived all the same.
            Disconnected: the client left first.
        """
        ack_id, self._next_ack = self._next_ack, self._next_ack + 1
        waiting = self._acks[ack_id] = _Ack()
        try:
            self._send(PacketType.EVENT, ack_id, [name, *args])
            with trio.fail_after(timeout):
                if not self.gone.is_set():
                    await waiting.done.wait()
        finally:
            del self._acks[ack_id]
        if waiting.args is None:
            raise Disconnected
        return waiting.args

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait for this client, in all its namespaces, or are being written."""
        return self._session.outbox.held_bytes

    async def wait_below(self, mark: int) -> None:
        """Wait until `queued_bytes` is below `mark`, or the client is gone."""
        await self._session.outbox.wait_below(mark)

    def join(self, room: str) -> None:
        """Enter a room of this namespace; in it already is fine. A socket that is gone enters nothing."""
        if not self.gone.is_set():
            self.rooms.add(room)
            self._server.rooms.enter(self, room)

    def leave(self, room: str) -> None:
        """Leave a room; not being in it is fine."""
        self.rooms.discard(room)
        self._server.rooms.exit(self, room)

    def disconnect(self) -> None:
        """Put the client out of this namespace. Its connection, and its other namespaces, go on."""
        if not self.gone.is_set():
            if self.accepted:
                self._send(PacketType.DISCONNECT)
            self.end()

    def close(self, code: int, reason: str) -> None:
        """Close the client's whole connection once what is queued has gone out, with an application's code or ours."""
        self._session.close(code, reason)

    # --- for the connection ---

    def refuse(self, refused: ConnectRefused) -> None:
        """Tell the client that it may not join."""
        if self.accepted:
            raise LocalProtocolError("refused after it was accepted")
        data = {} if refused.data is None else {"data": refused.data}
        self._send(PacketType.CONNECT_ERROR, data={"message": refused.message, **data})

    async def deliver(self, packet: Packet) -> None:
        """Take an EVENT or ACK of the client, waiting while the inbox is full."""
        if packet.type is PacketType.EVENT:
            name, *args = packet.data
            try:
                # JavaScript looks listeners up by text, so 1 and "1" name the same event.
                await self._events.send(Event(str(name), args, packet.id))
            except (trio.ClosedResourceError, trio.BrokenResourceError):
                return  # it left, or its handler returned, while this waited
        elif packet.id in self._acks:
            waiting = self._acks[packet.id]
            waiting.args = packet.data
            waiting.done.set()

    def end(self) -> None:
        """Note that the client is gone: no more events, rooms left, acks given up."""
        if self.gone.is_set():
            return
        self.gone.set()
        self.scope.deadline = trio.current_time() + self._server.settings.close_grace
        self._events.close()
        for waiting in self._acks.values():
            waiting.done.set()
        for room in tuple(self.rooms):
            self.leave(room)

    def _send(self, kind: PacketType, ack_id: int | None = None, data: Any = None) -> bool:
        if self.gone.is_set():
            return False
        return _send(self._session, Packet(kind, self.namespace, ack_id, data))


class _Ack:
    """What `emit_with_ack` waits for."""

    __slots__ = ("args", "done")

    def __init__(self) -> None:
        self.done = trio.Event()
        self.args: list[Any] | None = None


class Rooms:
    """Which sockets are in which room of which namespace. An empty room does not exist."""

    def __init__(self) -> None:
        self._members: dict[tuple[str, str], set[Socket]] = {}

    def enter(self, socket: Socket, room: str) -> None:
        """Write a socket in; `Socket.join` is the way to say it."""
        self._members.setdefault((socket.namespace, room), set()).add(socket)

    def exit(self, socket: Socket, room: str) -> None:
        """Strike a socket out, and the room with its last one; `Socket.leave` is the way to say it."""
        members = self._members.get((socket.namespace, room))
        if members is not None:
            members.discard(socket)
            if not members:
                del self._members[socket.namespace, room]

    def members(self, namespace: str, room: str) -> tuple[Socket, ...]:
        """Return who is in a room now. A copy: a client that a broadcast closes leaves its rooms meanwhile."""
        return tuple(self._members.get((namespace, room), ()))

    def __len__(self) -> int:
        return len(self._members)


NamespaceHandler = Callable[[Socket], Awaitable[None]]


def _send(session: Session, packet: Packet) -> bool:
    encoded = socketio.encode(packet)
    # No await in between: attachments follow their packet at once.
    return session.send(Frame(_MESSAGE + encoded.text)) and all(map(session.send, encoded.attachments))


class SocketIOServer:
    """All clients of one path. `http` and `websocket` are handlers for the listener's lanes."""

    def __init__(
        self,
        namespaces: Mapping[str, NamespaceHandler],
        settings: EngineSettings | None = None,
        *,
        connect_timeout: float = DEFAULT_CONNECT_TIMEOUT,
        pump: Pump | None = None,
    ) -> None:
        self.namespaces = namespaces
        self.settings = settings or EngineSettings()
        self.connect_timeout = connect_timeout
        self._engine = EngineServer(lambda session: _Client(self, session), self.settings, pump=pump)
        self.rooms = Rooms()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the handlers of all sockets. Cancel it to shut down in order."""
        await self._engine.run(task_status=task_status)

    async def http(self, request: Request) -> Response:
        """Answer one request of the polling transport."""
        return await self._engine.http(request)

    async def websocket(self, ws: WebSocket) -> None:
        """Serve one WebSocket."""
        await self._engine.websocket(ws)

    def broadcast(self, room: str, frame: Frame, *, namespace: str = "/", skip: Socket | None = None) -> int:
        """Send an event, encoded by `event_frame` for this namespace, to a room. Returns how many got it.

        Clients without room in their outbox are closed on the way (4008) and do not count.
        """
        members = self.rooms.members(namespace, room)
        return sum(socket.emit_frame(frame) for socket in members if socket is not skip)

    def statistics(self) -> EngineStatistics:
        """Count the connections."""
        return self._engine.statistics()


class _Client:
    """One connection: the sockets it has in namespaces, and the decoder of what it sends."""

    def __init__(self, server: SocketIOServer, session: Session) -> None:
        self._server = server
        self._session = session
        self._decoder = socketio.Decoder()
        self._sockets: dict[str, Socket] = {}
        self._handlers = 0
        self._asked = False  # whether a CONNECT has come
        self._joined = False  # whether a socket that has left since was accepted
        self._nursery: trio.Nursery

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        async with trio.open_nursery() as self._nursery:
            task_status.started()
            with trio.move_on_after(self._server.connect_timeout):
                await self._session.closed.wait()
            if not (self._joined or any(socket.accepted for socket in self._sockets.values())):
                self._session.close(CloseCode.CONNECT_TIMEOUT, "joined no namespace in time")
            await self._session.closed.wait()
            for socket in tuple(self._sockets.values()):
                self._leave(socket)

    async def message(self, data: str | bytes) -> None:
        packet = self._decoder.feed(data)
        if packet is None:
            return
        socket = self._sockets.get(packet.namespace)
        if packet.type is PacketType.CONNECT:
            if socket is not None:
                raise RemoteProtocolError("CONNECT to a namespace it is in")
            self._connect(packet)
        elif packet.type is PacketType.CONNECT_ERROR or not self._asked:
            raise RemoteProtocolError(f"{packet.type.name} is not for a client to send here")
        elif socket is None:
            pass  # it may have crossed our DISCONNECT
        elif packet.type is PacketType.DISCONNECT:
            self._leave(socket)
        elif socket.accepted:
            await socket.deliver(packet)

    def _connect(self, packet: Packet) -> None:
        self._asked = True
        handler = self._server.namespaces.get(packet.namespace)
        if handler is None:
            refusal = {"message": "Invalid namespace"}
            _send(self._session, Packet(PacketType.CONNECT_ERROR, packet.namespace, None, refusal))
            return
        if self._handlers >= MAX_HANDLERS:
            raise RemoteProtocolError("joins faster than handlers can end")
        self._handlers += 1
        socket = Socket(self._server, self._session, packet.namespace, packet.data or {})
        self._sockets[packet.namespace] = socket
        self._nursery.start_soon(self._handle, handler, socket)

    async def _handle(self, handler: NamespaceHandler, socket: Socket) -> None:
        try:
            with socket.scope:
                await _serve(handler, socket)
            # Only here: one that failed, or is cancelled by our shutdown, must not be told to stay away.
            socket.disconnect()
        finally:
            self._handlers -= 1
            self._leave(socket)

    def _leave(self, socket: Socket) -> None:
        socket.end()
        self._joined = self._joined or socket.accepted
        if self._sockets.get(socket.namespace) is socket:
            del self._sockets[socket.namespace]


async def _serve(handler: NamespaceHandler, socket: Socket) -> None:
    try:
        try:
            await handler(socket)
        except ConnectRefused as refused:
            socket.refuse(refused)
        else:
            if not (socket.accepted or socket.gone.is_set()):
                raise LocalProtocolError(f"handler of {socket.namespace} neither accepted nor refused")
    except* Disconnected:
        pass  # how a handler learns that it is over, in a nursery of its own or not
