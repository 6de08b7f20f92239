"""What is looked for before the signature is checked, and the handshake."""

import pytest

from protocol.errors import RemoteProtocolError
from protocol.whatsapp import Challenge, Endpoints, peek_endpoints, read_challenge
from tests.protocol.whatsapp.examples import MESSAGES, body, value


def test_the_number_and_the_account_of_a_message() -> None:
    text = body(("messages", value(messages=[MESSAGES["text"]])))

    assert peek_endpoints(text) == Endpoints(("300000000000001",), ("200000000000001",))


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (b"", Endpoints((), ())),
        (body(("account_update", {"event": "X"}), time=17), Endpoints((), ("200000000000001",))),
        (b'{"entry" : [ {"time":17,"id":"22"', Endpoints((), ("22",))),
        (b'{"entry": [\n {\n "id" :\t"22"', Endpoints((), ("22",))),
        (b'"phone_number_id":5,"phone_number_id" : "33"', Endpoints(("33",), ())),
        (b'"phone_number_id":"not digits"', Endpoints((), ())),
        (b'"phone_number_id":"' + b"3" * 33 + b'"', Endpoints((), ())),
        (b'"body":"\\"phone_number_id\\":\\"44\\"","phone_number_id":"33"', Endpoints(("33",), ())),
        (b'\xff\x00"phone_number_id":"33"', Endpoints(("33",), ())),
    ],
)
def test_other_bodies(text: bytes, found: Endpoints) -> None:
    assert peek_endpoints(text) == found


def test_a_text_cannot_pose_as_a_key() -> None:
    hostile = '"phone_number_id":"666","entry":[{"id":"666"'
    message = {**MESSAGES["text"], "text": {"body": hostile}}
    text = body(("messages", {"messages": [message], **value()}))

    assert peek_endpoints(text) == Endpoints(("300000000000001",), ("200000000000001",))


@pytest.mark.parametrize(
    "piece", [b'"phone_number_id"', b'"entry":[{', b'"phone_number_id":   ', b'"entry": [ { "time":1, ', b" ", b'"']
)
def test_three_hostile_megabytes_are_looked_at_a_bounded_number_of_times(piece: bytes) -> None:
    text = piece * (3_000_000 // len(piece))

    assert peek_endpoints(text) == Endpoints((), ())


def test_the_handshake() -> None:
    query = b"hub.mode=subscribe&hub.verify_token=a%20token%26&hub.challenge=1158201444&extra="

    assert read_challenge(query) == Challenge("subscribe", "a token&", "1158201444")


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"hub.mode=subscribe&hub.challenge=1",
        b"hub_mode=subscribe&hub_verify_token=t&hub_challenge=1",
        b"hub.mode=subscribe&hub.verify_token=a&hub.verify_token=b&hub.challenge=1",
        b"hub.mode=subscribe&hub.verify_token=\xff&hub.challenge=1",
        b"&".join([b"a%d=1" % number for number in range(100)]),
    ],
)
def test_another_query_is_no_handshake(query: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read_challenge(query)
