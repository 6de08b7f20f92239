"""Engine.IO v4 server on trio: sessions over HTTP long-polling and WebSocket, and the upgrade from one to the other.

Owns sessions, their heartbeats, who may open one and how one ends. The rules of the protocol are in
`protocol.engineio`; must not know Socket.IO, tenants, or which lane carried a request.

Theory of operation
-------------------
1. A session has one outbox. Whoever has something to send pushes (`Session.send`, never waits); the transport drains:
   a held GET takes everything as one body, a WebSocket's writer as one write. Which of the two it is, is the state of
   the session, so a packet leaves once, before or after the upgrade.
2. What comes in is handed to the application in the task of the transport: the WebSocket's reader, or the POST, which
   is answered when its last packet was taken. An application that waits therefore holds its client back, and nothing
   queues here. While it waits pongs wait too: an application that stands still for longer than the ping time-out loses
   the client.
3. Time is kept by one task for all sessions: a heap of deadlines, looked at again when the first is due. A deadline
   that moved later (a pong came) costs nothing until its old entry is met.
4. `close` is orderly: what is queued still goes out, for at most `close_grace` seconds; a polling session without a GET
   stays that long for its next one. `abort` drops what is queued. A batch already in a write is never cut within the
   grace, so a peer that still reads also reads the close code.
5. The transports run in the tasks of the listener, the applications in the nursery of `run`. When `run` is cancelled
   every held GET is answered, every WebSocket closed with 1001, and `run` waits for that, `close_grace` at most.

| refused | answer |
|---------|--------|
| query, method, transport or sid wrong | 400 and code 0, 1, 2, 3, 5 |
| Origin neither the server's own nor allowed | 403 and code 4 |
| no room for a session; shutting down | 503 with Retry-After and code 6; 7 |
| second GET or POST of a session at once; broken or binary body | 400, session closed |
| POST over `max_payload` | 413, session closed |
| second WebSocket for a sid | accepted and closed with 1002, session goes on |
"""

import contextlib
import heapq
import math
import secrets
from collections import Counter
from collections.abc import Callable
from typing import Protocol

import msgspec
import structlog
import trio

from gateway.http import Frame, Headers, Request, Response, SocketClosed, WebSocket
from gateway.realtime import CloseCode
from gateway.realtime.outbox import DEFAULT_MAX_BYTES, Outbox
from gateway.realtime.pump import Pump
from protocol import engineio
from protocol.engineio import Beat, PacketType, Refusal, State, Step, Transport
from protocol.errors import RemoteProtocolError

log = structlog.get_logger(__name__)

_PING = Frame(b"2")
_CLOSE = b"1"
_NOOP = b"6"
_TEXT: Headers = ((b"content-type", b"text/plain; charset=UTF-8"), (b"cache-control", b"no-store"))
# What the reference server says, lest a browser offers the "ok" of a form post as a download.
_OK: Headers = ((b"content-type", b"text/html"), (b"cache-control", b"no-store"))
_JSON: Headers = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))


class EngineSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of an Engine.IO server. Times in seconds, sizes in bytes."""

    ping_interval: float = 25.0
    ping_timeout: float = 20.0
    upgrade_timeout: float = 10.0
    close_grace: float = 5.0
    max_payload: int = 1_000_000
    max_outbox_bytes: int = DEFAULT_MAX_BYTES
    max_sessions: int = 10_000
    origins: frozenset[str] = frozenset()
    """Origins allowed beside the server's own, such as `https://inbox.example`; `*` allows every one, without credentials."""


class EngineStatistics(msgspec.Struct, frozen=True):
    """Sessions that are open and the bytes that wait for them, how many were opened so far, how they ended, by code."""

    sessions: int
    polling: int
    websocket: int
    queued_bytes: int
    opened: int
    closed: dict[int, int]


class Connection(Protocol):
    """What an application makes of one session."""

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        """Live as long as the session. Returning closes it; `close_grace` after it closed this is cancelled."""

    async def message(self, data: str | bytes) -> None:
        """Take one message, after `run` has started, one at a time. Raises RemoteProtocolError to close with 1002."""


Application = Callable[["Session"], Connection]


