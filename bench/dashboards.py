"""Many dashboards in one process: `python -m bench.dashboards`, a plan on standard input, a result on standard output.

Owns following one tenant's feed over thousands of connections at next to no cost, counting what each is sent, and noting when. Must not know
what server it is, nor when anything was sent: a sample says *message n arrived at t*, and whoever knows the schedule makes a time of it.

It says `ready` on standard error when all follow. The order `settle <offset>` on standard input makes it wait until every dashboard has that
offset (or nothing has come for `quiet` seconds) and say `settled`; `until <offset>` does the same and makes it answer and end.

Each dashboard is a plain non-blocking socket: a frame is recognised by its length and its first bytes and looked into only if it is one of the
sample. Server frames by RFC 6455 section 5.2; requests by docs/realtime.md.
"""

import array
import gc
import re
import selectors
import socket
import sys
import time
from collections import Counter
from resource import RLIMIT_NOFILE, getrlimit, setrlimit
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from bench.bodies import DIGITS, MESSAGE_ID
from bench.load import cpu_seconds

Transport = Literal["websocket", "socketio"]

AT_ONCE = 64
"""Connections being opened at a time: a listener's backlog is no part of the measurement."""
CONNECT_SECONDS = 120.0
DRAIN_SECONDS = 120.0
RECEIVE_BYTES = 1 << 18
BUCKETS = 10
"""Counts are kept by so many parts of a second."""

_EVENT = {"websocket": b'{"type":"event"', "socketio": b'42["event"'}
_SUBSCRIBED = b'"subscribed"'
_ID = MESSAGE_ID.encode()


class DashboardPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Who follows what. Every `sample`-th event of each dashboard is looked into.

    What has not come when nothing at all came for `quiet` seconds is lost.
    """

    url: str
    key: str
    count: int
    transport: Transport = "websocket"
    sample: int = 1
    quiet: float = 5.0


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What the dashboards saw.

    `items[i]` arrived at `arrivals[i]` (`time.monotonic()`), for the sample. `buckets` are events by parts of a second (BUCKETS) from
    `began_at` on, and `cpu` what this process had used by each. `lost` and `repeated` compare each dashboard that stayed with the
    offsets it should have been sent; `closed` ones are those that the server put out, by code (0: without one).
    """

    dashboards: int
    refused: int
    closed: dict[int, int]
    events: int
    lost: int
    repeated: int
    items: list[int]
    arrivals: list[float]
    began_at: float
    buckets: list[int]
    cpu: list[float]
    bytes_received: int

    def events_between(self, begin: float, end: float) -> list[int]:
        """Return the buckets of a time of `time.monotonic()`."""
        return self.buckets[self._bucket(begin) : self._bucket(end)]

    def cpu_between(self, begin: float, end: float) -> float:
        """Return the CPU seconds that this process used in a time of `time.monotonic()`."""
        found = self.cpu[self._bucket(begin) : self._bucket(end) + 1]
        return found[-1] - found[0] if found else 0.0

    def _bucket(self, at: float) -> int:
        return max(round((at - self.began_at) * BUCKETS), 0)


class _Dashboard:
    __slots__ = ("base", "events", "out", "phase", "ready", "rest", "sock", "upgraded")

    def __init__(self, sock: socket.socket, out: bytes, phase: int) -> None:
        self.sock = sock
        self.out = out
        self.rest = b""
        self.upgraded = False
        self.ready = False
        self.base = 0
        self.events = 0
        self.phase = phase


class _Gone(Exception):
    def __init__(self, code: int = 0) -> None:
        self.code = code


