"""The dashboards' process against a scripted server: frames in odd pieces, pings, what is lost, who is put out."""

import itertools
import json
from collections.abc import Iterable

import pytest
import trio

from bench.bodies import MESSAGE_ID
from bench.dashboards import DashboardPlan, Seen, Transport
from bench.worker import WorkerFailed, worker

BASE = 41


def frame(text: bytes, opcode: int = 1) -> bytes:
    size = len(text)
    if size < 126:
        return bytes((0x80 | opcode, size)) + text
    if size < 65536:
        return bytes((0x80 | opcode, 126)) + size.to_bytes(2, "big") + text
    return bytes((0x80 | opcode, 127)) + size.to_bytes(8, "big") + text


def event(transport: Transport, offset: int, item: int, padding: int) -> bytes:
    fields = f'"offset":{offset},"event":{{"message_id":"{MESSAGE_ID}1{item:016d}","body":"{"x" * padding}"}}'
    text = f'{{"type":"event",{fields}}}' if transport == "websocket" else f'42["event",{{{fields}}}]'
    return frame(text.encode())


class Server:
    """Lets one dashboard in and sends it `stream` in pieces of these sizes, over and over."""

    def __init__(self, transport: Transport, stream: bytes, sizes: Iterable[int]) -> None:
        self.transport = transport
        self.received = b""
        self.sent = trio.Event()
        self._stream = stream
        self._sizes = itertools.cycle(sizes)

    async def serve(self, stream: trio.SocketStream) -> None:
        request = await self._until(stream, b"\r\n\r\n")
        assert b"x-api-key: pk_test" in request
        await stream.send_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n")
        if self.transport == "websocket":
            await self._until(stream, b'"subscribe"')
            answer = b'{"type":"subscribed","epoch":"e","offset":%d,"id":1}' % BASE
        else:
            await self._until(stream, b"40")
            await stream.send_all(frame(b'40{"sid":"s"}') + frame(b'42["welcome",{"tenant":"t"}]'))
            await self._until(stream, b'421["subscribe"')
            answer = b'431[{"type":"subscribed","epoch":"e","offset":%d}]' % BASE
        data = frame(answer) + self._stream
        while data:
            size = next(self._sizes)
            await stream.send_all(data[:size])
            data = data[size:]
        self.sent.set()
        async for received in stream:
            self.received += received

    async def _until(self, stream: trio.SocketStream, text: bytes) -> bytes:
        received = b""
        while text not in received:
            received += await stream.receive_some(4096)
        return received


async def follow(server: Server, until: int, *, sample: int = 1) -> Seen:
    ready = trio.Event()

    async def on_line(line: str) -> None:
        if line == "ready 1 0":
            ready.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(trio.serve_tcp, server.serve, 0)
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        plan = DashboardPlan(url=url, key="pk_test", count=1, transport=server.transport, sample=sample, quiet=0.3)
        async with worker("bench.dashboards", plan=plan, on_line=on_line) as dashboards:
            await dashboards.wait_until(ready)
            await server.sent.wait()
            await dashboards.tell(f"until {until}".encode())
            seen = await dashboards.result(Seen)
        nursery.cancel_scope.cancel()
    return seen


@pytest.mark.slow
@pytest.mark.parametrize("transport", ["websocket", "socketio"])
@pytest.mark.parametrize("sizes", [(1,), (3, 1, 700), (1 << 20,)])
async def test_every_event_is_counted_however_it_arrives(transport: Transport, sizes: tuple[int, ...]) -> None:
    paddings = (0, 10, 60, 200, 3000, 0, 70_000 if sizes != (1,) else 300)
    events = [event(transport, BASE + 1 + n, 900 + n, padding) for n, padding in enumerate(paddings)]
    ping = frame(b"beat", opcode=9) if transport == "websocket" else frame(b"2")
    server = Server(transport, b"".join((*events[:3], ping, *events[3:])), sizes)
    seen = await follow(server, BASE + len(events))
    assert (seen.dashboards, seen.events, seen.lost, seen.repeated) == (1, len(events), 0, 0)
    assert seen.items == [900 + n for n in range(len(events))]
    assert seen.arrivals == sorted(seen.arrivals)
    assert sum(seen.buckets) == len(events)
    assert server.received == (b"\x8a\x84\0\0\0\0beat" if transport == "websocket" else b"\x81\x81\0\0\0\0003")


@pytest.mark.slow
async def test_what_is_missing_or_repeated_is_told() -> None:
    events = [event("websocket", BASE + 1 + n, n, 5) for n in range(10)]
    seen = await follow(Server("websocket", b"".join(events[:8]), (100,)), BASE + 10)
    assert (seen.events, seen.lost, seen.repeated) == (8, 2, 0)
    seen = await follow(Server("websocket", b"".join((*events, events[4])), (100,)), BASE + 10, sample=5)
    assert (seen.events, seen.lost, seen.repeated) == (11, 0, 1)
    assert seen.items == [4, 9]


@pytest.mark.slow
async def test_a_dashboard_that_is_put_out_is_no_loss_but_told() -> None:
    events = event("websocket", BASE + 1, 1, 5) + frame((4008).to_bytes(2, "big") + b"slow consumer", opcode=8)
    seen = await follow(Server("websocket", events, (100,)), BASE + 10)
    assert (seen.events, seen.lost, seen.closed) == (1, 0, {4008: 1})


@pytest.mark.slow
async def test_a_worker_that_fails_says_why() -> None:
    async def on_line(_: str) -> None:
        pass

    plan = DashboardPlan(url="https://gateway.test", key="pk_test", count=1)
    async with worker("bench.dashboards", plan=plan, on_line=on_line) as dashboards:
        with pytest.raises(WorkerFailed, match="plain http only"):
            await dashboards.result(Seen)


def test_figures_of_a_stretch_are_cut_out_of_the_whole() -> None:
    seen = Seen(
        **json.loads('{"dashboards":1,"refused":0,"closed":{},"lost":0,"repeated":0,"items":[],"arrivals":[]}'),
        events=21,
        began_at=100.0,
        buckets=[1, 2, 3, 4, 5, 6],
        cpu=[0.0, 0.1, 0.2, 0.4, 0.8, 1.6],
        bytes_received=0,
    )
    assert seen.events_between(100.1, 100.4) == [2, 3, 4]
    assert seen.cpu_between(100.1, 100.4) == pytest.approx(0.7)
    assert seen.events_between(101.0, 102.0) == []
    assert seen.cpu_between(101.0, 102.0) == 0.0
