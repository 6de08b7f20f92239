"""The shapes of Meta's WhatsApp webhooks as they are on the wire: envelope, messages, statuses, calls, preferences, history.

Source: WhatsApp Cloud API reference, sections 2 to 5 (named by number below). Field names are Meta's. Every optional field defaults to
None and is left out when written, so that reading and writing gives the same JSON. Open sets are plain strings: a new message type, status
or reason is data, not an error. Must not know the neutral model; the management fields are in `fields`.
"""

from decimal import Decimal

import msgspec
from msgspec import UNSET

from protocol.content import RawJSON

OBJECT = "whatsapp_business_account"


# gc=False: decoded JSON is a tree, no cycle can start here, and the collector is spared thousands of objects a second.
class Wire(msgspec.Struct, frozen=True, omit_defaults=True, gc=False):
    """How every wire shape behaves: immutable, optional fields left out when absent."""


Timestamp = str | int
"""Epoch seconds, as text in messages and statuses, as integer in preferences and entries; milliseconds have been seen."""


# --- Envelope (2) -----------------------------------------------------------------------------------------------------------------------


class Change(Wire, frozen=True, kw_only=True):
    """One change of one field. The value stays raw: its shape depends on `field`, and a bad one must not hurt its siblings."""

    field: str
    value: msgspec.Raw


class Entry(Wire, frozen=True, kw_only=True):
    """The changes of one WABA. `time` (seconds) comes with management fields."""

    id: str
    time: int | None = None
    changes: list[Change]


class Envelope(Wire, frozen=True, kw_only=True):
    """A whole webhook body."""

    object: str
    entry: list[Entry]


class Metadata(Wire, frozen=True, kw_only=True):
    """Which of the business's numbers a value is about."""

    display_phone_number: str | None = None
    phone_number_id: str | None = None


class Profile(Wire, frozen=True, kw_only=True):
    """What the person calls themselves."""

    name: str | None = None
    username: str | None = None


class Contact(Wire, frozen=True, kw_only=True):
    """A person named beside messages and statuses; `wa_id` is left out when the number is hidden (2.2)."""

    profile: Profile | None = None
    wa_id: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    identity_key_hash: str | None = None


class ConversationValue(Wire, frozen=True, kw_only=True):
    """The value of every field that carries items of conversations; which of the arrays is filled depends on the field."""

    messaging_product: str | None = None
    metadata: Metadata | None = None
    contacts: list[Contact] | None = None
    messages: list[msgspec.Raw] | None = None
    statuses: list[msgspec.Raw] | None = None
    message_echoes: list[msgspec.Raw] | None = None
    calls: list[msgspec.Raw] | None = None
    user_preferences: list[msgspec.Raw] | None = None
    history: list[msgspec.Raw] | None = None
    errors: list[msgspec.Raw] | None = None


class ErrorData(Wire, frozen=True, kw_only=True):
    """The useful part of an error."""

    details: str | None = None
    messaging_product: str | None = None


class Error(Wire, frozen=True, kw_only=True):
    """An error at any of its four places (3.16). `error_data` is occasionally plain text (10)."""

    code: int | None = None
    title: str | None = None
    message: str | None = None
    error_data: ErrorData | str | None = None
    href: str | None = None


# --- Messages (3) -----------------------------------------------------------------------------------------------------------------------


class Text(Wire, frozen=True, kw_only=True):
    """3.1."""

    body: str
    preview_url: bool | None = None


class Media(Wire, frozen=True, kw_only=True):
    """3.2 to 3.6. No `id`: Meta could not fetch it (131052). `sha256` is base64 of the digest."""

    id: str | None = None
    mime_type: str | None = None
    sha256: str | None = None
    filename: str | None = None
    caption: str | None = None
    url: str | None = None
    voice: bool | None = None
    animated: bool | None = None


class Location(Wire, frozen=True, kw_only=True):
    """3.7."""

    latitude: float
    longitude: float
    name: str | None = None
    address: str | None = None
    url: str | None = None


class CardName(Wire, frozen=True, kw_only=True):
    """A card's name."""

    formatted_name: str | None = None
    first_name: str | None = None
    last_name: str | None = None
    middle_name: str | None = None
    prefix: str | None = None
    suffix: str | None = None


class CardPhone(Wire, frozen=True, kw_only=True):
    """A card's number; `wa_id` if it is on WhatsApp."""

    phone: str | None = None
    wa_id: str | None = None
    user_id: str | None = None
    type: str | None = None


class CardEmail(Wire, frozen=True, kw_only=True):
    """A card's e-mail address."""

    email: str | None = None
    type: str | None = None