class Dashboards:
    """One run of a plan."""

    def __init__(self, plan: DashboardPlan) -> None:
        parts = urlsplit(plan.url)
        if parts.scheme != "http":
            raise SystemExit(f"{plan.url}: dashboards are measured over plain http only")
        self.plan = plan
        self._host = parts.netloc
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        self._event = _EVENT[plan.transport]
        self._selector = selectors.DefaultSelector()
        self._open: set[_Dashboard] = set()
        self._ready = self._refused = self._bytes = self._events = 0
        self._closed: Counter[int] = Counter()
        self._items, self._arrivals = array.array("q"), array.array("d")
        self._began_at = time.monotonic()
        self._buckets = [0]
        self._cpu = [0.0]

    def connect(self) -> None:
        """Open all dashboards, and return when each follows or was refused."""
        started = 0
        deadline = time.monotonic() + CONNECT_SECONDS
        told = time.monotonic()
        while self._ready + self._refused < self.plan.count:
            while started < self.plan.count and started - self._ready - self._refused < AT_ONCE:
                self._start(started)
                started += 1
            self._turn(0.1)
            if time.monotonic() - told > 0.5:
                told = time.monotonic()
                _say(f"connected {self._ready}")
            if time.monotonic() > deadline:
                break
        for dashboard in [each for each in self._open if not each.ready]:
            self._drop(dashboard, 0)
        gc.freeze()
        gc.disable()  # nothing here makes cycles
        _say(f"ready {self._ready} {self._refused}")

    def follow(self) -> Seen:
        """Take events and orders until told the last offset and everyone has it."""
        self._selector.register(sys.stdin, selectors.EVENT_READ, None)
        while True:
            while not self._turn(1.0):
                pass
            order, offset = sys.stdin.readline().split()
            until = int(offset)
            self._catch_up(until)
            if order == "until":
                break
            _say("settled")
        self._selector.unregister(sys.stdin)
        missing = [until - each.base - each.events for each in self._open]
        return Seen(
            dashboards=self._ready,
            refused=self._refused,
            closed=dict(self._closed),
            events=self._events,
            lost=sum(number for number in missing if number > 0),
            repeated=-sum(number for number in missing if number < 0),
            items=self._items.tolist(),
            arrivals=self._arrivals.tolist(),
            began_at=self._began_at,
            buckets=self._buckets,
            cpu=self._cpu,
            bytes_received=self._bytes,
        )

    def _catch_up(self, until: int) -> None:
        deadline = time.monotonic() + DRAIN_SECONDS
        heard, events = time.monotonic(), self._events
        while any(each.base + each.events < until for each in self._open):
            self._turn(0.1)
            now = time.monotonic()
            if self._events > events:
                heard, events = now, self._events
            if now > deadline or now - heard > self.plan.quiet:
                break

    def _start(self, number: int) -> None:
        sock = socket.create_connection(self._address, timeout=10)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        path = "/ws" if self.plan.transport == "websocket" else "/socket.io/?EIO=4&transport=websocket"
        # The key's bytes are irrelevant: a server's answer to them is not checked (RFC 6455, section 4.1).
        sock.send(
            f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nx-api-key: {self.plan.key}\r\n\r\n".encode()
        )
        dashboard = _Dashboard(sock, b"", number % self.plan.sample)
        self._open.add(dashboard)
        self._selector.register(sock, selectors.EVENT_READ, dashboard)

    def _turn(self, timeout: float) -> bool:
        """Take what has arrived; return whether an order is among it."""
        ordered = False
        for key, _ in self._selector.select(timeout):
            dashboard: _Dashboard | None = key.data
            if dashboard is None:
                ordered = True
                continue
            try:
                self._receive(dashboard)
            except _Gone as gone:
                self._drop(dashboard, gone.code)
            except OSError:
                self._drop(dashboard, 0)
        return ordered

    def _receive(self, dashboard: _Dashboard) -> None:
        try:
            data = dashboard.sock.recv(RECEIVE_BYTES)
        except BlockingIOError:
            return
        if not data:
            raise _Gone
        now = time.monotonic()
        self._bytes += len(data)
        if dashboard.rest:
            data = dashboard.rest + data
        at = 0
        if not dashboard.upgraded:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                dashboard.rest = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                raise _Gone
            dashboard.upgraded = True
            self._greet(dashboard)
            at = head + 4
        before = dashboard.events
        try:
            dashboard.rest = self._frames(dashboard, data, at, now)
        finally:  # a close frame may follow on events
            self._count(dashboard.events - before, now)

    def _frames(self, dashboard: _Dashboard, data: bytes, at: int, now: float) -> bytes:
        """Take the whole frames of `data` and return what is left. The hot path: once per delivered event."""
        event, sample, size = self._event, self.plan.sample, len(data)
        while size - at >= 2:
            length, begin = data[at + 1], at + 2
            if length >= 126:
                wide = 2 if length == 126 else 8
                begin += wide
                length = int.from_bytes(data[at + 2 : begin], "big")
            end = begin + length
            if end > size:
                break
            if data.startswith(event, begin):
                dashboard.events += 1
                if dashboard.events % sample == dashboard.phase:
                    self._look_into(data, begin, end, now)
            else:
                self._answer(dashboard, data[at] & 15, data[begin:end])
            at = end
        return data[at:]

    def _count(self, events: int, now: float) -> None:
        self._events += events
        bucket = int((now - self._began_at) * BUCKETS)
        if bucket >= len(self._buckets):
            more = bucket + 1 - len(self._buckets)
            self._buckets.extend([0] * more)
            self._cpu.extend([cpu_seconds()] * more)
        self._buckets[bucket] += events

    def _look_into(self, data: bytes, begin: int, end: int, now: float) -> None:
        at = data.find(_ID, begin, end)
        if at >= 0:
            close = data.index(b'"', at)
            self._items.append(int(data[close - DIGITS : close]))
            self._arrivals.append(now)

    def _greet(self, dashboard: _Dashboard) -> None:
        if self.plan.transport == "websocket":
            _send(dashboard, 1, b'{"type":"subscribe","topics":["tenant"],"id":1}')
        else:
            _send(dashboard, 1, b"40")  # CONNECT to the namespace /; the key was in the header

    def _answer(self, dashboard: _Dashboard, opcode: int, payload: bytes) -> None:
        """Take a frame that is no event: answer a ping, a welcome; note the beginning of the subscription."""
        if opcode == 8:
            raise _Gone(int.from_bytes(payload[:2], "big"))
        if opcode == 9:
            _send(dashboard, 10, payload)
        elif self.plan.transport == "socketio" and payload == b"2":
            _send(dashboard, 1, b"3")
        elif self.plan.transport == "socketio" and payload.startswith(b'42["welcome"'):
            _send(dashboard, 1, b'421["subscribe",{"topics":["tenant"]}]')
        elif self.plan.transport == "socketio" and payload.startswith(b"44"):
            raise _Gone
        elif _SUBSCRIBED in payload:
            # Events in front of the answer would be a catch-up, and none was asked for.
            dashboard.base = _offset(payload) - dashboard.events
            dashboard.ready = True
            self._ready += 1

    def _drop(self, dashboard: _Dashboard, code: int) -> None:
        self._selector.unregister(dashboard.sock)
        dashboard.sock.close()
        self._open.discard(dashboard)
        if dashboard.ready:
            self._closed[code] += 1
        else:
            self._refused += 1


def _send(dashboard: _Dashboard, opcode: int, payload: bytes) -> None:
    # Masked with zeros, which leaves the payload as it is (RFC 6455, section 5.3). All of it is short, and the buffer empty.
    dashboard.sock.send(bytes((0x80 | opcode, 0x80 | len(payload), 0, 0, 0, 0)) + payload)


def _offset(payload: bytes) -> int:
    found = re.search(rb'"offset":(\d+)', payload)
    if found is None:
        raise _Gone
    return int(found[1])


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def most_files() -> int:
    """Raise the number of files this process may open as far as it may, and return it."""
    _, hard = getrlimit(RLIMIT_NOFILE)
    setrlimit(RLIMIT_NOFILE, (hard, hard))
    return hard


def main() -> None:
    """Read a plan, run it, write the result."""
    most_files()
    dashboards = Dashboards(msgspec.json.decode(sys.stdin.readline(), type=DashboardPlan))
    dashboards.connect()
    sys.stdout.buffer.write(msgspec.json.encode(dashboards.follow()))


if __name__ == "__main__":
    main()
