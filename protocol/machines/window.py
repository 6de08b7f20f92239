"""The customer service window: until when the business may write freely.

Rules (WhatsApp: 24 hours from the customer's last message or call, measured by the provider's timestamps; other providers set other lengths):

1. Anything the customer does opens or extends it: a message of any type, a reaction, the first opening of the chat, a call.
2. Receipts, echoes, imported history, preferences and identity changes never do.
3. It only ever moves forward: a late webhook cannot shut a window.
4. A conversation that takes another one over has the window that opened last.

Source: Meta, "Send messages – customer service windows".
"""

import msgspec

from protocol.events import CallRecorded, ConversationAbsorbed, MessageRecorded, Standing

CUSTOMER_SERVICE_WINDOW = 24 * 60 * 60 * 1000
"""Milliseconds."""


class State(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`opened_at`: provider time of the customer's last act, Unix milliseconds; 0: never."""

    opened_at: int = 0


INITIAL = State()


def evolve(state: State, event: MessageRecorded | CallRecorded | ConversationAbsorbed) -> State:
    """Return the state after `event`."""
    match event:
        case (
            MessageRecorded(outbound=False, origin="customer", at=at)
            | CallRecorded(by_customer=True, at=at)
            | ConversationAbsorbed(standing=Standing(opened_at=at))
        ):
            return state if at <= state.opened_at else State(at)
        case _:
            return state


def is_open(state: State, now: int, length: int = CUSTOMER_SERVICE_WINDOW) -> bool:
    """Tell whether a free message may be sent at `now` (Unix milliseconds)."""
    return state.opened_at > 0 and now < state.opened_at + length
