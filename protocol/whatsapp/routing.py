"""What must be known of a webhook before its body may be decoded: whose secret to try, and the answer to Meta's handshake.

Source: WhatsApp Cloud API reference 1.1, 2 and 12.2. Works on bytes nobody has vouched for yet: linear time, no decoding, and what it finds
is a guess that only a matching signature confirms. Must not know tenants or secrets.
"""

import re
from typing import NamedTuple
from urllib.parse import parse_qsl

import msgspec

from protocol.errors import RemoteProtocolError

_NUMBER_KEY = b'"phone_number_id"'
_NUMBER = re.compile(rb'\s{0,32}:\s{0,32}"([0-9]{1,32})"')
_ENTRY_KEY = b'"entry"'
_ENTRY = re.compile(
    rb"\s{0,32}:\s{0,32}\[\s{0,32}\{\s{0,32}"
    rb'(?:"time"\s{0,32}:\s{0,32}[0-9]{1,20}\s{0,32},\s{0,32})?'
    rb'"id"\s{0,32}:\s{0,32}"([0-9]{1,32})"'
)
_TRIES = 8
"""How many occurrences of a key are looked at: real bodies need one, and a hostile one must not buy more."""
_MOST_PARAMETERS = 16


class Endpoints(NamedTuple):
    """Candidates for whose webhook this is, best first; both can be empty."""

    phone_number_ids: tuple[str, ...]
    waba_ids: tuple[str, ...]


def peek_endpoints(body: bytes) -> Endpoints:
    """Find the first phone number id and the first entry's id in a body that is not verified yet.

    One of each is enough: everything in one body is signed with one app's secret. A customer's text cannot pose as a key, because the
    quotes in it are escaped.
    """
    return Endpoints(_first(body, _NUMBER_KEY, _NUMBER), _first(body, _ENTRY_KEY, _ENTRY))


def _first(body: bytes, key: bytes, rest: re.Pattern[bytes]) -> tuple[str, ...]:
    # find() is a memory search; the pattern, with every repetition bounded, is only tried where the key stands.
    at = -1
    for _ in range(_TRIES):
        at = body.find(key, at + 1)
        if at < 0:
            break
        if match := rest.match(body, at + len(key)):
            return (match[1].decode(),)
    return ()


class Challenge(msgspec.Struct, frozen=True):
    """Meta's handshake (GET): if `mode` is `subscribe` and `token` is ours, answer 200 with exactly `challenge` as plain text."""

    mode: str
    token: str
    challenge: str


def read_challenge(query: bytes) -> Challenge:
    """Parse the raw query string of a handshake.

    Raises RemoteProtocolError if a `hub.` parameter is missing or repeated, or there are far too many parameters.
    """
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, max_num_fields=_MOST_PARAMETERS)
    except ValueError as error:  # UnicodeDecodeError is one
        raise RemoteProtocolError("the query string is malformed") from error
    found = dict(pairs)
    if len(found) != len(pairs):
        raise RemoteProtocolError("the query string repeats a parameter")
    try:
        return Challenge(found["hub.mode"], found["hub.verify_token"], found["hub.challenge"])
    except KeyError as error:
        raise RemoteProtocolError(f"the query string has no {error.args[0]}") from error
