"""From events to read-model rows: what a turn changes of the thread and of the list. Pure.

Owns the mapping only; the store decides how rows are merged (status by GREATEST, absent parts as they were).
"""

from collections.abc import Sequence

import msgspec

from protocol.commands import ContactRef
from protocol.events import (
    ContactIdentified,
    ConversationAbsorbed,
    ConversationEvent,
    ConversationMerged,
    ConversationStarted,
    MessageCompleted,
    MessageEdited,
    MessageRecorded,
    MessageRevoked,
    ReceiptRecorded,
)
from protocol.machines import identity, timeline
from protocol.machines.conversation import State
from store.contract import AliasWrite, ConversationWrite, MessageWrite

_encode = msgspec.json.Encoder().encode


def messages(events: Sequence[ConversationEvent]) -> tuple[MessageWrite, ...]:
    """Return what `events` change of messages, in order; `seq` is the place of the event in the append, from 1."""
    rows = []
    for index, event in enumerate(events, 1):
        match event:
            case MessageRecorded():
                row = _recorded(event, index)
            case ReceiptRecorded():
                row = MessageWrite(
                    event.message_id,
                    status=timeline.RANK[event.current] if event.current else 0,
                    status_at=event.at,
                    # A late `failed` that a `delivered` has disproved changes no status, and its problems are not the message's.
                    problems=_encode(event.problems) if event.problems and event.raw_status == event.current else None,
                )
            case MessageCompleted():
                row = MessageWrite(event.message_id, kind=_kind(event.content), content=_encode(event.content))
            case MessageEdited():
                row = MessageWrite(
                    event.original_id, kind=_kind(event.content), content=_encode(event.content), edited=True
                )
            case MessageRevoked():
                row = MessageWrite(event.original_id, revoked=True)
            case _:
                continue
        rows.append(row)
    return tuple(rows)


def aliases(endpoint: str, events: Sequence[ConversationEvent]) -> tuple[AliasWrite, ...]:
    """Return which external ids begin, or cease, to lead to the conversation."""
    writes: list[AliasWrite] = []
    for event in events:
        match event:
            case ConversationStarted(contact=contact):
                found = [AliasWrite(endpoint, external_id) for external_id in contact.external_ids()]
            case ContactIdentified(added=added, removed=removed):
                found = [AliasWrite(endpoint, external_id) for external_id in added]
                found += [AliasWrite(endpoint, external_id, remove=True) for external_id in removed]
            case ConversationAbsorbed(other=other, contact=contact):
                found = [AliasWrite(endpoint, each, steal_from=other) for each in contact.external_ids()]
            case _:
                continue
        writes += found
    return tuple(writes)


def conversation(before: State, after: State, events: Sequence[ConversationEvent]) -> ConversationWrite | None:
    """Return the list row as it is after the turn; None where the list need not change, or has nothing to show yet."""
    summary = after.summary
    if before.summary is summary and before.identity is after.identity:
        return None
    if not summary.last_at and not any(
        isinstance(event, ConversationAbsorbed | ConversationMerged) for event in events
    ):
        return None
    absorbs = next((event.other for event in events if isinstance(event, ConversationAbsorbed)), None)
    return ConversationWrite(
        endpoint=after.endpoint,
        contact=_contact(after.identity.contact),
        name=identity.display_name(after.identity.contact),
        preview=summary.preview,
        last_at=summary.last_at,
        last_outbound=summary.outbound,
        unanswered=summary.unanswered,
        messages=summary.messages,
        merged_into=after.identity.merged_into,
        absorbs=absorbs,
    )


def _contact(contact: ContactRef) -> bytes:
    return _encode(contact)


def _kind(content: object) -> str:
    return str(type(content).__struct_config__.tag)  # type: ignore[attr-defined]  # every Content is a tagged Struct


def _recorded(event: MessageRecorded, index: int) -> MessageWrite:
    return MessageWrite(
        event.message_id,
        status=timeline.RANK[event.status] if event.status else 0,
        seq=index,
        at=event.at,
        outbound=event.outbound,
        origin=event.origin,
        kind=_kind(event.content),
        content=_encode(event.content),
        context=_encode(event.context) if event.context else None,
        author=event.author,
        problems=_encode(event.problems) if event.problems else None,
    )
