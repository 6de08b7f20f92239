"""Engine.IO sessions in memory: polling, WebSocket, the upgrade, heartbeats, bounds and ends."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.http import Frame, Headers, Request, Response
from gateway.realtime import CloseCode
from gateway.realtime.engine import EngineServer, EngineSettings, Session
from protocol.errors import RemoteProtocolError
from tests.support.memory_websocket import MemoryWebSocket, get, post

OPEN = "EIO=4&transport=polling"
OPEN_WEBSOCKET = "EIO=4&transport=websocket"


class Echo:
    """Says everything back; three messages make it misbehave."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.received: list[str | bytes] = []
        self.stopped = trio.Event()
        self.gate = trio.Event()
        self.gate.set()

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self.stopped.wait()

    async def message(self, data: str | bytes) -> None:
        self.received.append(data)
        await self.gate.wait()
        if data == "crash":
            raise RuntimeError("a bug of the application")
        if data == "refuse":
            raise RemoteProtocolError("not like this")
        self.session.send(data if isinstance(data, bytes) else Frame(b"4" + data.encode()))


class Rig:
    """A running server and the applications of its sessions, newest last."""

    def __init__(self, server: EngineServer, echoes: list[Echo]) -> None:
        self.server = server
        self.echoes = echoes
        self.shut_down: Callable[[], None]
        self.nursery: trio.Nursery

    @property
    def session(self) -> Session:
        return self.echoes[-1].session

    async def handshake(self) -> str:
        response = await self.server.http(get(OPEN))
        assert response.status == 200
        return str(json.loads(response.body[1:])["sid"])

    async def poll(self, sid: str) -> tuple[int, bytes]:
        response = await self.server.http(get(f"{OPEN}&sid={sid}"))
        return response.status, response.body

    async def post(self, sid: str, body: bytes, headers: Headers = ()) -> tuple[int, bytes]:
        response = await self.server.http(post(f"{OPEN}&sid={sid}", body, headers=headers))
        return response.status, response.body

    async def held_poll(self, sid: str) -> "Held":
        """Start a GET and see it wait."""
        held = Held()
        self.nursery.start_soon(held.run, self, sid)
        await wait_all_tasks_blocked()
        return held

    async def connect(self, query: str = OPEN_WEBSOCKET, headers: Headers = ()) -> MemoryWebSocket:
        ws = MemoryWebSocket(query, headers=headers)
        self.nursery.start_soon(self.server.websocket, ws)
        await wait_all_tasks_blocked()
        return ws


class Held:
    """A GET that waits in the background."""

    def __init__(self) -> None:
        self.answer: tuple[int, bytes] | None = None
        self.scope = trio.CancelScope()

    async def run(self, rig: Rig, sid: str) -> None:
        with self.scope:
            self.answer = await rig.poll(sid)


@asynccontextmanager
async def running(**settings: Any) -> AsyncIterator[Rig]:
    echoes: list[Echo] = []

    def application(session: Session) -> Echo:
        echoes.append(Echo(session))
        return echoes[-1]

    server = EngineServer(application, EngineSettings(**settings))
    rig = Rig(server, echoes)
    async with trio.open_nursery() as nursery:
        rig.nursery = nursery
        scope = trio.CancelScope()

        async def run(*, task_status: trio.TaskStatus[None]) -> None:
            with scope:
                await server.run(task_status=task_status)

        rig.shut_down = scope.cancel
        await nursery.start(run)
        yield rig
        nursery.cancel_scope.cancel()
    assert server.statistics().sessions == 0


def code(response: Response | tuple[int, bytes]) -> int:
    body = response[1] if isinstance(response, tuple) else response.body
    return int(json.loads(body)["code"])


# --- handshake ---


async def test_polling_handshake() -> None:
    async with running() as rig:
        response = await rig.server.http(get(OPEN))
        assert response.status == 200
        assert (b"content-type", b"text/plain; charset=UTF-8") in response.headers
        assert (b"cache-control", b"no-store") in response.headers
        handshake = json.loads(response.body[1:])
        assert (response.body[:1], handshake["upgrades"], handshake["maxPayload"]) == (b"0", ["websocket"], 1_000_000)
        assert rig.session.sid == handshake["sid"]


