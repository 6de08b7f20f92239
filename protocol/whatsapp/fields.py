"""The wire shapes of the fields that concern an account, a template, a number or a group, and which shape each webhook field has.

Source: WhatsApp Cloud API reference, 2.1 and 5. `split` hands these values on whole and does not decode them, so a shape that Meta extends
loses nothing; they are here for whoever reads a notice, and for the simulator that writes one. Must not know the neutral model.
"""

import msgspec
from msgspec import UNSET, UnsetType

from protocol.content import RawJSON
from protocol.whatsapp.wire import ConversationValue, Metadata, Timestamp, Wire


class RejectionInfo(Wire, frozen=True, kw_only=True):
    """Why a template was rejected, in words."""

    reason: str | None = None
    recommendation: str | None = None


class DisableInfo(Wire, frozen=True, kw_only=True):
    """When a template was disabled."""

    disable_date: Timestamp | None = None


class OtherInfo(Wire, frozen=True, kw_only=True):
    """Why a template is paused or locked."""

    title: str | None = None
    description: str | None = None


class TemplateStatus(Wire, frozen=True, kw_only=True):
    """`message_template_status_update`. `reason` can be JSON null (a scheduled deletion), which is not the same as absent."""

    event: str
    message_template_id: int | str
    message_template_name: str | None = None
    message_template_language: str | None = None
    reason: str | UnsetType | None = UNSET
    message_template_category: str | None = None
    rejection_info: RejectionInfo | None = None
    disable_info: DisableInfo | None = None
    other_info: OtherInfo | None = None


class TemplateQuality(Wire, frozen=True, kw_only=True):
    """`message_template_quality_update`."""

    previous_quality_score: str | None = None
    new_quality_score: str | None = None
    message_template_id: int | str | None = None
    message_template_name: str | None = None
    message_template_language: str | None = None


class TemplateComponents(Wire, frozen=True, kw_only=True):
    """`message_template_components_update`. Buttons are an open set of shapes."""

    message_template_id: int | str | None = None
    message_template_name: str | None = None
    message_template_language: str | None = None
    message_template_title: str | None = None
    message_template_element: str | None = None
    message_template_footer: str | None = None
    message_template_buttons: list[msgspec.Raw] | None = None


class TemplateCategory(Wire, frozen=True, kw_only=True):
    """`template_category_update`: announced a day ahead (`correct_category`), then done (`previous_category`)."""

    message_template_id: int | str | None = None
    message_template_name: str | None = None
    message_template_language: str | None = None
    previous_category: str | None = None
    new_category: str | None = None
    correct_category: str | None = None
    category_update_timestamp: Timestamp | None = None


class NumberQuality(Wire, frozen=True, kw_only=True):
    """`phone_number_quality_update`."""

    display_phone_number: str | None = None
    event: str | None = None
    max_daily_conversations_per_business: str | int | None = None
    current_limit: str | None = None
    old_limit: str | None = None


class NumberName(Wire, frozen=True, kw_only=True):
    """`phone_number_name_update`."""

    display_phone_number: str | None = None
    decision: str | None = None
    requested_verified_name: str | None = None
    rejection_reason: str | UnsetType | None = UNSET


class BusinessCapability(Wire, frozen=True, kw_only=True):
    """`business_capability_update`. The limit is `TIER_*` in the table and an integer in the sample; -1 is unlimited."""

    max_daily_conversations_per_business: str | int | None = None
    max_phone_numbers_per_business: int | None = None
    max_phone_numbers_per_waba: int | None = None


class BanInfo(Wire, frozen=True, kw_only=True):
    """Whether and when an account is banned; the date is English prose."""

    waba_ban_state: str | None = None
    waba_ban_date: str | None = None


class ViolationInfo(Wire, frozen=True, kw_only=True):
    """Which policy was violated."""

    violation_type: str | None = None


