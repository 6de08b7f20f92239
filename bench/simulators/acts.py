"""What a person or business can send besides plain text, as wire shapes: one function for each thing WhatsApp can carry.

Source: WhatsApp Cloud API reference, sections 3 and 5; every text and id is invented. Must not know time, conversations or delivery.
A function that makes a message takes chance and a media id, or the id of the message it answers, and uses what it needs of them.
"""

from base64 import b64encode
from decimal import Decimal
from random import Random
from typing import Any

import msgspec

from bench.simulators.world import Person
from protocol.whatsapp import compose, fields, wire

PRICING = compose.raw(wire.Pricing(billable=True, pricing_model="PMP", type="regular", category="service"))

UNDELIVERABLE = wire.Error(
    code=131026,
    title="Message undeliverable",
    message="Message undeliverable",
    error_data=wire.ErrorData(details="The recipient cannot be reached on WhatsApp."),
)

RATE_LIMITED = wire.Error(
    code=130429,
    title="Rate limit hit",
    message="Rate limit hit",
    error_data=wire.ErrorData(details="Too many messages sent from this phone number"),
)

_NOT_EXPRESSIBLE = wire.Error(
    code=131051,
    title="Message type unknown",
    message="Message type unknown",
    error_data=wire.ErrorData(details="Message type is currently not supported."),
)


class Said:
    """A message before somebody sends it: its type and content. `replies` where it is meant to quote what it answers."""

    __slots__ = ("_parts", "replies", "type", "value_errors")

    def __init__(
        self, type: str, *, replies: bool = False, value_errors: tuple[wire.Error, ...] = (), **parts: Any
    ) -> None:
        self.type = type
        self.replies = replies
        self.value_errors = value_errors
        self._parts = parts

    def about(self, message_id: str, author: str) -> "Said":
        """Return the same, quoting a message."""
        context = wire.Context(from_=author, id=message_id)
        return Said(self.type, value_errors=self.value_errors, **self._parts, context=context)

    def message(self, **head: Any) -> wire.Message:
        """Return the message with who sent it and when."""
        return wire.Message(type=self.type, **head, **self._parts)


def line(text: str) -> Said:
    """A line of text."""
    return Said("text", text=wire.Text(body=text))


def question(random: Random) -> Said:
    """What a business writes to be answered."""
    return line(random.choice(("Does Tuesday suit you?", "Passt Ihnen Dienstag?", "Mardi vous convient ?")))


def _media(random: Random, media_id: str, mime_type: str, **more: Any) -> wire.Media:
    digest = random.randbytes(32)
    url = f"https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid={media_id}&hash={digest[:6].hex()}"
    return wire.Media(id=media_id, mime_type=mime_type, sha256=b64encode(digest).decode(), url=url, **more)


def image(random: Random, media_id: str) -> Said:
    """A photo, sometimes with a caption."""
    caption = random.choice((None, "mein Beleg", "la facture 🧾", "this one?"))
    return Said("image", image=_media(random, media_id, "image/jpeg", caption=caption))


def video(random: Random, media_id: str) -> Said:
    """A video."""
    return Said("video", video=_media(random, media_id, "video/mp4", caption="so sieht es aus"))


def voice(random: Random, media_id: str) -> Said:
    """A voice note."""
    return Said("audio", audio=_media(random, media_id, "audio/ogg; codecs=opus", voice=True))


def document(random: Random, media_id: str) -> Said:
    """A PDF."""
    return Said("document", document=_media(random, media_id, "application/pdf", filename="Überweisung.pdf"))


def sticker(random: Random, media_id: str) -> Said:
    """A sticker."""
    animated = random.random() < 0.3
    return Said("sticker", sticker=_media(random, media_id, "image/webp", animated=animated))


def location(random: Random, media_id: str) -> Said:
    """A place, picked or current."""
    latitude, longitude = round(random.uniform(-60, 60), 5), round(random.uniform(-170, 170), 5)
    if random.random() < 0.5:
        return Said("location", location=wire.Location(latitude=latitude, longitude=longitude))
    place = wire.Location(
        latitude=latitude,
        longitude=longitude,
        name="Café Sonne",
        address="Beispielstr. 1",
        url="https://example.org/place",
    )
    return Said("location", location=place)


def contacts(random: Random, media_id: str) -> Said:
    """An address-book card, or the own one that was asked for."""
    if random.random() < 0.3:
        card = wire.Card(vcard="BEGIN:VCARD\nEND:VCARD", phones=[wire.CardPhone(phone="+49 1500 0000000")])
        return Said("contacts", origin="contact_request", contacts=[compose.raw(card)])
    card = wire.Card(
        name=wire.CardName(formatted_name="Jo Beispiel", first_name="Jo", last_name="Beispiel"),
        phones=[wire.CardPhone(phone="+49 1500 0000001", wa_id="4915000000001", type="CELL")],
        org=wire.CardOrganisation(company="Beispiel GmbH"),
    )
    return Said("contacts", origin="other", contacts=[compose.raw(card)])


