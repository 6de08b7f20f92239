"""A body becomes items: who, what and under which key, for every example and gotcha of the reference."""

import json
import sys
from typing import Any

import msgspec
import pytest

from protocol import content
from protocol.commands import (
    ChangeIdentity,
    ContactRef,
    EditMessage,
    Item,
    KeepUnknown,
    ReceiveMessage,
    RecordCall,
    RecordNotice,
    RecordReceipt,
    RevokeMessage,
    SetPreference,
)
from protocol.whatsapp import split
from tests.protocol.whatsapp.examples import (
    CALLS,
    CONTACT,
    ECHOES,
    FROM,
    HISTORY,
    MESSAGES,
    METADATA,
    PREFERENCES,
    RATE_LIMIT,
    STATUSES,
    VALUES,
    body,
    split_value,
    value,
)

MIRA = ContactRef(phone="4915100000000")


def items(field: str, **members: Any) -> list[Item]:
    webhook = split_value(field, **members)
    assert webhook.bad == []
    return webhook.items


def only(field: str, **members: Any) -> Item:
    (item,) = items(field, **members)
    return item


def message(name: str, **changes: Any) -> Item:
    return only("messages", messages=[MESSAGES[name] | changes])


def received(name: str, **changes: Any) -> ReceiveMessage:
    command = message(name, **changes).command
    assert isinstance(command, ReceiveMessage)
    return command


# --- Content --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("text", content.Text("Is the blue one in stock?")),
        (
            "image",
            content.Media(
                "image",
                "811000000000001",
                "image/jpeg",
                sha256="abcdef1234567890abcdef1234567890abcdef1234567890abcdef1234567890",
                caption="my receipt",
                url="https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=811000000000001&ext=1790000302&hash=XYZ",
            ),
        ),
        ("audio", content.Media("audio", "811000000000004", "audio/ogg; codecs=opus", "abcd", voice=True)),
        ("voice", content.Media("audio", "811000000000004", "audio/ogg; codecs=opus", "abcd", voice=True)),
        ("document", content.Media("document", "811000000000005", "application/pdf", "abcd", "signed", "offer.pdf")),
        ("sticker", content.Media("sticker", "811000000000006", "image/webp", "abcd")),
        (
            "location",
            content.Location(52.5201, 13.405, "Office", "Example Str. 1, Berlin", "https://example.org/place"),
        ),
        ("location, current", content.Location(-3.0, 0.0)),
        ("button reply", content.Reply("button", "confirm-42", "Confirm")),
        ("list reply", content.Reply("list", "row-1", "10:40", "Dr. Example")),
        (
            "flow reply",
            content.Reply("flow", None, "Sent", "flow", '{"flow_token":"case-77","slot":"2026-12-01T10:00"}'),
        ),
        ("button", content.Reply("template_button", "stop-all", "Unsubscribe")),
        ("reaction", content.Reaction("wamid.OUT3", "👍")),
        ("reaction, absent", content.Reaction("wamid.OUT3", None)),
        ("reaction, empty", content.Reaction("wamid.OUT3", None)),
        (
            "order",
            content.Order("900000000000001", (content.OrderItem("sku-1", 2, "7.99", "EUR"),), "please gift wrap"),
        ),
        ("welcome", content.Welcome()),
    ],
)
def test_what_a_message_says(name: str, expected: content.Content) -> None:
    assert received(name).content == expected


def test_a_call_permission_keeps_its_whole_answer() -> None:
    reply = received("call permission").content

    assert isinstance(reply, content.Reply)
    assert (reply.source, reply.title) == ("call_permission", "accept")
    assert json.loads(reply.data or "") == MESSAGES["call permission"]["interactive"]["call_permission_reply"]


@pytest.mark.parametrize(("name", "requested"), [("contacts", False), ("contacts, own", True)])
def test_cards_are_kept_as_they_came(name: str, requested: bool) -> None:
    cards = received(name).content

    assert isinstance(cards, content.Contacts)
    assert [json.loads(bytes(card)) for card in cards.cards] == MESSAGES[name]["contacts"]
    assert cards.requested is requested