class RestrictionInfo(Wire, frozen=True, kw_only=True):
    """What an account may not do for now."""

    restriction_type: str | None = None
    expiration: Timestamp | None = None


class WabaInfo(Wire, frozen=True, kw_only=True):
    """Which account a partner event is about."""

    waba_id: str | None = None
    owner_business_id: str | None = None
    partner_app_id: str | None = None
    solution_id: str | None = None


class AccountUpdate(Wire, frozen=True, kw_only=True):
    """`account_update`: an event and the object that belongs to it; the undocumented ones stay raw."""

    event: str | None = None
    phone_number: str | None = None
    country: str | None = None
    ban_info: BanInfo | None = None
    violation_info: ViolationInfo | None = None
    restriction_info: list[RestrictionInfo] | None = None
    waba_info: WabaInfo | None = None
    disconnection_info: RawJSON = UNSET
    partner_client_certification_info: RawJSON = UNSET
    auth_international_rate_eligibility: RawJSON = UNSET
    volume_tier_info: RawJSON = UNSET


class AccountReview(Wire, frozen=True, kw_only=True):
    """`account_review_update`."""

    decision: str | None = None


class AlertInfo(Wire, frozen=True, kw_only=True):
    """What an alert says."""

    alert_severity: str | None = None
    alert_status: str | None = None
    alert_type: str | None = None
    alert_description: str | None = None


class AccountAlert(Wire, frozen=True, kw_only=True):
    """`account_alerts`."""

    entity_type: str | None = None
    entity_id: str | None = None
    alert_info: AlertInfo | None = None


class Security(Wire, frozen=True, kw_only=True):
    """`security`: what happened to a number's PIN."""

    display_phone_number: str | None = None
    event: str | None = None
    requester: str | None = None


class BookContact(Wire, frozen=True, kw_only=True):
    """A contact in the business's own address book."""

    full_name: str | None = None
    first_name: str | None = None
    phone_number: str | None = None
    user_id: str | None = None
    username: str | None = None


class SyncMetadata(Wire, frozen=True, kw_only=True):
    """When the address book changed."""

    timestamp: Timestamp | None = None


class StateSync(Wire, frozen=True, kw_only=True):
    """One change of the business's address book."""

    type: str | None = None
    action: str | None = None
    contact: BookContact | None = None
    metadata: SyncMetadata | None = None


class AppStateSync(Wire, frozen=True, kw_only=True):
    """`smb_app_state_sync`."""

    messaging_product: str | None = None
    metadata: Metadata | None = None
    state_sync: list[StateSync] | None = None


OpenValue = dict[str, msgspec.Raw]
"""A value whose members the reference does not give: any object, kept as it is."""

CONVERSATION_FIELDS = frozenset({"messages", "smb_message_echoes", "history", "calls", "user_preferences"})

FIELDS: dict[str, object] = {
    **dict.fromkeys(CONVERSATION_FIELDS, ConversationValue),
    "message_template_status_update": TemplateStatus,
    "message_template_quality_update": TemplateQuality,
    "message_template_components_update": TemplateComponents,
    "template_category_update": TemplateCategory,
    "phone_number_quality_update": NumberQuality,
    "phone_number_name_update": NumberName,
    "business_capability_update": BusinessCapability,
    "business_username_update": OpenValue,
    "account_update": AccountUpdate,
    "account_review_update": AccountReview,
    "account_alerts": AccountAlert,
    "security": Security,
    "partner_solutions": OpenValue,
    "payment_configuration_update": OpenValue,
    "smb_app_state_sync": AppStateSync,
    "group_lifecycle_update": OpenValue,
    "group_participants_update": OpenValue,
    "group_settings_update": OpenValue,
    "group_status_update": OpenValue,
    "flows": OpenValue,
    "automatic_events": OpenValue,
    "tracking_events": OpenValue,
}
"""Every webhook field of the reference (2.1) and the type its value decodes to."""
