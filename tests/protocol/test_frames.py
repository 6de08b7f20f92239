"""The realtime protocol's frames: topics, reading, writing, and that its document names every code."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol import frames
from protocol.errors import RemoteProtocolError
from protocol.frames import (
    Authenticate,
    ClientFrame,
    Ping,
    Pong,
    Refused,
    SnapshotRequired,
    Subscribe,
    Subscribed,
    Topics,
    Unsubscribe,
    decode_client,
    event_fields,
    parse_topics,
    read_request,
)

DOCUMENT = Path(__file__).parents[2] / "docs" / "realtime.md"


@pytest.mark.parametrize(
    ("text", "frame"),
    [
        ('{"type":"authenticate","token":"pk"}', Authenticate("pk")),
        ('{"type":"subscribe","topics":["tenant"]}', Subscribe(("tenant",))),
        (
            '{"topics":["a","b"],"type":"subscribe","id":0,"epoch":"one","offset":9007199254740991}',
            Subscribe(("a", "b"), 0, "one", 2**53 - 1),
        ),
        ('{"type":"unsubscribe","id":3}', Unsubscribe(3)),
        ('{"type":"ping"}', Ping()),
        (b'{"type":"ping","id":null}', Ping()),
    ],
)
def test_a_frame_is_read(text: str | bytes, frame: ClientFrame) -> None:
    assert decode_client(text) == frame


@pytest.mark.slow
@given(st.text() | st.binary() | st.recursive(st.none() | st.text(), st.lists).map(json.dumps))
def test_anything_else_is_the_peers_error(message: str | bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_client(message)


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"type":"authenticate","token":"\ud800"}'])
def test_so_is_what_the_decoder_cannot_even_look_at(text: str) -> None:
    with pytest.raises(RemoteProtocolError):
        decode_client(text)


@pytest.mark.parametrize(
    ("name", "arguments", "frame"),
    [
        ("ping", [], Ping()),
        ("ping", [{"id": 1}], Ping(1)),
        ("unsubscribe", [{}], Unsubscribe()),
        ("subscribe", [{"topics": ["tenant"], "epoch": "e", "offset": 0}], Subscribe(("tenant",), None, "e", 0)),
    ],
)
def test_a_socket_io_event_is_read(name: str, arguments: list[Any], frame: ClientFrame) -> None:
    assert read_request(name, arguments) == frame


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.binary(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(["subscribe", "unsubscribe", "ping", "authenticate", "7"]), st.lists(json_values, max_size=2))
def test_any_socket_io_event_is_a_frame_or_the_peers_error(name: str, arguments: list[Any]) -> None:
    try:
        frame = read_request(name, arguments)
    except RemoteProtocolError:
        return
    assert frame in (Ping(), Unsubscribe())
    assert arguments in ([], [{}])


def test_absent_parts_are_not_written() -> None:
    assert frames.encode(Pong()) == b'{"type":"pong"}'
    assert frames.encode(Pong(0)) == b'{"type":"pong","id":0}'
    assert frames.encode(Subscribed("one", 0)) == b'{"type":"subscribed","epoch":"one","offset":0}'
    assert frames.encode(SnapshotRequired("ahead", "one", 2, 1)) == (
        b'{"type":"snapshot_required","reason":"ahead","epoch":"one","offset":2,"id":1}'
    )


# --- topics --------------------------------------------------------------------------------------------------------------


def test_topics_are_parsed() -> None:
    assert parse_topics(("endpoint:whatsapp:1", "conversation:cnv_1", "endpoint:whatsapp:1")) == Topics(
        False, frozenset({"whatsapp:1"}), frozenset({"cnv_1"})
    )
    assert parse_topics(("tenant", "conversation:cnv_1")) == Topics(True, frozenset(), frozenset({"cnv_1"}))
    assert not isinstance(parse_topics(tuple(f"conversation:{number}" for number in range(100))), Refused)


@pytest.mark.parametrize(
    "topic", ["", "tenants", "tenant:x", "endpoint", "endpoint:", "conversation:", ":x", "x" * 9999]
)
def test_unknown_topics_are_refused_in_few_words(topic: str) -> None:
    refused = parse_topics(("tenant", topic))
    assert isinstance(refused, Refused)
    assert refused.code == "bad_topic"
    assert len(refused.detail) < 200


def test_no_topics_and_too_many_are_refused() -> None:
    for topics, code in (((), "bad_topic"), (("tenant",) * 101, "too_many_topics")):
        refused = parse_topics(topics)
        assert isinstance(refused, Refused)
        assert refused.code == code


@pytest.mark.parametrize(
    ("topics", "endpoint", "conversation", "wanted"),
    [
        (("tenant",), None, "tnt_A", True),
        (("endpoint:e1",), "e1", "cnv_9", True),
        (("endpoint:e1",), "e2", "cnv_9", False),
        (("endpoint:e1",), None, "tnt_A", False),
        (("conversation:cnv_1",), "e2", "cnv_1", True),
        (("conversation:cnv_1",), "e2", "cnv_2", False),
        (("conversation:cnv_1", "endpoint:e1"), "e1", "cnv_2", True),
    ],
)
def test_topics_want(topics: tuple[str, ...], endpoint: str | None, conversation: str, wanted: bool) -> None:
    parsed = parse_topics(topics)
    assert isinstance(parsed, Topics)
    assert parsed.want(endpoint, conversation) is wanted


# --- events --------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@given(
    st.none() | st.from_regex(r"[a-z]{1,9}:[0-9]{1,15}", fullmatch=True),
    st.integers(1, 2**53),
    st.integers(1, 2**31),
    st.integers(0, 2**45),
    st.dictionaries(st.text(), st.text()),
)
def test_event_fields_are_the_inside_of_an_object(
    endpoint: str | None, offset: int, version: int, recorded_at: int, event: dict[str, str]
) -> None:
    fields = event_fields("cnv_01", endpoint, offset, version, recorded_at, msgspec.json.encode(event))
    assert json.loads(b"{" + fields + b"}") == {
        "offset": offset,
        "conversation": "cnv_01",
        "endpoint": endpoint,
        "version": version,
        "recorded_at": recorded_at,
        "event": event,
    }


# --- the document --------------------------------------------------------------------------------------------------------


def test_the_document_names_every_code_frame_and_reason() -> None:
    text = DOCUMENT.read_text()
    constants = {
        name: value
        for name, value in vars(frames).items()
        if name.isupper() and name[0] != "_" and name != "MAX_TOPICS"
    }
    assert len(constants) > 12
    for name, value in constants.items():
        assert f"`{value}`" in text or f"| {value} |" in text, name
    for frame in (*frames.ClientFrame.__args__, *frames.ServerFrame.__args__):
        assert f"`{frame.__struct_config__.tag}`" in text
        for field in frame.__struct_fields__:
            assert f"`{field}`" in text, (frame, field)
    for reason in ("epoch_changed", "too_old", "ahead"):
        assert f"`{reason}`" in text
