"""Dashboards on `/ws`, from the opening request to the close code, over a WebSocket in memory."""

import json
from contextlib import suppress
from typing import Any

import msgspec
import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock, wait_all_tasks_blocked

import actors.feed
from actors.feed import Feed
from gateway.http import Frame, Headers
from gateway.realtime.outbox import DEFAULT_MAX_BYTES
from gateway.realtime.session import Identity, Sessions
from gateway.realtime.websocket import dashboard_socket, event_message
from store.contract import FeedHead, StoredEvent, StoreUnavailable
from tests.support.memory_websocket import MemoryWebSocket

TENANT = "tnt_A"
BEARER = ((b"authorization", b"Bearer pk_alice"),)


class Known(msgspec.Struct, frozen=True):
    tenant: str
    key: str


class Gateway:
    """Sessions on a store in a list."""

    def __init__(self, *, limit: int = 1000, origins: frozenset[str] = frozenset()) -> None:
        self.events: list[StoredEvent] = []
        self.feed = Feed(self)
        self.sessions = Sessions(self.feed, self.authenticate, limit=limit)
        self.serve = dashboard_socket(self.sessions, origins=origins)
        self.unavailable = False

    async def authenticate(self, token: str) -> Identity | None:
        await trio.lowlevel.checkpoint()
        assert isinstance(token, str)
        if self.unavailable:
            raise StoreUnavailable("away")
        return Known(TENANT, "key_1") if token == "pk_alice" else None

    async def feed_head(self, tenant: str) -> FeedHead:
        await trio.lowlevel.checkpoint()
        return FeedHead("one", len(self.events), 1)

    async def read_feed(self, tenant: str, *, after: int, limit: int = 100) -> list[StoredEvent]:
        await trio.lowlevel.checkpoint()
        return self.events[after : after + limit]

    def publish(self, count: int = 1, body: bytes = b"{}") -> None:
        first = len(self.events) + 1
        new = [
            StoredEvent(TENANT, offset, "cnv_1", offset, "noted", body, 0, 0, "whatsapp:1")
            for offset in range(first, first + count)
        ]
        self.events += new
        self.feed.publish(new)


class Client(MemoryWebSocket):
    def __init__(self, headers: Headers = BEARER) -> None:
        super().__init__("", headers=headers)

    def ask(self, **frame: Any) -> None:
        self.client_send(json.dumps(frame))

    async def frame(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(await self.client_receive())
        return answer

    async def frames(self, count: int) -> list[dict[str, Any]]:
        return [await self.frame() for _ in range(count)]


@pytest.fixture
def gateway() -> Gateway:
    return Gateway()


async def connect(gateway: Gateway, nursery: trio.Nursery, headers: Headers = BEARER) -> Client:
    client = Client(headers)
    nursery.start_soon(gateway.serve, client)
    await wait_all_tasks_blocked()
    return client


async def subscribed(gateway: Gateway, nursery: trio.Nursery, **position: Any) -> Client:
    client = await connect(gateway, nursery)
    client.ask(type="subscribe", topics=["tenant"], **position)
    assert (await client.frame())["type"] == "welcome"
    return client


# --- the opening request -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [BEARER, ((b"authorization", b"bearer  pk_alice "),), ((b"x-api-key", b"pk_alice"),)],
)
async def test_a_key_in_a_header_is_welcomed(gateway: Gateway, nursery: trio.Nursery, headers: Headers) -> None:
    client = await connect(gateway, nursery, headers)
    welcome = await client.frame()
    assert welcome == {"type": "welcome", "connection": welcome["connection"], "tenant": TENANT, "protocol": 1}
    assert gateway.sessions.statistics().authenticated == 1


async def test_a_wrong_key_in_a_header_is_refused_by_http(gateway: Gateway, nursery: trio.Nursery) -> None:
    client = await connect(gateway, nursery, ((b"x-api-key", b"pk_eve"),))
    assert client.rejection is not None
    assert client.rejection.status == 401
    assert json.loads(client.rejection.body)["code"] == "unauthenticated"


async def test_while_keys_cannot_be_checked_it_says_so(gateway: Gateway, nursery: trio.Nursery) -> None:
    gateway.unavailable = True
    by_header = await connect(gateway, nursery)
    assert by_header.rejection is not None
    assert by_header.rejection.status == 503
    assert (b"retry-after", b"5") in by_header.rejection.headers
    by_frame = await connect(gateway, nursery, ())
    by_frame.ask(type="authenticate", token="pk_alice")
    await by_frame.closed.wait()
    assert by_frame.close_code == 4013


