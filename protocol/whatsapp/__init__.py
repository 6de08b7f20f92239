"""Meta's WhatsApp Cloud API, as webhooks: from signed bytes to neutral commands, and for the simulator the other way.

    routing     before the signature is checked: whose secret to try; the GET handshake
    document    what is accepted as JSON at all
    wire        shapes of envelope, messages, statuses, calls, preferences, history
    fields      shapes of the management fields; which shape each field has
    translate   one decoded piece to the neutral model (content, context, problems)
    reader      one change to items, each alone, each with its contact and dedupe key
    split       a body to items
    compose     shapes to a body, as Meta writes it

A new message type touches `wire.Message` and one function of `translate`; a new webhook field one line of `fields.FIELDS`.
Source of all of it: Meta's WhatsApp Cloud API documentation, Graph API v26.0.
"""

from protocol.whatsapp.routing import Challenge, Endpoints, peek_endpoints, read_challenge
from protocol.whatsapp.split import Webhook, split

__all__ = ["Challenge", "Endpoints", "Webhook", "peek_endpoints", "read_challenge", "split"]
