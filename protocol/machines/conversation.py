"""The conversation: composes the small machines and routes each command to the one that owns it.

Rules:

1. The first event of a conversation is `conversation_started`; the machine writes it when the first command arrives.
2. Every command first tells who the contact is (identity), then what happened.
3. After `conversation_merged` every command is refused with code `merged` and the conversation to go to.

Theory of operation. `decide(state, command)` returns events without having changed anything; `evolve` folds one event into the parts that
care. A turn of the actor decides several commands in a row on a state that is not committed yet; if the commit is refused, the state of
before the turn is still in hand. Snapshots are the state's JSON, with a format number: an old format is dropped and the state folded anew
from the events.
"""

from typing import TypeAlias

import msgspec

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
from protocol.events import (
    CallRecorded,
    ContactIdentified,
    ConversationAbsorbed,
    ConversationEvent,
    ConversationMerged,
    ConversationStarted,
    MessageCompleted,
    MessageEdited,
    MessageRecorded,
    MessageRevoked,
    PreferenceSet,
    ReceiptRecorded,
    Standing,
    UnknownKept,
)
from protocol.machines import identity, summary, timeline, window
from protocol.outcomes import Rejected

SNAPSHOT_FORMAT = 1
"""Raised whenever a part's State changes its meaning."""


# A class body that assigns `identity` could not name `identity.State` any more.
Identity: TypeAlias = identity.State
Timeline: TypeAlias = timeline.State
Summary: TypeAlias = summary.State
Window: TypeAlias = window.State


class State(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Everything a conversation has to remember. `endpoint` is empty before the first event."""

    format: int = SNAPSHOT_FORMAT
    endpoint: str = ""
    identity: Identity = Identity()
    timeline: Timeline = Timeline()
    summary: Summary = Summary()
    window: Window = Window()


INITIAL = State()


class Happened(msgspec.Struct, frozen=True, gc=False):
    """A provider's item for this conversation: who the contact is, when it happened (Unix ms, provider's clock), and what."""

    endpoint: str
    contact: ContactRef
    at: int
    command: ConversationCommand


class MergeInto(msgspec.Struct, frozen=True, gc=False):
    """End here; all goes on in `into`. `endpoint` is for a conversation that ends before it began."""

    into: str
    endpoint: str
    at: int


class Absorb(msgspec.Struct, frozen=True, gc=False):
    """Take over the messages and the contact of `other`, which has ended in this conversation. `standing`: where it stood."""

    other: str
    contact: ContactRef
    endpoint: str
    at: int
    standing: Standing = Standing()


Command = Happened | MergeInto | Absorb


def decide(state: State, command: Command) -> list[ConversationEvent] | Rejected:
    """Return what happens, or why nothing can. An empty list: the command said nothing new."""
    merged_into = state.identity.merged_into
    if merged_into is not None:
        if isinstance(command, MergeInto) and command.into == merged_into:
            return []
        return Rejected("merged", merged_into)
    match command:
        case Happened():
            return _happened(state, command)
        case MergeInto(into=into, endpoint=endpoint, at=at):
            return [*_started(state, endpoint, ContactRef(), at), ConversationMerged(at, into)]
        case Absorb(other=other, contact=contact, at=at, endpoint=endpoint, standing=standing):
            started = _started(state, endpoint, contact, at)
            return [*started, ConversationAbsorbed(at, other, contact, standing)]


def standing(state: State) -> Standing:
    """Return what a conversation that takes this one over has to know of where it stands."""
    shown = state.summary
    return Standing(
        shown.message_id,
        shown.preview,
        shown.last_at,
        shown.outbound,
        shown.unanswered,
        shown.messages,
        state.window.opened_at,
    )


def _started(state: State, endpoint: str, contact: ContactRef, at: int) -> list[ConversationEvent]:
    return [] if state.endpoint else [ConversationStarted(at, endpoint, contact)]


def _happened(state: State, happened: Happened) -> list[ConversationEvent]:
    at, command = happened.at, happened.command
    events: list[ConversationEvent] = []
    if not state.endpoint:
        events.append(ConversationStarted(at, happened.endpoint, happened.contact))
    elif not isinstance(command, ChangeIdentity):
        events.extend(identity.learn(state.identity, happened.contact, at))
    match command:
        case ReceiveMessage() | EditMessage() | RevokeMessage() | RecordReceipt():
            events.extend(timeline.decide(state.timeline, command, at))
        case ChangeIdentity():
            events.extend(identity.change(state.identity, command, at))
        case RecordCall(call_id=call_id, event=event, payload=payload, by_customer=by_customer):
            events.append(CallRecorded(at, call_id, event, payload, by_customer))
        case SetPreference(category=category, value=value, detail=detail, reference=reference):
            events.append(PreferenceSet(at, category, value, detail, reference))
        case KeepUnknown(what=what, payload=payload):
            events.append(UnknownKept(at, what, payload))
    return events


def evolve(state: State, event: ConversationEvent) -> State:
    """Return the state after `event`."""
    who, line, shown, open_ = state.identity, state.timeline, state.summary, state.window
    endpoint = state.endpoint
    match event:
        case MessageRecorded():
            line = timeline.evolve(line, event)
            shown = summary.evolve(shown, event)
            open_ = window.evolve(open_, event)
        case ReceiptRecorded():
            line = timeline.evolve(line, event)
        case ConversationStarted():
            endpoint = event.endpoint
            who = identity.evolve(who, event)
        case ContactIdentified() | ConversationMerged():
            who = identity.evolve(who, event)
        case ConversationAbsorbed():
            who = identity.evolve(who, event)
            line = timeline.forget(line)
            shown = summary.evolve(shown, event)
            open_ = window.evolve(open_, event)
        case MessageEdited() | MessageRevoked() | MessageCompleted():
            shown = summary.evolve(shown, event)
        case CallRecorded():
            shown = summary.evolve(shown, event)
            open_ = window.evolve(open_, event)
        case PreferenceSet() | UnknownKept():
            return state
    return State(SNAPSHOT_FORMAT, endpoint, who, line, shown, open_)


_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[State] = msgspec.json.Decoder(State)


def encode_snapshot(state: State) -> bytes:
    """Return the state's JSON."""
    return _encoder.encode(state)


def decode_snapshot(body: bytes) -> State | None:
    """Return the state, or None for a format this release does not read: fold the events instead."""
    try:
        state = _decoder.decode(body)
    except msgspec.ValidationError:
        return None
    return state if state.format == SNAPSHOT_FORMAT else None