def test_a_requested_card_may_say_so_on_the_message() -> None:
    cards = received("contacts", origin="contact_request").content

    assert isinstance(cards, content.Contacts)
    assert cards.requested


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("unsupported", "poll_creation", "not supported"),
        ("unknown", "unknown", "not supported"),
        ("ephemeral", "ephemeral", None),
        ("media too large", "video", "Media download error"),
        ("interactive, incomplete", "interactive", None),
    ],
)
def test_what_cannot_be_expressed_is_kept_whole(name: str, kind: str, reason: str | None) -> None:
    said = received(name).content

    assert isinstance(said, content.Unsupported)
    assert (said.provider_type, said.reason) == (kind, reason)
    assert json.loads(bytes(said.payload)) == MESSAGES[name]


def test_a_type_from_the_future_keeps_members_nobody_knows() -> None:
    hologram = {**FROM, "id": "wamid.X", "type": "hologram", "hologram": {"frames": [1, 2]}}
    said = only("messages", messages=[hologram]).command

    assert isinstance(said, ReceiveMessage)
    assert isinstance(said.content, content.Unsupported)
    assert json.loads(bytes(said.content.payload)) == hologram


def test_an_interactive_reply_of_an_unknown_kind_is_named() -> None:
    said = received("button reply", interactive={"type": "slider_reply", "slider_reply": {"value": 3}}).content

    assert isinstance(said, content.Unsupported)
    assert said.provider_type == "interactive.slider_reply"


def test_an_incomplete_reply_says_why_and_the_error_is_a_notice_too() -> None:
    reply, notice = items("messages", messages=[MESSAGES["interactive, incomplete"]], errors=[RATE_LIMIT])

    assert isinstance(reply.command, ReceiveMessage)
    assert reply.command.problems == (
        content.Problem(130429, "Rate limit hit", "Too many messages sent from this phone number"),
    )
    assert isinstance(notice.command, RecordNotice)
    assert notice.command.topic == "errors"


def test_a_message_keeps_its_problems() -> None:
    assert received("media too large").problems == (content.Problem(131052, "Media download error"),)


@pytest.mark.parametrize(
    ("price", "written"),
    [
        ("7.99", "7.99"),
        ("0.1", "0.1"),
        ("1e2", "100"),
        ("7.990", "7.990"),
        ("12345678901234.05", "12345678901234.05"),
        ("3", "3"),
    ],
)
def test_a_price_is_exactly_the_decimal_on_the_wire(price: str, written: str) -> None:
    text = json.dumps(MESSAGES["order"]).replace("7.99", price)
    raw = body(("messages", value(messages=["ORDER"]))).replace(b'"ORDER"', text.encode())
    command = split(raw).items[0].command

    assert isinstance(command, ReceiveMessage)
    assert isinstance(command.content, content.Order)
    assert command.content.items[0].price == written


def test_an_implausible_price_is_no_megabyte_of_zeros() -> None:
    text = json.dumps(MESSAGES["order"]).replace("7.99", "1e300")
    webhook = split(body(("messages", value(messages=["ORDER"]))).replace(b'"ORDER"', text.encode()))

    assert (len(webhook.items), len(webhook.bad)) == (0, 1)


@pytest.mark.parametrize(
    ("digest", "hexadecimal"), [("q80=", "abcd"), ("AB" * 32, "ab" * 32), ("zz" * 32, None), ("not base64!", None)]
)
def test_a_digest_is_hex_whatever_it_was(digest: str, hexadecimal: str | None) -> None:
    said = received("image", image={"id": "1", "sha256": digest}).content

    assert isinstance(said, content.Media)
    assert said.sha256 == hexadecimal


def test_context_of_a_reply_a_forward_and_a_product() -> None:
    assert received("button reply").context == content.Context(message_id="wamid.OUT1", sender="4930000000")
    assert received("forwarded").context == content.Context(forwarded=True, frequently_forwarded=True)
    product = received("product").context
    assert product is not None
    assert json.loads(bytes(product.product)) == {"catalog_id": "9", "product_retailer_id": "sku-1"}


def test_a_referral_is_kept_whole() -> None:
    referral = received("referral").referral

    assert json.loads(bytes(referral)) == MESSAGES["referral"]["referral"]


# --- Who ------------------------------------------------------------------------------------------------------------


def test_an_item_says_where_it_belongs() -> None:
    item = message("text")

    assert (item.account, item.endpoint, item.dedupe, item.at) == (
        "200000000000001",
        "300000000000001",
        "m:wamid.AAA1",
        1790000001000,
    )


