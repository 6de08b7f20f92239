"""Meta's WhatsApp Cloud API over HTTP: the handshake, and whose signature a webhook bears.

Source: WhatsApp Cloud API reference 1.1 to 1.3. Owns how a webhook is verified where many tenants, some with Meta apps of their own, share one
callback address. Must not know actors or the store.

Theory of operation. One Meta app has one secret and signs for all numbers subscribed to it; a tenant either uses the platform's app or brings
its own. The body is not decoded before its signature holds, so a search for the first `"phone_number_id"` suggests whose secret to try, then
the account's, then the platform's. Only a body that suggests nothing (malformed, but perhaps genuine) is tried against every distinct secret,
and such sweeps have a budget: past it the answer is 503, which a genuine sender repeats.
"""

import hmac

import trio

from gateway.http import Request, Response
from gateway.problems import problem
from gateway.providers.contract import Authentic, Decoded
from gateway.routing import RouteTable
from protocol.errors import RemoteProtocolError
from protocol.signatures import verify
from protocol.whatsapp import peek_endpoints, read_challenge, split
from store.contract import Endpoint

SIGNATURE = b"x-hub-signature-256"

SWEEPS_PER_SECOND = 20
"""Sweeps over all secrets allowed a second: with 1,000 secrets and 1 KB some 2 % of a core, and genuine sweeps are rare."""


class WhatsAppCloud:
    """The provider. `app_secret` is the platform's own Meta app's; empty where every tenant brings its own."""

    name = "whatsapp"
    path = "/webhooks/whatsapp"

    def __init__(self, app_secret: str = "", verify_token: str = "") -> None:
        self._app_secret = app_secret
        self._verify_token = verify_token
        self._sweeps_left = float(SWEEPS_PER_SECOND)
        self._sweeps_at = 0.0

    def secret_of(self, endpoint: Endpoint) -> str:
        """Return the tenant's own app secret, or the platform's."""
        return endpoint.app_secret or self._app_secret

    async def verify(self, request: Request, routes: RouteTable) -> Authentic | Response:
        """See `WebhookProvider.verify`. A repeated signature header is refused: one of them would go unchecked."""
        headers = request.header_values(SIGNATURE)
        if not headers:
            return problem("signature_missing", "A webhook carries X-Hub-Signature-256.")
        if len(headers) > 1:
            return problem("signature_invalid", "X-Hub-Signature-256 is repeated.")
        [header], body = headers, request.body
        numbers, accounts = peek_endpoints(body)
        tried = set()
        for number in numbers:
            endpoint = routes.endpoint(self.name, number) or await routes.find_endpoint(self.name, number)
            if endpoint is not None:
                secret = self.secret_of(endpoint)
                if secret and verify(secret.encode(), body, header):
                    return Authentic(secret)
                tried.add(secret)
        for account in accounts:
            for endpoint in routes.endpoints_of_account(self.name, account)[:8]:
                secret = self.secret_of(endpoint)
                if secret and secret not in tried and verify(secret.encode(), body, header):
                    return Authentic(secret)
                tried.add(secret)
        if self._app_secret and self._app_secret not in tried and verify(self._app_secret.encode(), body, header):
            return Authentic(self._app_secret)
        if tried:  # somebody was suggested, and it was not them
            return problem("signature_invalid", "The signature does not fit the body.")
        if not self._may_sweep():
            return problem("overloaded", "Too many webhooks name nobody known.")
        for secret in routes.app_secrets(self.name):
            if secret and verify(secret.encode(), body, header):
                return Authentic(secret)
        return problem("signature_invalid", "The signature does not fit the body.")

    def decode(self, body: bytes) -> Decoded:
        """See `WebhookProvider.decode`."""
        webhook = split(body)
        return Decoded(webhook.items, webhook.bad)

    def challenge(self, request: Request, routes: RouteTable) -> Response:
        """Answer Meta's GET with exactly the challenge if the token is the platform's or any endpoint's, compared in constant time."""
        try:
            asked = read_challenge(request.query)
        except RemoteProtocolError as error:
            return problem("bad_request", error.detail)
        token = asked.token.encode()
        known = False
        for expected in (self._verify_token, *(each.verify_token for each in routes.endpoints_at(self.name))):
            known |= bool(expected) and hmac.compare_digest(token, expected.encode())
        if asked.mode != "subscribe" or not known:
            return problem("verification_failed", "The verify token is not that of any endpoint.")
        return Response(200, asked.challenge.encode(), ((b"content-type", b"text/plain; charset=utf-8"),))

    def _may_sweep(self) -> bool:
        now = trio.current_time()
        self._sweeps_left = min(SWEEPS_PER_SECOND, self._sweeps_left + (now - self._sweeps_at) * SWEEPS_PER_SECOND)
        self._sweeps_at = now
        if self._sweeps_left < 1:
            return False
        self._sweeps_left -= 1
        return True
