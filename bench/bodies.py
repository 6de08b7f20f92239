"""Requests to load a gateway with: whole, signed, each with message ids of its own, and the same for the same seed.

Text messages and receipts in the proportion of Meta's sizing (three receipts to a message are counted apart: `messages` and `receipts` are given),
spread evenly over contacts and tenants. Plain on purpose, so that any program that takes Meta's webhooks can be measured with them; the
simulator (`bench.simulators`) is for what is lifelike. Composing and signing happens before the clock starts.
"""

from collections.abc import Iterator
from random import Random

import msgspec

from bench.simulators.world import SimTenant
from protocol.signatures import sign

TEXTS = (
    "Is the blue one in stock?",
    "Bonjour, avez-vous une table pour deux ce soir ? C'est pour un anniversaire.",
    "Thanks! See you on Monday at ten, I will bring the papers you asked for last week.",
    "Guten Tag, meine Bestellung A-1734 ist noch nicht angekommen. K\\u00f6nnen Sie nachsehen?",
    "ok",
)
"""As they stand in Meta's JSON: beyond ASCII escaped."""

START = 1_790_000_000

MESSAGE_ID = "wamid.HBgMN"
"""What the id of every message begins with; the seed and the item's number, in DIGITS digits, follow."""

DIGITS = 16


class Work(msgspec.Struct, frozen=True):
    """What to compose. `batch`: items a webhook; `receipts`: share of webhooks that are delivery receipts of business messages."""

    tenants: tuple[SimTenant, ...]
    conversations: int = 10_000
    batch: int = 1
    receipts: float = 0.0
    seed: int = 1


def bodies(work: Work, count: int, *, first: int = 0) -> Iterator[tuple[SimTenant, bytes]]:
    """Yield `count` webhooks; `first` numbers the first one, so that runs on one database do not repeat ids."""
    random = Random(f"{work.seed}/{first}")
    tenants = work.tenants
    for number in range(first, first + count):
        tenant = tenants[number % len(tenants)]
        items = range(number * work.batch, (number + 1) * work.batch)
        receipts = random.random() < work.receipts
        values = [_value(tenant, item, work, receipts, random) for item in items]
        changes = ",".join(f'{{"field":"messages","value":{value}}}' for value in values)
        yield (
            tenant,
            (
                f'{{"object":"whatsapp_business_account","entry":[{{"id":"{tenant.waba_id}","changes":[{changes}]}}]}}'
            ).encode(),
        )


def _value(tenant: SimTenant, item: int, work: Work, receipts: bool, random: Random) -> str:
    # A multiplicative step visits all contacts before any comes twice, in no order the server could profit from.
    person = item * 7919 % work.conversations
    phone = f"4915{person:09d}"
    metadata = (
        f'"messaging_product":"whatsapp","metadata":{{"display_phone_number":"{tenant.display_phone_number}",'
        f'"phone_number_id":"{tenant.phone_number_id}"}}'
    )
    contact = f'"contacts":[{{"profile":{{"name":"Person {person}"}},"wa_id":"{phone}"}}]'
    at = START + item // 1000
    if receipts:
        status = ("sent", "delivered", "read")[item % 3]
        return (
            f'{{{metadata},{contact},"statuses":[{{"id":"wamid.HBgNT{work.seed}{item // 3:016d}","status":"{status}",'
            f'"timestamp":"{at}","recipient_id":"{phone}","pricing":{{"billable":true,"pricing_model":"PMP","type":"regular",'
            f'"category":"utility"}}}}]}}'
        )
    return (
        f'{{{metadata},{contact},"messages":[{{"from":"{phone}","id":"{MESSAGE_ID}{work.seed}{item:0{DIGITS}d}","timestamp":"{at}",'
        f'"type":"text","text":{{"body":"{random.choice(TEXTS)}"}}}}]}}'
    )


def item_of(message_id: str, seed: int) -> int | None:
    """Return the number of the item that a message id was made for; None if it is not of this seed."""
    prefix = f"{MESSAGE_ID}{seed}"
    number = message_id.removeprefix(prefix)
    return int(number) if len(number) == DIGITS and message_id.startswith(prefix) else None


def requests(work: Work, count: int, host: str, path: str, *, first: int = 0) -> list[bytes]:
    """Return whole HTTP/1.1 requests, signed with each tenant's secret."""
    head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: facebookexternalua\r\nContent-Type: application/json\r\n".encode()
    return [
        b"%bX-Hub-Signature-256: %b\r\nContent-Length: %d\r\n\r\n%b"
        % (head, sign(tenant.app_secret.encode(), body), len(body), body)
        for tenant, body in bodies(work, count, first=first)
    ]
