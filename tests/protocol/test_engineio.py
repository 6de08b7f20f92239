"""Engine.IO packets, payloads, handshake rules, transitions and heartbeat; cross-checked against python-engineio."""

import contextlib
import json

import engineio.packet
import engineio.payload
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.engineio import (
    MAX_QUERY_FIELDS,
    TRANSITIONS,
    Beat,
    Heartbeat,
    Packet,
    PacketType,
    Query,
    Refusal,
    State,
    Step,
    Transport,
    check_request,
    decode_packet,
    encode_open,
    encode_packet,
    encode_payload,
    iter_payload,
    parse_query,
    upgrade_step,
)
from protocol.errors import LocalProtocolError, RemoteProtocolError

# What can stand in a packet: everything but the separator and lone surrogates, which are not UTF-8.
texts = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x1e"))
packets = st.builds(Packet, st.sampled_from(PacketType), texts) | st.builds(
    Packet, st.just(PacketType.MESSAGE), st.binary()
)


@pytest.mark.parametrize(
    ("wire", "packet"),
    [
        ("2", Packet(PacketType.PING)),
        ("2probe", Packet(PacketType.PING, "probe")),
        ("4", Packet(PacketType.MESSAGE)),
        ("4hello", Packet(PacketType.MESSAGE, "hello")),
        ("4€", Packet(PacketType.MESSAGE, "€")),
        ("b", Packet(PacketType.MESSAGE, b"")),
        ("bAQIDBA==", Packet(PacketType.MESSAGE, b"\1\2\3\4")),
        (b"\1\2", Packet(PacketType.MESSAGE, b"\1\2")),
        (b"", Packet(PacketType.MESSAGE, b"")),
    ],
)
def test_packets_of_the_protocol_document_are_read(wire: str | bytes, packet: Packet) -> None:
    assert decode_packet(wire) == packet


