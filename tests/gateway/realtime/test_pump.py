"""The pump: one task writes to all clients, and leaves to theirs only what a client does not take."""

import functools

import pytest
import trio
from quart_trio import QuartTrio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.http import NOTHING, Frame, SocketClosed, WebSocket
from gateway.listener import Limits, Listener
from gateway.realtime.outbox import Outbox
from gateway.realtime.pump import LONGEST_REST, REST_PER_WRITE, Pump


class Client:
    """An outbox with its task, and a direct way to write that takes what `takes` says."""

    def __init__(self, pump: Pump) -> None:
        self.outbox: Outbox[Frame] = Outbox(10_000, pump)
        self.outbox.write_through(self.direct)
        self.written: list[tuple[str, bytes]] = []
        self.takes = "all"

    def direct(self, frames: list[Frame]) -> list[Frame]:
        match self.takes:
            case "nothing":
                return frames
            case "a part":
                self.written += [("pump", frame.payload) for frame in frames]
                return [NOTHING]
            case "gone":
                raise SocketClosed
        self.written += [("pump", frame.payload) for frame in frames]
        return []

    async def run(self) -> None:
        while batch := await self.outbox.drain():
            self.written += [("task", frame.payload) for frame in batch]


@pytest.fixture
async def pump(nursery: trio.Nursery) -> Pump:
    made = Pump()
    await nursery.start(made.run)
    return made


@pytest.fixture
async def client(pump: Pump, nursery: trio.Nursery) -> Client:
    made = Client(pump)
    nursery.start_soon(made.run)
    await wait_all_tasks_blocked()
    return made


async def test_what_is_pushed_in_one_go_is_one_write_without_the_task(client: Client) -> None:
    for number in range(3):
        assert client.outbox.push(Frame(b"%d" % number))
    await wait_all_tasks_blocked()
    assert client.written == [("pump", b"0"), ("pump", b"1"), ("pump", b"2")]
    assert client.outbox.held_bytes == 0


@pytest.mark.parametrize(
    ("takes", "expected"),
    [
        ("nothing", [("task", b"x"), ("task", b"y")]),
        ("gone", [("task", b"x"), ("task", b"y")]),
        ("a part", [("pump", b"x"), ("pump", b"y"), ("task", b"")]),
    ],
)
async def test_what_is_not_taken_is_left_to_the_task(
    client: Client, takes: str, expected: list[tuple[str, bytes]]
) -> None:
    client.takes = takes
    client.outbox.push(Frame(b"x"))
    client.outbox.push(Frame(b"y"))
    await wait_all_tasks_blocked()
    assert client.written == expected
    client.takes = "all"
    client.outbox.push(Frame(b"z"))
    with trio.fail_after(1):
        while client.written[-1] != ("pump", b"z"):
            await wait_all_tasks_blocked()
            await trio.sleep(0.001)


async def test_a_closed_queue_gives_the_rest_to_its_task(client: Client) -> None:
    client.outbox.push(Frame(b"last"))
    client.outbox.close()
    await wait_all_tasks_blocked()
    assert client.written == [("task", b"last")]


async def test_the_rest_grows_with_the_number_of_writes(
    pump: Pump, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    for count in (1, 100, 2000):
        clients = [Client(pump) for _ in range(count)]
        async with trio.open_nursery() as tasks:
            for client in clients:
                tasks.start_soon(client.run)
            await wait_all_tasks_blocked()
            await trio.sleep(1)
            began = trio.current_time()
            for client in clients:
                client.outbox.push(Frame(b"first"))
            await wait_all_tasks_blocked()
            assert all(client.written for client in clients)
            assert trio.current_time() == began  # when it was quiet, at once
            clients[0].outbox.push(Frame(b"second"))
            while len(clients[0].written) < 2:  # noqa: ASYNC110  the virtual time it takes is what is asked
                await trio.sleep(0.0001)
            assert trio.current_time() - began == pytest.approx(min(count * REST_PER_WRITE, LONGEST_REST), abs=0.0002)
            tasks.cancel_scope.cancel()


@pytest.mark.slow
async def test_over_a_real_socket_nothing_is_lost_or_reordered(nursery: trio.Nursery, pump: Pump) -> None:
    """A client that reads in fits: the pump, the lane's remainder and the client's own task take turns."""
    outbox: Outbox[Frame] = Outbox(64 << 20, pump)

    async def serve(ws: WebSocket) -> None:
        await ws.accept()
        outbox.write_through(ws.try_send_frames)
        while batch := await outbox.drain():
            await ws.send_frames(batch)
        await ws.close()

    listener = Listener(handlers={}, sockets={"/ws": serve}, app=QuartTrio("x"), limits=Limits(drain_seconds=1))  # type: ignore[arg-type]
    [(host, port)] = await nursery.start(functools.partial(listener.serve, "127.0.0.1", 0))
    async with await trio.open_tcp_stream(host, port) as stream:
        await stream.send_all(
            b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-version: 13\r\n"
            b"sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        received = b""
        while b"\r\n\r\n" not in received:
            received += await stream.receive_some()
        frames = [Frame(b"%06d" % number + b"." * (number * 37 % 3000)) for number in range(6000)]

        async def produce() -> None:
            for number, frame in enumerate(frames):
                assert outbox.push(frame)
                if number % 50 == 0:
                    await trio.sleep(0.001)
            outbox.close()

        nursery.start_soon(produce)
        received = received.partition(b"\r\n\r\n")[2]
        expected = b"".join(frame.wire for frame in frames)
        with trio.fail_after(20):
            while len(received) < len(expected):
                if len(received) % 7 == 0:
                    await trio.sleep(0.005)  # long enough for the kernel's buffers to fill
                received += await stream.receive_some(65536)
    assert received[: len(expected)] == expected
    nursery.cancel_scope.cancel()