@pytest.mark.parametrize(
    "headers",
    [
        ((b"authorization", b"Basic pk_alice"),),
        ((b"authorization", b"Bearer pk_alice"), (b"authorization", b"Bearer pk_bob")),
        ((b"authorization", b"Bearer pk_alice"), (b"x-api-key", b"pk_bob")),
        ((b"x-api-key", b""),),
        ((b"authorization", b"Bearer "),),
        (),
    ],
)
async def test_headers_that_show_no_one_key_leave_it_to_the_first_frame(
    gateway: Gateway, nursery: trio.Nursery, headers: Headers
) -> None:
    client = await connect(gateway, nursery, headers)
    assert client.accepted.is_set()
    client.ask(type="ping", id=1)
    client.ask(type="subscribe", topics=["tenant"], id=2)
    assert [(frame["code"], frame["id"]) for frame in await client.frames(2)] == [
        ("not_authenticated", 1),
        ("not_authenticated", 2),
    ]
    client.ask(type="authenticate", token="pk_alice")
    client.ask(type="ping", id=3)
    assert [frame["type"] for frame in await client.frames(2)] == ["welcome", "pong"]


@pytest.mark.parametrize(
    ("origins", "sent", "allowed"),
    [
        ((), [], True),
        ((), [b"http://gateway.test"], True),
        ((), [b"HTTPS://Gateway.Test"], True),
        ((), [b"https://gateway.test:8443"], False),
        ((), [b"https://evil.example"], False),
        ((), [b"https://gateway.test.evil.example"], False),
        ((), [b"null"], False),
        ((), [b""], False),
        ((), [b"http://gateway.test", b"http://gateway.test"], False),
        (("https://inbox.example",), [b"https://inbox.example"], True),
        (("https://inbox.example",), [b"http://inbox.example"], False),
        (("*",), [b"https://evil.example"], True),
    ],
)
async def test_origins(nursery: trio.Nursery, origins: tuple[str, ...], sent: list[bytes], allowed: bool) -> None:
    gateway = Gateway(origins=frozenset(origins))
    client = await connect(gateway, nursery, (*BEARER, *((b"origin", origin) for origin in sent)))
    assert client.accepted.is_set() == allowed
    if not allowed:
        assert client.rejection is not None
        assert client.rejection.status == 403


