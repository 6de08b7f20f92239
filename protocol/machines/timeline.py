"""Which messages the conversation knows, and how far each outbound one came.

Rules:

1. FORWARD-ONLY. A message's status is the highest rank of all receipts seen for it, in whatever order they come. The ranks are a total order
   (sent < failed < delivered < read < played), so any order of the same receipts ends at the same status. `failed` outranks `sent`,
   and a `delivered` proves a `failed` wrong.
2. Every raw receipt becomes an event, also one that changes nothing, also one whose status word nobody knows.
3. A receipt may come before its message. It waits; the message is recorded with the status that waited for it.
4. A message id is recorded once. An imported message whose media comes later stands as a placeholder and is completed; the only items that bring
   an id of the past again are those (their dedupe keys differ), so a history item for a recorded message completes it.

Theory of operation. A conversation may grow for years and its state must not: only the newest REMEMBERED messages and the newest REMEMBERED
waiting receipts are held. `forgot` says that older ones exist in the read model. Before a turn is decided, the actor asks for the `subject` of
each command: what is remembered of it is kept longest (`keep`), so that nothing recorded earlier in the same turn pushes it out, and
what is not is looked up and put back (`recall`). Neither is an event: what was recalled can always be looked up again.
"""

from collections.abc import Iterable

import msgspec

from protocol.commands import EditMessage, ReceiptStatus, ReceiveMessage, RecordReceipt, RevokeMessage
from protocol.content import Unsupported
from protocol.events import MessageCompleted, MessageEdited, MessageRecorded, MessageRevoked, ReceiptRecorded

REMEMBERED = 128
"""Messages, and waiting receipts, held in memory: receipts nearly always follow within the last few dozen messages, and copying a dict of
this size for each event costs below a microsecond."""

RANK: dict[ReceiptStatus, int] = {"sent": 10, "failed": 20, "delivered": 30, "read": 40, "played": 50}
"""Stored in the read model, so never renumbered; the gaps are for the states of our own sends."""
STATUS: dict[int, ReceiptStatus] = {rank: status for status, rank in RANK.items()}


class State(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`messages`: rank of each remembered message's status (0: none). `waiting`: rank of each receipt whose message is not known."""

    messages: dict[str, int] = {}
    waiting: dict[str, int] = {}
    forgot: bool = False


INITIAL = State()

Command = ReceiveMessage | EditMessage | RevokeMessage | RecordReceipt
Event = MessageRecorded | MessageCompleted | MessageEdited | MessageRevoked | ReceiptRecorded


def subject(command: Command) -> str | None:
    """Return the message that has to be known before `command` is decided. The customer's new messages need nothing."""
    match command:
        case RecordReceipt(message_id=message_id):
            return message_id
        case ReceiveMessage(message_id=message_id) if command.outbound or command.origin == "history":
            return message_id
        case _:
            return None


def knows(state: State, message_id: str) -> bool:
    """Tell whether the message or a receipt for it is remembered."""
    return message_id in state.messages or message_id in state.waiting


def is_full(state: State, turn: int) -> bool:
    """Tell whether a turn of so many commands may push something out."""
    return max(len(state.messages), len(state.waiting)) + turn > REMEMBERED


def keep(state: State, message_ids: Iterable[str]) -> State:
    """Return the state with these remembered longest of all."""
    messages, waiting = {**state.messages}, {**state.waiting}
    for message_id in message_ids:
        for remembered in (messages, waiting):
            if message_id in remembered:
                remembered[message_id] = remembered.pop(message_id)
    return State(messages, waiting, state.forgot)


def recall(state: State, message_id: str, status: int, *, recorded: bool) -> State:
    """Return the state with what the read model knows of `message_id`: its status' rank, and whether the message itself is recorded."""
    if recorded:
        return _bounded({**state.messages, message_id: status}, state.waiting, state.forgot)
    return _bounded(state.messages, {**state.waiting, message_id: status}, state.forgot)


def decide(state: State, command: Command, at: int) -> list[Event]:
    """Return what happens; nothing for a message already recorded."""
    match command:
        case RecordReceipt():
            return [_receipt(state, command, at)]
        case ReceiveMessage():
            if command.message_id in state.messages:
                completes = command.origin == "history" and not isinstance(command.content, Unsupported)
                return [MessageCompleted(at, command.message_id, command.content)] if completes else []
            rank = max(state.waiting.get(command.message_id, 0), RANK[command.status] if command.status else 0)
            return [
                MessageRecorded(
                    at=at,
                    message_id=command.message_id,
                    content=command.content,
                    origin=command.origin,
                    outbound=command.outbound,
                    context=command.context,
                    referral=command.referral,
                    problems=command.problems,
                    status=STATUS.get(rank),
                    author=command.author,
                    author_name=command.author_name,
                )
            ]
        case EditMessage():
            return [MessageEdited(at, command.message_id, command.original_id, command.content, command.outbound)]
        case RevokeMessage():
            return [MessageRevoked(at, command.message_id, command.original_id, command.outbound)]


def _receipt(state: State, command: RecordReceipt, at: int) -> ReceiptRecorded:
    rank = RANK[command.status] if command.status else 0
    known = state.messages.get(command.message_id)
    before = state.waiting.get(command.message_id, 0) if known is None else known
    return ReceiptRecorded(
        at=at,
        message_id=command.message_id,
        raw_status=command.raw_status,
        current=STATUS.get(max(before, rank)),
        waiting=known is None,
        participant=command.participant,
        callback_data=command.callback_data,
        problems=command.problems,
        pricing=command.pricing,
        conversation=command.conversation,
    )


def evolve(state: State, event: Event) -> State:
    """Return the state after `event`."""
    match event:
        case MessageRecorded():
            waiting = state.waiting
            if event.message_id in waiting:
                waiting = {key: rank for key, rank in waiting.items() if key != event.message_id}
            rank = RANK[event.status] if event.status else 0
            return _bounded({**state.messages, event.message_id: rank}, waiting, state.forgot)
        case ReceiptRecorded():
            rank = RANK[event.current] if event.current else 0
            if event.waiting:
                return _bounded(state.messages, {**state.waiting, event.message_id: rank}, state.forgot)
            if state.messages.get(event.message_id) == rank:
                return state
            # Also for a message that was forgotten: the event itself says it is recorded, and where it stands.
            return _bounded({**state.messages, event.message_id: rank}, state.waiting, state.forgot)
        case _:
            return state


def forget(state: State) -> State:
    """Return the state of a conversation that took another one over: from now on the read model may know more than it does."""
    return msgspec.structs.replace(state, forgot=True)


def _bounded(messages: dict[str, int], waiting: dict[str, int], forgot: bool) -> State:
    if len(messages) > REMEMBERED or len(waiting) > REMEMBERED:
        # The oldest go; dicts keep the order of arrival. Sliced, not deleted from: one of the two may belong to the state before.
        messages = dict(list(messages.items())[-REMEMBERED:])
        waiting = dict(list(waiting.items())[-REMEMBERED:])
        forgot = True
    return State(messages, waiting, forgot)
