"""Socket.IO packets: the protocol document's examples, the parsing rules, and python-socketio as a second opinion."""

from typing import Any

import pytest
import socketio.packet
from hypothesis import given
from hypothesis import strategies as st

from protocol.errors import LocalProtocolError, RemoteProtocolError
from protocol.socketio import MAX_ACK_ID, RESERVED_EVENTS, Decoder, Packet, PacketType, encode, encode_event

CONNECT, DISCONNECT, EVENT, ACK, CONNECT_ERROR = list(PacketType)[:5]
PLACEHOLDER = '{"_placeholder":true,"num":0}'


def feed_all(text: str, *attachments: bytes) -> Packet | None:
    decoder = Decoder()
    packet = decoder.feed(text)
    for attachment in attachments:
        assert packet is None
        packet = decoder.feed(attachment)
    return packet


EXAMPLES = [
    ("0", (), Packet(CONNECT)),
    ('0{"token":"T"}', (), Packet(CONNECT, data={"token": "T"})),
    ('0/ops,{"token":"T"}', (), Packet(CONNECT, "/ops", data={"token": "T"})),
    (
        '4/ops,{"message":"no","data":{"code":"E1"}}',
        (),
        Packet(CONNECT_ERROR, "/ops", data={"message": "no", "data": {"code": "E1"}}),
    ),
    ("1/ops,", (), Packet(DISCONNECT, "/ops")),
    ('2["foo"]', (), Packet(EVENT, data=["foo"])),
    ('20["foo"]', (), Packet(EVENT, id=0, data=["foo"])),
    ('2/admin,7["bar",{"a":1}]', (), Packet(EVENT, "/admin", 7, ["bar", {"a": 1}])),
    ('3/admin,13["bar"]', (), Packet(ACK, "/admin", 13, ["bar"])),
    ("30[]", (), Packet(ACK, id=0, data=[])),
    (f'51-["baz",{PLACEHOLDER}]', (b"\1\2",), Packet(EVENT, data=["baz", b"\1\2"])),
    (
        f'52-/admin,["baz",{PLACEHOLDER},{{"_placeholder":true,"num":1}}]',
        (b"", b"\3"),
        Packet(EVENT, "/admin", None, ["baz", b"", b"\3"]),
    ),
    (f'61-15["bar",{{"x":[{PLACEHOLDER}]}}]', (b"\4",), Packet(ACK, id=15, data=["bar", {"x": [b"\4"]}])),
]


@pytest.mark.parametrize(("text", "attachments", "packet"), EXAMPLES)
def test_examples_of_the_protocol_document(text: str, attachments: tuple[bytes, ...], packet: Packet) -> None:
    assert feed_all(text, *attachments) == packet
    encoded = encode(packet)
    assert (encoded.text.decode(), tuple(encoded.attachments)) == (text, attachments)


