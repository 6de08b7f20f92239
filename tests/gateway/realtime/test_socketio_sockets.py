"""Socket.IO sockets in memory: joining, events, acks, binary, rooms and ends."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.realtime import CloseCode
from gateway.realtime.engine import EngineSettings
from gateway.realtime.socketio import (
    INBOX_EVENTS,
    MAX_HANDLERS,
    ConnectRefused,
    Disconnected,
    Event,
    Socket,
    SocketIOServer,
    event_frame,
)
from protocol.errors import LocalProtocolError
from tests.support.memory_websocket import MemoryWebSocket, get, post

Handler = Callable[[Socket], Awaitable[None]]


class Client(MemoryWebSocket):
    """A WebSocket client that is past the Engine.IO handshake."""

    def __init__(self) -> None:
        super().__init__("EIO=4&transport=websocket", headers=((b"authorization", b"Bearer invented"),))

    async def join(self, packet: str = "40") -> dict[str, Any]:
        self.client_send(packet)
        answer = await self.client_receive()
        assert isinstance(answer, str)
        assert answer.startswith(packet.partition("{")[0])
        return dict(json.loads(answer[answer.index("{") :]))


class Rig:
    def __init__(self, server: SocketIOServer, nursery: trio.Nursery) -> None:
        self.server = server
        self.nursery = nursery

    async def client(self, *, joined: bool = False) -> Client:
        client = Client()
        self.nursery.start_soon(self.server.websocket, client)
        assert str(await client.client_receive())[0] == "0"
        if joined:
            await client.join()
        return client


@asynccontextmanager
async def serving(main: Handler, ops: Handler | None = None, **settings: Any) -> AsyncIterator[Rig]:
    namespaces = {"/": main} if ops is None else {"/": main, "/ops": ops}
    server = SocketIOServer(namespaces, EngineSettings(**settings))
    async with trio.open_nursery() as nursery:
        await nursery.start(server.run)
        yield Rig(server, nursery)
        nursery.cancel_scope.cancel()
    assert server.statistics().sessions == 0
    assert len(server.rooms) == 0


class Hold:
    """A handler that lets everybody in and keeps the sockets and their events for the test to look at."""

    def __init__(self) -> None:
        self.sockets: list[Socket] = []
        self.events: list[Event] = []
        self.ended: list[str] = []

    @property
    def socket(self) -> Socket:
        return self.sockets[-1]

    async def __call__(self, socket: Socket) -> None:
        socket.accept()
        self.sockets.append(socket)
        try:
            while True:
                self.events.append(await socket.receive())
        except Disconnected:
            self.ended.append("disconnected")
            raise
        except trio.Cancelled:
            self.ended.append("cancelled")
            raise


# --- joining ---


async def test_join_with_auth_and_headers() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client()
        answer = await client.join('40{"token":"T"}')
        assert answer == {"sid": hold.socket.sid}
        assert hold.socket.auth == {"token": "T"}
        assert hold.socket.request.header(b"authorization") == b"Bearer invented"
        assert hold.socket.namespace == "/"


async def test_namespaces_have_sockets_of_their_own() -> None:
    main, ops = Hold(), Hold()
    async with serving(main, ops) as rig:
        client = await rig.client(joined=True)
        await client.join("40/ops,")
        assert main.socket.sid != ops.socket.sid
        client.client_send('42/ops,["a"]', '42["b"]')
        await wait_all_tasks_blocked()
        assert (main.events, ops.events) == ([Event("b", [])], [Event("a", [])])


async def test_an_unknown_namespace_is_refused_and_the_connection_goes_on() -> None:
    async with serving(Hold()) as rig:
        client = await rig.client()
        client.client_send("40/random")
        assert await client.client_receive() == '44/random,{"message":"Invalid namespace"}'
        await client.join()


async def test_a_handler_refuses() -> None:
    async def picky(socket: Socket) -> None:
        if socket.auth != {"token": "T"}:
            raise ConnectRefused("unauthorized", {"code": "E1"})
        socket.accept()
        await socket.receive()

    async with serving(picky) as rig:
        client = await rig.client()
        client.client_send("40")
        assert await client.client_receive() == '44{"message":"unauthorized","data":{"code":"E1"}}'
        await wait_all_tasks_blocked()
        await client.join('40{"token":"T"}')


@pytest.mark.parametrize("first", ['42["a"]', "41", "4abc", "44{}", "4", b"x"])
async def test_the_first_packet_must_be_connect(first: str | bytes) -> None:
    async with serving(Hold()) as rig:
        client = await rig.client()
        client.client_send(first)
        await client.closed.wait()
        assert client.close_code == 1002


@pytest.mark.parametrize("packet", ["40", '44{"message":"x"}', "42{}", '42["connect"]', "43[]", b"x"])
async def test_a_member_that_breaks_the_rules_is_closed(packet: str | bytes) -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        client.client_send(packet)
        await client.closed.wait()
        assert client.close_code == 1002
        await wait_all_tasks_blocked()
        assert hold.ended == ["disconnected"]


async def test_who_joins_nothing_is_closed(autojump_clock: MockClock) -> None:
    async with serving(Hold(), ping_interval=100) as rig:
        member = await rig.client(joined=True)
        left = await rig.client(joined=True)
        left.client_send("41")
        idle = await rig.client()
        start = trio.current_time()
        await idle.closed.wait()
        assert (idle.close_code, trio.current_time() - start) == (4010, 45)
        assert member.close_code is None
        assert left.close_code is None


async def test_a_handler_that_does_not_decide_is_not_joining(autojump_clock: MockClock) -> None:
    async def undecided(socket: Socket) -> None:
        await trio.sleep_forever()

    async with serving(undecided, ping_interval=100) as rig:
        client = await rig.client()
        client.client_send("40")
        await client.closed.wait()
        assert client.close_code == 4010


async def test_joining_and_leaving_in_a_loop_is_bounded() -> None:
    async def lingering(socket: Socket) -> None:
        socket.accept()
        await trio.sleep_forever()

    async with serving(lingering) as rig:
        client = await rig.client()
        client.client_send(*["40", "41"] * (MAX_HANDLERS + 1))
        await client.closed.wait()
        assert client.close_code == 1002


# --- events and acks ---


async def test_events_arrive_in_order_with_their_ack_ids() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        client.client_send('42["a",1,{"b":[null]}]', '420["b"]', "4212[3]")
        await wait_all_tasks_blocked()
        assert hold.events == [Event("a", [1, {"b": [None]}]), Event("b", [], 0), Event("3", [], 12)]


async def test_binary_arguments_both_ways() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        client.client_send(
            '452-7["file",{"_placeholder":true,"num":1},{"x":{"_placeholder":true,"num":0}}]', b"0", b"1"
        )
        await wait_all_tasks_blocked()
        assert hold.events == [Event("file", [b"1", {"x": b"0"}], 7)]
        hold.socket.emit("back", b"\1", "text", bytearray(b"\2"))
        hold.socket.emit("next")
        assert [await client.client_receive() for _ in range(4)] == [
            '452-["back",{"_placeholder":true,"num":0},"text",{"_placeholder":true,"num":1}]',
            b"\1",
            b"\2",
            '42["next"]',
        ]


async def test_acks_are_answered() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        hold.socket.ack(0, "ok", {"a": 1})
        hold.socket.ack(7, b"\1")
        assert [await client.client_receive() for _ in range(3)] == [
            '430["ok",{"a":1}]',
            '461-7[{"_placeholder":true,"num":0}]',
            b"\1",
        ]


async def test_emit_with_ack_returns_the_answer() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        answers: dict[str, list[Any]] = {}

        async def ask(question: str) -> None:
            answers[question] = await hold.socket.emit_with_ack("question", question, timeout=5)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, "a")
            nursery.start_soon(ask, "b")
            asked = sorted([str(await client.client_receive()), str(await client.client_receive())])
            ids = {json.loads(text[3:])[1]: text[2] for text in asked}
            assert [text[2] for text in asked] == ["0", "1"]
            client.client_send('439["nobody waits for this"]')
            client.client_send(f'43{ids["b"]}["B"]', f"43{ids['a']}[]")
        assert answers == {"a": [], "b": ["B"]}


async def test_emit_with_ack_gives_up_in_time_and_when_the_client_leaves(autojump_clock: MockClock) -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        with pytest.raises(trio.TooSlowError):
            await hold.socket.emit_with_ack("question", timeout=5)
        client.client_send('430["too late"]')
        async with trio.open_nursery() as nursery:

            async def ask() -> None:
                with pytest.raises(Disconnected):
                    await hold.socket.emit_with_ack("question", timeout=5)

            nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            client.client_close()
        with pytest.raises(Disconnected):
            await hold.socket.emit_with_ack("question", timeout=5)


async def test_our_own_mistakes_raise() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        await rig.client(joined=True)
        for args in (("connect",), ("a", object()), ("a", *[b""] * 11)):
            with pytest.raises(LocalProtocolError):
                hold.socket.emit(*args)
        with pytest.raises(LocalProtocolError):
            event_frame("disconnect")
        with pytest.raises(LocalProtocolError):
            hold.socket.accept()


async def test_a_client_that_sends_faster_than_its_handler_takes_is_held_back() -> None:
    gate = trio.Event()
    taken: list[Event] = []

    async def slow(socket: Socket) -> None:
        socket.accept()
        await gate.wait()
        while True:
            taken.append(await socket.receive())

    async with serving(slow) as rig:
        sid = json.loads((await rig.server.http(get("EIO=4&transport=polling"))).body[1:])["sid"]
        query = f"EIO=4&transport=polling&sid={sid}"
        await rig.server.http(post(query, b"40"))
        await wait_all_tasks_blocked()
        answered = trio.Event()

        async def send(count: int) -> None:
            await rig.server.http(post(query, b"\x1e".join([b'42["a"]'] * count)))
            answered.set()

        rig.nursery.start_soon(send, INBOX_EVENTS)
        await answered.wait()
        answered = trio.Event()
        rig.nursery.start_soon(send, 1)
        await wait_all_tasks_blocked()
        assert not answered.is_set()
        gate.set()
        await answered.wait()
        await wait_all_tasks_blocked()
        assert len(taken) == INBOX_EVENTS + 1


# --- leaving ---


async def test_events_sent_before_leaving_are_still_received() -> None:
    gate = trio.Event()
    got: list[str] = []

    async def slow(socket: Socket) -> None:
        socket.accept()
        await gate.wait()
        while True:
            got.append((await socket.receive()).name)

    async with serving(slow) as rig:
        client = await rig.client(joined=True)
        client.client_send('42["a"]', '42["b"]', "41", '42["after"]')
        await wait_all_tasks_blocked()
        gate.set()
        await wait_all_tasks_blocked()
        assert got == ["a", "b"]
        assert client.close_code is None


async def test_a_namespace_can_be_left_and_joined_again() -> None:
    main, ops = Hold(), Hold()
    async with serving(main, ops) as rig:
        client = await rig.client(joined=True)
        first = await client.join("40/ops,")
        client.client_send("41/ops,", '42/ops,["ignored"]')
        second = await client.join("40/ops,")
        assert first != second
        await wait_all_tasks_blocked()
        assert ops.ended == ["disconnected"]
        assert ops.events == main.ended == []


async def test_a_handler_that_ends_late_does_not_put_out_its_successor() -> None:
    gates: list[trio.Event] = []
    got: list[Event] = []

    async def slow_to_leave(socket: Socket) -> None:
        socket.accept()
        gates.append(trio.Event())
        gate = gates[-1]
        try:
            while True:
                got.append(await socket.receive())
        finally:
            with trio.CancelScope(shield=True):
                await gate.wait()

    async with serving(slow_to_leave) as rig:
        client = await rig.client(joined=True)
        client.client_send("41")
        await client.join()
        gates[0].set()
        await wait_all_tasks_blocked()
        client.client_send('42["here"]')
        await wait_all_tasks_blocked()
        assert got == [Event("here", [])]
        gates[1].set()


async def test_events_sent_before_the_acceptance_are_ignored() -> None:
    decide = trio.Event()
    got: list[Event] = []

    async def thinking(socket: Socket) -> None:
        await decide.wait()
        socket.accept()
        while True:
            got.append(await socket.receive())

    async with serving(thinking) as rig:
        client = await rig.client()
        client.client_send("40", '42["early"]')
        await wait_all_tasks_blocked()
        decide.set()
        await client.client_receive()
        client.client_send('42["in time"]')
        await wait_all_tasks_blocked()
        assert got == [Event("in time", [])]


async def test_the_server_disconnects_a_socket() -> None:
    main, ops = Hold(), Hold()
    async with serving(main, ops) as rig:
        client = await rig.client(joined=True)
        await client.join("40/ops,")
        ops.socket.disconnect()
        assert await client.client_receive() == "41/ops,"
        assert not ops.socket.emit("a")
        assert not ops.socket.emit_frame(event_frame("a", namespace="/ops"))
        client.client_send('42/ops,["crossed"]', '42["b"]')
        await wait_all_tasks_blocked()
        assert main.events == [Event("b", [])]


async def test_a_handler_that_returns_disconnects_its_client() -> None:
    async def brief(socket: Socket) -> None:
        socket.accept()
        socket.emit("bye")

    async with serving(brief) as rig:
        client = await rig.client(joined=True)
        assert [await client.client_receive(), await client.client_receive()] == ['42["bye"]', "41"]
        assert client.close_code is None


async def test_a_handler_that_does_not_stop_is_cancelled(autojump_clock: MockClock) -> None:
    ended: list[float] = []

    async def deaf(socket: Socket) -> None:
        socket.accept()
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())

    async with serving(deaf, close_grace=5) as rig:
        client = await rig.client(joined=True)
        start = trio.current_time()
        client.client_send("41")
        await trio.sleep(6)
        assert ended == [start + 5]
        assert client.close_code is None


@pytest.mark.parametrize("accepts", [True, False])
async def test_a_handler_that_fails_closes_its_connection_only(accepts: bool) -> None:
    async def faulty(socket: Socket) -> None:
        if accepts:
            socket.accept()
        raise RuntimeError("a bug of the handler")

    hold = Hold()
    async with serving(hold, faulty) as rig:
        other = await rig.client(joined=True)
        client = await rig.client(joined=True)
        hold.socket.join("room")
        client.client_send("40/ops,")
        told = await client.client_rest()
        assert [text for text in told if str(text).startswith("41")] == []  # it would stay away
        assert client.close_code == 1011
        assert other.close_code is None
        await wait_all_tasks_blocked()
        assert len(rig.server.rooms) == 0


async def test_a_handler_that_neither_accepts_nor_refuses_has_failed() -> None:
    async def nothing(socket: Socket) -> None:
        await trio.lowlevel.checkpoint()

    async with serving(nothing) as rig:
        client = await rig.client()
        client.client_send("40")
        await client.closed.wait()
        assert client.close_code == 1011


async def test_disconnected_inside_a_nursery_of_the_handler_is_an_ordinary_end() -> None:
    async def branching(socket: Socket) -> None:
        socket.accept()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.receive)
            nursery.start_soon(trio.sleep_forever)

    async with serving(branching) as rig:
        client = await rig.client(joined=True)
        client.client_send("41")
        await wait_all_tasks_blocked()
        assert client.close_code is None
        await client.join()


async def test_the_handler_closes_the_connection_with_a_code() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        hold.socket.emit("last")
        hold.socket.close(CloseCode.NORMAL, "revoked")
        assert await client.client_rest() == ['42["last"]']
        assert (client.close_code, client.close_reason) == (1000, "revoked")


async def test_shutdown_does_not_tell_clients_to_stay_away() -> None:
    hold = Hold()
    server = SocketIOServer({"/": hold})
    async with trio.open_nursery() as lane:
        async with trio.open_nursery() as nursery:
            await nursery.start(server.run)
            client = await Rig(server, lane).client(joined=True)
            hold.socket.emit("last")
            nursery.cancel_scope.cancel()
        assert await client.client_rest() == ['42["last"]']
        assert client.close_code == 1001
        assert hold.ended == ["cancelled"]


# --- rooms ---


async def test_broadcast_reaches_the_room_and_nobody_else() -> None:
    hold = Hold()
    async with serving(hold, hold) as rig:
        clients = [await rig.client(joined=True) for _ in range(4)]
        a, b, c, _ = hold.sockets
        for socket in (a, b, c):
            socket.join("inbox")
            socket.join("inbox")
        c.leave("inbox")
        c.leave("never in")
        await clients[3].join("40/ops,")
        hold.socket.join("inbox")  # the same name in another namespace is another room
        frame = event_frame("message", b'{"id":1}')
        assert rig.server.broadcast("inbox", frame) == 2
        assert rig.server.broadcast("inbox", frame, skip=a) == 1
        assert rig.server.broadcast("nobody", frame) == 0
        for socket in hold.sockets:
            socket.emit("end")
        seen = [await client.client_receive() for client in clients[:3]]
        assert seen == ['42["message",{"id":1}]', '42["message",{"id":1}]', '42["end"]']


async def test_who_leaves_is_in_no_room() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        hold.socket.join("a")
        hold.socket.join("b")
        assert rig.server.rooms.members("/", "a") == (hold.socket,)
        client.client_close()
        await wait_all_tasks_blocked()
        assert len(rig.server.rooms) == 0
        hold.socket.join("a")
        assert len(rig.server.rooms) == 0


async def test_a_slow_member_is_closed_and_the_others_get_everything(autojump_clock: MockClock) -> None:
    hold = Hold()
    async with serving(hold, max_outbox_bytes=1000) as rig:
        slow, quick = await rig.client(joined=True), await rig.client(joined=True)
        for socket in hold.sockets:
            socket.join("inbox")
        slow.client_stop_reading()
        frame = event_frame("message", b'"' + b"x" * 80 + b'"')
        reached = []
        for _ in range(20):
            reached.append(rig.server.broadcast("inbox", frame))
            await wait_all_tasks_blocked()
        assert reached[:10] == [2] * 10
        assert reached[-9:] == [1] * 9
        assert [await quick.client_receive() for _ in range(20)] == [frame.payload.decode()] * 20
        await slow.closed.wait()
        assert slow.close_code == 4008


async def test_catch_up_waits_for_room() -> None:
    hold = Hold()
    async with serving(hold) as rig:
        client = await rig.client(joined=True)
        client.client_stop_reading()
        hold.socket.emit("x" * 100)
        await wait_all_tasks_blocked()
        caught_up = trio.Event()

        async def catch_up() -> None:
            await hold.socket.wait_below(100)
            caught_up.set()

        rig.nursery.start_soon(catch_up)
        await wait_all_tasks_blocked()
        assert not caught_up.is_set()
        assert hold.socket.queued_bytes > 100
        client.client_resume_reading()
        await caught_up.wait()


async def test_a_handler_is_told_nothing_of_a_client_that_gave_up_before_it_decided() -> None:
    entered, decide = trio.Event(), trio.Event()

    async def thinking(socket: Socket) -> None:
        entered.set()
        await decide.wait()
        socket.accept()
        await socket.receive()

    async with serving(thinking) as rig:
        client = await rig.client()
        client.client_send("40", "41")
        await entered.wait()
        await wait_all_tasks_blocked()
        decide.set()
        await wait_all_tasks_blocked()
        assert client.close_code is None
        client.client_send("40/nowhere")
        assert str(await client.client_receive()).startswith("44/nowhere")


PIECES = [
    "40",
    "41",
    "42",
    "43",
    "451-",
    "2",
    "3",
    "5",
    "6",
    "b",
    "AQ==",
    "/ops,",
    "7",
    '["a"]',
    '[{"_placeholder":true,"num":0}]',
]


@pytest.mark.slow
@given(
    st.lists(st.lists(st.sampled_from(PIECES), max_size=4).map("".join) | st.text(max_size=3) | st.binary(max_size=3))
)
async def test_whatever_a_client_sends_is_answered_or_closed_with_1002(messages: list[str | bytes]) -> None:
    hold = Hold()
    async with serving(hold, hold) as rig:
        neighbour = await rig.client(joined=True)
        client = await rig.client()
        client.client_send(*messages)
        await wait_all_tasks_blocked()
        assert client.close_code in (None, 1002)
        neighbour.client_send('42["alive"]')
        await wait_all_tasks_blocked()
        assert hold.events[-1] == Event("alive", [])
