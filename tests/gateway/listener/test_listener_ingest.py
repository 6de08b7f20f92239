"""The ingest lane over memory streams: no socket, and a clock that jumps."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import msgspec
import pytest
import structlog
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http import Request, Response, WebSocket
from gateway.listener.answers import Answers
from gateway.listener.ingest_lane import Departure, IngestLane
from gateway.listener.limits import LINGER_SECONDS, Limits
from gateway.listener.sniff import Sniffer
from gateway.listener.statistics import Counters
from gateway.listener.watch import Life, Watch
from gateway.listener.wire import StreamWire

from .conftest import Answer, Client

LIMITS = Limits(header_bytes=400, body_bytes=1000)


@dataclass
class Lane:
    """One connection in the lane, and the client's end of it."""

    client: Client
    near: trio.abc.Stream
    life: Life
    watch: Watch
    counters: Counters
    seen: list[Request] = field(default_factory=list)
    departure: Departure | None = None
    ended: trio.Event = field(default_factory=trio.Event)

    async def end(self) -> None:
        await self.client.stream.send_eof()
        await self.ended.wait()


async def with_lane(talk: Callable[[Lane], Awaitable[None]], limits: Limits = LIMITS) -> Lane:
    """Run `talk` beside a lane that serves /hook (echo), /slow (5 s) and /fail; end both."""
    far, near = trio.testing.memory_stream_pair()
    counters = Counters()
    answers = Answers()
    watch = Watch(limits.sweep_seconds, answers)
    lane = Lane(Client(far), near, watch.add(limits.header_seconds), watch, counters)

    async def hook(request: Request) -> Response:
        lane.seen.append(request)
        return Response(200, request.body)

    async def slow(request: Request) -> Response:
        await trio.sleep(500)
        return Response(200, b"slow")

    async def fail(request: Request) -> Response:
        raise RuntimeError("a bug")

    async def split(request: Request) -> Response:
        return Response(200, b"", ((b"a", b"b\r\nc: d"),))

    async def socket(socket: WebSocket) -> None:
        raise AssertionError("not in this lane")

    handlers = {"/hook": hook, "/slow": slow, "/fail": fail, "/split": split}
    ingest = IngestLane(Sniffer(handlers, {"/ws": socket}, limits), answers, watch, counters, limits)

    async def run() -> None:
        lane.departure = await ingest.serve(StreamWire(near, "10.0.0.1", limits), lane.life)
        if lane.departure is None:
            await near.aclose()
        watch.remove(lane.life)
        lane.ended.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(watch.sweep)
        nursery.start_soon(run)
        await talk(lane)
        await lane.ended.wait()
        nursery.cancel_scope.cancel()
    return lane


def post(body: bytes, *fields: bytes, path: bytes = b"/hook") -> bytes:
    return b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n%b\r\n" % (path, len(body), b"".join(fields)) + body


def chunked(*chunks: bytes) -> bytes:
    return (
        b"POST /hook HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
        + b"0\r\n\r\n"
    )


def problem(answer: Answer) -> str:
    assert answer.headers[b"content-type"] == b"application/problem+json"
    assert answer.closes
    decoded = msgspec.json.decode(answer.body)
    assert decoded["status"] == answer.status
    code = decoded["code"]
    assert isinstance(code, str)
    return code


async def test_a_request_reaches_its_handler_whole() -> None:
    async def talk(lane: Lane) -> None:
        answer = await lane.client.ask(post(b"hello", b"X-Sig: abc\r\n").replace(b"/hook", b"/hook?a=%20b"))
        assert (answer.status, answer.body, answer.closes) == (200, b"hello", False)
        await lane.end()

    lane = await with_lane(talk)
    assert lane.seen == [
        Request(
            method="POST",
            path="/hook",
            query=b"a=%20b",
            headers=((b"host", b"x"), (b"content-length", b"5"), (b"x-sig", b"abc")),
            body=b"hello",
            client="10.0.0.1",
        )
    ]
    assert lane.counters.answers == {200: 1}