async def test_websocket_handshake() -> None:
    async with running() as rig:
        ws = await rig.connect()
        opened = await ws.client_receive()
        assert isinstance(opened, str)
        assert opened[0] == "0"
        assert json.loads(opened[1:])["upgrades"] == []
        assert rig.server.statistics().websocket == 1


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (get("EIO=4"), 0),
        (get(OPEN + "&sid=unknown"), 1),
        (post(OPEN, b""), 2),
        (get(OPEN + "&EIO=4"), 3),
        (get(OPEN_WEBSOCKET), 3),
        (get("transport=polling"), 5),
    ],
)
async def test_bad_requests_are_refused_with_their_code(request_: Request, expected: int) -> None:
    async with running() as rig:
        response = await rig.server.http(request_)
        assert (response.status, code(response)) == (400, expected)
        assert not rig.echoes


async def test_bad_websockets_are_rejected_before_they_open() -> None:
    async with running() as rig:
        for query in ("transport=websocket", "EIO=4", f"{OPEN_WEBSOCKET}&sid=unknown"):
            ws = await rig.connect(query)
            assert ws.rejection is not None
            assert ws.rejection.status == 400
            assert not ws.accepted.is_set()


async def test_sessions_are_bounded() -> None:
    async with running(max_sessions=1) as rig:
        sid = await rig.handshake()
        response = await rig.server.http(get(OPEN))
        assert (response.status, code(response)) == (503, 6)
        assert (b"retry-after", b"5") in response.headers
        ws = await rig.connect()
        assert ws.rejection is not None
        assert ws.rejection.status == 503
        await rig.post(sid, b"1")
        await rig.poll(sid)
        await rig.handshake()


async def test_a_server_that_does_not_run_refuses() -> None:
    response = await EngineServer(Echo).http(get(OPEN))
    assert (response.status, code(response)) == (503, 7)


# --- origins ---

ALLOWED = "https://inbox.example"


@pytest.mark.parametrize(
    ("origin", "status", "allow"),
    [
        (None, 200, None),
        (b"http://gateway.test", 200, None),
        (b"https://GATEWAY.test", 200, None),
        (b"https://inbox.example", 200, b"https://inbox.example"),
        (b"https://evil.example", 403, None),
        (b"https://gateway.test.evil.example", 403, None),
        (b"null", 403, None),
    ],
)
async def test_origins(origin: bytes | None, status: int, allow: bytes | None) -> None:
    async with running(origins=frozenset([ALLOWED])) as rig:
        headers: Headers = () if origin is None else ((b"origin", origin),)
        response = await rig.server.http(get(OPEN, headers=headers))
        assert response.status == status
        sent = dict(response.headers)
        assert sent.get(b"access-control-allow-origin") == allow
        assert sent.get(b"access-control-allow-credentials") == (b"true" if allow else None)
        if status == 403:
            assert code(response) == 4
        ws = await rig.connect(headers=headers)
        assert (ws.rejection is None) == (status == 200)


async def test_a_repeated_origin_is_refused() -> None:
    async with running(origins=frozenset([ALLOWED])) as rig:
        origin = (b"origin", ALLOWED.encode())
        assert code(await rig.server.http(get(OPEN, headers=(origin, origin)))) == 3


async def test_preflight_and_any_origin() -> None:
    async with running(origins=frozenset("*")) as rig:
        preflight = Request("OPTIONS", "/", b"", ((b"origin", b"https://any.example"),), b"", "192.0.2.1")
        response = await rig.server.http(preflight)
        assert response.status == 204
        assert dict(response.headers)[b"access-control-allow-origin"] == b"*"
        assert b"access-control-allow-credentials" not in dict(response.headers)
        assert dict(response.headers)[b"access-control-allow-methods"] == b"GET,POST"


# --- polling ---


