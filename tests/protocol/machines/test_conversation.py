"""The composed conversation: given events, when a command, then events; everything round-trips through the codec and the snapshot."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.commands import (
    ChangeIdentity,
    ContactRef,
    ConversationCommand,
    EditMessage,
    KeepUnknown,
    ReceiveMessage,
    RecordCall,
    RecordReceipt,
    RevokeMessage,
    SetPreference,
)
from protocol.content import Location, Media, Reaction, Text
from protocol.events import (
    CallRecorded,
    ContactIdentified,
    ConversationAbsorbed,
    ConversationEvent,
    ConversationMerged,
    ConversationStarted,
    MessageRecorded,
    PreferenceSet,
    UnknownKept,
    decode,
    encode,
    kind_of,
)
from protocol.machines import conversation as machine
from protocol.machines import window
from protocol.outcomes import Rejected

MIRA = ContactRef(phone="4915100000000", name="Mira K.")
STARTED = ConversationStarted(1, "300000000000001", MIRA)


def happened(command: ConversationCommand, at: int = 10, contact: ContactRef = MIRA) -> machine.Happened:
    return machine.Happened("300000000000001", contact, at, command)


def fold(*events: ConversationEvent, state: machine.State = machine.INITIAL) -> machine.State:
    for event in events:
        assert decode(encode(event)) == event
        assert msgspec.json.decode(encode(event))["type"] == kind_of(event)
        state = machine.evolve(state, event)
    snapshot = machine.decode_snapshot(machine.encode_snapshot(state))
    assert snapshot == state
    return state


def when(state: machine.State, command: machine.Command) -> list[ConversationEvent]:
    events = machine.decide(state, command)
    assert not isinstance(events, Rejected)
    fold(*events, state=state)
    return events


def test_the_first_item_starts_the_conversation() -> None:
    events = when(machine.INITIAL, happened(ReceiveMessage("wamid.1", Text("hi")), at=1))
    assert events == [STARTED, MessageRecorded(1, "wamid.1", Text("hi"))]


def test_what_is_newly_known_of_the_contact_comes_first() -> None:
    seen = ContactRef(phone="4915100000000", user_id="DE.7", username="@mira", name="Mira K.")
    events = when(fold(STARTED), happened(ReceiveMessage("wamid.1", Text("hi")), contact=seen))
    assert events[0] == ContactIdentified(10, seen, added=("user:DE.7",))


def test_a_hidden_phone_number_is_not_unlearnt() -> None:
    both = ContactRef(phone="4915100000000", user_id="DE.7", name="Mira K.")
    state = fold(ConversationStarted(1, "300000000000001", both))
    events = when(state, happened(ReceiveMessage("wamid.1", Text("hi")), contact=ContactRef(user_id="DE.7")))
    assert [kind_of(event) for event in events] == ["message_recorded"]


def test_a_changed_number_replaces_the_old_one() -> None:
    change = ChangeIdentity(
        "wamid.9", "user_changed_number", ContactRef(phone="4915100000000"), ContactRef(phone="4999")
    )
    [event] = when(fold(STARTED), happened(change))
    assert isinstance(event, ContactIdentified)
    assert (event.added, event.removed, event.reason) == (
        ("phone:4999",),
        ("phone:4915100000000",),
        "user_changed_number",
    )
    [again] = when(fold(STARTED, event), happened(change))  # the old id may have come here by a merge meanwhile
    assert isinstance(again, ContactIdentified)
    assert (again.contact, again.added, again.removed) == (event.contact, (), ("phone:4915100000000",))


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (
            RecordCall("wacid.1", "connect", msgspec.Raw(b"{}"), by_customer=True),
            CallRecorded(10, "wacid.1", "connect", msgspec.Raw(b"{}"), True),
        ),
        (
            SetPreference("marketing_messages", "stop", "asked"),
            PreferenceSet(10, "marketing_messages", "stop", "asked"),
        ),
        (
            KeepUnknown("gravity_wave", msgspec.Raw(b'{"a":1}')),
            UnknownKept(10, "gravity_wave", msgspec.Raw(b'{"a":1}')),
        ),
    ],
)
def test_other_items_are_recorded_as_they_are(command: ConversationCommand, expected: ConversationEvent) -> None:
    assert when(fold(STARTED), happened(command)) == [expected]


def test_a_merged_conversation_refuses_everything_and_says_where_to_go() -> None:
    [merged] = when(fold(STARTED), machine.MergeInto("cnv_A", "300000000000001", 5))
    assert merged == ConversationMerged(5, "cnv_A")
    state = fold(STARTED, merged)
    assert machine.decide(state, happened(ReceiveMessage("wamid.1", Text("hi")))) == Rejected("merged", "cnv_A")
    assert machine.decide(state, machine.MergeInto("cnv_A", "300000000000001", 6)) == []
    assert machine.decide(state, machine.MergeInto("cnv_B", "300000000000001", 6)) == Rejected("merged", "cnv_A")


def test_the_survivor_learns_the_contact_and_asks_the_read_model_from_then_on() -> None:
    other = ContactRef(user_id="DE.7", username="@mira", name="somebody else's spelling")
    [absorbed] = when(fold(STARTED), machine.Absorb("cnv_B", other, "300000000000001", 5))
    assert isinstance(absorbed, ConversationAbsorbed)
    state = fold(STARTED, absorbed)
    assert state.identity.contact == ContactRef("4915100000000", "DE.7", username="@mira", name="Mira K.")
    assert state.timeline.forgot


# --- summary and window


def message(n: int, text: str, at: int, **more: object) -> MessageRecorded:
    return MessageRecorded(at, f"wamid.{n}", Text(text), **more)  # type: ignore[arg-type]


def test_the_summary_follows_the_newest_message() -> None:
    state = fold(STARTED, message(1, "one\n two", 10), message(2, "three", 20)).summary
    assert (state.preview, state.last_at, state.unanswered, state.messages) == ("three", 20, 2, 2)
    state = fold(STARTED, message(1, "one", 10), message(2, "reply", 20, outbound=True, origin="echo")).summary
    assert (state.preview, state.outbound, state.unanswered) == ("reply", True, 0)


def test_a_late_webhook_cannot_sink_the_conversation() -> None:
    assert fold(STARTED, message(1, "one", 50), message(2, "late", 20)).summary.last_at == 50


def test_history_does_not_replace_a_live_message() -> None:
    state = fold(STARTED, message(1, "live", 50), message(2, "old", 20, origin="history")).summary
    assert (state.preview, state.unanswered, state.messages) == ("live", 1, 2)


def test_a_reaction_is_neither_question_nor_answer() -> None:
    state = fold(
        STARTED, message(1, "one", 10), MessageRecorded(20, "wamid.2", Reaction("wamid.1", "👍"), outbound=True)
    )
    assert state.summary.unanswered == 1


def test_an_edit_and_a_revocation_of_the_newest_message_show() -> None:
    state = fold(STARTED, message(1, "one", 10))
    [edited] = when(state, happened(EditMessage("wamid.2", "wamid.1", Text("uno"))))
    assert fold(STARTED, message(1, "one", 10), edited).summary.preview == "uno"
    [revoked] = when(state, happened(RevokeMessage("wamid.3", "wamid.1")))
    assert fold(STARTED, message(1, "one", 10), revoked).summary.preview == "[deleted]"


def test_the_window_opens_for_what_the_customer_does_and_only_moves_forward() -> None:
    day = window.CUSTOMER_SERVICE_WINDOW
    closed = fold(
        STARTED, message(1, "echo", 10, outbound=True, origin="echo"), message(2, "old", 10, origin="history")
    )
    assert not window.is_open(closed.window, 11)
    opened = fold(STARTED, message(1, "hi", 100), message(2, "late", 50))
    assert window.is_open(opened.window, 99 + day)
    assert not window.is_open(opened.window, 100 + day)
    assert window.is_open(fold(STARTED, CallRecorded(100, "w", "connect", msgspec.Raw(b"{}"), True)).window, 200)


# --- replay

contents = st.sampled_from([Text("t"), Media("image", "811"), Location(1.5, 2.5), Reaction("wamid.1", None)])
ids = st.integers(0, 12).map(lambda n: f"wamid.{n}")
raws = st.sampled_from([msgspec.UNSET, msgspec.Raw(b'{"billable":true}')])
commands = st.one_of(
    st.builds(
        ReceiveMessage,
        ids,
        contents,
        outbound=st.booleans(),
        origin=st.sampled_from(["customer", "echo", "history"]),
        referral=raws,
    ),
    st.builds(
        RecordReceipt,
        ids,
        st.just("x"),
        st.sampled_from(["sent", "delivered", "read", "played", "failed", None]),
        pricing=raws,
        conversation=raws,
    ),
    st.builds(EditMessage, ids, ids, contents),
    st.builds(RevokeMessage, ids, ids),
)


@given(st.lists(st.tuples(commands, st.integers(1, 10_000)), max_size=40), st.integers(0, 40))
def test_state_equals_replay_from_any_snapshot(history: list[tuple[ConversationCommand, int]], cut: int) -> None:
    state = machine.INITIAL
    events: list[ConversationEvent] = []
    states = [state]
    for command, at in history:
        for event in when(state, happened(command, at)):
            state = machine.evolve(state, event)
            events.append(event)
            states.append(state)
    cut = min(cut, len(events))
    snapshot = machine.decode_snapshot(machine.encode_snapshot(states[cut]))
    assert snapshot is not None
    assert fold(*events[cut:], state=snapshot) == state


def test_a_snapshot_of_another_format_is_dropped() -> None:
    other = msgspec.structs.replace(machine.INITIAL, format=machine.SNAPSHOT_FORMAT + 1)
    assert machine.decode_snapshot(machine.encode_snapshot(other)) is None
    assert machine.decode_snapshot(b'{"format":"x"}') is None