REQUESTS = st.one_of(
    st.binary(max_size=30).map(post),
    st.lists(st.binary(min_size=1, max_size=9), max_size=3).map(lambda chunks: chunked(*chunks)),
    st.just(b"GET /hook HTTP/1.1\r\nHost: x\r\n\r\n"),
    st.just(b"\r\nGET http://x/hook?q HTTP/1.1\r\nHost: x\r\n\r\n"),
    st.just(b"HEAD /hook HTTP/1.1\r\nHost: x\r\n\r\n"),
    st.just(post(b"\r\n\r\nGET /hook HTTP/1.1\r\n\r\n")),
)
ENDINGS = st.sampled_from(
    [
        b"",
        b"GET /api HTTP/1.1\r\nHost: x\r\n\r\nand more",
        b"GET /hook HTTP/1.0\r\n\r\nnever read",
        b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\nframes",
        b"rubbish\r\n",
        post(b"x" * 1001),
        post(b"", b"Content-Encoding: gzip\r\n", b"Transfer-Encoding: chunked\r\n"),
        post(b"unfinished")[:-1],
    ]
)


async def run_segments(segments: list[bytes]) -> tuple[bytes, list[Request], bytes | None, dict[str, int]]:
    output = b""

    async def talk(lane: Lane) -> None:
        nonlocal output
        for segment in segments:
            await lane.client.send(segment)
            await trio.testing.wait_all_tasks_blocked()
        if not lane.ended.is_set():
            await lane.end()
        if lane.departure is not None:
            await lane.near.aclose()
        output = await lane.client.closed()

    lane = await with_lane(talk)
    output = b"".join(line for line in output.splitlines(True) if not line.startswith(b"date: "))
    # What the client sent after the lane let go is the next lane's to read.
    rest = None if lane.departure is None else lane.departure.rest
    return output, lane.seen, rest, dict(lane.counters.refused)


