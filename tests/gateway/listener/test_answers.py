import msgspec
import pytest

from gateway.http import Response
from gateway.listener import refusals
from gateway.listener.answers import CLOSE, KEEP, KEEP_HTTP10, Answers
from gateway.listener.refusals import Refusal


def lines(answer: bytes) -> tuple[list[bytes], bytes]:
    head, _, body = answer.partition(b"\r\n\r\n")
    return [line for line in head.split(b"\r\n") if not line.startswith(b"date: ")], body


def test_a_whole_answer() -> None:
    response = Response(200, b"abc", ((b"content-type", b"text/plain"), (b"x-a", b"")))
    assert lines(Answers().encode(response, KEEP)) == (
        [b"HTTP/1.1 200 OK", b"content-type: text/plain", b"x-a: ", b"content-length: 3"],
        b"abc",
    )


def test_connection_lines_and_head() -> None:
    answers = Answers()
    assert b"\r\nconnection: close\r\n" in answers.encode(Response(200), CLOSE)
    assert b"\r\nconnection: keep-alive\r\n" in answers.encode(Response(200), KEEP_HTTP10)
    head, body = lines(answers.encode(Response(200, b"abc"), KEEP, without_body=True))
    assert b"content-length: 3" in head
    assert body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_answers_that_have_no_body(status: int) -> None:
    head, body = lines(Answers().encode(Response(status, b"dropped"), KEEP))
    assert len(head) == 1
    assert body == b""


def test_framing_is_not_the_handlers_business() -> None:
    headers = ((b"Content-Length", b"99"), (b"Transfer-Encoding", b"chunked"), (b"Connection", b"upgrade"))
    assert lines(Answers().encode(Response(599, b"a", headers), KEEP)) == (
        [b"HTTP/1.1 599 ", b"content-length: 1"],
        b"a",
    )


@pytest.mark.parametrize(
    "response",
    [
        Response(200, b"", ((b"a", b"b\r\nc: d"),)),
        Response(200, b"", ((b"a\r\n", b"b"),)),
        Response(200, b"", ((b"a b", b"c"),)),
        Response(200, b"", ((b"", b"c"),)),
        Response(101),
        Response(1000),
    ],
)
def test_what_would_split_or_confuse_is_a_bug(response: Response) -> None:
    with pytest.raises(ValueError, match="not "):
        Answers().encode(response, KEEP)


def test_heads_are_remembered_within_bounds() -> None:
    answers = Answers()
    for number in range(1000):
        answers.encode(Response(503, b"", ((b"retry-after", b"%d" % number),)), KEEP)
    assert len(answers._heads) <= 256


def test_the_date_is_renewed(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = Answers()
    monkeypatch.setattr("gateway.listener.answers.formatdate", lambda usegmt: "Thu, 01 Jan 1970 00:00:00 GMT")
    answers.refresh_date()
    assert b"\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n" in answers.encode(Response(200), KEEP)


ALL_REFUSALS = [value for value in vars(refusals).values() if isinstance(value, Refusal)]


def test_codes_are_stable_and_unique() -> None:
    assert {refusal.code: refusal.status for refusal in ALL_REFUSALS} == {
        "malformed_request": 400,
        "malformed_handshake": 400,
        "method_not_allowed": 405,
        "request_timeout": 408,
        "body_too_large": 413,
        "unsupported_content_encoding": 415,
        "expectation_failed": 417,
        "unsupported_websocket_version": 426,
        "head_too_large": 431,
        "internal_error": 500,
        "too_many_connections": 503,
        "shutting_down": 503,
        "unsupported_http_version": 505,
    }
    assert len(ALL_REFUSALS) == 13


@pytest.mark.parametrize("refusal", ALL_REFUSALS, ids=lambda refusal: refusal.code)
def test_refusals_are_problems(refusal: Refusal) -> None:
    response = refusal.response()
    assert msgspec.json.decode(response.body) == {
        "type": "about:blank",
        "title": refusal.title,
        "status": refusal.status,
        "code": refusal.code,
    }
    assert (b"content-type", b"application/problem+json") in response.headers
