"""Heads of requests: each whole, byte by byte, and with trailing bytes, always the same verdict."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http import Request, Response, WebSocket
from gateway.listener import refusals
from gateway.listener.limits import Limits
from gateway.listener.refusals import Refusal
from gateway.listener.sniff import CHUNKED, Head, Sniffed, Sniffer, Verdict, split_target

LIMITS = Limits(header_bytes=400, body_bytes=1000)


async def hook(request: Request) -> Response:
    return Response(200)


async def talk(socket: WebSocket) -> None:
    return None


SNIFFER = Sniffer({"/hook": hook, "/both": hook}, {"/ws": talk, "/both": talk}, LIMITS)
UPGRADE = b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n"


def head(first: bytes, *fields: bytes, host: bytes = b"Host: x\r\n") -> bytes:
    return first + b"\r\n" + host + b"".join(fields) + b"\r\n"


def all_ways(data: bytes) -> Sniffed:
    whole = SNIFFER.sniff(data)
    grown = next(
        (verdict for size in range(len(data) + 1) if (verdict := SNIFFER.sniff(data[:size])) is not Verdict.NEED_MORE),
        Verdict.NEED_MORE,
    )
    assert grown == whole, "byte by byte"
    if whole is not Verdict.NEED_MORE:
        assert SNIFFER.sniff(data + b"GET /x HTTP/1.1\r\n\r\n\x00") == whole, "with trailing bytes"
        shifted = SNIFFER.sniff(b"12345" + data, 5)
        if isinstance(whole, Head):
            assert isinstance(shifted, Head)
            assert shifted.end == whole.end + 5
            assert shifted.headers == whole.headers
        else:
            assert shifted == whole, "at an offset"
    return whole


def test_a_request_for_a_handler() -> None:
    data = head(b"POST /hook?a=%2F&b HTTP/1.1", b"X-Sig:  sha256=ab \t\r\n", b"Content-Length: 12\r\n", b"X-SIG: 2\r\n")
    verdict = all_ways(data)
    assert isinstance(verdict, Head)
    assert (verdict.method, verdict.path, verdict.query) == ("POST", "/hook", b"a=%2F&b")
    assert verdict.headers == (
        (b"host", b"x"),
        (b"x-sig", b"sha256=ab"),
        (b"content-length", b"12"),
        (b"x-sig", b"2"),
    )
    assert verdict.handler is hook
    assert verdict.socket is None
    assert verdict.length == 12
    assert verdict.end == len(data)
    assert verdict.keep_alive


@pytest.mark.parametrize(
    ("data", "keep_alive"),
    [
        (head(b"GET /hook HTTP/1.1"), True),
        (head(b"GET /hook HTTP/1.1", b"Connection: foo, CLOSE\r\n"), False),
        (head(b"GET /hook HTTP/1.1", b"Connection: foo\r\n", b"Connection: close\r\n"), False),
        (head(b"GET /hook HTTP/1.0"), False),
        (head(b"GET /hook HTTP/1.0", b"Connection: Keep-Alive\r\n"), True),
        (head(b"GET /hook HTTP/1.0", host=b""), False),
    ],
)
def test_keep_alive(data: bytes, keep_alive: bool) -> None:
    verdict = all_ways(data)
    assert isinstance(verdict, Head)
    assert verdict.keep_alive is keep_alive


@pytest.mark.parametrize(
    ("data", "length"),
    [
        (head(b"POST /hook HTTP/1.1"), 0),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 0\r\n"), 0),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 1000\r\n"), 1000),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: Chunked\r\n"), CHUNKED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 3\r\n", b"Content-Encoding: identity\r\n"), 3),
        (head(b"GET http://example.org/hook HTTP/1.1"), 0),
        (head(b"GET HTTPS://example.org/hook?x=/y HTTP/1.1"), 0),
        (b"\r\n" + head(b"GET /hook HTTP/1.1"), 0),
        (head(b"GET /both HTTP/1.1"), 0),
        (head(b"POST /both HTTP/1.1", UPGRADE), 0),
        (head(b"POST /hook HTTP/1.1", b"Connection: upgrade\r\nUpgrade: h2c\r\nContent-Length: 5\r\n"), 5),
        (head(b"OPTIONS /hook HTTP/1.1"), 0),
        (head(b"HEAD /hook HTTP/1.1"), 0),
    ],
)
def test_what_a_handler_gets(data: bytes, length: int) -> None:
    verdict = all_ways(data)
    assert isinstance(verdict, Head)
    assert verdict.handler is hook
    assert verdict.length == length
    assert not verdict.expects_continue


def test_100_continue_is_for_http_1_1() -> None:
    new = all_ways(head(b"POST /hook HTTP/1.1", b"Expect: 100-Continue\r\nContent-Length: 5\r\n"))
    old = all_ways(head(b"POST /hook HTTP/1.0", b"Expect: 100-continue\r\nContent-Length: 5\r\n"))
    assert isinstance(new, Head)
    assert isinstance(old, Head)
    assert (new.expects_continue, old.expects_continue) == (True, False)


@pytest.mark.parametrize("path", [b"/ws", b"/both", b"/both?EIO=4"])
def test_an_upgrade_to_a_socket(path: bytes) -> None:
    verdict = all_ways(head(b"GET " + path + b" HTTP/1.1", UPGRADE))
    assert isinstance(verdict, Head)
    assert verdict.socket is talk
    assert verdict.handler is None


@pytest.mark.parametrize(
    "data",
    [
        head(b"GET / HTTP/1.1"),
        head(b"GET /hook/ HTTP/1.1"),
        head(b"GET /h%6fok HTTP/1.1"),
        head(b"GET //hook HTTP/1.1"),
        head(b"GET /HOOK HTTP/1.1"),
        head(b"GET http://example.org HTTP/1.1"),
        head(b"GET ftp://example.org/hook HTTP/1.1"),
        head(b"TRACE /hook HTTP/1.1"),
        head(b"BREW /hook HTTP/1.1"),
        head(b"OPTIONS * HTTP/1.1"),
        head(b"CONNECT example.org:443 HTTP/1.1"),
        head(b"GET /ws HTTP/1.1"),
        head(b"GET /other HTTP/1.1", UPGRADE),
        head(b"GET / HTTP/1.1", b"what ever : this is\x00\r\n"),  # hypercorn's to judge: rule 2
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ],
)
def test_what_is_handed_over(data: bytes) -> None:
    assert all_ways(data) is Verdict.HAND_OVER


@pytest.mark.parametrize(
    ("data", "refusal"),
    [
        (b"\x16\x03\x01\x02\x00", refusals.MALFORMED),
        (b"\r\n\r\n", refusals.MALFORMED),
        (b"\rGET /hook HTTP/1.1\r\n", refusals.MALFORMED),
        (b"GET /hook\r\n", refusals.MALFORMED),
        (b"GET  /hook HTTP/1.1\r\n", refusals.MALFORMED),
        (b"GET /hook HTTP/1.1 \r\n", refusals.MALFORMED),
        (b"GET /hook HTTP/1.1\n", refusals.MALFORMED),
        (b"GET /h\xc3\xb6ok HTTP/1.1\r\n", refusals.MALFORMED),
        (b"GET /hook HTTP/11\r\n", refusals.MALFORMED),
        (b"GET /hook http/1.1\r\n", refusals.MALFORMED),
        (b"GET /hook HTTP/1.2\r\n", refusals.BAD_VERSION),
        (b"GET /hook HTTP/2.0\r\n", refusals.BAD_VERSION),
        (b"PRI /hook HTTP/2.0\r\n", refusals.BAD_VERSION),
        (head(b"GET /hook HTTP/1.1", host=b""), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"Host: y\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.0", b"Host: y\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A : b\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b": b\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A: b\r\n folded\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A: b\nC: d\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A: b\rc\r\n"), refusals.MALFORMED),
        (head(b"GET /hook HTTP/1.1", b"A: b\x00c\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: -1\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: +1\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 1_0\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 0x1\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: \r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 5, 5\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 5\r\n" * 2), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 9" + b"9" * 30 + b"\r\n"), refusals.MALFORMED),
        (
            head(b"POST /hook HTTP/1.1", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"),
            refusals.MALFORMED,
        ),
        (
            head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n"),
            refusals.MALFORMED,
        ),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: gzip, chunked\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: chunked, chunked\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: xchunked\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: chunked\r\n" * 2), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Transfer-Encoding: identity\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.0", b"Transfer-Encoding: chunked\r\n"), refusals.MALFORMED),
        (head(b"POST /hook HTTP/1.1", b"Content-Length: 1001\r\n"), refusals.BODY_TOO_LARGE),
        (
            head(b"POST /hook HTTP/1.1", b"Content-Length: 9\r\n", b"Content-Encoding: gzip\r\n"),
            refusals.ENCODED_BODY,
        ),
        (
            head(b"POST /hook HTTP/1.1", b"Content-Encoding: br\r\n", b"Transfer-Encoding: chunked\r\n"),
            refusals.ENCODED_BODY,
        ),
        (head(b"POST /hook HTTP/1.1", b"Expect: the unexpected\r\n"), refusals.EXPECTATION),
        (b"G" * 400, refusals.HEAD_TOO_LARGE),
        (b"GET /" + b"a" * 500 + b" HTTP/1.1\r\n\r\n", refusals.HEAD_TOO_LARGE),
        (head(b"GET /hook HTTP/1.1", b"A: " + b"b" * 500 + b"\r\n"), refusals.HEAD_TOO_LARGE),
        (head(b"GET /api HTTP/1.1", b"A: " + b"b" * 500 + b"\r\n"), refusals.HEAD_TOO_LARGE),
    ],
)
def test_what_is_refused(data: bytes, refusal: Refusal) -> None:
    assert all_ways(data) is refusal


def test_the_head_limit_is_exact() -> None:
    room = LIMITS.header_bytes - len(head(b"GET /hook HTTP/1.1", b"A: \r\n"))
    assert isinstance(all_ways(head(b"GET /hook HTTP/1.1", b"A: " + b"b" * room + b"\r\n")), Head)
    assert all_ways(head(b"GET /hook HTTP/1.1", b"A: " + b"b" * (room + 1) + b"\r\n")) is refusals.HEAD_TOO_LARGE


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/a?b?c", b"/a", b"b?c"),
        (b"/", b"/", b""),
        (b"http://h", b"/", b""),
        (b"http://h?q", b"/", b"q"),
        (b"http://h/a?q", b"/a", b"q"),
        (b"http://u:p@h:80/a/b", b"/a/b", b""),
        (b"*", b"*", b""),
        (b"h:443", b"h:443", b""),
    ],
)
def test_targets(target: bytes, path: bytes, query: bytes) -> None:
    assert split_target(target) == (path, query)


def test_clients_cannot_fill_the_memory_of_request_lines() -> None:
    sniffer = Sniffer({"/hook": hook}, {}, LIMITS)
    for number in range(1000):
        sniffer.sniff(head(b"GET /hook?%d HTTP/1.1" % number))
        sniffer.sniff(head(b"GET http://h%d/hook HTTP/1.1" % number))
        sniffer.sniff(head(b"GET /hook%d HTTP/1.1" % number))
    assert isinstance(sniffer.sniff(head(b"GET /hook HTTP/1.1")), Head)
    assert len(sniffer._lines) == 1


PIECES = st.sampled_from(
    [b"GET", b"POST", b" ", b"/hook", b"/ws", b" HTTP/1.1\r\n", b"\r\n", b"\n", b"\r", b"Host: x\r\n", b":", b"\t"]
) | st.sampled_from(
    [b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", UPGRADE, b"\xff", b"A: b\r\n", b"\x00"]
)


@given(st.lists(PIECES | st.binary(max_size=8), max_size=14).map(b"".join))
def test_garbage_has_one_verdict(data: bytes) -> None:
    all_ways(data)
