"""The load generator against a server that does what the test says: what it counts, and that nothing flatters the server."""

import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
from hdrh.histogram import HdrHistogram

from bench.bodies import Work, bodies, item_of
from bench.load import Generator, Plan, Result
from bench.measure import Load
from bench.scenario import Context, Settings
from bench.server import Server as DeadServer
from bench.simulators.world import SimTenant
from bench.worker import WorkerFailed
from protocol.signatures import sign

TENANTS = tuple(SimTenant(f"30000000000000{n}", f"20000000000000{n}", f"secret-{n}", f"493000000{n}") for n in range(3))
WORK = Work(TENANTS, conversations=50)

Answering = Callable[[int], Awaitable[bytes | None]]
"""Takes the place of a request in the order of arrival, returns the whole answer; None breaks the connection."""


def answer(status: int = 200, more: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: 2\r\n%b\r\nok" % (status, more)


class Server:
    def __init__(self, answering: Answering) -> None:
        self.requests: list[bytes] = []
        self.connections = 0
        self.url = ""
        self._answering = answering

    async def serve(self, stream: trio.SocketStream) -> None:
        self.connections += 1
        buffer = b""
        while True:
            while b"\r\n\r\n" not in buffer:
                if not (received := await stream.receive_some(65536)):
                    return
                buffer += received
            head, _, rest = buffer.partition(b"\r\n\r\n")
            size = int(dict(line.split(b": ", 1) for line in head.split(b"\r\n")[1:])[b"Content-Length"])
            while len(rest) < size:
                rest += await stream.receive_some(65536)
            buffer = rest[size:]
            self.requests.append(head + b"\r\n\r\n" + rest[:size])
            answered = await self._answering(len(self.requests) - 1)
            if answered is None:
                return
            await stream.send_all(answered)
            if b"close" in answered:
                return


@asynccontextmanager
async def serving(answering: Answering) -> AsyncIterator[Server]:
    server = Server(answering)
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/hook"
        yield server
        nursery.cancel_scope.cancel()


async def generate(plan: Plan) -> Result:
    return await trio.to_thread.run_sync(Generator(plan).run)


async def ok(_: int) -> bytes:
    return answer()


@pytest.mark.slow
async def test_everything_composed_is_sent_once_signed_and_counted() -> None:
    async with serving(ok) as server:
        result = await generate(
            Plan(url=server.url, work=WORK, seconds=30, warmup=0, connections=7, first=40, most=100)
        )
    assert result.sent_ever == result.acknowledged_ever == result.answers[200] == 100
    assert (result.last, result.unacknowledged, result.broken, server.connections) == (140, [], 0, 7)
    assert result.limited  # it ran out of requests: the server could have taken more
    composed = Counter(body for _, body in bodies(WORK, 100, first=40))
    assert Counter(request.partition(b"\r\n\r\n")[2] for request in server.requests) == composed
    secrets = {each.phone_number_id.encode(): each.app_secret.encode() for each in TENANTS}
    for request in server.requests:
        head, _, body = request.partition(b"\r\n\r\n")
        [secret] = [secret for number, secret in secrets.items() if number in body]
        assert b"X-Hub-Signature-256: " + sign(secret, body) in head


@pytest.mark.slow
async def test_refused_and_broken_requests_are_named() -> None:
    async def now_and_then(place: int) -> bytes | None:
        return answer(503) if place % 10 == 3 else None if place % 10 == 6 else answer(more=b"Connection: close\r\n")

    async with serving(now_and_then) as server:
        result = await generate(Plan(url=server.url, work=WORK, seconds=30, warmup=0, connections=3, most=100))
    numbers = {body: number for number, (_, body) in enumerate(bodies(WORK, 100))}
    spoilt = sorted(
        numbers[request.partition(b"\r\n\r\n")[2]]
        for place, request in enumerate(server.requests)
        if place % 10 in (3, 6)
    )
    assert sorted(result.unacknowledged) == spoilt
    assert result.answers == {200: 80, 503: 10}
    assert (result.broken, result.acknowledged_ever, result.sent_ever) == (10, 80, 100)


@pytest.mark.slow
async def test_a_stall_is_charged_for_all_that_had_to_wait() -> None:
    async def stalls_once(place: int) -> bytes:
        if place == 50:
            await trio.sleep(0.5)  # the behaviour under test, not a wait for something
        return answer()

    async with serving(stalls_once) as server:
        result = await generate(Plan(url=server.url, work=WORK, rate=200.0, seconds=1.0, warmup=0, connections=1))
    # Due every 5 ms, so a stall of half a second delays a hundred; a closed loop would have seen one slow answer.
    times = HdrHistogram.decode(result.histogram)
    late = times.get_total_count() - times.get_count_at_value(1)
    slow = sum(
        each.count_at_value_iterated_to for each in times.get_recorded_iterator() if each.value_iterated_to > 100_000
    )
    assert late >= slow >= 60
    assert result.max_us >= 450_000


@pytest.mark.slow
async def test_warm_up_is_not_measured_and_an_overload_is_told() -> None:
    async def slow(_: int) -> bytes:
        await trio.sleep(0.02)
        return answer()

    async with serving(slow) as server:
        result = await generate(Plan(url=server.url, work=WORK, rate=500.0, seconds=0.5, warmup=0.5, connections=1))
    assert result.acknowledged_ever == result.sent_ever
    assert 0 < result.answers[200] < 0.75 * result.acknowledged_ever
    assert result.overdue > 300  # of five hundred that were due, at most fifty could be sent
    assert result.p50_us > 400_000  # and those had waited since long before


async def test_message_ids_tell_their_numbers() -> None:
    [(_, body)] = bodies(Work(TENANTS, seed=7), 1, first=123)
    message_id = body.partition(b'"id":"wamid.')[2].partition(b'"')[0].decode()
    assert item_of(f"wamid.{message_id}", 7) == 123
    assert item_of(f"wamid.{message_id}", 8) is None
    assert item_of("wamid.somebody-elses", 7) is None


@pytest.mark.slow
async def test_a_server_that_is_not_there_is_named_not_measured(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    context = Context(Settings(), tmp_path, lambda _: None)
    load = Load(context, DeadServer(url, TENANTS, (), None), conversations=5)
    with pytest.RaisesGroup(pytest.RaisesExc(WorkerFailed, match="Connection refused"), flatten_subgroups=True):
        await load.closed(seconds=1.0, warmup=0.0, most=10)