def test_contacts_are_matched_by_id_whatever_their_order() -> None:
    people = [
        {"profile": {"name": "Ada"}, "wa_id": "441"},
        {"profile": {"name": "Noé", "username": "@noe"}, "user_id": "FR.2"},
        {"profile": {"name": "Mira"}, "wa_id": "+49 3", "user_id": "DE.3", "parent_user_id": "DE.ENT.3"},
    ]
    texts = [
        {"from_user_id": "FR.2", "id": "1", "type": "text", "text": {"body": "x"}},
        {"from": "+493", "id": "2", "type": "text", "text": {"body": "x"}},
        {"from": "441", "id": "3", "type": "text", "text": {"body": "x"}},
        {"from_user_id": "DE.3", "id": "4", "type": "text", "text": {"body": "x"}},
        {"from": "999", "id": "5", "type": "text", "text": {"body": "x"}},
    ]

    assert [item.contact for item in items("messages", contacts=people, messages=texts)] == [
        ContactRef(user_id="FR.2", username="noe", name="Noé"),
        ContactRef("493", "DE.3", "DE.ENT.3", name="Mira"),
        ContactRef("441", name="Ada"),
        ContactRef("493", "DE.3", "DE.ENT.3", name="Mira"),
        ContactRef("999"),
    ]


@pytest.mark.parametrize(
    ("contact", "sender", "expected"),
    [
        # One of the two lacks the id the other has: still one person.
        ({"user_id": "DE.1", "profile": {"name": "M"}}, {"from": "49"}, ContactRef("49", "DE.1", name="M")),
        ({"wa_id": "49"}, {"from_user_id": "DE.1"}, ContactRef("49", "DE.1")),
        ({"wa_id": "49", "user_id": "DE.1"}, {}, ContactRef("49", "DE.1")),
        # Both name one, and not the same.
        ({"wa_id": "48", "profile": {"name": "M"}}, {"from": "49"}, ContactRef("49")),
    ],
)
def test_a_lone_contact_is_the_senders_unless_it_says_otherwise(
    contact: dict[str, Any], sender: dict[str, str], expected: ContactRef
) -> None:
    text = {"id": "1", "type": "text", "text": {"body": "x"}, **sender}

    assert only("messages", contacts=[contact], messages=[text]).contact == expected


def test_a_message_of_nobody_is_set_aside() -> None:
    webhook = split_value("messages", messages=[{"id": "1", "type": "text", "text": {"body": "x"}}, MESSAGES["text"]])

    assert [item.dedupe for item in webhook.items] == ["m:wamid.AAA1"]
    assert [bad.reason for bad in webhook.bad] == ["a message names no contact"]


def test_a_group_is_the_contact_and_the_writer_its_author() -> None:
    item = only("messages", contacts=[CONTACT], messages=[MESSAGES["group"]])

    assert item.contact == ContactRef(group_id="group-1")
    assert isinstance(item.command, ReceiveMessage)
    assert (item.command.author, item.command.author_name) == ("4915100000000", "Mira K.")


@pytest.mark.parametrize(
    ("timestamp", "at"),
    [
        ("1790000001", 1790000001000),
        ("1790000001234", 1790000001234),
        (1790000001, 1790000001000),
        (None, 0),
        ("soon", 0),
        ("9" * 30, 0),
        (-1, 0),
        ("٣", 0),
    ],
)
def test_time_is_milliseconds(timestamp: Any, at: int) -> None:
    assert message("text", timestamp=timestamp).at == at


# --- Edits, revocations, identity -----------------------------------------------------------------------------------


def test_an_edit_and_a_revocation_have_ids_of_their_own() -> None:
    edit, revoke = items("messages", messages=[MESSAGES["edit"], MESSAGES["revoke"]])

    assert edit.command == EditMessage("wamid.AG13", "wamid.AAA1", content.Text("the green one"))
    assert revoke.command == RevokeMessage("wamid.AH13", "wamid.AAA1")
    assert (edit.dedupe, revoke.dedupe) == ("m:wamid.AG13", "m:wamid.AH13")
    assert edit.contact == revoke.contact == MIRA


def test_a_new_number_in_both_spellings() -> None:
    new, old = message("number change"), message("number change, old")

    assert isinstance(new.command, ChangeIdentity)
    assert isinstance(old.command, ChangeIdentity)
    assert new.contact == old.contact == new.command.old == old.command.old == MIRA
    assert new.command.new == old.command.new == ContactRef(phone="4915100000099")
    assert new.command.reason == old.command.reason == "user_changed_number"