async def test_who_shows_no_key_in_time_is_closed(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await connect(gateway, nursery, ())
    for _ in range(9):
        await trio.sleep(1)
        client.ask(type="ping")
        await client.frame()
    assert client.close_code is None
    await trio.sleep(2)
    assert client.close_code == 4001
    assert gateway.sessions.statistics().open == 0


async def test_a_wrong_key_in_a_frame_is_closed_at_once(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await connect(gateway, nursery, ())
    client.ask(type="authenticate", token="pk_eve")
    with trio.fail_after(1):
        await client.closed.wait()
    assert (client.close_code, client.close_reason) == (4001, "this key is not valid")


async def test_over_the_cap_it_is_closed_with_a_code(nursery: trio.Nursery) -> None:
    gateway = Gateway(limit=1)
    first = await connect(gateway, nursery, ())
    second = await connect(gateway, nursery)
    assert second.close_code == 4013
    first.client_close()
    await wait_all_tasks_blocked()
    third = await connect(gateway, nursery)
    assert (await third.frame())["type"] == "welcome"


# --- frames --------------------------------------------------------------------------------------------------------------


async def test_events_after_a_position_then_live_ones(gateway: Gateway, nursery: trio.Nursery) -> None:
    gateway.publish(3)
    client = await subscribed(gateway, nursery, id=7, epoch="one", offset=1)
    assert [frame["offset"] for frame in await client.frames(2)] == [2, 3]
    assert await client.frame() == {"type": "subscribed", "epoch": "one", "offset": 3, "id": 7}
    gateway.publish(1, b'{"type":"noted"}')
    assert await client.frame() == {
        "type": "event",
        "offset": 4,
        "conversation": "cnv_1",
        "endpoint": "whatsapp:1",
        "version": 4,
        "recorded_at": 0,
        "event": {"type": "noted"},
    }
    client.ask(type="unsubscribe", id=8)
    assert await client.frame() == {"type": "unsubscribed", "id": 8}
    client.client_close()


async def test_events_are_framed_once_for_all() -> None:
    frame = event_message(b'"offset":1')
    assert frame.payload == b'{"type":"event","offset":1}'
    assert frame.wire == Frame(frame.payload).wire


async def test_what_is_published_together_leaves_in_one_write(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await subscribed(gateway, nursery)
    await client.frame()
    before = len(client.writes)
    gateway.publish(50)
    await client.frames(50)
    assert client.writes[before:] == [50]
    client.client_stop_reading()
    await trio.sleep(1)
    gateway.publish()
    await wait_all_tasks_blocked()
    gateway.publish(20)
    gateway.publish(20)
    client.client_resume_reading()
    await client.frames(41)
    assert client.writes[before + 1 :] == [1, 40]


async def test_clients_that_leave_hold_up_nobody(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clients = [await subscribed(gateway, nursery) for _ in range(3)]
    for client in clients:
        assert (await client.frame())["type"] == "subscribed"
    for offset in range(1, 200):
        gateway.publish()
        await trio.sleep(0.01)
        if offset % 70 == 0:
            clients.pop(0).client_close()
    [client] = clients
    with trio.fail_after(1):
        assert [frame["offset"] for frame in await client.frames(199)] == list(range(1, 200))


BAD = [
    "",
    "nul",
    "[]",
    '"ping"',
    '{"type":"dance"}',
    '{"id":1}',
    '{"type":"ping","extra":1}',
    '{"type":"ping","id":"1"}',
    '{"type":"ping","id":-1}',
    '{"type":"ping","id":9007199254740992}',
    '{"type":"ping","id":1e400}',
    '{"type":"subscribe"}',
    '{"type":"subscribe","topics":["tenant",1]}',
    '{"type":"subscribe","topics":["tenant"],"epoch":"one","offset":-1}',
    '{"type":"authenticate","token":null}',
    '{"a":' + "[" * 100_000,
    '{"type":"' + "ü" * 1000 + '"}',
    b'{"type":"ping"}',
]


@pytest.mark.parametrize("message", BAD, ids=range(len(BAD)))
@pytest.mark.parametrize("headers", [BEARER, ()], ids=["authenticated", "not yet"])
async def test_what_is_no_frame_is_closed(
    gateway: Gateway, nursery: trio.Nursery, message: str | bytes, headers: Headers
) -> None:
    client = await connect(gateway, nursery, headers)
    client.client_send(message)
    await client.closed.wait()
    assert client.close_code == 4000
    assert 0 < len(client.close_reason.encode()) <= 123
    assert gateway.sessions.statistics().open == 0


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from(["tenant", "one"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
requests = st.fixed_dictionaries(
    {"type": st.sampled_from(["subscribe", "unsubscribe", "ping", "authenticate", "event", ""])},
    optional=dict.fromkeys(("id", "topics", "epoch", "offset", "token", "extra"), json_values),
).map(json.dumps)


@pytest.mark.slow
@settings(max_examples=300, deadline=None)
@given(messages=st.lists(requests | st.text(max_size=20) | st.binary(max_size=5), max_size=5))
async def test_any_message_is_answered_or_closed_with_bad_frame(messages: list[str | bytes]) -> None:
    gateway = Gateway()
    async with trio.open_nursery() as nursery:
        client = await connect(gateway, nursery)
        client.client_send(*messages)
        answers = []
        with suppress(trio.EndOfChannel):
            for _ in range(1 + len(messages)):
                answers.append(await client.client_receive())
        if len(answers) <= len(messages):
            assert client.close_code == 4000
        client.client_close()
        assert await client.client_rest() == []


# --- ends ----------------------------------------------------------------------------------------------------------------


async def test_the_client_leaves(gateway: Gateway, nursery: trio.Nursery) -> None:
    client = await subscribed(gateway, nursery)
    client.client_close()
    await client.closed.wait()
    await wait_all_tasks_blocked()
    assert gateway.sessions.statistics().open == 0
    assert gateway.feed.statistics().subscribers == 0


async def test_the_client_leaves_while_a_write_to_it_is_blocked(gateway: Gateway, nursery: trio.Nursery) -> None:
    client = await subscribed(gateway, nursery)
    await client.frame()
    client.client_stop_reading()
    gateway.publish()
    await wait_all_tasks_blocked()
    client.client_close()
    await client.closed.wait()


async def test_a_revoked_key_is_closed_at_once_after_what_was_queued(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await subscribed(gateway, nursery)
    await client.frame()
    gateway.publish(3)
    assert gateway.sessions.close_key("key_1") == 1
    gateway.publish(3)
    with trio.fail_after(1):
        rest = await client.client_rest()
    assert [json.loads(message)["offset"] for message in rest] == [1, 2, 3]
    assert client.close_code == 4001


async def test_shutdown_closes_with_going_away(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    clients = [await subscribed(gateway, nursery), await connect(gateway, nursery, ())]
    stuck = await subscribed(gateway, nursery)
    await stuck.frame()
    stuck.client_stop_reading()
    gateway.publish()
    await wait_all_tasks_blocked()
    began = trio.current_time()
    await gateway.sessions.shutdown(grace=3)
    assert trio.current_time() - began == 3
    await wait_all_tasks_blocked()
    assert [client.close_code for client in (*clients, stuck)] == [1001, 1001, 1001]
    late = await connect(gateway, nursery)
    assert late.close_code == 1001


async def test_a_slow_consumer_is_told_so_when_it_reads_again(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    client = await subscribed(gateway, nursery)
    await client.frame()
    await trio.sleep(1)
    client.client_stop_reading()
    gateway.publish(1)
    await wait_all_tasks_blocked()
    gateway.publish(1100, b'"%b"' % (b"x" * 1000))
    await wait_all_tasks_blocked()
    assert client.close_code is None  # not in the middle of the frame that is being written
    client.client_resume_reading()
    assert [json.loads(message)["offset"] for message in await client.client_rest()] == [1]
    assert client.close_code == 4008


async def test_a_large_catch_up_waits_for_its_reader_and_is_not_slow(gateway: Gateway, nursery: trio.Nursery) -> None:
    gateway.publish(3000, b'"%b"' % (b"x" * 1000))
    client = await subscribed(gateway, nursery, epoch="one", offset=0)
    client.client_stop_reading()
    await wait_all_tasks_blocked()
    assert gateway.sessions.statistics().queued_bytes < DEFAULT_MAX_BYTES // 2
    client.client_resume_reading()
    assert [frame["offset"] for frame in await client.frames(3000)] == list(range(1, 3001))
    assert (await client.frame())["type"] == "subscribed"


@pytest.mark.slow
async def test_a_full_ring_fits_on_top_of_a_catch_up_that_nobody_has_read(
    gateway: Gateway, nursery: trio.Nursery
) -> None:
    """Small events, so that what stands around each counts most: the ring is full by number and by bytes at once."""
    first = await subscribed(gateway, nursery)
    await first.frame()
    body = b'"%b"' % (b"x" * (actors.feed.RING_BYTES // actors.feed.RING_EVENTS - 98))
    for _ in range(100):
        gateway.publish(100, body)
        await first.frames(100)
    assert gateway.feed.statistics().ring_bytes > 0.95 * actors.feed.RING_BYTES
    client = await connect(gateway, nursery)
    client.client_stop_reading()
    start = 10_000 - actors.feed.RING_EVENTS - 1500
    client.ask(type="subscribe", topics=["tenant"], epoch="one", offset=start)
    await wait_all_tasks_blocked()
    assert 0.7 * DEFAULT_MAX_BYTES < gateway.sessions.statistics().queued_bytes < 0.9 * DEFAULT_MAX_BYTES
    client.client_resume_reading()
    assert (await client.frame())["type"] == "welcome"
    assert [frame["offset"] for frame in await client.frames(10_000 - start)] == list(range(start + 1, 10_001))
    assert client.close_code is None


@pytest.mark.slow
async def test_500_clients_that_do_not_read_are_bounded_and_closed_and_hold_up_nobody(
    gateway: Gateway, nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    """RELIABILITY 9."""
    slow = [Client() for _ in range(500)]
    for client in slow:
        nursery.start_soon(gateway.serve, client)
        client.ask(type="subscribe", topics=["tenant"])
    reader = await subscribed(gateway, nursery)
    await reader.frame()
    for client in slow:
        client.client_stop_reading()
    body = b'"%b"' % (b"x" * 10_000)
    for offset in range(1, 131):
        gateway.publish(1, body)
        with trio.fail_after(0.1):
            assert (await reader.frame())["offset"] == offset
        statistics = gateway.sessions.statistics()
        assert statistics.queued_bytes <= statistics.open * DEFAULT_MAX_BYTES
    assert gateway.feed.statistics().subscribers == 1
    await trio.sleep(10)
    assert {client.close_code for client in slow} == {4008}
    assert gateway.sessions.statistics().open == 1
