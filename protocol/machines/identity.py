"""Who the contact is: every id and name a provider used, and whether the conversation has ended in another.

Rules:

1. Whatever an item newly says of the contact (a phone number behind a business-scoped id, a username, a name) is learnt; nothing is unlearnt
   because a later item leaves it out: providers omit a hidden phone number rather than send it empty.
2. An explicit change (new number, new scoped id) replaces: the replaced id no longer leads here, because it may be given to somebody else.
   That holds for an id which the change names as old even where another id of its kind was known here (of a conversation taken over).
3. A conversation merged into another decides nothing more.

Which conversation an external id leads to is not known here: the directory resolves that before a command arrives.
"""

import msgspec

from protocol.commands import ChangeIdentity, ContactRef
from protocol.events import ContactIdentified, ConversationAbsorbed, ConversationMerged, ConversationStarted


class State(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """`contact` is everything known; `merged_into` the conversation that took this one over."""

    contact: ContactRef = ContactRef()
    merged_into: str | None = None


INITIAL = State()

_FIELDS = ContactRef.__struct_fields__


def learn(state: State, seen: ContactRef, at: int) -> list[ContactIdentified]:
    """Return an event if `seen` says anything new of the contact (rule 1)."""
    known = state.contact
    if seen == known:
        return []
    news = {
        field: value
        for field in _FIELDS
        if (value := getattr(seen, field)) is not None and value != getattr(known, field)
    }
    if not news:
        return []
    return [_identified(known, msgspec.structs.replace(known, **news), at, None, None)]


def change(state: State, command: ChangeIdentity, at: int) -> list[ContactIdentified]:
    """Return the explicit change (rule 2), or nothing where it replaces nothing and says what is already known."""
    known = state.contact
    news = {field: value for field in _FIELDS if (value := getattr(command.new, field)) is not None}
    contact = msgspec.structs.replace(known, **news)
    replaced = {field: value for field in news if (value := getattr(command.old, field)) is not None}
    event = _identified(known, contact, at, command.reason, command.note, ContactRef(**replaced))
    if contact == known and command.note is None and not event.removed:
        return []
    return [event]


def evolve(
    state: State, event: ConversationStarted | ContactIdentified | ConversationMerged | ConversationAbsorbed
) -> State:
    """Return the state after `event`."""
    match event:
        case ConversationMerged(into=into):
            return State(state.contact, into)
        case ConversationAbsorbed(contact=contact):
            return State(_completed(state.contact, contact), state.merged_into)
        case _:
            return State(event.contact, state.merged_into)


def display_name(contact: ContactRef) -> str:
    """Return what a person in a list is called: the name they gave, else the best id."""
    phone = f"+{contact.phone}" if contact.phone else None
    return (
        contact.name or contact.username or phone or contact.user_id or contact.parent_user_id or contact.group_id or ""
    )


def _identified(
    known: ContactRef,
    contact: ContactRef,
    at: int,
    reason: str | None,
    note: str | None,
    replaced: ContactRef = ContactRef(),  # noqa: B008 - frozen
) -> ContactIdentified:
    before, after = known.external_ids(), contact.external_ids()
    gone = dict.fromkeys(before + replaced.external_ids())
    return ContactIdentified(
        at=at,
        contact=contact,
        added=tuple(external_id for external_id in after if external_id not in before),
        removed=tuple(external_id for external_id in gone if external_id not in after),
        reason=reason,
        note=note,
    )


def _completed(known: ContactRef, other: ContactRef) -> ContactRef:
    news = {
        field: value
        for field in _FIELDS
        if getattr(known, field) is None and (value := getattr(other, field)) is not None
    }
    return msgspec.structs.replace(known, **news) if news else known
