"""What the actors need from the outside, and what they answer.

Owns the messages that travel between ingress and actors, and the small ports (clock, ids). Must not know how any of it is provided.
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from protocol.commands import ContactRef, RecordNotice
from protocol.events import Standing
from protocol.machines.conversation import Happened
from store.contract import RawWebhook

Clock = Callable[[], int]
"""Unix milliseconds now."""

NewId = Callable[[str], str]
"""A new id with the given prefix (`protocol.ids`)."""

# Mailbox lanes, most urgent first (DESIGN, Actors and supervision). Within RECEIPTS the rank is the status' place.
CONTROL, INBOUND, OUTBOUND, RECEIPTS = range(4)


class Deliver(msgspec.Struct, frozen=True, gc=False):
    """An item for a conversation. `dedupe` is its 16-byte key, `webhook` what it came in."""

    happened: Happened
    dedupe: bytes
    webhook: RawWebhook


class Surrender(msgspec.Struct, frozen=True, gc=False):
    """End in conversation `into`. Answered with `Surrendered`, also when it had ended there before."""

    into: str
    endpoint: str
    at: int


class TakeOver(msgspec.Struct, frozen=True, gc=False):
    """Take over the messages and ids of `other`, which surrendered. Answered with `Recorded`."""

    other: str
    contact: ContactRef
    standing: Standing
    endpoint: str
    dedupe: bytes
    at: int


class Notice(msgspec.Struct, frozen=True, gc=False):
    """A notice for a tenant's own stream. Answered with `Recorded`."""

    account: str
    endpoint: str | None
    at: int
    notice: RecordNotice
    dedupe: bytes
    webhook: RawWebhook


class Recorded(msgspec.Struct, frozen=True, gc=False):
    """It is committed: now, or (`duplicate`) it had been before."""

    duplicate: bool = False


class Surrendered(msgspec.Struct, frozen=True, gc=False):
    """The conversation has ended; `contact` is what it knew, `standing` where it stood."""

    contact: ContactRef
    standing: Standing


class Moved(msgspec.Struct, frozen=True, gc=False):
    """Nothing was done: the conversation has ended in `into`, or (`external_id`) that id leads to `into`. Resolve again."""

    into: str
    external_id: str | None = None


class Quarantined(msgspec.Struct, frozen=True, gc=False):
    """The message crashed its actor too often. It is kept under `entry`, shown, and can be tried again; the conversation goes on."""

    entry: str


Answer = Recorded | Surrendered | Moved | Quarantined


class Relearner(Protocol):
    """Who has to know at once when a committed event changes which ids lead to a conversation."""

    def relearn(
        self, tenant: str, endpoint: str, conversation: str, added: Sequence[str], removed: Sequence[str]
    ) -> None:
        """`added` ids lead to `conversation` from now on, `removed` ones no longer."""


class NotOwner(Exception):
    """Another process owns the partition now. Nothing was committed."""

    code = "not_owner"
    retryable = True


class Contended(Exception):
    """The stream kept changing under the actor; given up after a few decisions. Nothing was committed."""

    code = "contended"
    retryable = True


class NotStorable(Exception):
    """What an actor would record is refused by the database for ever. Raised in a turn: the runtime finds the message and quarantines it."""


RECORDED = Recorded()
DUPLICATE = Recorded(duplicate=True)