async def test_packets_of_a_post_come_back_in_one_get() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        assert await rig.post(sid, b"4a\x1ebAQID\x1e4c") == (200, b"ok")
        assert await rig.poll(sid) == (200, b"4a\x1ebAQID\x1e4c")


async def test_a_get_is_held_until_there_is_something() -> None:
    async with running() as rig:
        held = await rig.held_poll(await rig.handshake())
        assert held.answer is None
        rig.session.send(Frame(b"4now"))
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"4now")


async def test_a_second_get_ends_the_session() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        held = await rig.held_poll(sid)
        status, body = await rig.poll(sid)
        assert (status, code((status, body))) == (400, 3)
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"1")
        assert code(await rig.poll(sid)) == 1


async def test_an_abandoned_get_ends_the_session() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        held = await rig.held_poll(sid)
        held.scope.cancel()
        await wait_all_tasks_blocked()
        assert rig.session.close_code is CloseCode.TRANSPORT_CLOSE
        assert code(await rig.poll(sid)) == 1


async def test_a_second_post_ends_the_session() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        rig.echoes[-1].gate = trio.Event()
        rig.nursery.start_soon(rig.post, sid, b"4slow")
        await wait_all_tasks_blocked()
        assert (await rig.post(sid, b"4fast"))[0] == 400
        assert code(await rig.poll(sid)) == 1


async def test_a_post_waits_as_long_as_the_application() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        rig.echoes[-1].gate = gate = trio.Event()
        answers: list[tuple[int, bytes]] = []

        async def send() -> None:
            answers.append(await rig.post(sid, b"4a\x1e4b"))

        rig.nursery.start_soon(send)
        await wait_all_tasks_blocked()
        assert not answers
        gate.set()
        await wait_all_tasks_blocked()
        assert answers == [(200, b"ok")]
        assert await rig.poll(sid) == (200, b"4a\x1e4b")


@pytest.mark.parametrize("body", [b"", b"abc", b"4ok\x1e", b"2", b"0", b"5", b"4refuse"])
async def test_a_broken_payload_ends_the_session(body: bytes) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        assert (await rig.post(sid, body))[0] == 400
        assert rig.session.close_code is CloseCode.PROTOCOL_ERROR
        assert code(await rig.poll(sid)) == 1


async def test_a_binary_body_is_refused() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        assert (await rig.post(sid, b"4a", ((b"content-type", b"application/octet-stream"),)))[0] == 400
        assert code(await rig.poll(sid)) == 1


async def test_a_post_over_the_limit_ends_the_session() -> None:
    async with running(max_payload=10) as rig:
        sid = await rig.handshake()
        assert (await rig.post(sid, b"4" + b"x" * 9))[0] == 200
        assert (await rig.post(sid, b"4" + b"x" * 10))[0] == 413
        assert code(await rig.poll(sid)) == 1


async def test_other_methods_are_refused() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        put = Request("PUT", "/", f"{OPEN}&sid={sid}".encode(), (), b"4a", "192.0.2.1")
        assert code(await rig.server.http(put)) == 3
        assert rig.session.close_code is None


async def test_a_client_says_goodbye() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        held = await rig.held_poll(sid)
        assert await rig.post(sid, b"4lost?\x1e1\x1e4never") == (200, b"ok")
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"6")
        assert rig.echoes[-1].received == ["lost?"]
        assert rig.session.close_code is CloseCode.NORMAL
        assert code(await rig.poll(sid)) == 1


async def test_a_get_that_arrives_after_the_goodbye_is_answered_like_one_that_waited(autojump_clock: MockClock) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        assert await rig.post(sid, b"1") == (200, b"ok")
        assert code(await rig.post(sid, b"4more")) == 1
        assert await rig.poll(sid) == (200, b"6")
        assert code(await rig.poll(sid)) == 1
        sid = await rig.handshake()
        await rig.post(sid, b"1")
        await trio.sleep(5.1)
        assert rig.server.statistics().sessions == 0