class Session:
    """One Engine.IO session, from its handshake to its end, whatever transport carries it."""

    def __init__(self, request: Request, settings: EngineSettings, state: State, server: "EngineServer") -> None:
        self.sid = secrets.token_urlsafe(15)
        """Authorises the session: never logged, never shown. A Socket.IO id is another one."""
        self.request = request
        self.state = state
        self.outbox: Outbox[Frame | bytes] = Outbox(settings.max_outbox_bytes, server.pump)
        self.closed = trio.Event()
        self.close_code: int | None = None
        self.close_reason = ""
        self.scope = trio.CancelScope()
        self.connection: Connection
        self._settings = settings
        self._server = server
        self._heartbeat = engineio.Heartbeat(settings.ping_interval, settings.ping_timeout, trio.current_time())
        self._linger = math.inf
        self._farewell = _CLOSE
        self._held: trio.CancelScope | None = None  # around the GET that waits for packets
        self._probe: trio.CancelScope | None = None  # around a WebSocket that would like to take over
        self._carrier: trio.CancelScope | None = None  # around the WebSocket that is the transport
        self._posting = False

    # --- for the application ---

    def send(self, message: Frame | bytes) -> bool:
        """Queue one packet: a `Frame` whose text begins with `4`, or the bytes of a binary message.

        Never waits. Returns False when the session is closed, or closes for it: there was no room (4008).
        """
        if self.closed.is_set():
            return False
        if self.outbox.push(message):
            return True
        self.abort(CloseCode.SLOW_CONSUMER, "slow consumer")
        return False

    def close(self, code: int = CloseCode.NORMAL, reason: str = "") -> None:
        """End the session after what is queued has gone out. Does nothing when it has ended already."""
        self._end(code, reason, discard=False)

    def abort(self, code: int, reason: str) -> None:
        """End the session and drop what is queued."""
        self._end(code, reason, discard=True)

    # --- for the server ---

    @property
    def deadline(self) -> float:
        """The next instant at which `beat` may have something to do."""
        return self._linger if self.closed.is_set() else self._heartbeat.deadline

    @property
    def has_transport(self) -> bool:
        """Whether something could be written to the client now."""
        return self._held is not None or self._carrier is not None

    def beat(self, now: float) -> None:
        """Look at the clock: ping, declare the peer dead, or give up waiting for its last GET."""
        if self.closed.is_set():
            if now >= self._linger and not self.has_transport:
                self._server.forget(self)
            return
        match self._heartbeat.tick(now):
            case Beat.PING:
                self.send(_PING)
            case Beat.DEAD:
                self.abort(CloseCode.PING_TIMEOUT, "ping timeout")
            case Beat.WAIT:
                pass

    async def poll(self) -> bytes | None:
        """Answer a GET: wait for packets and return them as one body. None when another GET is waiting already.

        A GET that is cancelled ends the session: its client has gone.
        """
        if self._held is not None:
            self.abort(CloseCode.PROTOCOL_ERROR, "overlapping GET")
            return None
        batch: list[Frame | bytes] = []
        if self.closed.is_set() or self.state is State.PROBED:
            batch = self.outbox.drain_nowait()
        else:
            self._held = trio.CancelScope()
            try:
                with self._held:
                    batch = await self.outbox.drain()
            except trio.Cancelled:
                self._held = None
                self.abort(CloseCode.TRANSPORT_CLOSE, "GET abandoned")
                raise
            self._held = None
        packets = [item.payload if isinstance(item, Frame) else engineio.encode_binary(item) for item in batch]
        if self.closed.is_set():
            packets.append(self._farewell)
            self._server.forget(self)
        return engineio.encode_payload(packets or [_NOOP])

    async def post(self, request: Request) -> int:
        """Take the packets of a POST, waiting where the application waits. Returns the HTTP status of the answer."""
        if self._posting:
            self.abort(CloseCode.PROTOCOL_ERROR, "overlapping POST")
            return 400
        if request.header(b"content-type") == b"application/octet-stream":
            self.abort(CloseCode.PROTOCOL_ERROR, "binary body")
            return 400
        if len(request.body) > self._settings.max_payload:
            self.abort(CloseCode.PROTOCOL_ERROR, "payload too large")
            return 413
        self._posting = True
        try:
            for packet in engineio.iter_payload(request.body):
                await self._take(packet)
                if self.closed.is_set():
                    break
        except RemoteProtocolError as error:
            self.abort(CloseCode.PROTOCOL_ERROR, error.detail)
            return error.status_hint
        except trio.Cancelled:
            self.abort(CloseCode.TRANSPORT_CLOSE, "POST abandoned")
            raise
        finally:
            self._posting = False
        return 200

    async def upgrade(self, ws: WebSocket) -> bool:
        """Let an accepted WebSocket try to take over. True when it owns the session's packets, False when polling goes on."""
        if not self._step(Step.ATTACH):
            return False
        try:
            with trio.move_on_after(self._settings.upgrade_timeout) as self._probe:
                while self.state is not State.WEBSOCKET:
                    step = engineio.upgrade_step(engineio.decode_packet(await ws.receive()))
                    if step is Step.DETACH or not self._step(step):
                        break
                    if step is Step.PROBE:
                        await ws.send("3probe")
                    self._release_poll()
        except (SocketClosed, RemoteProtocolError) as error:
            log.debug("upgrade given up", error=repr(error))
        finally:
            self._probe = None
            self._step(Step.DETACH)  # no transition leads there from WEBSOCKET or CLOSED
        return self.state is State.WEBSOCKET

    async def carry(self, ws: WebSocket, *, accepted: bool) -> None:
        """Be carried by a WebSocket until the session ends, then close it. Cancelled, it closes with 1001."""
        try:
            with trio.CancelScope() as self._carrier:
                if not accepted:
                    await ws.accept()
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(self._read, ws)
                    await self._write(ws)
                    nursery.cancel_scope.cancel()
        except SocketClosed:
            self._lose_carrier()
        finally:
            self.abort(CloseCode.GOING_AWAY, "server shutting down")  # where nothing ended it, the lane cancelled this
            self._carrier = None
            with trio.move_on_after(self._settings.close_grace, shield=True):
                await self.dismiss(ws)
            self._server.forget(self)

    async def dismiss(self, ws: WebSocket) -> None:
        """Close a WebSocket of this session with the code the session ended with."""
        code = CloseCode.PROTOCOL_ERROR if self.close_code is None else self.close_code
        await ws.close(CloseCode.NORMAL if code == CloseCode.TRANSPORT_CLOSE else code, self.close_reason)

    async def _read(self, ws: WebSocket) -> None:
        try:
            while not self.closed.is_set():
                await self._take(engineio.decode_packet(await ws.receive()))
        except RemoteProtocolError as error:
            self.abort(CloseCode.PROTOCOL_ERROR, error.detail)
        except SocketClosed:
            self._lose_carrier()

    async def _write(self, ws: WebSocket) -> None:
        def direct(batch: list[Frame | bytes]) -> list[Frame | bytes]:
            texts = [item for item in batch if isinstance(item, Frame)]
            return [*ws.try_send_frames(texts)] if len(texts) == len(batch) else batch

        self.outbox.write_through(direct)
        try:
            while batch := await self.outbox.drain():
                await _send(ws, batch)
        except SocketClosed:
            self._lose_carrier()

    def _lose_carrier(self) -> None:
        self.abort(CloseCode.TRANSPORT_CLOSE, "transport closed")
        if self._carrier is not None:
            self._carrier.cancel()

    async def _take(self, packet: engineio.Packet) -> None:
        match packet.type:
            case PacketType.MESSAGE:
                try:
                    await self.connection.message(packet.data)
                except RemoteProtocolError:
                    raise
                except Exception:  # the boundary of the connection: one client's failure is its own
                    log.exception("application failed to take a message")
                    self.abort(CloseCode.INTERNAL_ERROR, "internal error")
            case PacketType.PONG:
                self._heartbeat.pong(trio.current_time())
            case PacketType.CLOSE:
                self._farewell = _NOOP
                self._end(CloseCode.NORMAL, "closed by the client", discard=True)
            case PacketType.NOOP:
                pass
            case _:
                raise RemoteProtocolError(f"{packet.type.name} is not for a client to send here")

    def _step(self, step: Step) -> bool:
        state = engineio.TRANSITIONS.get((self.state, step))
        if state is not None:
            self.state = state
        return state is not None

    def _release_poll(self) -> None:
        if self._held is not None:
            self._held.cancel()

    def _end(self, code: int, reason: str, *, discard: bool) -> None:
        self.outbox.close(discard=discard)
        if self.closed.is_set():
            return
        self.close_code, self.close_reason = code, reason
        self._step(Step.CLOSE)
        self.closed.set()
        self._linger = trio.current_time() + self._settings.close_grace
        self.scope.deadline = self._linger
        if self._probe is not None:
            self._probe.cancel()
        if self._carrier is not None:
            self._carrier.deadline = self._linger
        elif self._held is None:
            # The GET of a client that says goodbye may arrive after the POST that says it.
            if self.outbox.is_empty and self._farewell != _NOOP:
                self._server.forget(self)
            else:
                self._server.schedule(self)