def test_a_new_user_id() -> None:
    command = message("user id change").command

    assert command == ChangeIdentity(
        "wamid.AD13",
        "user_changed_user_id",
        ContactRef(user_id="DE.1"),
        ContactRef(user_id="DE.2", parent_user_id="DE.ENT.3"),
    )


def test_a_system_event_that_changes_no_id_is_kept() -> None:
    item = message("identity change")

    assert isinstance(item.command, KeepUnknown)
    assert item.command.what == "system.customer_identity_changed"
    assert item.contact == MIRA


# --- Echoes and history ---------------------------------------------------------------------------------------------


def test_echoes_are_outbound_and_belong_to_whom_they_went() -> None:
    written, edited, revoked = items("smb_message_echoes", message_echoes=list(ECHOES.values()))

    assert written.command == ReceiveMessage("wamid.E1", content.Text("Gern"), origin="echo", outbound=True)
    assert edited.command == EditMessage("wamid.E2", "wamid.E1", content.Text("Gerne"), outbound=True)
    assert revoked.command == RevokeMessage("wamid.E3", "wamid.E1", outbound=True)
    assert written.contact == ContactRef("4915100000000", "DE.71234567890123456789")


def test_history_knows_both_sides_and_how_far_messages_came() -> None:
    progress, theirs, ours, placeholder = items("history", history=[HISTORY["chunk"]])

    assert progress.contact is None
    assert isinstance(progress.command, RecordNotice)
    assert json.loads(bytes(progress.command.payload)) == HISTORY["chunk"]["metadata"]
    assert theirs.command == ReceiveMessage("wamid.H1", content.Text("hallo"), origin="history", status="read")
    assert ours.command == ReceiveMessage(
        "wamid.H2", content.Text("hi"), origin="history", outbound=True, status="delivered"
    )
    assert theirs.contact == ours.contact == ContactRef("4915100000000", "DE.7", username="mirak")
    # The media itself comes later under the same id and must not be taken for a repetition.
    assert placeholder.dedupe == "m:wamid.H3:placeholder"


def test_media_of_the_past_comes_later_as_a_message() -> None:
    theirs, ours = items(
        "history",
        messages=[MESSAGES["image"]],
        message_echoes=[{**MESSAGES["video"], "from": "+4930000000", "to": "4915100000000"}],
    )

    assert isinstance(theirs.command, ReceiveMessage)
    assert isinstance(ours.command, ReceiveMessage)
    assert (theirs.command.origin, theirs.command.outbound) == ("history", False)
    assert (ours.command.origin, ours.command.outbound) == ("history", True)
    assert theirs.contact == ours.contact == MIRA


def test_a_thread_named_by_a_user_id() -> None:
    thread = {"id": "DE.7", "messages": [{"from_user_id": "DE.7", "id": "1", "type": "text", "text": {"body": "x"}}]}

    assert only("history", history=[{"threads": [thread]}]).contact == ContactRef(user_id="DE.7")


def test_a_refused_history_is_a_notice() -> None:
    item = only("history", history=[HISTORY["refusal"]])

    assert isinstance(item.command, RecordNotice)
    assert item.command.topic == "history.errors"


def test_a_bad_message_or_thread_of_the_past_is_alone() -> None:
    good = {"from": "49", "id": "1", "type": "text", "text": {"body": "x"}}
    threads = [{"id": "49", "messages": [{"id": 5}, good]}, {"id": 7}, {"id": "48", "messages": [{**good, "id": "2"}]}]
    webhook = split_value("history", history=[5, {"threads": threads}])

    assert [item.dedupe for item in webhook.items] == ["m:1", "m:2"]
    assert [bad.payload for bad in webhook.bad] == [b"5", b'{"id":5}', b'{"id":7}']


# --- Receipts, calls, preferences, notices --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["delivered", "sent, v23", "read", "played", "failed", "deleted"])
def test_receipts(name: str) -> None:
    example = STATUSES[name]
    item = only("messages", statuses=[example])
    command = item.command

    assert isinstance(command, RecordReceipt)
    assert item.dedupe == f"s:wamid.OUT9:{example['status']}"
    assert command.raw_status == example["status"]
    assert command.status == (None if name == "deleted" else example["status"])
    assert command.callback_data == example.get("biz_opaque_callback_data")
    assert [problem.code for problem in command.problems] == ([131047] if name == "failed" else [])
    for part, kept in (("pricing", command.pricing), ("conversation", command.conversation)):
        assert (json.loads(bytes(kept)) if kept else None) == example.get(part)


