"""What the outside world asks of a conversation or a tenant: one item of a webhook becomes one command in an `Item`.

Owns the neutral commands that every provider's codec produces. Imperative names; times are Unix milliseconds taken from the provider,
never from our clock. Must not know any provider's field names.
"""

from typing import Literal

import msgspec

from protocol.content import Content, Context, Problem, RawJSON

Origin = Literal["customer", "echo", "history"]
"""Who wrote a message we did not send: the customer, the business in its own app, or an imported past (either side)."""

ReceiptStatus = Literal["sent", "delivered", "read", "played", "failed"]


class ContactRef(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """Every way a provider named one contact. At least one of `phone`, `user_id`, `parent_user_id`, `group_id` is set.

    `phone` is digits only; `user_id` is the provider's business-scoped id (a person with a username may have no phone number here).
    """

    phone: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    group_id: str | None = None
    username: str | None = None
    name: str | None = None

    def external_ids(self) -> tuple[str, ...]:
        """Return the ids that identify the contact, strongest first, each with its kind: `phone:4915…`, `user:DE.7…`."""
        if self.group_id is not None:  # a group is its own contact; who of it wrote is in the message
            return (f"group:{self.group_id}",)
        found = []
        if self.phone is not None:
            found.append(f"phone:{self.phone}")
        if self.user_id is not None:
            found.append(f"user:{self.user_id}")
        if self.parent_user_id is not None:
            found.append(f"parent:{self.parent_user_id}")
        return tuple(found)


class ReceiveMessage(msgspec.Struct, frozen=True, tag="receive_message", omit_defaults=True, gc=False):
    """A message exists: the customer wrote it, or (echo, history) it was written elsewhere. `outbound` tells its direction."""

    message_id: str
    content: Content
    origin: Origin = "customer"
    outbound: bool = False
    context: Context | None = None
    referral: RawJSON = msgspec.UNSET
    problems: tuple[Problem, ...] = ()
    status: ReceiptStatus | None = None
    """Only on history: how far the message had already come."""
    author: str | None = None
    """Only in a group: which participant wrote it."""
    author_name: str | None = None
    """Only in a group: what that participant calls themselves; the contact's own `name` is the group's."""


class EditMessage(msgspec.Struct, frozen=True, tag="edit_message", omit_defaults=True, gc=False):
    """The author replaced the content of `original_id`."""

    message_id: str
    original_id: str
    content: Content
    outbound: bool = False


class RevokeMessage(msgspec.Struct, frozen=True, tag="revoke_message", omit_defaults=True, gc=False):
    """The author took `original_id` back."""

    message_id: str
    original_id: str
    outbound: bool = False


class RecordReceipt(msgspec.Struct, frozen=True, tag="record_receipt", omit_defaults=True, gc=False):
    """The provider says how far an outbound message came. `status` None: a status this version does not know, kept by `raw_status`."""

    message_id: str
    raw_status: str
    status: ReceiptStatus | None = None
    participant: str | None = None
    callback_data: str | None = None
    problems: tuple[Problem, ...] = ()
    pricing: RawJSON = msgspec.UNSET
    conversation: RawJSON = msgspec.UNSET


class ChangeIdentity(msgspec.Struct, frozen=True, tag="change_identity", omit_defaults=True, gc=False):
    """The contact is now known by `new`; ids in `old` that `new` replaces no longer lead here."""

    message_id: str
    reason: str
    old: ContactRef
    new: ContactRef
    note: str | None = None


class RecordCall(msgspec.Struct, frozen=True, tag="record_call", omit_defaults=True, gc=False):
    """A call's step: `event` is connect, terminate, or a call status in lower case. `payload` is the provider's whole item."""

    call_id: str
    event: str
    payload: msgspec.Raw
    by_customer: bool = False


class SetPreference(msgspec.Struct, frozen=True, tag="set_preference", omit_defaults=True, gc=False):
    """The customer allowed or stopped a category of messages: `value` is stop, resume or signup.

    `reference` is the provider's id of the sign-up, where there was one.
    """

    category: str
    value: str
    detail: str | None = None
    reference: str | None = None


class KeepUnknown(msgspec.Struct, frozen=True, tag="keep_unknown", omit_defaults=True, gc=False):
    """An item of a conversation that this version does not understand: kept whole, shown, replayable."""

    what: str
    payload: msgspec.Raw


class RecordNotice(msgspec.Struct, frozen=True, tag="record_notice", omit_defaults=True, gc=False):
    """Something about the account, a template, a number or a group; not about one conversation. `payload` is the change's whole value."""

    topic: str
    payload: msgspec.Raw
    known: bool = True


ConversationCommand = (
    ReceiveMessage
    | EditMessage
    | RevokeMessage
    | RecordReceipt
    | ChangeIdentity
    | RecordCall
    | SetPreference
    | KeepUnknown
)


class Item(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """One item of a webhook, ready to be routed.

    `endpoint` is the provider's id of the business's side (phone_number_id); None where the provider named only the account (`account`,
    the WABA id). `contact` None: the item concerns the tenant (`RecordNotice`), or nothing in it names a conversation.
    `dedupe` is unique per endpoint or account among all items that mean the same fact. `at` is provider time, Unix milliseconds, 0 when it gave none.
    """

    account: str
    endpoint: str | None
    contact: ContactRef | None
    dedupe: str
    at: int
    command: ConversationCommand | RecordNotice


class BadItem(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """An item that could not be decoded: quarantined by itself, its siblings go on. `payload` is its JSON as received."""

    account: str
    endpoint: str | None
    payload: bytes
    reason: str
