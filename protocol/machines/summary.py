"""What a conversation list shows of a conversation: the newest message, and how much of it awaits an answer.

Rules:

1. The newest message is the last one recorded; an edit or a revocation of it shows. Imported history never replaces a live message.
2. `unanswered` counts the customer's messages since the business last wrote. A reaction is neither a question nor an answer.
3. `last_at` is the provider's time and never goes backwards, so that a late webhook cannot sink a conversation in the list.
4. A conversation that takes another one over shows the newest message of both, and counts the messages of both.
"""

import msgspec

from protocol.content import Reaction, preview
from protocol.events import (
    CallRecorded,
    ConversationAbsorbed,
    MessageCompleted,
    MessageEdited,
    MessageRecorded,
    MessageRevoked,
    Standing,
)


class State(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One list row's worth. `message_id` is the newest message's."""

    message_id: str = ""
    preview: str = ""
    last_at: int = 0
    outbound: bool = False
    unanswered: int = 0
    messages: int = 0


INITIAL = State()

Event = MessageRecorded | MessageCompleted | MessageEdited | MessageRevoked | CallRecorded | ConversationAbsorbed


def evolve(state: State, event: Event) -> State:
    """Return the state after `event`."""
    match event:
        case MessageRecorded():
            last_at = max(state.last_at, event.at)
            unanswered = state.unanswered
            if event.origin == "history":
                if state.message_id and event.at < state.last_at:
                    return msgspec.structs.replace(state, messages=state.messages + 1)
            elif not isinstance(event.content, Reaction):
                unanswered = 0 if event.outbound else unanswered + 1
            return State(
                event.message_id, preview(event.content), last_at, event.outbound, unanswered, state.messages + 1
            )
        case (
            MessageEdited(original_id=message_id, content=content)
            | MessageCompleted(message_id=message_id, content=content)
        ) if message_id == state.message_id:
            return msgspec.structs.replace(state, preview=preview(content))
        case MessageRevoked(original_id=original_id) if original_id == state.message_id:
            return msgspec.structs.replace(state, preview="[deleted]")
        case CallRecorded():
            return msgspec.structs.replace(state, last_at=max(state.last_at, event.at))
        case ConversationAbsorbed(standing=standing):
            return _combined(state, standing)
        case _:
            return state


def _combined(state: State, other: Standing) -> State:
    theirs = other.message_id and (not state.message_id or other.last_at > state.last_at)
    newest = other if theirs else state
    return State(
        newest.message_id,
        newest.preview,
        max(state.last_at, other.last_at),
        newest.outbound,
        state.unanswered + other.unanswered,
        state.messages + other.messages,
    )
