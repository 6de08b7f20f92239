# ruff: noqa: E501 - one example a line, to be held beside the reference
"""The examples of Meta's reference, as literal JSON: what every shape must read and write again."""

import json
from typing import Any

from protocol.whatsapp import Webhook, split

FROM = {"from": "4915100000000", "timestamp": "1790000001"}
MEDIA = {"id": "811000000000001", "mime_type": "image/jpeg", "sha256": "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA="}
CONTACT = {
    "profile": {"name": "Mira K.", "username": "@mirak"},
    "wa_id": "4915100000000",
    "user_id": "DE.71234567890123456789",
    "parent_user_id": "DE.ENT.5551234567890",
    "identity_key_hash": "Zm9vYmFyMTI=",
}
METADATA = {"display_phone_number": "4930000000", "phone_number_id": "300000000000001"}
RATE_LIMIT = {
    "code": 130429,
    "title": "Rate limit hit",
    "message": "Rate limit hit",
    "error_data": {"details": "Too many messages sent from this phone number"},
    "href": "https://developers.facebook.com/docs/whatsapp/cloud-api/support/error-codes/",
}
UNSUPPORTED = {"code": 131051, "title": "Unknown", "message": "Unknown", "error_data": {"details": "not supported"}}

MESSAGES: dict[str, dict[str, Any]] = {
    "text": {**FROM, "from_user_id": "DE.71234567890123456789", "id": "wamid.AAA1", "type": "text", "text": {"body": "Is the blue one in stock?"}},
    "image": {**FROM, "id": "wamid.AAA2", "type": "image", "image": {**MEDIA, "caption": "my receipt", "url": "https://lookaside.fbsbx.com/whatsapp_business/attachments/?mid=811000000000001&ext=1790000302&hash=XYZ"}},
    "video": {**FROM, "id": "wamid.AAA3", "type": "video", "video": {**MEDIA, "mime_type": "video/mp4", "caption": "look"}},
    "audio": {**FROM, "id": "wamid.AAA4", "type": "audio", "audio": {"id": "811000000000004", "mime_type": "audio/ogg; codecs=opus", "sha256": "q80=", "voice": True}},
    "voice": {**FROM, "id": "wamid.AAB4", "type": "voice", "voice": {"id": "811000000000004", "mime_type": "audio/ogg; codecs=opus", "sha256": "q80="}},
    "document": {**FROM, "id": "wamid.AAA5", "type": "document", "document": {"id": "811000000000005", "mime_type": "application/pdf", "sha256": "q80=", "filename": "offer.pdf", "caption": "signed"}},
    "sticker": {**FROM, "id": "wamid.AAA6", "type": "sticker", "sticker": {"id": "811000000000006", "mime_type": "image/webp", "sha256": "q80=", "animated": False}},
    "location": {**FROM, "id": "wamid.AAA7", "type": "location", "location": {"latitude": 52.5201, "longitude": 13.4050, "name": "Office", "address": "Example Str. 1, Berlin", "url": "https://example.org/place"}},
    "location, current": {**FROM, "id": "wamid.AAB7", "type": "location", "location": {"latitude": -3, "longitude": 0}},
    "contacts": {**FROM, "id": "wamid.AAA8", "type": "contacts", "origin": "other", "contacts": [{"name": {"formatted_name": "Jo Example", "first_name": "Jo", "last_name": "Example"}, "phones": [{"phone": "+49 151 00000001", "wa_id": "4915100000001", "type": "CELL"}], "emails": [{"email": "jo@example.org", "type": "WORK"}], "org": {"company": "Example Ltd"}, "addresses": [{"street": "A 1", "city": "Berlin", "zip": "10115", "country": "Germany", "country_code": "DE", "type": "HOME"}], "urls": [{"url": "example.org", "type": "Company"}], "birthday": "1990-02-03"}]},
    "contacts, own": {**FROM, "id": "wamid.AAB8", "type": "contacts", "contacts": [{"origin": "contact_request", "vcard": "BEGIN:VCARD", "phones": [{"phone": "+4915100000000"}]}]},
    "button reply": {**FROM, "id": "wamid.AAA9", "type": "interactive", "context": {"from": "4930000000", "id": "wamid.OUT1"}, "interactive": {"type": "button_reply", "button_reply": {"id": "confirm-42", "title": "Confirm"}}},
    "list reply": {**FROM, "id": "wamid.AAB9", "type": "interactive", "interactive": {"type": "list_reply", "list_reply": {"id": "row-1", "title": "10:40", "description": "Dr. Example"}}},
    "flow reply": {**FROM, "id": "wamid.AAC9", "type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": '{"flow_token":"case-77","slot":"2026-12-01T10:00"}'}}},
    "call permission": {**FROM, "id": "wamid.AAD9", "type": "interactive", "interactive": {"type": "call_permission_reply", "call_permission_reply": {"response": "accept", "expiration_timestamp": "1790600000", "response_source": "user_action", "is_permanent": False}}},
    "interactive, incomplete": {**FROM, "id": "wamid.AAE9", "type": "interactive"},
    "button": {**FROM, "id": "wamid.AB10", "type": "button", "context": {"from": "4930000000", "id": "wamid.OUT2"}, "button": {"payload": "stop-all", "text": "Unsubscribe"}},
    "reaction": {**FROM, "id": "wamid.AB11", "type": "reaction", "reaction": {"message_id": "wamid.OUT3", "emoji": "👍"}},
    "reaction, absent": {**FROM, "id": "wamid.AC11", "type": "reaction", "reaction": {"message_id": "wamid.OUT3"}},
    "reaction, empty": {**FROM, "id": "wamid.AD11", "type": "reaction", "reaction": {"message_id": "wamid.OUT3", "emoji": ""}},
    "order": {**FROM, "id": "wamid.AB12", "type": "order", "order": {"catalog_id": "900000000000001", "text": "please gift wrap", "product_items": [{"product_retailer_id": "sku-1", "quantity": 2, "item_price": 7.99, "currency": "EUR"}]}},
    "number change": {**FROM, "id": "wamid.AB13", "type": "system", "system": {"body": "User Mira K. changed from 4915100000000 to 4915100000099", "wa_id": "4915100000099", "type": "user_changed_number"}},
    "number change, old": {"timestamp": "1790000013", "id": "wamid.AC13", "type": "system", "system": {"body": "changed", "customer": "4915100000000", "new_wa_id": "4915100000099", "type": "customer_changed_number"}},
    "user id change": {"from_user_id": "DE.1", "timestamp": "1790000013", "id": "wamid.AD13", "type": "system", "system": {"user_id": "DE.2", "parent_user_id": "DE.ENT.3", "type": "user_changed_user_id"}},
    "identity change": {**FROM, "id": "wamid.AE13", "type": "system", "system": {"type": "customer_identity_changed", "identity": {"acknowledged": False, "created_timestamp": "1790000013", "hash": "h="}}},
    "welcome": {**FROM, "id": "wamid.AF13", "type": "request_welcome"},
    "edit": {**FROM, "id": "wamid.AG13", "type": "edit", "edit": {"original_message_id": "wamid.AAA1", "message": {"type": "text", "text": {"body": "the green one"}, "context": {"id": "wamid.OUT1"}}}},
    "revoke": {**FROM, "id": "wamid.AH13", "type": "revoke", "revoke": {"original_message_id": "wamid.AAA1"}},
    "unsupported": {**FROM, "id": "wamid.AI13", "type": "unsupported", "errors": [UNSUPPORTED], "unsupported": {"type": "poll_creation"}},
    "unknown": {**FROM, "id": "wamid.AJ13", "type": "unknown", "errors": [UNSUPPORTED]},
    "ephemeral": {**FROM, "id": "wamid.AK13", "type": "ephemeral"},
    "media too large": {**FROM, "id": "wamid.AL13", "type": "video", "video": {"mime_type": "video/mp4"}, "errors": [{"code": 131052, "title": "Media download error"}]},
    "forwarded": {**FROM, "id": "wamid.AB14", "type": "text", "text": {"body": "x"}, "context": {"frequently_forwarded": True}},
    "product": {**FROM, "id": "wamid.AC14", "type": "text", "text": {"body": "x"}, "context": {"referred_product": {"catalog_id": "9", "product_retailer_id": "sku-1"}}},
    "referral": {**FROM, "id": "wamid.AB15", "type": "text", "text": {"body": "Hi, saw your ad"}, "referral": {"source_url": "https://fb.me/abc", "source_id": "120200000000001", "source_type": "ad", "headline": "Chat with us", "body": "Autumn sale", "media_type": "image", "image_url": "https://cdn.example/i.jpg", "ctwa_clid": "ARx...", "welcome_message": {"text": "How can we help?"}}},
    "group": {**FROM, "id": "wamid.AB16", "type": "text", "text": {"body": "x"}, "group_id": "group-1"},
    "identity": {**FROM, "id": "wamid.AB17", "type": "text", "text": {"body": "x"}, "identity": {"acknowledged": True, "created_timestamp": "1790000013", "hash": "h="}},
}  # fmt: skip
"""Elements of `messages[]`, section 3."""