async def _send(ws: WebSocket, batch: list[Frame | bytes]) -> None:
    """Write a batch in order: runs of text in one write each, binary messages between them."""
    frames: list[Frame] = []
    for item in batch:
        if isinstance(item, Frame):
            frames.append(item)
            continue
        if frames:
            await ws.send_frames(frames)
            frames = []
        await ws.send(item)
    if frames:
        await ws.send_frames(frames)


class EngineServer:
    """All Engine.IO sessions of one path. `http` and `websocket` are handlers for the listener's lanes."""

    def __init__(
        self, application: Application, settings: EngineSettings | None = None, *, pump: Pump | None = None
    ) -> None:
        """Without a `pump` every WebSocket's own task writes everything."""
        self.pump = pump
        self._application = application
        self._settings = settings or EngineSettings()
        self._sessions: dict[str, Session] = {}
        self._nursery: trio.Nursery | None = None
        self._beats: list[tuple[float, str]] = []  # sids, lest the heap keeps alive what has ended
        self._nap = trio.CancelScope()
        self._empty = trio.Event()
        self._opened = 0
        self._closed: Counter[int] = Counter()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Hold the sessions' applications and keep their time. Cancel it to shut down in order."""
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started()
                await self._keep_time()
        finally:
            self._nursery = None
            for session in list(self._sessions.values()):
                session.close(CloseCode.GOING_AWAY, "server shutting down")
                if not session.has_transport:
                    self.forget(session)
            with trio.move_on_after(self._settings.close_grace, shield=True):
                while self._sessions:
                    self._empty = trio.Event()
                    await self._empty.wait()

    async def http(self, request: Request) -> Response:
        """Answer one request of the polling transport, or of a handshake. Cancelled when the client goes away."""
        cors = self._cors(request)
        if isinstance(cors, Refusal):
            return _refuse(cors)
        if request.method == "OPTIONS":
            allow = ((b"access-control-allow-methods", b"GET,POST"), (b"access-control-max-age", b"600"))
            return Response(204, b"", (*cors, *allow, (b"access-control-allow-headers", b"authorization,content-type")))
        found = self._route(request, Transport.POLLING)
        if isinstance(found, Refusal):
            return _refuse(found, cors)
        session = found or await self._open(request, State.POLLING)
        if isinstance(session, Refusal):
            return _refuse(session, cors)
        if not found:
            return Response(200, self._handshake(session, Transport.POLLING), (*_TEXT, *cors))
        if request.method == "GET":
            body = await session.poll()
            return _refuse(Refusal.BAD_REQUEST, cors) if body is None else Response(200, body, (*_TEXT, *cors))
        if session.closed.is_set():
            return _refuse(Refusal.UNKNOWN_SID, cors)
        if request.method != "POST":
            return _refuse(Refusal.BAD_REQUEST, cors)
        status = await session.post(request)
        if status == 200:
            return Response(200, b"ok", (*_OK, *cors))
        return Response(status, Refusal.BAD_REQUEST.body(), (*_JSON, *cors))

    async def websocket(self, ws: WebSocket) -> None:
        """Serve one WebSocket: as the transport of a new session, or to take over from polling."""
        cors = self._cors(ws.request)
        found = cors if isinstance(cors, Refusal) else self._route(ws.request, Transport.WEBSOCKET)
        session = found or await self._open(ws.request, State.WEBSOCKET)
        if isinstance(session, Refusal):
            with contextlib.suppress(SocketClosed):  # it is refused either way
                await ws.reject(_refuse(session))
            return
        if not found:
            await session.carry(ws, accepted=False)
            return
        with contextlib.suppress(SocketClosed):  # the session goes on with polling
            await ws.accept()
            if await session.upgrade(ws):
                await session.carry(ws, accepted=True)
            else:
                await session.dismiss(ws)

    def statistics(self) -> EngineStatistics:
        """Count the sessions."""
        websocket = sum(session.state is State.WEBSOCKET for session in self._sessions.values())
        return EngineStatistics(
            sessions=len(self._sessions),
            polling=len(self._sessions) - websocket,
            websocket=websocket,
            queued_bytes=sum(session.outbox.held_bytes for session in self._sessions.values()),
            opened=self._opened,
            closed=dict(self._closed),
        )

    def _route(self, request: Request, via: Transport) -> Session | Refusal | None:
        """Find the session a request belongs to; None when it asks for a new one."""
        try:
            query = engineio.parse_query(request.query)
        except RemoteProtocolError:
            return Refusal.BAD_REQUEST
        session = self._sessions.get(query.sid)
        if session is not None:
            session.beat(trio.current_time())  # a request at the very deadline must not depend on who woke first
            session = self._sessions.get(query.sid)
        refusal = engineio.check_request(query, request.method, via, session.state if session else None)
        return refusal or session

    async def _open(self, request: Request, state: State) -> Session | Refusal:
        if self._nursery is None:
            return Refusal.SHUTTING_DOWN
        if len(self._sessions) >= self._settings.max_sessions:
            return Refusal.TOO_MANY_SESSIONS
        session = Session(request, self._settings, state, self)
        self._sessions[session.sid] = session
        self._opened += 1
        if state is State.WEBSOCKET:
            session.send(Frame(self._handshake(session, Transport.WEBSOCKET)))
        self.schedule(session)
        # The application runs for as long as the session, which outlives this request.
        await self._nursery.start(self._live, session)
        return session

    async def _live(self, session: Session, *, task_status: trio.TaskStatus[None]) -> None:
        try:
            with session.scope:
                session.connection = self._application(session)
                await session.connection.run(task_status=task_status)
                session.close()
        except Exception:  # the boundary of the connection: one client's failure is its own
            log.exception("application failed")
            session.abort(CloseCode.INTERNAL_ERROR, "internal error")
        finally:
            session.close(CloseCode.GOING_AWAY, "server shutting down")

    def forget(self, session: Session) -> None:
        """Strike a session that has ended and has nothing left to say; may be said twice."""
        if self._sessions.pop(session.sid, None) is not None and session.close_code is not None:
            self._closed[session.close_code] += 1
        if not self._sessions:
            self._empty.set()

    def schedule(self, session: Session) -> None:
        """Look at a session when its deadline comes."""
        deadline = session.deadline
        heapq.heappush(self._beats, (deadline, session.sid))
        self._nap.deadline = min(self._nap.deadline, deadline)

    async def _keep_time(self) -> None:
        while True:
            with trio.CancelScope(deadline=self._beats[0][0] if self._beats else math.inf) as self._nap:
                await trio.sleep_forever()
            now = trio.current_time()
            while self._beats and self._beats[0][0] <= now:
                session = self._sessions.get(heapq.heappop(self._beats)[1])
                if session is None:
                    continue
                session.beat(now)
                if session.deadline > now:
                    self.schedule(session)

    def _handshake(self, session: Session, transport: Transport) -> bytes:
        return engineio.encode_open(
            session.sid,
            transport,
            ping_interval=self._settings.ping_interval,
            ping_timeout=self._settings.ping_timeout,
            max_payload=self._settings.max_payload,
        )

    def _cors(self, request: Request) -> Headers | Refusal:
        """Judge the Origin. Returns the headers that let a page of another, allowed origin read the answer."""
        origins = request.header_values(b"origin")
        if not origins:
            return ()  # no browser, or a same-origin GET
        if len(origins) > 1:
            return Refusal.BAD_REQUEST
        origin = origins[0].decode("latin-1")
        if origin in self._settings.origins:
            allowed = ((b"access-control-allow-credentials", b"true"), (b"vary", b"Origin"))
            return ((b"access-control-allow-origin", origins[0]), *allowed)
        if "*" in self._settings.origins:
            return ((b"access-control-allow-origin", b"*"),)
        host = request.header(b"host")
        # The scheme is not compared: behind a proxy that ends TLS this server does not know its own.
        return () if host is not None and _authority(origin) == host.decode("latin-1").lower() else Refusal.FORBIDDEN


def _authority(origin: str) -> str:
    return origin.lower().partition("://")[2]


def _refuse(refusal: Refusal, cors: Headers = ()) -> Response:
    retry: Headers = ((b"retry-after", b"5"),) if refusal.status == 503 else ()
    return Response(refusal.status, refusal.body(), (*_JSON, *retry, *cors))