@pytest.mark.parametrize(
    ("text", "packet"),
    [
        ("0/ops", Packet(CONNECT, "/ops")),  # the comma may be missing at the end
        ("1/ops", Packet(DISCONNECT, "/ops")),
        ("0/ops?token=1,", Packet(CONNECT, "/ops")),  # a query in a namespace is cut
        ("0/,{}", Packet(CONNECT, "/", data={})),
        ('50-["a"]', Packet(EVENT, data=["a"])),  # announces no attachment: complete
        ("2[1,2]", Packet(EVENT, data=[1, 2])),
        ('2[""]', Packet(EVENT, data=[""])),
        (f'2["a",{PLACEHOLDER}]', Packet(EVENT, data=["a", {"_placeholder": True, "num": 0}])),
        ('29007199254740991["a"]', Packet(EVENT, id=MAX_ACK_ID, data=["a"])),
    ],
)
def test_what_else_is_valid(text: str, packet: Packet) -> None:
    assert feed_all(text) == packet


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "abc",
        "٢[1]",
        "2",
        "2{}",
        "2[]",
        "2[null]",
        "2[true]",
        '2[["a"]]',
        '2["a"',
        '2["a"]x',
        '2abc["a"]',
        '2-1["a"]',
        '29007199254740992["a"]',
        '212345678901234567["a"]',
        '21٣["a"]',
        "2[NaN]",
        "0[]",
        "0null",
        '0"x"',
        "01{}",
        "1{}",
        "11",
        "3[1]",
        "31",
        "31{}",
        "4",
        "4[]",
        '5["a"]',
        '5-["a"]',
        '5x-["a"]',
        '511-["a"]',
        '59999999-["a"]',
        "61-[]",
        *(f'2["{name}"]' for name in RESERVED_EVENTS),
        '2["a",' + "[" * 5000 + "]" * 5000 + "]",
        '2["\\ud800"]',
    ],
)
def test_what_breaks_a_rule_is_refused(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        Decoder().feed(text)


def test_bytes_nobody_announced_are_refused() -> None:
    with pytest.raises(RemoteProtocolError):
        Decoder().feed(b"x")


def test_text_in_place_of_an_attachment_is_refused() -> None:
    decoder = Decoder()
    assert decoder.feed(f'51-["a",{PLACEHOLDER}]') is None
    with pytest.raises(RemoteProtocolError):
        decoder.feed('2["b"]')


@pytest.mark.parametrize("number", ["1", "-1", "0.0", '"0"', "false", "null", "[]"])
def test_a_placeholder_that_points_nowhere_is_refused(number: str) -> None:
    decoder = Decoder()
    decoder.feed(f'51-["a",{{"_placeholder":true,"num":{number}}}]')
    with pytest.raises(RemoteProtocolError):
        decoder.feed(b"x")


def test_a_decoder_reads_one_packet_after_another() -> None:
    decoder = Decoder()
    for n in range(3):
        assert decoder.feed(f'51-{n}["a",{PLACEHOLDER}]') is None
        assert decoder.feed(b"%d" % n) == Packet(EVENT, id=n, data=["a", b"%d" % n])
        assert decoder.feed(f'2{n}["b"]') == Packet(EVENT, id=n, data=["b"])


def test_placeholders_may_be_nested_as_deep_as_json_may() -> None:
    text = '51-["a",' + "[" * 900 + PLACEHOLDER + "]" * 900 + "]"
    packet = feed_all(text, b"deep")
    assert packet is not None
    value = packet.data[1]
    while isinstance(value, list):
        (value,) = value
    assert value == b"deep"


@pytest.mark.parametrize(
    "packet",
    [
        Packet(EVENT, data=["connect"]),
        Packet(EVENT, data=[]),
        Packet(EVENT, data=["a", object()]),
        Packet(EVENT, data=["a", 2**70]),
        Packet(EVENT, data=["a", *[b""] * 11]),
        Packet(EVENT, "ops", data=["a"]),
        Packet(EVENT, "/a,b", data=["a"]),
        Packet(ACK, data=[1]),
        Packet(CONNECT, data={"a": b""}),
        Packet(PacketType.BINARY_EVENT, data=["a"]),
    ],
)
def test_our_own_mistakes_are_ours(packet: Packet) -> None:
    with pytest.raises(LocalProtocolError):
        encode(packet)


def test_an_event_of_encoded_json_equals_one_of_objects() -> None:
    packet = Packet(EVENT, "/ops", data=['na"me', {"a": 1}, [None]])
    assert encode_event('na"me', [b'{"a":1}', b"[null]"], "/ops") == encode(packet).text
    with pytest.raises(LocalProtocolError):
        encode_event("disconnect", [])


# --- properties ---

texts = st.text(st.characters(blacklist_categories=["Cs"]))
numbers = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | texts
values = st.recursive(
    scalars | st.binary(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(texts.filter(lambda key: key != "_placeholder"), inner, max_size=3)
    ),
    max_leaves=8,
)
namespaces = st.sampled_from(["/", "/ops", "/a/b"])
names = texts.filter(lambda name: name not in RESERVED_EVENTS)
ack_ids = st.integers(0, MAX_ACK_ID)
events = st.builds(Packet, st.just(EVENT), namespaces, st.none() | ack_ids, st.tuples(names, values).map(list))
acks = st.builds(Packet, st.just(ACK), namespaces, ack_ids, st.lists(values, max_size=2))


@given(events | acks)
def test_packets_round_trip(packet: Packet) -> None:
    encoded = encode(packet)
    assert feed_all(encoded.text.decode(), *encoded.attachments) == packet


@given(events | acks)
def test_python_socketio_reads_what_we_write_and_we_what_it_writes(packet: Packet) -> None:
    ours = encode(packet)
    theirs = socketio.packet.Packet(encoded_packet=ours.text.decode())
    for attachment in ours.attachments:
        theirs.add_attachment(attachment)
    assert (theirs.namespace or "/", theirs.id, theirs.data) == (packet.namespace, packet.id, packet.data)
    written = socketio.packet.Packet(int(packet.type), packet.data, packet.namespace, packet.id).encode()
    text, *attachments = written if isinstance(written, list) else [written]
    assert feed_all(text, *attachments) == packet


pieces = st.sampled_from(
    [
        "0",
        "1",
        "2",
        "3",
        "4",
        "5",
        "6",
        "-",
        "/ops",
        ",",
        "12",
        '["a"]',
        '["a",' + PLACEHOLDER + "]",
        "{}",
        "[",
        '"',
        "?",
        "\x00",
        "€",
    ]
)


@given(st.lists(st.lists(pieces, max_size=6).map("".join) | st.text() | st.binary(max_size=4), max_size=4))
def test_any_messages_are_packets_or_a_protocol_error(messages: list[str | bytes]) -> None:
    decoder = Decoder()
    try:
        for message in messages:
            packet: Any = decoder.feed(message)
            assert packet is None or packet.type <= CONNECT_ERROR
            if packet is not None and packet.type in (EVENT, ACK):
                assert encode(packet).text  # whatever came in whole can go out again
    except RemoteProtocolError as error:
        assert error.status_hint == 400