def order(random: Random, media_id: str) -> Said:
    """A cart."""
    items = [
        wire.ProductItem(
            product_retailer_id=f"sku-{random.randrange(100)}",
            quantity=random.randint(1, 4),
            item_price=Decimal(random.randrange(99, 20000)).scaleb(-2),
            currency="EUR",
        )
        for _ in range(random.randint(1, 3))
    ]
    return Said("order", order=wire.Order(catalog_id="900000000000001", text="bitte als Geschenk", product_items=items))


def welcome(random: Random, media_id: str) -> Said:
    """The chat was opened and nothing written."""
    return Said("request_welcome")


def referral(random: Random, media_id: str) -> Said:
    """A first message that came from an ad."""
    ad = wire.Referral(
        source_url="https://fb.me/example",
        source_id="120200000000001",
        source_type="ad",
        headline="Chat with us",
        body="Autumn sale",
        media_type="image",
        image_url="https://cdn.example/i.jpg",
        ctwa_clid=random.randbytes(12).hex(),
    )
    return Said("text", text=wire.Text(body="Hi, saw your ad"), referral=compose.raw(ad))


def forward(random: Random, media_id: str) -> Said:
    """A forwarded text; passed on very often, it may lack the plain mark (3.14)."""
    often = random.random() < 0.3
    context = wire.Context(frequently_forwarded=True) if often else wire.Context(forwarded=True)
    return Said("text", text=wire.Text(body="Look at this 😂"), context=context)


def product(random: Random, media_id: str) -> Said:
    """A question about a product of the catalogue."""
    referred = wire.ReferredProduct(catalog_id="900000000000001", product_retailer_id="sku-1")
    context = wire.Context(referred_product=compose.raw(referred))
    return Said("text", text=wire.Text(body="Ist das noch da?"), context=context)


def unsupported(random: Random, media_id: str) -> Said:
    """Something Meta cannot express."""
    kind = random.choice(("poll_creation", "gif", "group_invite", "pin"))
    return Said("unsupported", errors=[_NOT_EXPRESSIBLE], unsupported=wire.UnsupportedType(type=kind))


def unknown(random: Random, media_id: str) -> Said:
    """A message of a type from the future."""
    return Said(random.choice(("hologram", "ephemeral", "live_location")))


def incomplete(random: Random, media_id: str) -> Said:
    """An interactive reply without its object; the reason stands beside the message (3.9)."""
    error = wire.Error(
        code=131000, title="Something went wrong", error_data=wire.ErrorData(details="unsupported webhook payload")
    )
    return Said("interactive", value_errors=(error,))


def quote(random: Random, asked: str) -> Said:
    """An answer that quotes."""
    return Said(
        "text", replies=True, text=wire.Text(body=random.choice(("Oui, parfait 👌", "Ja, passt!", "Sawa sawa")))
    )


def button_reply(random: Random, asked: str) -> Said:
    """A tapped reply button."""
    reply = wire.ButtonReply(id=f"confirm-{random.randrange(100)}", title="Bestätigen")
    return Said("interactive", replies=True, interactive=wire.Interactive(type="button_reply", button_reply=reply))


def list_reply(random: Random, asked: str) -> Said:
    """A chosen row."""
    reply = wire.ListReply(id=f"row-{random.randrange(10)}", title="10:40", description="Dr. Example")
    return Said("interactive", replies=True, interactive=wire.Interactive(type="list_reply", list_reply=reply))


def flow_reply(random: Random, asked: str) -> Said:
    """A completed form."""
    data = msgspec.json.encode({"flow_token": f"case-{random.randrange(100)}", "slot": "2026-12-01T10:00"})
    reply = wire.NfmReply(name="flow", body="Sent", response_json=data.decode())
    return Said("interactive", replies=True, interactive=wire.Interactive(type="nfm_reply", nfm_reply=reply))


def call_permission(random: Random, asked: str) -> Said:
    """An answer to "may we call you?"."""
    reply = wire.CallPermissionReply(
        response=random.choice(("accept", "reject")), response_source="user_action", is_permanent=False
    )
    tapped = wire.Interactive(type="call_permission_reply", call_permission_reply=compose.raw(reply))
    return Said("interactive", replies=True, interactive=tapped)


def template_button(random: Random, asked: str) -> Said:
    """A tapped quick reply of a template."""
    return Said("button", replies=True, button=wire.Button(payload="stop-all", text="Unsubscribe"))


def reaction(random: Random, asked: str) -> Said:
    """An emoji on a message."""
    return Said("reaction", reaction=wire.Reaction(message_id=asked, emoji=random.choice("👍❤😂🙏🎉")))


