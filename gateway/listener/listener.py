"""The listener: one TCP port, three lanes.

Owns accepting, the cap on connections, TLS, a connection's way through the lanes, and the shutdown of all of it. Must not
know HTTP syntax (sniff), framing (the lanes) or what handlers do.

Theory of operation. Every connection begins in the ingest lane, one task each. When the head of a request is not that
lane's, the task takes the connection to the realtime lane or to hypercorn, for good. Connections live in a nursery that
outer cancellation does not reach, because being cancelled is how the listener is told to shut down: then it
1. stops accepting, and lets no new WebSocket in;
2. closes WebSockets with 1001, hypercorn's idle connections at once, and its own idle ones after a moment, in which a
   request already on its way is still served (with `connection: close`);
3. waits for requests in flight, at most `drain_seconds`; cuts what remains;
4. stops the application (its lifespan), and returns.
"""

import errno
import socket
import ssl
from collections import Counter
from collections.abc import Mapping

import structlog
import trio

from gateway.http import Handler, SocketHandler
from gateway.listener.answers import CLOSE, Answers
from gateway.listener.asgi import HandlersFirst
from gateway.listener.handover import AsgiApp, HandedOver, HandedOverTLS, HypercornLane
from gateway.listener.ingest_lane import IngestLane
from gateway.listener.limits import LINGER_SECONDS, Limits
from gateway.listener.realtime_lane import OpenSockets, RealtimeLane
from gateway.listener.refusals import OVERLOADED
from gateway.listener.sniff import Sniffer
from gateway.listener.statistics import Counters, ListenerStatistics
from gateway.listener.watch import Life, Watch
from gateway.listener.wire import SocketWire, StreamWire, Wire

log = structlog.get_logger("parley.listener")

Address = tuple[str, int]

_ACCEPTED_AT_ONCE = 64
"""Connections taken for one readiness of the listening socket, before others have their turn."""

_REFUSED_AT_ONCE = 256
"""Connections over the cap that are told so at the same time; beyond, they are dropped without a word."""

_IDLE_GRACE_SECONDS = 0.5
"""How long idle connections stay open at shutdown for a request that is on its way."""

_OUT_OF_SOMETHING = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
_OUT_OF_SOMETHING_SECONDS = 0.1

# A peer whose machine vanished is noticed after 60 s of silence and 4 unanswered probes, whatever the lane.
_KEEP_ALIVE = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 15),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
)