ECHOES: dict[str, dict[str, Any]] = {
    "text": {"from": "4930000000", "to": "4915100000000", "to_user_id": "DE.71234567890123456789", "id": "wamid.E1", "timestamp": "1790000001", "type": "text", "text": {"body": "Gern"}},
    "edit": {"from": "4930000000", "to": "4915100000000", "id": "wamid.E2", "timestamp": "1790000001", "type": "edit", "edit": {"original_message_id": "wamid.E1", "message": {"type": "text", "text": {"body": "Gerne"}}}},
    "revoke": {"from": "4930000000", "to": "4915100000000", "id": "wamid.E3", "timestamp": "1790000001", "type": "revoke", "revoke": {"original_message_id": "wamid.E1"}},
}  # fmt: skip

STATUSES: dict[str, dict[str, Any]] = {
    "delivered": {"id": "wamid.OUT9", "status": "delivered", "timestamp": "1790000020", "recipient_id": "4915100000000", "recipient_user_id": "DE.71234567890123456789", "biz_opaque_callback_data": "job:8812", "pricing": {"billable": True, "pricing_model": "PMP", "type": "regular", "category": "utility"}},
    "sent, v23": {"id": "wamid.OUT9", "status": "sent", "timestamp": "1790000019", "recipient_id": "4915100000000", "conversation": {"id": "c1", "expiration_timestamp": "1790086400", "origin": {"type": "utility"}}},
    "read": {"id": "wamid.OUT9", "status": "read", "timestamp": "1790000021", "recipient_user_id": "DE.71234567890123456789", "recipient_parent_user_id": "DE.ENT.1", "recipient_identity_key_hash": "h="},
    "played": {"id": "wamid.OUT9", "status": "played", "timestamp": "1790000022", "recipient_user_id": "DE.71234567890123456789", "parent_recipient_user_id": "DE.ENT.1"},
    "failed": {"id": "wamid.OUT9", "status": "failed", "timestamp": "1790000023", "recipient_id": "4915100000000", "errors": [{**RATE_LIMIT, "code": 131047}]},
    "group": {"id": "wamid.OUT9", "status": "delivered", "timestamp": "1790000020", "recipient_id": "group-1", "recipient_type": "group", "recipient_participant_id": "4915100000000", "recipient_participant_user_id": "DE.7"},
    "deleted": {"id": "wamid.OUT9", "status": "deleted", "timestamp": "1790000023", "recipient_id": "4915100000000"},
    "call": {"id": "wacid.1", "type": "call", "status": "RINGING", "timestamp": "1790000023", "recipient_id": "4915100000000"},
}  # fmt: skip
"""Elements of `statuses[]`, sections 4 and 5."""