def test_both_spellings_of_a_receipts_parent_id() -> None:
    read, played = items("messages", statuses=[STATUSES["read"], STATUSES["played"]])

    assert read.contact == played.contact == ContactRef(user_id="DE.71234567890123456789", parent_user_id="DE.ENT.1")


def test_a_receipt_that_names_nobody_is_routed_by_its_message() -> None:
    item = only("messages", statuses=[{"id": "wamid.OUT9", "status": "read"}])

    assert item.contact is None
    assert isinstance(item.command, RecordReceipt)


def test_receipts_of_a_group_differ_by_participant() -> None:
    one, two = items("messages", statuses=[STATUSES["group"], {**STATUSES["group"], "recipient_participant_id": "48"}])

    assert (one.dedupe, two.dedupe) == ("s:wamid.OUT9:delivered:4915100000000", "s:wamid.OUT9:delivered:48")
    assert one.contact == two.contact == ContactRef(group_id="group-1")


def test_calls_are_with_the_customer_in_either_direction() -> None:
    rings, ends, status = items("calls", calls=list(CALLS.values()), statuses=[STATUSES["call"]])[-3:]
    steps = {item.dedupe: item for item in (rings, ends, status)}

    assert steps.keys() == {"c:wacid.1:connect", "c:wacid.1:terminate", "c:wacid.1:ringing"}
    assert all(item.contact == MIRA for item in steps.values())
    connect = steps["c:wacid.1:connect"].command
    assert isinstance(connect, RecordCall)
    assert connect.by_customer
    assert json.loads(bytes(connect.payload)) == CALLS["connect"]
    terminate = steps["c:wacid.1:terminate"].command
    assert isinstance(terminate, RecordCall)
    assert not terminate.by_customer


def test_preferences() -> None:
    stop, signup = items("user_preferences", user_preferences=list(PREFERENCES.values()))

    assert stop.command == SetPreference("marketing_messages", "stop", "User requested to stop marketing messages")
    assert signup.command == SetPreference("marketing_messages", "signup", reference="77")
    assert stop.dedupe == "p:DE.71234567890123456789:marketing_messages:stop:1790000030"
    assert stop.at == 1790000030000


@pytest.mark.parametrize(("field", "example"), [each for each in VALUES if "messaging_product" not in each[1]])
def test_a_field_of_the_account_is_a_notice_with_its_whole_value(field: str, example: dict[str, Any]) -> None:
    (item,) = split(body((field, example), time=1790000000)).items

    assert isinstance(item.command, RecordNotice)
    assert (item.command.topic, item.command.known, item.contact, item.at) == (field, True, None, 1790000000000)
    assert json.loads(bytes(item.command.payload)) == example


def test_a_notice_of_a_number_names_it() -> None:
    (item,) = split(body(("group_lifecycle_update", {"metadata": METADATA}))).items

    assert item.endpoint == METADATA["phone_number_id"]


def test_keys_of_notices() -> None:
    status = {"event": "APPROVED", "message_template_id": 16}

    def key(field: str, value: Any, time: int) -> str:
        (item,) = split(body((field, value), time=time)).items
        return item.dedupe

    assert key("message_template_status_update", status, 17) == "t:16:APPROVED:17"
    assert key("account_update", status, 17) == key("account_update", status, 17)
    others = {key("account_update", status, 17), key("account_update", status, 18), key("security", status, 17)}
    assert len(others | {key("account_update", {**status, "x": 1}, 17)}) == 4


@pytest.mark.parametrize("unheard_of", [{"a": 1}, [1], "text", 5, None])
def test_an_unknown_field_is_kept_whatever_its_value(unheard_of: Any) -> None:
    (item,) = split(body(("message_sentiment_update", unheard_of))).items

    assert isinstance(item.command, RecordNotice)
    assert not item.command.known
    assert json.loads(bytes(item.command.payload)) == unheard_of