@pytest.mark.parametrize("wire", ["", "7", "abc", "-", "٣", "bAQI", "bAQ=I", "b*", "bé", " 4"])
def test_what_is_no_packet_is_refused(wire: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_packet(wire)


@pytest.mark.parametrize("body", [b"", b"\x1e", b"4a\x1e", b"\x1e4a", b"4a\x1eabc", b"4\xff", b"4\xed\xa0\x80"])
def test_what_is_no_payload_is_refused(body: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        list(iter_payload(body))


def test_packets_before_a_broken_one_are_yielded() -> None:
    payload = iter_payload(b"4a\x1eabc")
    assert next(payload) == Packet(PacketType.MESSAGE, "a")
    with pytest.raises(RemoteProtocolError):
        next(payload)


def test_bytes_belong_in_messages() -> None:
    with pytest.raises(LocalProtocolError):
        encode_packet(Packet(PacketType.PING, b"x"))


@given(st.lists(packets, min_size=1))
def test_payloads_round_trip_and_equal_python_engineio(given_packets: list[Packet]) -> None:
    body = encode_payload(map(encode_packet, given_packets))
    assert list(iter_payload(body)) == given_packets
    theirs = [engineio.packet.Packet(int(packet.type), packet.data) for packet in given_packets]
    assert body.decode() == engineio.payload.Payload(packets=theirs).encode()


@given(st.text() | st.binary())
def test_any_message_is_a_packet_or_a_protocol_error(message: str | bytes) -> None:
    try:
        assert isinstance(decode_packet(message), Packet)
    except RemoteProtocolError as error:
        assert error.status_hint == 400


@given(st.binary() | st.lists(st.sampled_from([b"4a", b"b", b"AQ==", b"\x1e", b"\xff", b"2", b"x"])).map(b"".join))
def test_any_body_is_packets_or_a_protocol_error(body: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert len(list(iter_payload(body))) == body.count(b"\x1e") + 1


# --- handshake ---


def test_query_is_read_and_the_rest_of_it_skipped() -> None:
    assert parse_query(b"EIO=4&transport=polling&t=abc&sid=a%2Db&token=&token=2") == Query("4", "polling", "a-b")
    assert parse_query(b"") == Query()


@pytest.mark.parametrize("query", [b"EIO=4&EIO=4", b"sid=a&sid=b", b"&".join([b"a=1"] * (MAX_QUERY_FIELDS + 1))])
def test_ambiguous_and_endless_queries_are_refused(query: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_query(query)


@given(st.binary())
def test_any_query_is_read_or_refused(query: bytes) -> None:
    with contextlib.suppress(RemoteProtocolError):
        assert isinstance(parse_query(query), Query)


POLLING, WEBSOCKET = Transport.POLLING, Transport.WEBSOCKET


@pytest.mark.parametrize(
    ("query", "method", "via", "current", "expected"),
    [
        (b"EIO=4&transport=polling", "GET", POLLING, None, None),
        (b"EIO=4&transport=websocket", "GET", WEBSOCKET, None, None),
        (b"EIO=4", "GET", POLLING, None, Refusal.UNKNOWN_TRANSPORT),
        (b"EIO=4&transport=webtransport", "GET", POLLING, None, Refusal.UNKNOWN_TRANSPORT),
        (b"EIO=4&transport=polling&sid=x", "GET", POLLING, None, Refusal.UNKNOWN_SID),
        (b"EIO=4&transport=polling", "POST", POLLING, None, Refusal.BAD_HANDSHAKE_METHOD),
        (b"EIO=4&transport=websocket", "GET", POLLING, None, Refusal.BAD_REQUEST),
        (b"EIO=4&transport=polling", "GET", WEBSOCKET, None, Refusal.BAD_REQUEST),
        (b"transport=polling", "GET", POLLING, None, Refusal.UNSUPPORTED_VERSION),
        (b"EIO=3&transport=polling", "GET", POLLING, None, Refusal.UNSUPPORTED_VERSION),
        (b"EIO=4&transport=polling&sid=x", "POST", POLLING, State.POLLING, None),
        (b"EIO=4&transport=polling&sid=x", "GET", POLLING, State.PROBED, None),
        (b"EIO=4&transport=polling&sid=x", "GET", POLLING, State.WEBSOCKET, Refusal.BAD_REQUEST),
        (b"EIO=4&transport=websocket&sid=x", "GET", POLLING, State.WEBSOCKET, Refusal.BAD_REQUEST),
        (b"EIO=4&transport=websocket&sid=x", "GET", WEBSOCKET, State.POLLING, None),
    ],
)
def test_requests_are_refused_with_the_code_of_the_table(
    query: bytes, method: str, via: Transport, current: State | None, expected: Refusal | None
) -> None:
    assert check_request(parse_query(query), method, via, current) is expected


def test_refusals_keep_the_codes_clients_know() -> None:
    assert [refusal.code for refusal in Refusal] == list(range(8))
    assert json.loads(Refusal.UNKNOWN_SID.body()) == {"code": 1, "message": "Session ID unknown"}
    assert {refusal.status for refusal in Refusal} == {400, 403, 503}


@pytest.mark.parametrize(("transport", "upgrades"), [(POLLING, ["websocket"]), (WEBSOCKET, [])])
def test_open_packet(transport: Transport, upgrades: list[str]) -> None:
    packet = encode_open("abc", transport, ping_interval=25, ping_timeout=0.2, max_payload=1_000_000)
    assert packet[:1] == b"0"
    assert json.loads(packet[1:]) == {
        "sid": "abc",
        "upgrades": upgrades,
        "pingInterval": 25000,
        "pingTimeout": 200,
        "maxPayload": 1_000_000,
    }


# --- the life of a session ---


def test_the_only_way_from_polling_to_websocket_is_attach_probe_upgrade() -> None:
    ways = [way for way, state in TRANSITIONS.items() if state is State.WEBSOCKET]
    assert ways == [(State.PROBED, Step.UPGRADE)]
    assert TRANSITIONS[State.POLLING, Step.ATTACH] is State.ATTACHED
    assert TRANSITIONS[State.ATTACHED, Step.PROBE] is State.PROBED
    assert not [step for state, step in TRANSITIONS if state is State.CLOSED]
    assert all((state, Step.CLOSE) in TRANSITIONS for state in State if state is not State.CLOSED)


@pytest.mark.parametrize(
    ("wire", "step"), [("2probe", Step.PROBE), ("5", Step.UPGRADE), ("2", Step.DETACH), ("4x", Step.DETACH)]
)
def test_upgrade_packets(wire: str, step: Step) -> None:
    assert upgrade_step(decode_packet(wire)) is step


def test_heartbeat_pings_once_per_interval_counted_from_the_pong() -> None:
    heart = Heartbeat(25, 20, now=100)
    assert heart.tick(124.9) is Beat.WAIT
    assert heart.tick(125) is Beat.PING
    assert heart.tick(126) is Beat.WAIT
    heart.pong(127)
    assert heart.deadline == 152
    assert heart.tick(151) is Beat.WAIT
    assert heart.tick(152) is Beat.PING


def test_heartbeat_declares_death_a_timeout_after_the_ping_was_due() -> None:
    heart = Heartbeat(25, 20, now=0)
    assert heart.tick(27) is Beat.PING
    assert heart.deadline == 45
    assert heart.tick(44.9) is Beat.WAIT
    assert heart.tick(45) is Beat.DEAD


def test_a_stall_of_our_own_leaves_the_peer_half_the_timeout() -> None:
    heart = Heartbeat(25, 20, now=0)
    assert heart.tick(80) is Beat.PING
    assert heart.tick(89) is Beat.WAIT
    assert heart.tick(90) is Beat.DEAD


def test_a_pong_nobody_asked_for_puts_off_no_ping() -> None:
    heart = Heartbeat(25, 20, now=0)
    heart.pong(20)
    assert heart.tick(25) is Beat.PING
