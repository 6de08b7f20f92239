"""The load generator, a process of its own: `python -m bench.load`, a plan on standard input, a result on standard output.

Owns sending at a rate or to saturation, and honest times. Must not know what server it loads, nor what is in a request.

Open loop (`rate`): request n is due at start + n / rate whether or not earlier ones are answered, and its time counts from when it was due, so a
server that stalls is charged for everything that had to wait (no coordinated omission). What is answered within the measured time counts, and
what is on its way at its end with the time it takes in the end. Closed loop (`rate` None): each connection sends its next request when the last
is answered; that finds the saturation and says nothing of times at lower rates.

It speaks HTTP/1.1 over plain non-blocking sockets and epoll, because a generator that shares two cores with what it measures must cost
little: about 15 µs a request. It reports its own CPU, and `limited` when it, not the server, was the bottleneck.
"""

import array
import gc
import math
import selectors
import socket
import sys
import time
from collections import Counter, deque
from resource import RUSAGE_SELF, getrusage
from urllib.parse import urlsplit

import msgspec
from hdrh.histogram import HdrHistogram

from bench.bodies import Work, requests

LONGEST_US = 60_000_000
"""Times above a minute count as one minute."""

FINISH_SECONDS = 10.0
"""How long answers are waited for after the last request was sent."""

BEGIN, END = "begin", "end"
"""The lines on standard error that bound the measured time; between them and before, `<seconds> <answers>` twice a second."""

