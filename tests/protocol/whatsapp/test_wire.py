"""Every example of the reference reads into its shape and writes as the same JSON."""

import json
from typing import Any

import msgspec
import pytest

from protocol.whatsapp import compose, wire
from protocol.whatsapp.fields import FIELDS
from tests.protocol.whatsapp import examples

SHAPES = [
    (wire.Message, examples.MESSAGES),
    (wire.Message, examples.ECHOES),
    (wire.Status, examples.STATUSES),
    (wire.Call, examples.CALLS),
    (wire.Preference, examples.PREFERENCES),
    (wire.HistoryChunk, examples.HISTORY),
]
EXAMPLES = [
    pytest.param(shape, example, id=f"{shape.__name__} {name}")
    for shape, named in SHAPES
    for name, example in named.items()
] + [pytest.param(FIELDS[field], value, id=field) for field, value in examples.VALUES]


@pytest.mark.parametrize(("shape", "example"), EXAMPLES)
def test_an_example_is_written_as_it_was_read(shape: Any, example: dict[str, Any]) -> None:
    read = msgspec.json.decode(json.dumps(example), type=shape)

    assert json.loads(bytes(compose.raw(read))) == example


def test_every_field_of_the_reference_has_a_shape_and_an_example() -> None:
    assert {field for field, _ in examples.VALUES} == FIELDS.keys()


RAW_PARTS = [
    (wire.Card, examples.MESSAGES["contacts"]["contacts"][0]),
    (wire.Card, examples.MESSAGES["contacts, own"]["contacts"][0]),
    (wire.CallPermissionReply, examples.MESSAGES["call permission"]["interactive"]["call_permission_reply"]),
    (wire.Referral, examples.MESSAGES["referral"]["referral"]),
    (wire.ReferredProduct, examples.MESSAGES["product"]["context"]["referred_product"]),
    (wire.Pricing, examples.STATUSES["delivered"]["pricing"]),
    (wire.Conversation, examples.STATUSES["sent, v23"]["conversation"]),
    (wire.Thread, examples.HISTORY["chunk"]["threads"][0]),
    (wire.HistoryProgress, examples.HISTORY["chunk"]["metadata"]),
    *((wire.Message, message) for message in examples.HISTORY["chunk"]["threads"][0]["messages"]),
    (wire.Error, examples.RATE_LIMIT),
    (wire.Error, {"code": 100, "error_data": "plain text"}),
    (wire.Contact, examples.CONTACT),
]


@pytest.mark.parametrize(("shape", "example"), RAW_PARTS)
def test_a_part_that_stays_raw_has_a_shape_too(shape: Any, example: dict[str, Any]) -> None:
    read = msgspec.json.decode(json.dumps(example), type=shape)

    assert json.loads(bytes(compose.raw(read))) == example


def test_a_body_is_written_as_meta_writes_it() -> None:
    text = "Grüß dich 👋"
    message = wire.Message(
        from_="4915100000000", id="wamid.EXAMPLE1", timestamp="1790000000", type="text", text=wire.Text(body=text)
    )
    metadata = wire.Metadata(display_phone_number="4930000000", phone_number_id="300000000000001")
    value = wire.ConversationValue(messaging_product="whatsapp", metadata=metadata, messages=[compose.raw(message)])

    written = compose.body([wire.Entry(id="200000000000001", changes=[compose.change("messages", value)])])

    assert written == (
        b'{"object":"whatsapp_business_account","entry":[{"id":"200000000000001","changes":[{"field":"messages","value":'
        b'{"messaging_product":"whatsapp","metadata":{"display_phone_number":"4930000000","phone_number_id":"300000000000001"},'
        b'"messages":[{"from":"4915100000000","id":"wamid.EXAMPLE1","timestamp":"1790000000","type":"text",'
        b'"text":{"body":"Gr\\u00fc\\u00df dich \\ud83d\\udc4b"}}]}}]}]}'
    )