def reaction_removal(random: Random, asked: str) -> Said:
    """A reaction taken back, in either encoding (12.7)."""
    return Said("reaction", reaction=wire.Reaction(message_id=asked, emoji=random.choice(("", None))))


def edit(original: str, text: str) -> Said:
    """A correction."""
    content = wire.Message(type="text", text=wire.Text(body=text))
    return Said("edit", edit=wire.Edit(original_message_id=original, message=content))


def revoke(original: str) -> Said:
    """A message taken back."""
    return Said("revoke", revoke=wire.Revoke(original_message_id=original))


def changed_number(name: str, old: str, new: str, user_id: str | None) -> Said:
    """The person has another phone number."""
    body = f"User {name} changed from {old} to {new}"
    return Said("system", system=wire.System(body=body, wa_id=new, user_id=user_id, type="user_changed_number"))


def changed_user_id(user_id: str) -> Said:
    """The person has another business-scoped id."""
    return Said("system", system=wire.System(body="User changed", user_id=user_id, type="user_changed_user_id"))


def call(call_id: str, event: str, person: Person, business: str, at: int) -> wire.Call:
    """A step of a call by the person; `at` in seconds."""
    ended = event == "terminate"
    return wire.Call(
        id=call_id,
        from_=person.phone,
        from_user_id=person.user_id,
        to=business,
        event=event,
        timestamp=str(at),
        direction="USER_INITIATED",
        session=None if ended else wire.Session(sdp_type="offer", sdp="v=0\r\n"),
        status="COMPLETED" if ended else None,
        duration=83 if ended else None,
    )


def preference(person: Person, value: str, at: int) -> wire.Preference:
    """A choice about marketing messages; `at` in seconds, an integer here (5)."""
    return wire.Preference(
        wa_id=person.phone,
        user_id=person.user_id,
        category="marketing_messages",
        value=value,
        detail=f"User requested to {value} marketing messages",
        timestamp=at,
    )


def template_status(random: Random) -> fields.TemplateStatus:
    """A template's fate."""
    event, reason = random.choice((("APPROVED", "NONE"), ("REJECTED", "INVALID_FORMAT"), ("PENDING_DELETION", None)))
    return fields.TemplateStatus(
        event=event,
        message_template_id=1_600_000_000_000_001 + random.randrange(50),
        message_template_name="order_update",
        message_template_language="de",
        reason=reason,
    )


def account_notice(random: Random, display_phone_number: str) -> tuple[str, object]:
    """A field that concerns the account or number, and its value."""
    notices: tuple[tuple[str, object], ...] = (
        (
            "phone_number_quality_update",
            fields.NumberQuality(display_phone_number=display_phone_number, event="THROUGHPUT_UPGRADE"),
        ),
        ("business_capability_update", fields.BusinessCapability(max_daily_conversations_per_business=2000)),
        ("account_review_update", fields.AccountReview(decision="APPROVED")),
        ("security", fields.Security(display_phone_number=display_phone_number, event="PIN_CHANGED")),
        (
            "account_alerts",
            fields.AccountAlert(entity_type="BUSINESS", alert_info=fields.AlertInfo(alert_severity="INFORMATIONAL")),
        ),
        (
            "template_category_update",
            fields.TemplateCategory(
                message_template_id=1_600_000_000_000_001, previous_category="UTILITY", new_category="MARKETING"
            ),
        ),
    )
    return random.choice(notices)


def history(
    person: Person, business: str, ids: tuple[str, str, str], at: int
) -> tuple[wire.HistoryChunk, wire.HistoryProgress]:
    """A chunk of an imported past, and its progress: a question, its answer, a picture still to come. `at` in seconds."""
    past = at - 30 * 86400
    asked, answered, picture = ids
    progress = wire.HistoryProgress(phase=1, chunk_order=person.number, progress=55)

    def theirs(message_id: str, said: Said) -> msgspec.Raw:
        head = {"id": message_id, "from_": person.phone, "from_user_id": person.user_id}
        return compose.raw(
            said.message(**head, timestamp=str(past), history_context=wire.HistoryContext(status="READ"))
        )

    ours = line("Gern, bis dann!").message(
        id=answered,
        from_=business,
        to=person.phone,
        to_user_id=person.user_id,
        timestamp=str(past + 60),
        history_context=wire.HistoryContext(status="DELIVERED"),
    )
    thread = wire.Thread(
        id=person.phone or person.user_id,
        context=wire.ThreadContext(wa_id=person.phone, user_id=person.user_id, username=person.username),
        messages=[
            theirs(asked, line("Wie letztes Mal?")),
            compose.raw(ours),
            theirs(picture, Said("media_placeholder")),
        ],
    )
    return wire.HistoryChunk(metadata=compose.raw(progress), threads=[compose.raw(thread)]), progress