class CardAddress(Wire, frozen=True, kw_only=True):
    """A card's postal address."""

    street: str | None = None
    city: str | None = None
    state: str | None = None
    zip: str | None = None
    country: str | None = None
    country_code: str | None = None
    type: str | None = None


class CardOrganisation(Wire, frozen=True, kw_only=True):
    """Where a card's person works."""

    company: str | None = None
    department: str | None = None
    title: str | None = None


class CardUrl(Wire, frozen=True, kw_only=True):
    """A card's web address."""

    url: str | None = None
    type: str | None = None


class Card(Wire, frozen=True, kw_only=True):
    """3.8: one shared address-book card; a requested own card may be only `vcard` and a phone."""

    name: CardName | None = None
    phones: list[CardPhone] | None = None
    emails: list[CardEmail] | None = None
    org: CardOrganisation | None = None
    addresses: list[CardAddress] | None = None
    urls: list[CardUrl] | None = None
    birthday: str | None = None
    vcard: str | None = None
    origin: str | None = None


class ButtonReply(Wire, frozen=True, kw_only=True):
    """3.9: the tapped reply button."""

    id: str
    title: str | None = None


class ListReply(Wire, frozen=True, kw_only=True):
    """3.9: the chosen row."""

    id: str
    title: str | None = None
    description: str | None = None


class NfmReply(Wire, frozen=True, kw_only=True):
    """3.9: a completed form; `response_json` is text the user controls."""

    name: str | None = None
    body: str | None = None
    response_json: str | None = None


class CallPermissionReply(Wire, frozen=True, kw_only=True):
    """3.9: whether the business may call."""

    response: str | None = None
    expiration_timestamp: Timestamp | None = None
    response_source: str | None = None
    is_permanent: bool | None = None


class Interactive(Wire, frozen=True, kw_only=True):
    """3.9. The permission stays raw because all of it is handed on."""

    type: str
    button_reply: ButtonReply | None = None
    list_reply: ListReply | None = None
    nfm_reply: NfmReply | None = None
    call_permission_reply: RawJSON = UNSET


class Button(Wire, frozen=True, kw_only=True):
    """3.10: a tapped quick reply of a template."""

    payload: str | None = None
    text: str | None = None


class Reaction(Wire, frozen=True, kw_only=True):
    """3.11: `emoji` absent or empty takes the reaction back."""

    message_id: str
    emoji: str | None = None


class ProductItem(Wire, frozen=True, kw_only=True):
    """3.12: one line of a cart; a decimal, read from the digits on the wire."""

    product_retailer_id: str
    quantity: int
    item_price: Decimal
    currency: str


class Order(Wire, frozen=True, kw_only=True):
    """3.12."""

    catalog_id: str
    text: str | None = None
    product_items: list[ProductItem]


class Identity(Wire, frozen=True, kw_only=True):
    """A change of the person's keys, where the check is on."""

    acknowledged: bool | None = None
    created_timestamp: Timestamp | None = None
    hash: str | None = None


class System(Wire, frozen=True, kw_only=True):
    """3.13, with the spellings of old API versions: `new_wa_id`, `customer`, `identity` as a hash."""

    body: str | None = None
    wa_id: str | None = None
    new_wa_id: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    customer: str | None = None
    identity: Identity | str | None = None
    type: str | None = None


class Revoke(Wire, frozen=True, kw_only=True):
    """3.13: the author took a message back."""

    original_message_id: str


class UnsupportedType(Wire, frozen=True, kw_only=True):
    """3.13: what Meta could not express, an open set."""

    type: str | None = None


class ReferredProduct(Wire, frozen=True, kw_only=True):
    """3.14: the product a message was started from."""

    catalog_id: str | None = None
    product_retailer_id: str | None = None


class Context(Wire, frozen=True, kw_only=True):
    """3.14. `from` is the display number for replies to the business; the phone number id has been seen."""

    from_: str | None = msgspec.field(default=None, name="from")
    id: str | None = None
    forwarded: bool | None = None
    frequently_forwarded: bool | None = None
    referred_product: RawJSON = UNSET


class WelcomeMessage(Wire, frozen=True, kw_only=True):
    """The greeting shown with an ad."""

    text: str | None = None


class Referral(Wire, frozen=True, kw_only=True):
    """3.15: the ad or post that led here."""

    source_url: str | None = None
    source_id: str | None = None
    source_type: str | None = None
    headline: str | None = None
    body: str | None = None
    media_type: str | None = None
    image_url: str | None = None
    video_url: str | None = None
    thumbnail_url: str | None = None
    ctwa_clid: str | None = None
    welcome_message: WelcomeMessage | None = None


class HistoryContext(Wire, frozen=True, kw_only=True):
    """How far an imported message had come."""

    status: str | None = None


