"""The worked example of the reference (1.2), and everything that is almost it."""

import hashlib
import hmac
import json
import random

import pytest

from protocol.signatures import sign, verify

SECRET = b"app-secret-0123456789abcdef"
BODY = (
    b'{"object":"whatsapp_business_account","entry":[{"id":"200000000000001","changes":[{"field":"messages","value":'
    b'{"messaging_product":"whatsapp","metadata":{"display_phone_number":"4930000000","phone_number_id":"300000000000001"},'
    b'"messages":[{"from":"4915100000000","id":"wamid.EXAMPLE1","timestamp":"1790000000","type":"text",'
    b'"text":{"body":"Gr\\u00fc\\u00df dich \\ud83d\\udc4b"}}]}}]}]}'
)
HEADER = b"sha256=86ac048ab0713f3f16c4a28abd78dc71b648af2941a443f6f36a420dee43d9a4"
REWRITTEN = json.dumps(json.loads(BODY), ensure_ascii=False, separators=(",", ":")).encode()
REWRITTEN_HEADER = b"sha256=319e58abf50ed8f90545e9ced7d252e98594d6fdde288ab32e0768b03939354a"


def test_the_worked_example() -> None:
    assert len(BODY) == 382
    assert sign(SECRET, BODY) == HEADER
    assert verify(SECRET, BODY, HEADER)


def test_the_worked_counterexample_a_body_parsed_and_written_again() -> None:
    assert len(REWRITTEN) == 366
    assert sign(SECRET, REWRITTEN) == REWRITTEN_HEADER
    assert not verify(SECRET, BODY, REWRITTEN_HEADER)
    assert not verify(SECRET, REWRITTEN, HEADER)


@pytest.mark.parametrize(
    "header",
    [
        None,
        b"",
        HEADER[7:],
        HEADER[:-1],
        HEADER + b"0",
        b" " + HEADER,
        HEADER + b" ",
        HEADER.upper(),
        b"SHA256=" + HEADER[7:],
        b"sha256=" + HEADER[7:].upper(),
        b"sha512=" + HEADER[7:],
        HEADER + b"," + HEADER,
        b"sha1=" + hmac.digest(SECRET, BODY, "sha1").hex().encode(),
        b"sha256=" + hashlib.sha256(BODY).hexdigest().encode(),
        b"sha256=" + hmac.digest(SECRET, BODY, "sha256"),
        b"\xff" * 71,
        sign(b"", BODY),
        sign(SECRET + b"\n", BODY),
        sign(b"another tenant's secret", BODY),
        sign(SECRET, BODY + b"\n"),
    ],
)
def test_anything_but_the_exact_header_is_refused(header: bytes | None) -> None:
    assert not verify(SECRET, BODY, header)


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def test_no_flipped_bit_of_header_body_or_secret_is_accepted() -> None:
    mutants = [(SECRET, BODY, flipped(HEADER, bit)) for bit in range(8 * len(HEADER))]
    mutants += [(SECRET, flipped(BODY, bit), HEADER) for bit in range(8 * len(BODY))]
    mutants += [(flipped(SECRET, bit), BODY, HEADER) for bit in range(8 * len(SECRET))]

    assert not any(verify(*mutant) for mutant in mutants)


def test_ten_thousand_random_mutants_are_refused() -> None:
    chance = random.Random(18)

    def mutant() -> bytes:
        match chance.randrange(4):
            case 0:
                return b"sha256=" + chance.randbytes(32).hex().encode()
            case 1:
                cut = chance.randrange(len(HEADER))
                return HEADER[:cut] + HEADER[cut + 1 :] + b"0"
            case 2:
                at = chance.randrange(7, 71)
                return (
                    HEADER[:at] + bytes([chance.choice([x for x in range(256) if x != HEADER[at]])]) + HEADER[at + 1 :]
                )
            case _:
                return sign(chance.randbytes(27), BODY)

    mutants = [each for _ in range(10_000) if (each := mutant()) != HEADER]

    assert len(mutants) > 9_900
    assert not any(verify(SECRET, BODY, each) for each in mutants)
