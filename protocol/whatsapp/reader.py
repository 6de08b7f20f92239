"""Reads one change of a webhook: its messages, statuses, calls, preferences, imported past, errors; or the notice it is.

Source: WhatsApp Cloud API reference, sections 2 to 5 and 12. Owns who each item is about and its dedupe key. Must not know the envelope.

Rules
1. Each item is decoded and translated alone; one that cannot be is set aside as it came.
2. Whose an item is, is found by id, never by position (12.3).
3. Equal facts have equal keys (12.4), whatever body they arrive in:

   | key | fact |
   |---|---|
   | `m:<wamid>` | a message, edit, revocation or system event, live, echoed or imported |
   | `m:<wamid>:placeholder` | an imported message whose media comes later, under `m:<wamid>` |
   | `s:<wamid>:<status>[:<participant>]` | a receipt |
   | `c:<wacid>:<event or status>` | a step of a call |
   | `p:<person>:<category>:<value>:<timestamp>` | a preference |
   | `t:<template>:<event>:<entry time>` | a template's status |
   | `n:<topic>:<digest of the value>:<entry time>` | any other notice |

   A value-level error has no id and no time: the same error reported twice is one notice.
"""

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from typing import TypeVar

import msgspec
from msgspec import UNSET

from protocol.commands import (
    BadItem,
    ChangeIdentity,
    ContactRef,
    ConversationCommand,
    EditMessage,
    Item,
    KeepUnknown,
    Origin,
    ReceiveMessage,
    RecordCall,
    RecordNotice,
    RecordReceipt,
    RevokeMessage,
    SetPreference,
)
from protocol.errors import RemoteProtocolError
from protocol.whatsapp import wire
from protocol.whatsapp.fields import CONVERSATION_FIELDS, FIELDS
from protocol.whatsapp.translate import (
    content_of,
    context_of,
    digits,
    kept,
    milliseconds,
    problem_of,
    problems_of,
    receipt_of,
)

Decoded = TypeVar("Decoded")

_LONGEST_ID = 512
"""Characters. Real ids have up to about 150; a B-tree page could not index much longer ones, so one would fail its whole commit."""

UNDECODABLE = (msgspec.DecodeError, RemoteProtocolError, RecursionError)
"""What makes an item bad. Anything else is a bug of ours and is not caught."""


def notice_key(topic: str, payload: msgspec.Raw, time: int | None) -> str:
    """Return the dedupe key of a notice, by its JSON as received and its entry's time (seconds)."""
    return f"n:{topic}:{blake2b(payload, digest_size=16).hexdigest()}:{time or ''}"