async def test_an_orderly_close_waits_for_the_next_get() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        rig.session.send(Frame(b"4last"))
        rig.session.close()
        assert code(await rig.post(sid, b"4too late")) == 1
        assert await rig.poll(sid) == (200, b"4last\x1e1")
        assert code(await rig.poll(sid)) == 1


async def test_an_orderly_close_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        rig.session.send(Frame(b"4last"))
        rig.session.close()
        assert rig.server.statistics().sessions == 1
        await trio.sleep(5.1)
        assert rig.server.statistics().sessions == 0
        assert code(await rig.poll(sid)) == 1


# --- websocket ---


async def test_text_and_binary_come_back() -> None:
    async with running() as rig:
        ws = await rig.connect()
        await ws.client_receive()
        ws.client_send("4hello", b"\1\2", "bAwQ=", "4€")
        assert [await ws.client_receive() for _ in range(4)] == ["4hello", b"\1\2", b"\3\4", "4€"]


async def test_what_waits_together_is_written_together() -> None:
    async with running() as rig:
        ws = await rig.connect()
        for item in (Frame(b"4a"), Frame(b"4b"), b"bin", Frame(b"4c"), Frame(b"4d"), Frame(b"4e")):
            rig.session.send(item)
        await wait_all_tasks_blocked()
        assert ws.writes == [1, 2, 1, 3]
        assert [await ws.client_receive() for _ in range(7)][1:] == ["4a", "4b", b"bin", "4c", "4d", "4e"]


@pytest.mark.parametrize("message", ["abc", "", "2", "2probe", "5", "0", "4refuse"])
async def test_a_broken_message_closes_with_1002(message: str) -> None:
    async with running() as rig:
        ws = await rig.connect()
        ws.client_send(message)
        await ws.closed.wait()
        assert ws.close_code == 1002


async def test_a_client_that_closes_or_vanishes_ends_the_session() -> None:
    async with running() as rig:
        ws = await rig.connect()
        ws.client_close(1001)
        await ws.closed.wait()
        assert rig.session.close_code is CloseCode.TRANSPORT_CLOSE
        ws = await rig.connect()
        ws.client_send("1")
        await ws.closed.wait()
        assert ws.close_code == 1000
        assert rig.server.statistics().closed == {1006: 1, 1000: 1}


async def test_an_orderly_close_writes_what_is_queued() -> None:
    async with running() as rig:
        ws = await rig.connect()
        rig.session.send(Frame(b"4last"))
        rig.session.close(CloseCode.NORMAL, "done")
        assert not rig.session.send(Frame(b"4more"))  # and costs what was queued nothing
        assert (await ws.client_rest())[1:] == ["4last"]
        assert (ws.close_code, ws.close_reason) == (1000, "done")


async def test_when_the_application_returns_the_session_ends() -> None:
    async with running() as rig:
        ws = await rig.connect()
        rig.echoes[-1].stopped.set()
        await ws.closed.wait()
        assert ws.close_code == 1000


async def test_a_failing_application_takes_only_its_own_client_along() -> None:
    async with running() as rig:
        other = await rig.connect()
        ws = await rig.connect()
        ws.client_send("4crash")
        await ws.closed.wait()
        assert ws.close_code == 1011
        assert other.close_code is None


async def test_an_application_that_does_not_stop_is_cancelled(autojump_clock: MockClock) -> None:
    async with running(close_grace=3) as rig:
        ws = await rig.connect()
        start = trio.current_time()
        ws.client_close()
        await ws.closed.wait()
        assert not rig.session.scope.cancelled_caught
        await trio.sleep(3.1)
        assert rig.session.scope.cancelled_caught
        assert trio.current_time() - start < 4


# --- bounds ---


async def test_a_slow_consumer_is_closed_with_4008(autojump_clock: MockClock) -> None:
    async with running(max_outbox_bytes=1000, close_grace=5) as rig:
        ws = await rig.connect()
        ws.client_stop_reading()
        frame = Frame(b"4" + b"x" * 97)
        sent = 0
        while rig.session.send(frame):
            sent += 1
            await wait_all_tasks_blocked()
            assert rig.session.outbox.statistics().queued_bytes <= 1000
        assert sent == 10
        start = trio.current_time()
        await ws.closed.wait()
        assert (ws.close_code, ws.close_reason) == (4008, "slow consumer")
        assert trio.current_time() - start == 5


