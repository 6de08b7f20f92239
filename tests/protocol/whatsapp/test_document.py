"""Which bodies are refused whole; garbage gives items or RemoteProtocolError and nothing else."""

import json
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from protocol.commands import ReceiveMessage
from protocol.content import Text
from protocol.errors import RemoteProtocolError
from protocol.whatsapp import peek_endpoints, split
from protocol.whatsapp.document import admit
from tests.protocol.whatsapp.examples import MESSAGES, VALUES, body, value

GOOD = body(("messages", value(messages=[MESSAGES["text"]])))


def with_member(text: bytes) -> bytes:
    return GOOD[:-1] + b',"note":' + text + b"}"


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"hello",
        b"null",
        b"5",
        b'"text"',
        b"[]",
        b"[" + GOOD + b"]",
        b"{}",
        b'{"object":"whatsapp_business_account"}',
        b'{"object":"whatsapp_business_account","entry":{}}',
        b'{"object":"whatsapp_business_account","entry":5}',
        b'{"object":"page","entry":[]}',
        b'{"object":"page","entry":[5]}',
        b'{"object":5,"entry":[]}',
        GOOD[:-1],
        GOOD + b"x",
        b"\xef\xbb\xbf" + GOOD,
        GOOD.decode().encode("utf-16"),
        with_member(b'"\xff"'),
        with_member(b'"\xed\xa0\x80"'),
        with_member(b'"a\x00b"'),
        with_member(b"NaN"),
        with_member(b"-Infinity"),
        with_member(b"1e999"),
        with_member(b"-1e999"),
        with_member(b"1" * 400),
        with_member(b"1" * 10_000),
        with_member(b"01"),
        with_member(b"[" * 100_000),
        with_member(b"[" * 100_000 + b"]" * 100_000),
        with_member(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        with_member(b"[" * 300 + b"]" * 300),
        with_member(b'1,"object":"whatsapp_business_account"'),
        with_member(b'{"a":1,"a":1}'),
        with_member(b'{"a":1,"\\u0061":2}'),
        with_member(b'{"a":1,"a":"\\u003a"}'),
        with_member(b'{"a":1,"a" :2}'),
        with_member(b'{"a":1,"a":2,"b":"\\u003a\\u003A"}'),
        with_member(b'{"a":1,"a":"\\ud83d"}'),
    ],
    ids=lambda bad: bad[-40:],
)
def test_a_body_that_readers_could_read_differently_is_refused(bad: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        split(bad)


@pytest.mark.parametrize(
    "good",
    [
        GOOD,
        json.dumps(json.loads(GOOD), indent=2).encode(),
        json.dumps(json.loads(GOOD), separators=(" , ", " : ")).encode(),
        with_member(b'"a\\":b\\u003a:"'),
        with_member(b"1" * 300),
        with_member(b"[" * 200 + b"]" * 200),
        with_member(b'{"a":{"a":{"a":1}}}'),
        b" \n" + GOOD + b"\n",
    ],
)
def test_an_unusual_body_is_read(good: bytes) -> None:
    assert [item.dedupe for item in split(good).items] == ["m:wamid.AAA1"]


@pytest.mark.parametrize(
    ("escaped", "text"),
    [
        (rb"a\u0000b", "a\ufffdb"),
        (rb"a\ud83d", "a\ufffd"),
        (rb"\udc4b b", "\ufffd b"),
        (rb"\ud83d\ud83d\udc4b", "\ufffd👋"),
        (rb"\uD83D\uDC4B\u0000", "👋\ufffd"),
        (rb"\\u0000", r"\u0000"),
        (rb"\\\u0000", "\\\ufffd"),
        (rb"\\ud83d \ud83d", "\\ud83d \ufffd"),
    ],
)
def test_characters_no_text_column_can_hold_are_replaced(escaped: bytes, text: str) -> None:
    command = split(GOOD.replace(b"Is the blue one in stock?", escaped)).items[0].command

    assert isinstance(command, ReceiveMessage)
    assert command.content == Text(text)


def test_an_ordinary_body_is_not_copied() -> None:
    assert admit(GOOD) is GOOD


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def reads(data: bytes) -> None:
    """Garbage in: items and bad items, or the one error."""
    peek_endpoints(data)
    try:
        webhook = split(data)
    except RemoteProtocolError:
        return
    assert all(item.dedupe and len(item.dedupe) <= 512 and 0 <= item.at < 1 << 58 for item in webhook.items)
    assert all(bad.reason for bad in webhook.bad)


@given(st.binary())
@example(b"\x00")
def test_any_bytes(data: bytes) -> None:
    reads(data)


@given(JSON)
def test_any_json(data: Any) -> None:
    reads(json.dumps(data).encode())


@given(st.sampled_from([name for name, _ in VALUES]), JSON)
def test_any_value_in_any_field(field: str, data: Any) -> None:
    reads(body((field, data)))


def _replaced(document: Any, at: int, new: Any) -> tuple[Any, int]:
    """Replace the `at`-th node, counted depth first; return what is left of `at`."""
    if at == 0:
        return new, -1
    at -= 1
    if isinstance(document, dict):
        changed: Any = {}
        for key, inner in document.items():
            changed[key], at = (inner, at) if at < 0 else _replaced(inner, at, new)
        return changed, at
    if isinstance(document, list):
        changed = []
        for inner in document:
            each, at = (inner, at) if at < 0 else _replaced(inner, at, new)
            changed.append(each)
        return changed, at
    return document, at


EXAMPLES = [body((field, example)) for field, example in VALUES] + [
    body(("messages", value(messages=[message]))) for message in MESSAGES.values()
]


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(EXAMPLES), st.integers(0, 60), JSON)
def test_any_part_of_any_example_replaced(text: bytes, at: int, new: Any) -> None:
    changed, _ = _replaced(json.loads(text), at, new)
    reads(json.dumps(changed).encode())


@pytest.mark.slow
@settings(max_examples=400)
@given(st.sampled_from(EXAMPLES), st.integers(0, 2000), st.binary(max_size=3), st.integers(0, 5))
def test_any_bytes_of_any_example_replaced(text: bytes, at: int, new: bytes, gone: int) -> None:
    at %= len(text)
    reads(text[:at] + new + text[at + gone :])


@pytest.mark.slow
@settings(max_examples=200)
@given(st.dictionaries(st.text(), JSON, max_size=6))
def test_unique_keys_are_admitted_however_they_are_written(data: dict[str, Any]) -> None:
    try:
        text = json.dumps(data, allow_nan=False).encode()
    except ValueError:
        return
    admit(text)
