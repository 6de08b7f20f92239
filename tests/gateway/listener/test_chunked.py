"""Chunked bodies: each whole, byte by byte and with the next request behind it."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.listener.chunked import ChunkedBody
from gateway.listener.refusals import BODY_TOO_LARGE, HEAD_TOO_LARGE, MALFORMED, Refusal

NEXT = b"GET / HTTP/1.1\r\n"


def decode(segments: list[bytes], limit: int = 100, trailer_limit: int = 60) -> tuple[bytes, bytes] | Refusal | None:
    body = ChunkedBody(limit, trailer_limit)
    for number, segment in enumerate(segments):
        rest = body.receive(segment)
        if isinstance(rest, Refusal):
            return rest
        if rest is not None:
            return body.body(), rest + b"".join(segments[number + 1 :])
    return None


def all_ways(data: bytes) -> tuple[bytes, bytes] | Refusal | None:
    whole = decode([data])
    assert decode([data[at : at + 1] for at in range(len(data))]) == whole
    return whole


@pytest.mark.parametrize(
    ("data", "body"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b'5;a=b;c="d"\r\nhello\r\n6\r\n\r\n\r\n\r\n\r\n000\r\n\r\n', b"hello\r\n\r\n\r\n"),
        (b"a\r\n0123456789\r\n1\r\nA\r\n0;x\r\nT: v\r\nU:\r\n\r\n", b"0123456789A"),
        (b"64\r\n" + b"x" * 100 + b"\r\n0\r\n\r\n", b"x" * 100),
    ],
)
def test_bodies(data: bytes, body: bytes) -> None:
    assert all_ways(data) == (body, b"")
    assert all_ways(data + NEXT) == (body, NEXT)
    assert all_ways(data[:-1]) is None


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"\r\n", MALFORMED),
        (b"x\r\n", MALFORMED),
        (b" 5\r\nhello", MALFORMED),
        (b"5 \r\nhello", MALFORMED),
        (b"5\nhello", MALFORMED),
        (b"-5\r\nhello", MALFORMED),
        (b"+5\r\nhello", MALFORMED),
        (b"0x5\r\nhello", MALFORMED),
        (b"5_0\r\nhello", MALFORMED),
        (b"5;\x00\r\nhello", MALFORMED),
        (b"5\r\nhelloo\r\n", MALFORMED),
        (b"5\r\nhello\n", MALFORMED),
        (b"5\r\nhello0\r\n\r\n", MALFORMED),
        (b"000000005\r\nhello", MALFORMED),
        (b"5;" + b"x" * 300 + b"\r\n", MALFORMED),
        (b"0\r\nT : v\r\n\r\n", MALFORMED),
        (b"0\r\nnothing\r\n\r\n", MALFORMED),
        (b"0\r\nT: v\n\r\n", MALFORMED),
        (b"0\r\nT: " + b"v" * 60 + b"\r\n\r\n", HEAD_TOO_LARGE),
        (b"0\r\n" + b"T: v\r\n" * 11 + b"\r\n", HEAD_TOO_LARGE),
        (b"65\r\n", BODY_TOO_LARGE),
        (b"ffffffff\r\n", BODY_TOO_LARGE),
        (b"64\r\n" + b"x" * 100 + b"\r\n1\r\n", BODY_TOO_LARGE),
    ],
)
def test_refusals(data: bytes, refusal: Refusal) -> None:
    assert all_ways(data) is refusal


def test_an_announced_chunk_is_not_a_received_one() -> None:
    body = ChunkedBody(1 << 20, 60)
    assert body.receive(b"80000\r\nabc") is None
    assert body.received == 3


@given(chunks=st.lists(st.binary(min_size=1, max_size=9), max_size=8), cuts=st.sets(st.integers(0, 200)))
def test_any_segmentation(chunks: list[bytes], cuts: set[int]) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n" + NEXT
    points = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    segments = [data[start:end] for start, end in pairwise(points)]
    assert decode(segments) == (b"".join(chunks), NEXT)


@given(st.binary(max_size=40) | st.text("0123af;\r\n x", max_size=20).map(str.encode))
def test_garbage_gives_a_body_or_a_refusal(data: bytes) -> None:
    all_ways(data)