async def test_a_slow_consumer_that_reads_again_gets_the_batch_in_flight_and_the_code() -> None:
    async with running(max_outbox_bytes=300) as rig:
        ws = await rig.connect()
        ws.client_stop_reading()
        rig.session.send(Frame(b"4first"))
        await wait_all_tasks_blocked()
        while rig.session.send(Frame(b"4more")):
            pass
        ws.client_resume_reading()
        assert (await ws.client_rest())[1:] == ["4first"]
        assert ws.close_code == 4008


async def test_a_polling_client_that_does_not_come_is_closed() -> None:
    async with running(max_outbox_bytes=100) as rig:
        sid = await rig.handshake()
        assert not rig.session.send(Frame(b"4" + b"x" * 100))
        assert code(await rig.poll(sid)) == 1
        assert rig.server.statistics().closed == {4008: 1}


# --- heartbeat ---


async def test_websocket_is_pinged_and_lives_while_it_answers(autojump_clock: MockClock) -> None:
    async with running() as rig:
        ws = await rig.connect()
        await ws.client_receive()
        start = trio.current_time()
        for beat in range(1, 4):
            assert await ws.client_receive() == "2"
            assert trio.current_time() - start == pytest.approx(25 * beat)
            ws.client_send("3")
        with pytest.raises(trio.EndOfChannel):
            assert await ws.client_receive() == "2"
            await ws.client_receive()
        assert (ws.close_code, ws.close_reason) == (4009, "ping timeout")
        assert trio.current_time() - start == pytest.approx(25 * 4 + 20)


async def test_polling_is_pinged_in_its_get(autojump_clock: MockClock) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        for _ in range(3):
            assert await rig.poll(sid) == (200, b"2")
            assert (await rig.post(sid, b"3"))[0] == 200
        assert await rig.poll(sid) == (200, b"2")
        assert await rig.poll(sid) == (200, b"1")
        assert rig.session.close_code is CloseCode.PING_TIMEOUT


async def test_a_request_at_the_deadline_comes_too_late(mock_clock: MockClock) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        mock_clock.jump(25)
        await wait_all_tasks_blocked()
        mock_clock.jump(20)
        # At once: before the task that keeps the time had its turn.
        assert code(await rig.poll(sid)) == 1


async def test_many_sessions_share_one_clock(autojump_clock: MockClock) -> None:
    async with running() as rig:
        sockets = []
        for _ in range(20):
            sockets.append(await rig.connect())
            await trio.sleep(1)
        for ws in sockets[::2]:
            ws.client_send("3")  # unasked: changes nothing
        await trio.sleep(44.1)
        assert {ws.close_code for ws in sockets} == {4009}
        assert rig.server.statistics().sessions == 0


# --- upgrade ---


async def upgrade(rig: Rig, sid: str) -> MemoryWebSocket:
    ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
    ws.client_send("2probe")
    assert await ws.client_receive() == "3probe"
    ws.client_send("5")
    await wait_all_tasks_blocked()
    return ws


async def test_upgrade_moves_the_session_and_releases_the_get_at_once() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        held = await rig.held_poll(sid)
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        assert held.answer is None
        ws.client_send("2probe")
        assert await ws.client_receive() == "3probe"
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"6")
        assert await rig.poll(sid) == (200, b"6")  # no GET is held while probing
        ws.client_send("5", "4hello")
        assert await ws.client_receive() == "4hello"
        assert code(await rig.poll(sid)) == 3
        assert rig.server.statistics().websocket == 1


async def test_packets_of_the_probing_time_are_sent_once() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        rig.session.send(Frame(b"4before"))
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        ws.client_send("2probe")
        assert await ws.client_receive() == "3probe"
        assert await rig.poll(sid) == (200, b"4before")
        rig.session.send(Frame(b"4while"))
        ws.client_send("5")
        assert await ws.client_receive() == "4while"
        rig.session.close()
        assert await ws.client_rest() == []