CALLS: dict[str, dict[str, Any]] = {
    "connect": {"id": "wacid.1", "from": "4915100000000", "to": "4930000000", "event": "connect", "timestamp": "1790000023", "direction": "USER_INITIATED", "session": {"sdp_type": "offer", "sdp": "v=0"}},
    "terminate": {"id": "wacid.1", "from": "4930000000", "to": "4915100000000", "event": "terminate", "timestamp": "1790000023", "direction": "BUSINESS_INITIATED", "status": "COMPLETED", "start_time": "1790000000", "end_time": "1790000023", "duration": 23},
}  # fmt: skip

PREFERENCES: dict[str, dict[str, Any]] = {
    "stop": {"wa_id": "4915100000000", "user_id": "DE.71234567890123456789", "category": "marketing_messages", "value": "stop", "detail": "User requested to stop marketing messages", "timestamp": 1790000030},
    "signup": {"user_id": "DE.71234567890123456789", "category": "marketing_messages", "value": "signup", "signup_id": "77", "timestamp": 1790000030},
}  # fmt: skip

HISTORY: dict[str, dict[str, Any]] = {
    "chunk": {
        "metadata": {"phase": 1, "chunk_order": 2, "progress": 55},
        "threads": [
            {
                "id": "4915100000000",
                "context": {"wa_id": "4915100000000", "user_id": "DE.7", "username": "@mirak"},
                "messages": [
                    {"from": "4915100000000", "id": "wamid.H1", "timestamp": "1780000000", "type": "text", "text": {"body": "hallo"}, "history_context": {"status": "READ"}},
                    {"from": "4930000000", "to": "4915100000000", "id": "wamid.H2", "timestamp": "1780000001", "type": "text", "text": {"body": "hi"}, "history_context": {"status": "DELIVERED"}},
                    {"from": "4915100000000", "id": "wamid.H3", "timestamp": "1780000002", "type": "media_placeholder", "history_context": {"status": "PENDING"}},
                ],
            }
        ],
    },
    "refusal": {"errors": [{"code": 2593109, "title": "History sync is turned off"}]},
}  # fmt: skip