class _StrictValue(wire.ConversationValue, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fast way: refuses an array this version does not know, so that the slow way can keep it."""


class _Routed(msgspec.Struct):
    """What of a management value is needed here: its number, and the key of a template's status."""

    metadata: wire.Metadata | None = None
    message_template_id: int | str | None = None
    event: str | None = None


_VALUE = msgspec.json.Decoder(_StrictValue)
_MEMBERS = msgspec.json.Decoder(dict[str, msgspec.Raw])
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_METADATA = msgspec.json.Decoder(wire.Metadata)
_CONTACT = msgspec.json.Decoder(wire.Contact)
_ROUTED = msgspec.json.Decoder(_Routed)
_MESSAGE = msgspec.json.Decoder(wire.Message)
_STATUS = msgspec.json.Decoder(wire.Status)
_CALL = msgspec.json.Decoder(wire.Call)
_PREFERENCE = msgspec.json.Decoder(wire.Preference)
_CHUNK = msgspec.json.Decoder(wire.HistoryChunk)
_THREAD = msgspec.json.Decoder(wire.Thread)
_ERROR = msgspec.json.Decoder(wire.Error)

_ARRAYS = ("messages", "message_echoes", "statuses", "calls", "user_preferences", "history", "errors")
_NO_PEOPLE: dict[str, wire.Contact] = {}


class Reader:
    """Reads one change into `items` and `bad`; holds what its items share meanwhile."""

    __slots__ = ("account", "bad", "business", "change", "endpoint", "errors", "items", "lone", "people", "time")

    def __init__(self, items: list[Item], bad: list[BadItem], entry: wire.Entry, change: wire.Change) -> None:
        self.items = items
        self.bad = bad
        self.account = entry.id
        self.time = entry.time
        self.change = change
        self.endpoint: str | None = None
        self.business: str | None = None
        """The business's own number, digits."""
        self.people = _NO_PEOPLE
        """The value's contacts by each of their ids; a phone number cannot be mistaken for a business-scoped id."""
        self.lone: wire.Contact | None = None
        """The only contact of a value with a single item: theirs, even if Meta left the id out of one of the two."""
        self.errors: list[msgspec.Raw] = []

    def read(self) -> None:
        """Read the change. Raises nothing that a payload can cause."""
        if self.change.field not in CONVERSATION_FIELDS:
            self._read_notice()
            return
        before = len(self.items) + len(self.bad)
        try:
            value: wire.ConversationValue | None = _VALUE.decode(self.change.value)
        except UNDECODABLE:
            value = self._loose_value()
        if value is not None:
            self._read_value(value)
            if len(self.items) + len(self.bad) == before and not any(
                getattr(value, name) is not None for name in _ARRAYS
            ):
                self._keep(self.change.field, self.change.value, known=False)  # carries something else

    # --- Values -------------------------------------------------------------------------------------------------------------------------

    def _read_value(self, value: wire.ConversationValue) -> None:
        if value.metadata is not None:
            self.endpoint = value.metadata.phone_number_id or None
            self.business = digits(value.metadata.display_phone_number)
        messages, echoes, statuses = value.messages, value.message_echoes, value.statuses
        if value.contacts:
            told = (messages, echoes, statuses, value.calls, value.user_preferences)
            self._meet(value.contacts, sum([len(each) for each in told if each]))
        if value.errors:
            self.errors = value.errors
        imported = self.change.field == "history"
        if messages:
            self._each(messages, _MESSAGE, self._imported if imported else self._inbound)
        if echoes:
            self._each(echoes, _MESSAGE, self._imported if imported else self._echo)
        if statuses:
            self._each(statuses, _STATUS, self._status)
        if value.calls:
            self._each(value.calls, _CALL, self._call)
        if value.user_preferences:
            self._each(value.user_preferences, _PREFERENCE, self._preference)
        if value.history:
            for raw in value.history:
                self._read_chunk(raw)
        if value.errors:
            self._each(value.errors, _ERROR, self._error)

    def _meet(self, contacts: list[wire.Contact], items: int) -> None:
        self.people = people = {}
        for contact in contacts:
            if (phone := digits(contact.wa_id)) is not None:
                people[phone] = contact
            if contact.user_id:
                people[contact.user_id] = contact
        if items == 1 and len(contacts) == 1:
            self.lone = contacts[0]

    def _each(
        self,
        raws: list[msgspec.Raw],
        decoder: msgspec.json.Decoder[Decoded],
        translate: Callable[[Decoded, msgspec.Raw], Item],
    ) -> None:
        for raw in raws:
            try:
                self.items.append(translate(decoder.decode(raw), raw))
            except UNDECODABLE as error:
                self._set_aside(raw, error)

    def _set_aside(self, raw: msgspec.Raw, error: Exception) -> None:
        self.bad.append(BadItem(self.account, self.endpoint, bytes(raw), str(error)))

    def _loose_value(self) -> wire.ConversationValue | None:
        """Rescue the sound members of a value the strict shape refused; keep the unknown ones as notices."""
        try:
            members = _MEMBERS.decode(self.change.value)
            metadata = _METADATA.decode(members["metadata"]) if "metadata" in members else None
        except UNDECODABLE as error:
            self._set_aside(self.change.value, error)
            return None
        self.endpoint = metadata.phone_number_id if metadata is not None else None
        value = wire.ConversationValue(metadata=metadata)
        known: dict[str, object] = {}
        for name, raw in members.items():
            if name in ("messaging_product", "metadata"):
                continue
            if name != "contacts" and name not in _ARRAYS:
                self._keep(f"{self.change.field}.{name}", raw, known=False)
                continue
            try:
                elements = _ARRAY.decode(raw)
            except UNDECODABLE as error:
                self._set_aside(raw, error)
                continue
            if name == "contacts":
                known[name] = [contact for each in elements if (contact := self._contact(each)) is not None]
            else:
                known[name] = elements
        return msgspec.structs.replace(value, **known)

    def _contact(self, raw: msgspec.Raw) -> wire.Contact | None:
        try:
            return _CONTACT.decode(raw)
        except UNDECODABLE as error:
            self._set_aside(raw, error)
            return None

    # --- Who --------------------------------------------------------------------------------------------------------------------------------

    def _person(self, phone: str | None, user_id: str | None, parent_user_id: str | None) -> ContactRef | None:
        """Return everything this value says about a person; None if it names nobody."""
        phone = digits(phone)
        user_id = user_id or None
        found = self._known(phone, user_id)
        name = username = None
        if found is not None:
            phone = phone or digits(found.wa_id)
            user_id = user_id or found.user_id or None
            parent_user_id = parent_user_id or found.parent_user_id
            if found.profile is not None:
                name = found.profile.name
                if found.profile.username is not None:
                    username = found.profile.username.removeprefix("@")
        if phone is None and user_id is None and not parent_user_id:
            return None
        for each in (phone, user_id, parent_user_id):
            if each is not None and len(each) > _LONGEST_ID:
                raise RemoteProtocolError("a contact's id is too long")
        return ContactRef(phone, user_id, parent_user_id or None, None, username, name)

    def _known(self, phone: str | None, user_id: str | None) -> wire.Contact | None:
        people = self.people
        if phone is not None and (found := people.get(phone)) is not None:
            return found
        if user_id is not None and (found := people.get(user_id)) is not None:
            return found
        lone = self.lone
        if lone is None:
            return None
        # Theirs unless it says otherwise: both name a phone number, or both a user id, and did not match above.
        differs = (phone is not None and lone.wa_id) or (user_id is not None and lone.user_id)
        return None if differs else lone

    # --- Messages -------------------------------------------------------------------------------------------------------------------------

    def _inbound(self, message: wire.Message, raw: msgspec.Raw) -> Item:
        person = self._person(message.from_, message.from_user_id, message.from_parent_user_id)
        if message.group_id:
            return self._message(message, raw, _group(message.group_id), author=person)
        return self._message(message, raw, person)

    def _echo(self, message: wire.Message, raw: msgspec.Raw) -> Item:
        if message.group_id:
            contact: ContactRef | None = _group(message.group_id)
        else:
            contact = self._person(message.to, message.to_user_id, message.to_parent_user_id)
        return self._message(message, raw, contact, origin="echo", outbound=True)

    def _imported(self, message: wire.Message, raw: msgspec.Raw, thread: ContactRef | None = None) -> Item:
        """Translate a message of the past, which either side can have written."""
        sender = digits(message.from_)
        if sender is None:
            outbound = message.from_user_id is None  # only a person's number can be hidden
        else:
            # Not only the display number: it is not always written as the wa_id is (Brazil, Mexico).
            outbound = sender == self.business or (
                thread is not None and thread.phone is not None and sender != thread.phone
            )
        contact = thread
        if contact is None:
            contact = (
                self._person(message.to, message.to_user_id, message.to_parent_user_id)
                if outbound
                else self._person(message.from_, message.from_user_id, message.from_parent_user_id)
            )
        return self._message(message, raw, contact, origin="history", outbound=outbound)

    def _message(
        self,
        message: wire.Message,
        raw: msgspec.Raw,
        contact: ContactRef | None,
        *,
        origin: Origin = "customer",
        outbound: bool = False,
        author: ContactRef | None = None,
    ) -> Item:
        message_id = message.id
        if not message_id:
            raise RemoteProtocolError("a message has no id")
        key = f"m:{message_id}"
        command: ConversationCommand
        if message.type == "edit" and message.edit is not None:
            edit = message.edit
            command = EditMessage(message_id, edit.original_message_id, content_of(edit.message, raw), outbound)
        elif message.type == "revoke" and message.revoke is not None:
            command = RevokeMessage(message_id, message.revoke.original_message_id, outbound)
        elif message.type == "system" and message.system is not None:
            contact = contact or self._person(message.system.customer, None, None)
            command = _system(message_id, message.system, contact, raw)
        else:
            if message.type == "media_placeholder":
                key += ":placeholder"
            problems = problems_of(message.errors)
            if message.type == "interactive" and message.interactive is None:
                # Meta could not express the reply and says why beside the message (3.9).
                problems += tuple([problem_of(_ERROR.decode(error)) for error in self.errors])
            history = message.history_context
            command = ReceiveMessage(
                message_id=message_id,
                content=content_of(message, raw),
                origin=origin,
                outbound=outbound,
                context=context_of(message),
                referral=kept(message.referral),
                problems=problems,
                status=None if history is None else receipt_of(history.status),
                author=None if author is None else author.phone or author.user_id,
                author_name=None if author is None else author.name,
            )
        if contact is None:
            raise RemoteProtocolError("a message names no contact")
        return self._item(contact, key, milliseconds(message.timestamp), command)

    def _read_chunk(self, raw: msgspec.Raw) -> None:
        """Read a part of an imported past: its progress, its threads, or why there is none."""
        try:
            chunk = _CHUNK.decode(raw)
        except UNDECODABLE as error:
            self._set_aside(raw, error)
            return
        if chunk.metadata is not UNSET:
            self._keep("history", chunk.metadata)
        for each in chunk.threads or ():
            try:
                thread = _THREAD.decode(each)
                contact = self._thread_contact(thread)
            except UNDECODABLE as error:
                self._set_aside(each, error)
                continue
            self._each(thread.messages or [], _MESSAGE, partial(self._imported, thread=contact))
        for error_raw in chunk.errors or ():
            self._keep("history.errors", error_raw)

    def _thread_contact(self, thread: wire.Thread) -> ContactRef | None:
        context = thread.context or wire.ThreadContext()
        phone, user_id = context.wa_id, context.user_id
        if phone is None and user_id is None and thread.id:
            # A thread's id is the wa_id, or the business-scoped id, which has a dot after its country.
            phone, user_id = (None, thread.id) if "." in thread.id else (thread.id, None)
        contact = self._person(phone, user_id, context.parent_user_id)
        if contact is None or context.username is None:
            return contact
        return msgspec.structs.replace(contact, username=context.username.removeprefix("@"))

    # --- Receipts, calls, preferences, notices ----------------------------------------------------------------------------------------------

    def _status(self, status: wire.Status, raw: msgspec.Raw) -> Item:
        if status.type == "call":
            return self._call_status(status, raw)
        key = f"s:{status.id}:{status.status}"
        participant = None
        contact: ContactRef | None
        if status.recipient_type == "group":
            contact = _group(status.recipient_id) if status.recipient_id else None
            participant = digits(status.recipient_participant_id) or status.recipient_participant_user_id
            if participant is not None:
                key = f"{key}:{participant}"
        else:
            contact = self._recipient(status)
        return self._item(
            contact,  # None: nobody is named; whoever routes it knows the message by its id
            key,
            milliseconds(status.timestamp),
            RecordReceipt(
                message_id=status.id,
                raw_status=status.status,
                status=receipt_of(status.status),
                participant=participant,
                callback_data=status.biz_opaque_callback_data,
                problems=problems_of(status.errors),
                pricing=kept(status.pricing),
                conversation=kept(status.conversation),
            ),
        )

    def _recipient(self, status: wire.Status) -> ContactRef | None:
        parent = status.recipient_parent_user_id or status.parent_recipient_user_id
        return self._person(status.recipient_id, status.recipient_user_id, parent)

    def _call(self, call: wire.Call, raw: msgspec.Raw) -> Item:
        by_customer = (
            digits(call.from_) != self.business if call.direction is None else call.direction == "USER_INITIATED"
        )
        contact = (
            self._person(call.from_, call.from_user_id, None)
            if by_customer
            else self._person(call.to, call.to_user_id, None)
        )
        if contact is None:
            raise RemoteProtocolError("a call names no contact")
        command = RecordCall(call.id, call.event, raw.copy(), by_customer)
        return self._item(contact, f"c:{call.id}:{call.event}", milliseconds(call.timestamp), command)

    def _call_status(self, status: wire.Status, raw: msgspec.Raw) -> Item:
        """Translate how far a call by the business came."""
        contact = self._recipient(status)
        if contact is None:
            raise RemoteProtocolError("a call's status names no contact")
        event = status.status.lower()
        command = RecordCall(status.id, event, raw.copy())
        return self._item(contact, f"c:{status.id}:{event}", milliseconds(status.timestamp), command)

    def _preference(self, said: wire.Preference, raw: msgspec.Raw) -> Item:
        contact = self._person(said.wa_id, said.user_id, said.parent_user_id)
        if contact is None:
            raise RemoteProtocolError("a preference names no contact")
        person = said.user_id or digits(said.wa_id)
        at = milliseconds(said.timestamp)
        key = f"p:{person}:{said.category}:{said.value}:{said.timestamp}"
        return self._item(contact, key, at, SetPreference(said.category, said.value, said.detail, said.signup_id))

    def _error(self, error: wire.Error, raw: msgspec.Raw) -> Item:
        return self._notice("errors", raw)

    def _read_notice(self) -> None:
        """Keep a change that concerns the account, known or not, whole."""
        field, value = self.change.field, self.change.value
        known = field in FIELDS
        template: str | None = None
        try:
            routed = _ROUTED.decode(value)
        except UNDECODABLE:
            pass  # its value is kept whatever it is; only the number and the short key are then unknown
        else:
            if routed.metadata is not None:
                self.endpoint = routed.metadata.phone_number_id or None
            if field == "message_template_status_update" and routed.event and routed.message_template_id:
                template = f"t:{routed.message_template_id}:{routed.event}:{self.time or ''}"
        self._keep(field, value, known=known, key=template)

    def _keep(self, topic: str, payload: msgspec.Raw, *, known: bool = True, key: str | None = None) -> None:
        try:
            self.items.append(self._notice(topic, payload, known=known, key=key))
        except UNDECODABLE as error:  # a field with a name of a thousand characters
            self._set_aside(payload, error)

    def _notice(self, topic: str, payload: msgspec.Raw, *, known: bool = True, key: str | None = None) -> Item:
        if key is None:
            key = notice_key(topic, payload, self.time)
        return self._item(None, key, milliseconds(self.time), RecordNotice(topic, payload.copy(), known))

    def _item(self, contact: ContactRef | None, key: str, at: int, command: ConversationCommand | RecordNotice) -> Item:
        if len(key) > _LONGEST_ID:
            raise RemoteProtocolError("an id is too long")
        return Item(self.account, self.endpoint, contact, key, at, command)


def _group(group_id: str) -> ContactRef:
    if len(group_id) > _LONGEST_ID:
        raise RemoteProtocolError("a group's id is too long")
    return ContactRef(group_id=group_id)


_CHANGED_NUMBER = frozenset({"user_changed_number", "customer_changed_number"})


def _system(
    message_id: str, system: wire.System, old: ContactRef | None, raw: msgspec.Raw
) -> ChangeIdentity | KeepUnknown:
    """Translate a system event: a new number or user id; anything else is kept whole (3.13)."""
    new = ContactRef(
        phone=digits(system.wa_id or system.new_wa_id),
        user_id=system.user_id or None,
        parent_user_id=system.parent_user_id or None,
    )
    reason = "user_changed_number" if system.type in _CHANGED_NUMBER else system.type
    if reason not in ("user_changed_number", "user_changed_user_id") or old is None or not new.external_ids():
        return KeepUnknown(f"system.{system.type}", raw.copy())
    return ChangeIdentity(message_id, reason, old, new, system.body)