class Message(Wire, frozen=True, kw_only=True):
    """3: any message, also echoed (`to`), imported (`history_context`), or the new content inside an edit (without `id`).

    One wide shape instead of a union tagged by `type`: the tag is an open set, and an unknown type must decode like a known one.
    The first fields are in the order Meta writes them, where msgspec looks first.
    """

    from_: str | None = msgspec.field(default=None, name="from")
    from_user_id: str | None = None
    from_parent_user_id: str | None = None
    to: str | None = None
    to_user_id: str | None = None
    to_parent_user_id: str | None = None
    group_id: str | None = None
    id: str | None = None
    timestamp: Timestamp | None = None
    type: str
    text: Text | None = None
    image: Media | None = None
    video: Media | None = None
    audio: Media | None = None
    voice: Media | None = None
    document: Media | None = None
    sticker: Media | None = None
    location: Location | None = None
    contacts: list[msgspec.Raw] | None = None
    origin: str | None = None
    interactive: Interactive | None = None
    button: Button | None = None
    reaction: Reaction | None = None
    order: Order | None = None
    system: System | None = None
    edit: "Edit | None" = None
    revoke: Revoke | None = None
    unsupported: UnsupportedType | None = None
    context: Context | None = None
    referral: RawJSON = UNSET
    errors: list[Error] | None = None
    identity: Identity | None = None
    history_context: HistoryContext | None = None


class Edit(Wire, frozen=True, kw_only=True):
    """3.13: the author replaced a message's content by that of `message`."""

    original_message_id: str
    message: Message


# --- Statuses (4), calls, preferences, history (5) --------------------------------------------------------------------------------------


class Origin(Wire, frozen=True, kw_only=True):
    """Why a billing conversation was opened."""

    type: str | None = None


class Conversation(Wire, frozen=True, kw_only=True):
    """4: the billing conversation (API 23 and older, or a free entry point)."""

    id: str | None = None
    expiration_timestamp: Timestamp | None = None
    origin: Origin | None = None


class Pricing(Wire, frozen=True, kw_only=True):
    """4: what the message costs."""

    billable: bool | None = None
    pricing_model: str | None = None
    type: str | None = None
    category: str | None = None


class Status(Wire, frozen=True, kw_only=True):
    """4: how far an outbound message or call came. The parent id has two spellings in the documentation."""

    id: str
    status: str
    timestamp: Timestamp | None = None
    recipient_id: str | None = None
    recipient_user_id: str | None = None
    parent_recipient_user_id: str | None = None
    recipient_parent_user_id: str | None = None
    type: str | None = None
    recipient_type: str | None = None
    recipient_participant_id: str | None = None
    recipient_participant_user_id: str | None = None
    recipient_identity_key_hash: str | None = None
    biz_opaque_callback_data: str | None = None
    conversation: RawJSON = UNSET
    pricing: RawJSON = UNSET
    errors: list[Error] | None = None


class Session(Wire, frozen=True, kw_only=True):
    """The media description of a call."""

    sdp_type: str | None = None
    sdp: str | None = None


class Call(Wire, frozen=True, kw_only=True):
    """5: a step of a call."""

    id: str
    from_: str | None = msgspec.field(default=None, name="from")
    from_user_id: str | None = None
    to: str | None = None
    to_user_id: str | None = None
    event: str
    timestamp: Timestamp | None = None
    direction: str | None = None
    session: Session | None = None
    status: str | None = None
    start_time: Timestamp | None = None
    end_time: Timestamp | None = None
    duration: int | None = None
    biz_opaque_callback_data: str | None = None
    errors: list[Error] | None = None


class Preference(Wire, frozen=True, kw_only=True):
    """5: a person stopped or resumed a category of messages."""

    wa_id: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    category: str
    value: str
    detail: str | None = None
    signup_id: str | None = None
    timestamp: Timestamp | None = None


class ThreadContext(Wire, frozen=True, kw_only=True):
    """With whom an imported thread was."""

    wa_id: str | None = None
    user_id: str | None = None
    parent_user_id: str | None = None
    username: str | None = None


class Thread(Wire, frozen=True, kw_only=True):
    """An imported thread; its messages stay raw so that one bad one is alone."""

    id: str | None = None
    context: ThreadContext | None = None
    messages: list[msgspec.Raw] | None = None


class HistoryChunk(Wire, frozen=True, kw_only=True):
    """5: a part of the past (phases 0 to 2), or the reason there is none (2593109)."""

    metadata: RawJSON = UNSET
    threads: list[msgspec.Raw] | None = None
    errors: list[msgspec.Raw] | None = None


class HistoryProgress(Wire, frozen=True, kw_only=True):
    """Where in the import a chunk stands; `progress` in percent."""

    phase: int | None = None
    chunk_order: int | None = None
    progress: int | None = None