VALUES: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messaging_product": "whatsapp", "metadata": METADATA, "contacts": [CONTACT], "messages": [], "statuses": [], "errors": []}),
    ("messages", {"messaging_product": "whatsapp", "metadata": METADATA, "errors": [RATE_LIMIT]}),
    ("user_preferences", {"messaging_product": "whatsapp", "metadata": METADATA, "contacts": [CONTACT], "user_preferences": list(PREFERENCES.values())}),
    ("calls", {"messaging_product": "whatsapp", "metadata": METADATA, "calls": list(CALLS.values()), "statuses": [STATUSES["call"]]}),
    ("smb_message_echoes", {"messaging_product": "whatsapp", "metadata": METADATA, "message_echoes": list(ECHOES.values())}),
    ("history", {"messaging_product": "whatsapp", "metadata": METADATA, "history": list(HISTORY.values())}),
    ("message_template_status_update", {"event": "REJECTED", "message_template_id": 1600000000000001, "message_template_name": "order_update", "message_template_language": "de", "reason": "INVALID_FORMAT", "message_template_category": "UTILITY", "rejection_info": {"reason": "...", "recommendation": "..."}}),
    ("message_template_status_update", {"event": "PENDING_DELETION", "message_template_id": 1600000000000001, "reason": None}),
    ("message_template_status_update", {"event": "PAUSED", "message_template_id": 1600000000000001, "other_info": {"title": "FIRST_PAUSE", "description": "..."}}),
    ("message_template_status_update", {"event": "DISABLED", "message_template_id": 1600000000000001, "disable_info": {"disable_date": 1790000000}}),
    ("message_template_quality_update", {"previous_quality_score": "GREEN", "new_quality_score": "YELLOW", "message_template_id": 1600000000000001, "message_template_name": "order_update", "message_template_language": "de"}),
    ("message_template_components_update", {"message_template_id": 1600000000000001, "message_template_title": "t", "message_template_element": "body", "message_template_footer": "f", "message_template_buttons": [{"message_template_button_type": "URL"}]}),
    ("template_category_update", {"message_template_id": 1600000000000001, "new_category": "UTILITY", "correct_category": "MARKETING", "category_update_timestamp": 1790000000}),
    ("template_category_update", {"message_template_id": 1600000000000001, "previous_category": "UTILITY", "new_category": "MARKETING"}),
    ("phone_number_quality_update", {"display_phone_number": "4930000000", "event": "ONBOARDING", "max_daily_conversations_per_business": "TIER_250", "current_limit": "TIER_250", "old_limit": "TIER_50"}),
    ("phone_number_name_update", {"display_phone_number": "4930000000", "decision": "APPROVED", "requested_verified_name": "Example", "rejection_reason": None}),
    ("business_capability_update", {"max_daily_conversations_per_business": 2000, "max_phone_numbers_per_business": 25, "max_phone_numbers_per_waba": 20}),
    ("business_capability_update", {"max_daily_conversations_per_business": "TIER_2K"}),
    ("business_username_update", {"username": "example", "status": "reserved"}),
    ("account_update", {"event": "DISABLED_UPDATE", "ban_info": {"waba_ban_state": "SCHEDULE_FOR_DISABLE", "waba_ban_date": "April 17, 2027"}}),
    ("account_update", {"event": "ACCOUNT_VIOLATION", "violation_info": {"violation_type": "SPAM"}}),
    ("account_update", {"event": "ACCOUNT_RESTRICTION", "restriction_info": [{"restriction_type": "RESTRICTED_BIZ_INITIATED_MESSAGING", "expiration": 1790000000}]}),
    ("account_update", {"event": "PARTNER_REMOVED", "waba_info": {"waba_id": "2", "owner_business_id": "3", "partner_app_id": "4", "solution_id": "5"}, "disconnection_info": {"reason": "x"}}),
    ("account_update", {"event": "PARTNER_CLIENT_CERTIFICATION_STATUS_UPDATE", "partner_client_certification_info": {"status": "APPROVED"}}),
    ("account_update", {"event": "ACCOUNT_DELETED"}),
    ("account_review_update", {"decision": "APPROVED"}),
    ("account_alerts", {"entity_type": "PHONE_NUMBER", "entity_id": "3", "alert_info": {"alert_severity": "CRITICAL", "alert_status": "ACTIVE", "alert_type": "OBA_REJECTED", "alert_description": "..."}}),
    ("security", {"display_phone_number": "4930000000", "event": "PIN_CHANGED", "requester": "6"}),
    ("partner_solutions", {"event": "SOLUTION_CREATED", "solution_id": "5"}),
    ("payment_configuration_update", {"configuration_name": "x", "status": "Active"}),
    ("smb_app_state_sync", {"messaging_product": "whatsapp", "metadata": METADATA, "state_sync": [{"type": "contact", "action": "add", "contact": {"full_name": "Mira K.", "first_name": "Mira", "phone_number": "4915100000000", "user_id": "DE.7", "username": "@mirak"}, "metadata": {"timestamp": "1790000000"}}]}),
    *((field, {"metadata": METADATA, "anything": [1, {"deep": None}]}) for field in ("group_lifecycle_update", "group_participants_update", "group_settings_update", "group_status_update", "flows", "automatic_events", "tracking_events")),
]  # fmt: skip
"""Whole values, sections 2, 3.16 and 5."""


def body(*changes: tuple[str, Any], time: int | None = None) -> bytes:
    """Write changes as one entry."""
    entry: dict[str, Any] = {
        "id": "200000000000001",
        "changes": [{"field": field, "value": value} for field, value in changes],
    }
    if time is not None:
        entry["time"] = time
    return json.dumps({"object": "whatsapp_business_account", "entry": [entry]}, separators=(",", ":")).encode()


def value(**members: Any) -> dict[str, Any]:
    return {"messaging_product": "whatsapp", "metadata": METADATA, **members}


def split_value(field: str, **members: Any) -> Webhook:
    return split(body((field, value(**members))))