class Listener:
    """Serves handlers, sockets and an ASGI application on one port. `serve` may be called again when it has returned."""

    def __init__(
        self,
        *,
        handlers: Mapping[str, Handler],
        sockets: Mapping[str, SocketHandler],
        app: AsgiApp,
        limits: Limits | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """`handlers` and `sockets` are by exact path; `app` is a complete ASGI application for everything else."""
        self._limits = limits = limits or Limits()
        self._ssl_context = ssl_context
        self._counters = Counters()
        self._answers = Answers()
        self._watch = Watch(limits.sweep_seconds, self._answers)
        self._sockets = OpenSockets(self._counters)
        sniffer = Sniffer(handlers, sockets, limits)
        self._ingest = IngestLane(sniffer, self._answers, self._watch, self._counters, limits)
        self._realtime = RealtimeLane(self._sockets, self._answers, self._counters, limits)
        self._hypercorn = HypercornLane(
            HandlersFirst(app, handlers, sockets, self._sockets, self._counters, limits), limits
        )
        self._wires: set[Wire] = set()
        self._refusing = 0
        self._drained = trio.Event()

    def statistics(self) -> ListenerStatistics:
        """Return the listener's figures at this moment."""
        return ListenerStatistics(
            connections=Counter(life.lane for life in self._watch.lives),
            accepted=self._counters.accepted,
            answers=Counter(self._counters.answers),
            refused=Counter(self._counters.refused),
            failed=self._counters.failed,
        )

    async def serve(
        self,
        host: str | None,
        port: int,
        *,
        task_status: trio.TaskStatus[list[Address]] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        """Serve until cancelled; `host` None is every interface, `port` 0 any free one.

        Reports the bound addresses once the application has started and the port is open. Cancellation starts the
        shutdown described above, which takes at most `drain_seconds` and the application's own time to stop.

        Raises:
            OSError: the port cannot be bound.
            ExceptionGroup: holding hypercorn's LifespanFailureError, the application could not start.
        """
        self._drained = trio.Event()
        self._watch.reopen()
        self._sockets.reopen()
        async with trio.open_nursery() as nursery:
            await nursery.start(self._hypercorn.run_lifespan)
            # The nursery belongs to a task that is shielded, which this one must not be: see the theory above.
            connections = await nursery.start(self._hold_connections)
            try:
                listening = await _listen(host, port)
                task_status.started([_host_and_port(sock.getsockname()) for sock in listening])
                try:
                    async with trio.open_nursery() as accepting:
                        for sock in listening:
                            accepting.start_soon(self._accept, sock, connections)
                finally:
                    for sock in listening:
                        sock.close()
            finally:
                with trio.CancelScope(shield=True):
                    await self._drain()
                    self._drained.set()
                    self._hypercorn.end()

    async def _hold_connections(self, *, task_status: trio.TaskStatus[trio.Nursery]) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch.sweep)
                task_status.started(nursery)
                await self._drained.wait()
                nursery.cancel_scope.cancel()

    async def _drain(self) -> None:
        with trio.move_on_after(self._limits.drain_seconds):
            await self._hypercorn.drain()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._sockets.close_all, 1001, "the server is shutting down")
                await self._watch.drain(min(_IDLE_GRACE_SECONDS, self._limits.drain_seconds / 4))
        # hypercorn shields its writes: they end when there is nothing left to write to.
        for wire in self._wires:
            wire.abort()

    async def _accept(self, listening: socket.socket, connections: trio.Nursery) -> None:
        while True:
            await trio.lowlevel.wait_readable(listening)
            for _ in range(_ACCEPTED_AT_ONCE):
                try:
                    sock, _ = listening.accept()
                except BlockingIOError:
                    break
                except OSError as error:
                    if error.errno not in _OUT_OF_SOMETHING:
                        continue  # that connection was gone again before it was accepted
                    log.error("accept_failed", reason=error.strerror)
                    await trio.sleep(_OUT_OF_SOMETHING_SECONDS)
                    break
                self._counters.accepted += 1
                if len(self._watch.lives) < self._limits.connections:
                    life = self._watch.add(self._limits.header_seconds)
                    connections.start_soon(self._serve_connection, sock, life)
                elif self._refusing < _REFUSED_AT_ONCE and self._ssl_context is None:
                    self._refusing += 1
                    connections.start_soon(self._refuse_connection, sock)
                else:
                    self._counters.refused[OVERLOADED.code] += 1
                    sock.close()

    async def _refuse_connection(self, sock: socket.socket) -> None:
        self._counters.refused[OVERLOADED.code] += 1
        wire = SocketWire(sock, "", self._limits)
        try:
            with trio.move_on_after(LINGER_SECONDS):
                await wire.send(self._answers.encode(OVERLOADED.response(), CLOSE))
                await wire.finish()
                while await wire.receive():
                    pass
        except trio.BrokenResourceError:
            return
        finally:
            self._refusing -= 1
            wire.abort()

    async def _serve_connection(self, sock: socket.socket, life: Life) -> None:
        """Take one connection through the lanes; the boundary at which its bugs end."""
        try:
            for option in _KEEP_ALIVE:
                sock.setsockopt(*option)
            peer = sock.getpeername()
            own = sock.getsockname()
        except OSError:
            self._watch.remove(life)
            sock.close()
            return  # gone again already
        client = _host_and_port(peer)[0]
        wire: Wire
        tls: trio.SSLStream[trio.SocketStream] | None = None
        if self._ssl_context is None:
            wire = SocketWire(sock, client, self._limits)
        else:
            sock.setblocking(False)
            transport = trio.SocketStream(trio.socket.from_stdlib_socket(sock))
            tls = trio.SSLStream(transport, self._ssl_context, server_side=True, https_compatible=True)
            wire = StreamWire(tls, client, self._limits, transport)
        self._wires.add(wire)
        try:
            if tls is not None and not await self._shake_hands(tls):
                return
            departure = await self._ingest.serve(wire, life)
            if departure is None:
                return
            if departure.head is not None:
                life.lane = "realtime"
                await self._realtime.serve(wire, departure.head, departure.rest)
            else:
                life.lane = "hypercorn"
                handed = (wire, life, departure.rest, self._limits, peer, own)
                stream = HandedOver(*handed) if tls is None else HandedOverTLS(*handed, tls.selected_alpn_protocol())
                await self._hypercorn.serve(stream, life)
        except* Exception:
            self._counters.failed += 1
            log.exception("connection_failed", lane=life.lane)
        finally:
            await wire.close()
            self._wires.discard(wire)
            self._watch.remove(life)

    async def _shake_hands(self, tls: trio.SSLStream[trio.SocketStream]) -> bool:
        with trio.move_on_after(self._limits.header_seconds - self._limits.sweep_seconds):
            try:
                await tls.do_handshake()
            except trio.BrokenResourceError:
                return False  # not TLS, or no common ground
            return True
        return False


async def _listen(host: str | None, port: int) -> list[socket.socket]:
    """Open the port, as bare sockets: the ingest lane wants accepted ones bare (see SocketWire)."""
    listeners = await trio.open_tcp_listeners(port, host=host)
    listening = [socket.socket(fileno=listener.socket.detach()) for listener in listeners]
    for sock in listening:
        sock.setblocking(False)
    return listening


def _host_and_port(address: tuple[str, int, int, int] | Address) -> Address:
    """Return the readable half of a socket address; an IPv4 peer of an IPv6 socket is an IPv4 peer."""
    return address[0].removeprefix("::ffff:"), address[1]