def test_an_unknown_array_beside_known_ones_is_kept() -> None:
    notice, text = items("messages", sentiments=[{"mood": 3}], messages=[MESSAGES["text"]])

    assert isinstance(notice.command, RecordNotice)
    assert (notice.command.topic, notice.command.known) == ("messages.sentiments", False)
    assert text.dedupe == "m:wamid.AAA1"


def test_a_value_without_any_item_is_kept_and_one_with_empty_arrays_is_not() -> None:
    assert only("messages").dedupe.startswith("n:messages:")
    assert items("messages", messages=[], statuses=[]) == []


# --- One bad item ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bad",
    [
        42,
        None,
        {"field": 5, "value": {}},
        {"field": "messages"},
        {"field": "messages", "value": 5},
        {"field": "messages", "value": {"metadata": 5, "messages": []}},
        {"field": "messages", "value": {"messages": {}}},
        {"field": "messages", "value": {"messages": [7]}},
        {"field": "messages", "value": {"messages": [{"id": "x", "from": "49", "type": "text", "text": 5}]}},
        {"field": "messages", "value": {"messages": [{"id": "x" * 9999, "from": "49", "type": "text"}]}},
        {"field": "messages", "value": {"messages": [{"from": "49", "type": "text"}]}},
        {"field": "messages", "value": {"messages": [{"id": "x", "from": "4" * 9999, "type": "text"}]}},
        {"field": "messages", "value": {"statuses": [{"id": "x"}]}},
        {"field": "messages", "value": {"contacts": [5], "messages": []}},
        {"field": "messages", "value": {"errors": [5]}},
        {"field": "calls", "value": {"calls": [{"id": "x", "event": "connect"}]}},
        {"field": "user_preferences", "value": {"user_preferences": [{"category": "x", "value": "stop"}]}},
        {"field": "x" * 9999, "value": 5},
    ],
)
def test_one_bad_change_of_a_thousand_is_alone(bad: Any) -> None:
    changes: list[Any] = [
        {"field": "messages", "value": value(messages=[{**MESSAGES["text"], "id": f"wamid.{number}"}])}
        for number in range(999)
    ]
    changes.insert(500, bad)
    text = {"object": "whatsapp_business_account", "entry": [{"id": "2", "time": 1790000000, "changes": changes}]}

    webhook = split(json.dumps(text).encode())

    assert [item.dedupe for item in webhook.items] == [f"m:wamid.{number}" for number in range(999)]
    assert len(webhook.bad) == 1
    assert webhook.bad[0].account == "2"
    assert webhook.bad[0].reason


@pytest.mark.parametrize("time", ["yesterday", True, 1.5, None])
def test_a_bad_entry_is_alone_and_an_odd_time_hurts_nothing(time: Any) -> None:
    notice = {"field": "security", "value": {}}
    good = {
        "id": "2",
        "time": time,
        "changes": [{"field": "messages", "value": value(messages=[MESSAGES["text"]])}, notice],
    }
    text = {"object": "whatsapp_business_account", "entry": [5, good, {"id": "3"}, {**good, "id": 4}]}

    webhook = split(json.dumps(text).encode())

    message, kept = webhook.items
    assert message.dedupe == "m:wamid.AAA1"
    assert (kept.at, kept.dedupe[-1]) == (0, ":")  # as without a time
    assert [json.loads(bad.payload) for bad in webhook.bad] == [5, {"id": "3"}, {**good, "id": 4}]


def test_a_bad_item_is_kept_as_it_came() -> None:
    webhook = split_value("messages", messages=[{"id": "x", "type": 5, "extra": "Grüße"}])

    (bad,) = webhook.bad
    assert (bad.account, bad.endpoint) == ("200000000000001", "300000000000001")
    assert json.loads(bad.payload) == {"id": "x", "type": 5, "extra": "Grüße"}


@pytest.mark.parametrize("name", MESSAGES)
def test_a_kept_part_does_not_hold_its_whole_body(name: str) -> None:
    # A raw part that is a view counts as a reference to the body it was cut from.
    text = body(("messages", value(messages=[MESSAGES[name]], statuses=[STATUSES["delivered"]], errors=[RATE_LIMIT])))
    before = sys.getrefcount(text)

    webhook = split(text)

    assert len(webhook.items) == 3
    assert sys.getrefcount(text) == before


def test_commands_can_be_written() -> None:
    everything = [message(name) for name in MESSAGES]

    assert len(json.loads(msgspec.json.encode(everything))) == len(MESSAGES)