BUSY = 0.95
"""A generator that uses more of its core than this was the limit."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. `seconds` are measured after `warmup` seconds that are not; `connections` are open at once."""

    url: str
    work: Work
    rate: float | None = None
    seconds: float = 10.0
    warmup: float = 2.0
    connections: int = 64
    first: int = 0
    most: int = 400_000
    """Requests composed beforehand in a closed loop, some 1 KB each; the run ends early if they are used up."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """What came of it, within the measured time. Times in microseconds; `histogram` is HdrHistogram's own base64 text.

    `answers` and `per_second` are what was answered before its end. `overdue` requests were due by then and could not be sent yet, because all
    connections were waiting: they have no time, and more than a few of them mean an overload.

    `sent_ever` and `acknowledged_ever` include warm-up: what a checker has to find. `last` is the number after the last request sent,
    `unacknowledged` are the numbers of those that were sent and not answered with 200.
    """

    seconds: float
    answers: dict[int, int]
    per_second: list[int]
    overdue: int
    histogram: str
    p50_us: int
    p90_us: int
    p99_us: int
    p999_us: int
    max_us: int
    broken: int
    sent_ever: int
    acknowledged_ever: int
    last: int
    unacknowledged: list[int]
    cpu_seconds: float
    limited: bool
    """The generator used nearly all of its core, or ran out of composed requests: the server could have done more."""
    started_at: float
    """`time.monotonic()` when request `first` was due; with a rate, that of every other follows."""
    begun_at: float
    """`time.monotonic()` at the beginning of the measured time, for matching with samples of the server."""

    @property
    def per_second_mean(self) -> float:
        """Acknowledged requests a second."""
        return self.answers.get(200, 0) / self.seconds if self.seconds else 0.0


class _Connection:
    """One socket with at most one request on its way."""

    __slots__ = ("buffer", "due", "number", "out", "sock", "waiting")

    def __init__(self, address: tuple[str, int]) -> None:
        self.sock = socket.create_connection(address, timeout=10)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.setblocking(False)
        self.buffer = b""
        self.out = b""
        self.due = 0.0
        self.number = 0
        self.waiting = False


class _Broken(Exception):
    pass


class Generator:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        parts = urlsplit(plan.url)
        self._address = (parts.hostname or "127.0.0.1", parts.port or 80)
        span = plan.warmup + plan.seconds
        count = plan.most if plan.rate is None else int(plan.rate * span) + 1
        self._requests = requests(plan.work, count, parts.netloc, parts.path or "/", first=plan.first)
        self._selector = selectors.DefaultSelector()
        self._idle: deque[_Connection] = deque()
        self._next = 0
        self._in_flight = 0
        self._answers: Counter[int] = Counter()
        self._ever: Counter[int] = Counter()
        self._times = array.array("q")
        self._per_second = [0] * (int(plan.seconds) + 1)
        self._ended = math.inf
        self._broken = 0
        self._unacknowledged: list[int] = []

    def run(self) -> Result:
        """Send, and return what came of it. Raises OSError when nobody listens."""
        plan = self.plan
        for _ in range(plan.connections):
            self._idle.append(self._open())
        start = time.monotonic()
        measured, end = start + plan.warmup, start + plan.warmup + plan.seconds
        cpu = 0.0
        measuring = False
        told = start
        while True:
            now = time.monotonic()
            if not measuring and now >= measured:
                measuring, cpu = True, cpu_seconds()
                _say(BEGIN)
            if now >= end:
                break
            if now - told >= 0.5:
                told = now
                _say(f"{now - start:.1f} {sum(self._ever.values())}")
            wait = self._send_due(now, start)
            if wait is None and not self._in_flight:
                break  # everything composed is sent and answered
            for key, events in self._selector.select(min(0.1 if wait is None else wait, end - now)):
                connection: _Connection = key.data
                try:
                    if events & selectors.EVENT_WRITE:
                        self._write(connection)
                    if events & selectors.EVENT_READ:
                        self._read(connection, measured)
                except (_Broken, OSError):
                    self._replace(connection)
        ended = min(time.monotonic(), end)
        self._ended = ended
        cpu = cpu_seconds() - cpu
        _say(END)
        self._finish(ended + FINISH_SECONDS, measured)
        for key in list(self._selector.get_map().values()):
            self._close(key.data)
        self._selector.close()
        return self._result(start, measured, cpu)

    def _open(self) -> _Connection:
        connection = _Connection(self._address)
        self._selector.register(connection.sock, selectors.EVENT_READ, connection)
        return connection

    def _send_due(self, now: float, start: float) -> float | None:
        """Send what is due as far as connections are idle; return how long until the next is due, None if nothing is left to send."""
        rate = self.plan.rate
        while self._next < len(self._requests):
            due = now if rate is None else start + self._next / rate
            if due > now:
                return due - now
            if not self._idle:
                return 0.1
            connection = self._idle.popleft()
            connection.due = due
            connection.number = self.plan.first + self._next
            connection.out = self._requests[self._next]
            self._next += 1
            self._in_flight += 1
            try:
                self._write(connection)
            except OSError:
                self._replace(connection)
        return None

    def _write(self, connection: _Connection) -> None:
        try:
            sent = connection.sock.send(connection.out)
        except BlockingIOError:
            sent = 0
        connection.out = connection.out[sent:]
        if connection.out:  # rare: a request is smaller than a socket's buffer
            self._selector.modify(connection.sock, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)
            connection.waiting = True
        elif connection.waiting:
            self._selector.modify(connection.sock, selectors.EVENT_READ, connection)
            connection.waiting = False

    def _read(self, connection: _Connection, measured: float) -> None:
        try:
            data = connection.sock.recv(65536)
        except BlockingIOError:
            return
        if not data:
            raise _Broken
        buffer = connection.buffer + data if connection.buffer else data
        head = buffer.find(b"\r\n\r\n")
        if head < 0 or len(buffer) < (size := head + 4 + _length(buffer, head)):
            connection.buffer = buffer
            return
        connection.buffer = buffer[size:]
        status = int(buffer[9:12])
        now = time.monotonic()
        self._ever[status] += 1
        if status != 200:
            self._unacknowledged.append(connection.number)
        if now >= measured:
            self._times.append(int((now - connection.due) * 1e6))
            if now < self._ended:
                self._answers[status] += 1
                self._per_second[min(int(now - measured), len(self._per_second) - 1)] += 1
        self._in_flight -= 1
        if b"onnection: close" in buffer[:head]:
            self._close(connection)
            self._idle.append(self._open())
        else:
            self._idle.append(connection)

    def _replace(self, connection: _Connection) -> None:
        self._broken += 1
        self._in_flight -= 1
        self._unacknowledged.append(connection.number)
        self._close(connection)
        self._idle.append(self._open())

    def _close(self, connection: _Connection) -> None:
        self._selector.unregister(connection.sock)
        connection.sock.close()

    def _finish(self, deadline: float, measured: float) -> None:
        """Take the answers that are still on their way, so that what was acknowledged is known; they are late, and count as such."""
        while self._in_flight and time.monotonic() < deadline:
            for key, events in self._selector.select(0.1):
                try:
                    if events & selectors.EVENT_WRITE:
                        self._write(key.data)
                    self._read(key.data, measured)
                except (_Broken, OSError):
                    self._in_flight -= 1
                    self._unacknowledged.append(key.data.number)
                    self._close(key.data)
        idle = set(map(id, self._idle))
        waiting = (key.data for key in self._selector.get_map().values())
        self._unacknowledged += [each.number for each in waiting if id(each) not in idle]

    def _result(self, start: float, measured: float, cpu: float) -> Result:
        histogram = HdrHistogram(1, LONGEST_US, 3)
        for value in self._times:
            histogram.record_value(min(max(value, 1), LONGEST_US))
        seconds = max(self._ended - measured, 1e-9)
        rate = self.plan.rate
        due = 0 if rate is None else min(int((self._ended - start) * rate), len(self._requests))
        return Result(
            seconds=seconds,
            answers=dict(self._answers),
            per_second=self._per_second[: int(seconds)],
            overdue=max(due - self._next, 0),
            histogram=histogram.encode().decode(),
            p50_us=histogram.get_value_at_percentile(50),
            p90_us=histogram.get_value_at_percentile(90),
            p99_us=histogram.get_value_at_percentile(99),
            p999_us=histogram.get_value_at_percentile(99.9),
            max_us=histogram.get_max_value(),
            broken=self._broken,
            sent_ever=self._next,
            acknowledged_ever=self._ever[200],
            last=self.plan.first + self._next,
            unacknowledged=self._unacknowledged,
            cpu_seconds=cpu,
            limited=cpu / seconds > BUSY or (self.plan.rate is None and self._next == len(self._requests)),
            started_at=start,
            begun_at=measured,
        )


def _length(buffer: bytes, head: int) -> int:
    at = buffer.find(b"ontent-", 0, head)
    while at >= 0:
        if buffer[at : at + 14].lower() == b"ontent-length:":
            return int(buffer[at + 14 : buffer.find(b"\r\n", at)])
        at = buffer.find(b"ontent-", at + 1, head)
    return 0


def _say(line: str) -> None:
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def cpu_seconds() -> float:
    """Return the CPU time this process has used."""
    usage = getrusage(RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    """Read a plan, run it, write the result."""
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=Plan)
    generator = Generator(plan)
    # A collection would walk everything composed, and the server be charged for it; and nothing here makes cycles.
    gc.freeze()
    gc.disable()
    sys.stdout.buffer.write(msgspec.json.encode(generator.run()))


if __name__ == "__main__":
    main()