@settings(max_examples=60, deadline=None)
@given(st.lists(REQUESTS, max_size=5), ENDINGS, st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_any_segmentation_gives_the_same_answers(requests: list[bytes], ending: bytes, sizes: list[int]) -> None:
    data = b"".join(requests) + ending

    async def both() -> None:
        whole = await run_segments([data])
        segments: list[bytes] = []
        at = 0
        while at < len(data):
            size = sizes[len(segments) % len(sizes)]
            segments.append(data[at : at + size])
            at += size
        cut = await run_segments(segments)
        assert cut[0] == whole[0]
        assert cut[1] == whole[1]
        assert cut[3] == whole[3]
        assert len(whole[1]) == len(requests) + (b"HTTP/1.0" in ending)
        if whole[2] is None:
            assert cut[2] is None
        else:
            assert cut[2] is not None
            assert whole[2].startswith(cut[2])

    trio.run(both, clock=trio.testing.MockClock(autojump_threshold=0))


@pytest.mark.slow
async def test_byte_by_byte(autojump_clock: trio.testing.MockClock) -> None:
    data = post(b"one") + chunked(b"tw", b"o") + post(b"three") + b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n"
    whole = await run_segments([data])
    assert await run_segments([data[at : at + 1] for at in range(len(data))]) == whole
    assert [request.body for request in whole[1]] == [b"one", b"two", b"three"]
    assert whole[2] == b"GET /api HTTP/1.1\r\nHost: x\r\n\r\n"


GARBAGE = st.lists(
    st.binary(max_size=20)
    | st.sampled_from([b"GET ", b"/hook", b" HTTP/1.1\r\n", b"Host: x\r\n", b"\r\n", b"Content-Length: 3\r\n"])
    | st.sampled_from([b"Transfer-Encoding: chunked\r\n", b"POST /hook HTTP/1.1\r\n", b"3\r\nabc\r\n", b"\r\n\r\n"]),
    max_size=12,
).map(b"".join)


@settings(max_examples=150, deadline=None)
@given(GARBAGE)
def test_garbage_is_answered_4xx_or_closed(data: bytes) -> None:
    async def feed() -> None:
        output, seen, _, refused = await run_segments([data])
        statuses = [int(line.split()[1]) for line in output.split(b"\r\n") if line.startswith(b"HTTP/1.1 ")]
        assert len(statuses) == len(seen) + sum(refused.values())
        assert all(status == 200 or 400 <= status < 500 or status == 505 for status in statuses)

    trio.run(feed, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_pipelined_answers_come_in_order_and_as_they_are_ready(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def talk(lane: Lane) -> None:
        await lane.client.send(post(b"first") + post(b"", path=b"/slow") + post(b"third"))
        began = trio.current_time()
        assert (await lane.client.answer()).body == b"first"
        assert trio.current_time() == began
        assert (await lane.client.answer()).body == b"slow"
        assert (await lane.client.answer()).body == b"third"
        await lane.end()

    await with_lane(talk)


@pytest.mark.parametrize(
    ("data", "closes", "kept_line"),
    [
        (b"GET /hook HTTP/1.1\r\nHost: x\r\n\r\n", False, None),
        (b"GET /hook HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", True, b"close"),
        (b"GET /hook HTTP/1.0\r\n\r\n", True, b"close"),
        (b"GET /hook HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", False, b"keep-alive"),
    ],
)
async def test_keep_alive(
    data: bytes, closes: bool, kept_line: bytes | None, autojump_clock: trio.testing.MockClock
) -> None:
    async def talk(lane: Lane) -> None:
        answer = await lane.client.ask(data)
        assert answer.headers.get(b"connection") == kept_line
        if closes:
            assert await lane.client.closed() == b""
            await lane.client.stream.aclose()
        else:
            assert (await lane.client.ask(data)).status == 200
            await lane.end()

    await with_lane(talk)


async def test_head_is_answered_without_a_body() -> None:
    async def talk(lane: Lane) -> None:
        await lane.client.send(post(b"12345").replace(b"POST", b"HEAD") + post(b"next"))
        answer = await lane.client.answer(without_body=True)
        assert answer.headers[b"content-length"] == b"5"
        assert (await lane.client.answer()).body == b"next"
        await lane.end()

    lane = await with_lane(talk)
    assert lane.seen[0].method == "HEAD"


async def test_100_continue() -> None:
    async def talk(lane: Lane) -> None:
        request = post(b"hello", b"Expect: 100-continue\r\n")
        assert (await lane.client.ask(request[:-5])).status == 100
        assert (await lane.client.ask(b"hello")).body == b"hello"
        # A client that did not wait needs no permission.
        assert (await lane.client.ask(request)).body == b"hello"
        empty = post(b"", b"Expect: 100-continue\r\n")
        assert (await lane.client.ask(empty)).status == 200
        await lane.end()

    await with_lane(talk)


async def test_no_100_continue_for_a_body_that_is_too_large(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        request = post(b"x" * 1001, b"Expect: 100-continue\r\n")
        assert problem(await lane.client.ask(request[:-1001])) == "body_too_large"
        await lane.client.stream.aclose()

    await with_lane(talk)


@pytest.mark.parametrize("make", [post, chunked])
async def test_the_body_limit_is_exact(make: Callable[[bytes], bytes], autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert (await lane.client.ask(make(b"x" * 1000))).body == b"x" * 1000
        assert problem(await lane.client.ask(make(b"x" * 1001))) == "body_too_large"
        assert await lane.client.closed() == b""
        await lane.client.stream.aclose()

    lane = await with_lane(talk)
    assert lane.counters.refused == {"body_too_large": 1}


async def test_a_refused_body_is_read_over_for_a_moment_only(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def talk(lane: Lane) -> None:
        began = trio.current_time()
        assert problem(await lane.client.ask(post(b"x" * 1001)[:-1001])) == "body_too_large"
        with pytest.raises(trio.BrokenResourceError):
            while True:
                await lane.client.send(b"x" * 1000)
                await trio.sleep(0.1)
        assert trio.current_time() - began <= LINGER_SECONDS + 0.2

    await with_lane(talk)


@pytest.mark.parametrize("path", [b"/fail", b"/split"])
async def test_a_handler_that_fails(path: bytes, autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert problem(await lane.client.ask(post(b"", path=path) + post(b"never"))) == "internal_error"
        assert await lane.client.closed() == b""
        await lane.client.stream.aclose()

    with structlog.testing.capture_logs() as logs:
        lane = await with_lane(talk)
    assert [(entry["event"], entry["path"]) for entry in logs] == [("handler_failed", path.decode())]
    assert lane.counters.failed == 1
    assert lane.seen == []


async def test_silence_is_closed_without_an_answer(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert await lane.client.closed() == b""
        assert LIMITS.header_seconds - 0.5 <= trio.current_time() <= LIMITS.header_seconds

    await with_lane(talk)


async def test_a_slow_head_is_answered_408_in_time(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, lane, b"GET /hook HTTP/1.1\r\nA: " + b"x" * 300)
            assert problem(await lane.client.answer()) == "request_timeout"
            assert await lane.client.closed() == b""
            assert trio.current_time() <= LIMITS.header_seconds
            nursery.cancel_scope.cancel()

    lane = await with_lane(talk)
    assert lane.counters.refused == {"request_timeout": 1}


async def test_a_slow_second_head_is_no_better(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        # Its first bytes come with the first request: the idle time must not be had for it.
        assert (await lane.client.ask(post(b"1") + b"GET")).status == 200
        assert problem(await lane.client.answer()) == "request_timeout"
        assert trio.current_time() <= LIMITS.header_seconds

    await with_lane(talk)


async def test_idle_connections_are_kept_a_while(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert (await lane.client.ask(post(b"1"))).status == 200
        await trio.sleep(LIMITS.idle_seconds - 1)
        assert (await lane.client.ask(post(b"2"))).status == 200
        began = trio.current_time()
        assert await lane.client.closed() == b""
        assert LIMITS.idle_seconds - 1 <= trio.current_time() - began <= LIMITS.idle_seconds

    lane = await with_lane(talk)
    assert lane.counters.refused == {}


@pytest.mark.parametrize("make", [post, chunked])
async def test_a_slow_body_is_answered_408_in_time(
    make: Callable[[bytes], bytes], autojump_clock: trio.testing.MockClock
) -> None:
    async def talk(lane: Lane) -> None:
        request = make(b"x" * 900)
        head, _, body = request.partition(b"\r\n\r\n")
        await lane.client.send(head + b"\r\n\r\n")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trickle, lane, body)
            assert problem(await lane.client.answer()) == "request_timeout"
            assert await lane.client.closed() == b""
            assert LIMITS.body_seconds - 1 <= trio.current_time() <= LIMITS.body_seconds
            nursery.cancel_scope.cancel()

    lane = await with_lane(talk)
    assert lane.seen == []


@pytest.mark.parametrize("make", [post, chunked])
async def test_a_big_body_that_moves_steadily_has_longer(
    make: Callable[[bytes], bytes], autojump_clock: trio.testing.MockClock
) -> None:
    limits = Limits()
    body = bytes(8 * 1024 * 1024)

    async def talk(lane: Lane) -> None:
        request = make(body)
        for at in range(0, len(request), 100_000):
            await lane.client.send(request[at : at + 100_000])
            await trio.sleep(1)
        assert trio.current_time() > 2 * limits.body_seconds
        assert (await lane.client.answer()).body == body
        await lane.end()

    await with_lane(talk, limits)


async def trickle(lane: Lane, data: bytes) -> None:
    """One byte a second, until the other side has had enough."""
    try:
        for at in range(len(data)):
            await lane.client.send(data[at : at + 1])
            await trio.sleep(1)
    except trio.BrokenResourceError:
        return


async def test_a_handler_may_take_its_time(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert (await lane.client.ask(post(b"", path=b"/slow"))).body == b"slow"
        await lane.end()

    await with_lane(talk)


async def test_draining_answers_what_comes_in_time_and_closes(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async def talk(lane: Lane) -> None:
        assert not (await lane.client.ask(post(b"1"))).closes
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lane.watch.drain, 3.0)
            await trio.sleep(2)
            answer = await lane.client.ask(post(b"2"))
            assert (answer.body, answer.closes) == (b"2", True)
            assert await lane.client.closed() == b""
            await lane.client.stream.aclose()

    await with_lane(talk)


async def test_draining_ends_idle_connections(autojump_clock: trio.testing.MockClock) -> None:
    async def talk(lane: Lane) -> None:
        assert (await lane.client.ask(post(b"1"))).status == 200
        began = trio.current_time()
        await lane.watch.drain(3.0)
        assert trio.current_time() - began <= 3.0
        assert await lane.client.closed() == b""

    await with_lane(talk)