async def test_a_get_that_is_woken_as_the_upgrade_completes_loses_nothing() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        held = await rig.held_poll(sid)
        ws.client_send("2probe", "5")
        rig.session.send(Frame(b"4one"))
        await wait_all_tasks_blocked()
        rig.session.send(Frame(b"4two"))
        rig.session.close()
        got = [message for message in await ws.client_rest() if message != "3probe"]
        assert held.answer in ((200, b"4one"), (200, b"6"))
        assert ([] if held.answer == (200, b"6") else ["4one"]) + got == ["4one", "4two"]


async def test_a_second_websocket_is_opened_and_closed() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        during = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        assert during.close_code == 1002
        ws.client_send("2probe", "5", "4hello")
        assert [await ws.client_receive(), await ws.client_receive()] == ["3probe", "4hello"]
        after = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        assert after.accepted.is_set()
        assert after.close_code == 1002
        ws.client_send("4still here")
        assert await ws.client_receive() == "4still here"


@pytest.mark.parametrize("messages", [["5"], ["4x"], ["abc"], ["2probe", "4x"], ["2probe", "2probe"], [None]])
async def test_a_failed_upgrade_leaves_polling_alone(messages: list[str | None]) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        for message in messages:
            if message is None:
                ws.client_close()
            else:
                ws.client_send(message)
        await ws.closed.wait()
        held = await rig.held_poll(sid)
        assert held.answer is None
        rig.session.send(Frame(b"4on"))
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"4on")
        second = await upgrade(rig, sid)
        second.client_send("4works")
        assert await second.client_receive() == "4works"


async def test_an_upgrade_that_takes_too_long_is_given_up(autojump_clock: MockClock) -> None:
    async with running() as rig:
        sid = await rig.handshake()
        start = trio.current_time()
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        ws.client_send("2probe")
        await ws.closed.wait()
        assert trio.current_time() - start == 10
        assert (await rig.post(sid, b"4on"))[0] == 200
        assert await rig.poll(sid) == (200, b"4on")


async def test_a_session_that_ends_closes_the_probing_websocket_too() -> None:
    async with running() as rig:
        sid = await rig.handshake()
        ws = await rig.connect(f"{OPEN_WEBSOCKET}&sid={sid}")
        await rig.post(sid, b"1")
        await ws.closed.wait()
        assert ws.close_code == 1000


# --- shutdown ---


async def test_shutdown_answers_gets_and_closes_websockets_with_1001() -> None:
    async with running() as rig:
        idle = await rig.handshake()
        rig.session.send(Frame(b"4never fetched"))
        held = await rig.held_poll(await rig.handshake())
        ws = await rig.connect()
        rig.session.send(Frame(b"4last"))
        rig.shut_down()
        assert (await ws.client_rest())[1:] == ["4last"]
        assert ws.close_code == 1001
        await wait_all_tasks_blocked()
        assert held.answer == (200, b"1")
        assert rig.server.statistics().sessions == 0
        assert code(await rig.poll(idle)) == 1
        assert (await rig.server.http(get(OPEN))).status == 503


async def test_shutdown_does_not_wait_for_ever(autojump_clock: MockClock) -> None:
    async with running(close_grace=2) as rig:
        ws = await rig.connect()
        ws.client_stop_reading()
        rig.session.send(Frame(b"4stuck"))
        start = trio.current_time()
        rig.shut_down()
        await ws.closed.wait()
        assert trio.current_time() - start == 2


async def test_a_lane_that_is_cancelled_closes_its_websocket() -> None:
    async with running() as rig:
        ws = MemoryWebSocket(OPEN_WEBSOCKET)
        async with trio.open_nursery() as lane:
            lane.start_soon(rig.server.websocket, ws)
            await wait_all_tasks_blocked()
            lane.cancel_scope.cancel()
        assert ws.close_code == 1001
