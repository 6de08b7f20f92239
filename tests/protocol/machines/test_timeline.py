"""Messages and receipts: FORWARD-ONLY in whatever order they come."""

from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw

from protocol.commands import ReceiptStatus, ReceiveMessage, RecordReceipt
from protocol.content import Media, Text, Unsupported
from protocol.events import MessageCompleted, MessageRecorded, ReceiptRecorded
from protocol.machines import timeline

STATUSES: tuple[ReceiptStatus, ...] = ("sent", "delivered", "read", "played", "failed")
MESSAGE = ReceiveMessage("wamid.OUT1", Text("hello"), origin="echo", outbound=True)


def receipt(status: ReceiptStatus | None, message_id: str = "wamid.OUT1", raw: str = "") -> RecordReceipt:
    return RecordReceipt(message_id, raw_status=raw or (status or "odd"), status=status)


def run(
    *commands: timeline.Command, state: timeline.State = timeline.INITIAL
) -> tuple[timeline.State, list[timeline.Event]]:
    events: list[timeline.Event] = []
    for at, command in enumerate(commands, 1):
        decided = timeline.decide(state, command, at)
        for event in decided:
            state = timeline.evolve(state, event)
        events.extend(decided)
    return state, events


def final(commands: tuple[timeline.Command, ...]) -> ReceiptStatus | None:
    state, _ = run(*commands)
    return timeline.STATUS.get(state.messages["wamid.OUT1"])


@pytest.mark.parametrize("order", list(permutations(("sent", "delivered", "read", "failed"))))
@pytest.mark.parametrize("place", range(5))
def test_all_orders_before_and_after_the_message_end_at_read(order: tuple[ReceiptStatus, ...], place: int) -> None:
    commands: list[timeline.Command] = [receipt(status) for status in order]
    commands.insert(place, MESSAGE)
    state, events = run(*commands)
    assert state.messages == {"wamid.OUT1": timeline.RANK["read"]}
    assert state.waiting == {}
    # every raw receipt is kept
    assert sorted(event.raw_status for event in events if isinstance(event, ReceiptRecorded)) == sorted(order)


@given(st.lists(st.sampled_from([*STATUSES, None]), max_size=12), st.integers(0, 12), st.randoms())
def test_any_multiset_of_receipts_converges(statuses: list[ReceiptStatus | None], place: int, random: object) -> None:
    commands: list[timeline.Command] = [receipt(status) for status in statuses]
    commands.insert(min(place, len(commands)), MESSAGE)
    shuffled = list(commands)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert final(tuple(commands)) == final(tuple(shuffled))


@given(st.lists(st.sampled_from(STATUSES), min_size=1, max_size=12))
def test_current_never_steps_back(statuses: list[ReceiptStatus]) -> None:
    _, events = run(MESSAGE, *(receipt(status) for status in statuses))
    ranks = [timeline.RANK[event.current] for event in events if isinstance(event, ReceiptRecorded) and event.current]
    assert ranks == sorted(ranks)
    assert len(ranks) == len(statuses)


def test_failed_is_final_until_a_delivered_proves_it_wrong() -> None:
    assert final((MESSAGE, receipt("sent"), receipt("failed"), receipt("sent"))) == "failed"
    assert final((MESSAGE, receipt("failed"), receipt("delivered"))) == "delivered"
    assert final((MESSAGE, receipt("delivered"), receipt("failed"))) == "delivered"


def test_a_receipt_waits_for_its_message() -> None:
    state, [first] = run(receipt("delivered"))
    assert first == ReceiptRecorded(1, "wamid.OUT1", "delivered", "delivered", waiting=True)
    assert state.waiting == {"wamid.OUT1": 30}
    _, [recorded] = run(MESSAGE, state=state)
    assert isinstance(recorded, MessageRecorded)
    assert recorded.status == "delivered"


def test_an_unknown_status_is_kept_and_changes_nothing() -> None:
    _, events = run(MESSAGE, receipt("read"), receipt(None, raw="teleported"))
    assert events[-1] == ReceiptRecorded(3, "wamid.OUT1", "teleported", "read")


def test_a_message_is_recorded_once() -> None:
    _, events = run(MESSAGE, MESSAGE)
    assert len(events) == 1


def outbound(n: int) -> ReceiveMessage:
    return ReceiveMessage(f"wamid.{n}", Text("x"), origin="echo", outbound=True)


def test_memory_is_bounded_and_what_was_forgotten_is_asked_for() -> None:
    state, _ = run(*(outbound(n) for n in range(timeline.REMEMBERED + 5)))
    assert len(state.messages) == timeline.REMEMBERED
    assert state.forgot
    assert timeline.subject(receipt("read", "wamid.0")) == "wamid.0"
    assert timeline.subject(outbound(7)) == "wamid.7"
    assert timeline.subject(ReceiveMessage("wamid.new", Text("x"))) is None  # a customer's message costs no look-up
    assert not timeline.knows(state, "wamid.0")
    assert timeline.knows(state, f"wamid.{timeline.REMEMBERED}")

    recalled = timeline.recall(state, "wamid.0", timeline.RANK["read"], recorded=True)
    assert len(recalled.messages) == timeline.REMEMBERED
    [event] = timeline.decide(recalled, receipt("delivered", "wamid.0"), 1)
    assert isinstance(event, ReceiptRecorded)
    assert (event.current, event.waiting) == ("read", False)


def test_waiting_receipts_are_bounded_too() -> None:
    state, _ = run(*(receipt("sent", f"wamid.{n}") for n in range(timeline.REMEMBERED + 1)))
    assert len(state.waiting) == timeline.REMEMBERED
    assert state.forgot
    for n in range(500):
        state = timeline.recall(state, f"wamid.r{n}", 10, recorded=bool(n % 2))
    assert len(state.waiting) == len(state.messages) == timeline.REMEMBERED


def test_what_a_turn_is_about_is_not_pushed_out_by_what_it_records() -> None:
    state, _ = run(outbound(0), receipt("read", "wamid.0"), *(outbound(n) for n in range(1, timeline.REMEMBERED)))
    assert timeline.is_full(state, 64)
    kept = timeline.keep(state, ["wamid.0", "wamid.unheard-of"])
    assert kept.messages == state.messages
    late, events = run(*(outbound(1000 + n) for n in range(63)), receipt("sent", "wamid.0"), state=kept)
    assert events[-1] == ReceiptRecorded(64, "wamid.0", "sent", "read")
    assert late.messages["wamid.0"] == timeline.RANK["read"]


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 400)), max_size=300))
def test_a_state_is_never_changed_by_what_follows(steps: list[tuple[bool, int]]) -> None:
    state = timeline.INITIAL
    for is_receipt, number in steps:
        command = receipt("delivered", f"wamid.{number}") if is_receipt else outbound(number)
        before = (dict(state.messages), dict(state.waiting), state.forgot)
        for event in timeline.decide(state, command, 1):
            after = timeline.evolve(state, event)
            assert (state.messages, state.waiting, state.forgot) == before
            state = after
            before = (dict(state.messages), dict(state.waiting), state.forgot)


def test_an_imported_placeholder_is_completed_by_its_media() -> None:
    placeholder = ReceiveMessage("wamid.H", Unsupported("media_placeholder", Raw(b"{}")), origin="history")
    media = ReceiveMessage("wamid.H", Media("image", "811"), origin="history")
    _, events = run(placeholder, media)
    assert events[1:] == [MessageCompleted(2, "wamid.H", Media("image", "811"))]
    # a live repetition of a recorded message changes nothing
    assert run(MESSAGE, MESSAGE)[1] == run(MESSAGE)[1]
