"""What goes wrong between Meta and a gateway, decided from a seed; and how Meta tries again.

Source: WhatsApp Cloud API reference 1.3 (duplicates, no ordering, retries for up to 7 days) and RELIABILITY's malformed bodies. Pure: it
reorders and spoils deliveries; `sender` acts on `Delivery.fault`. Must not know HTTP or how a webhook is built.
"""

import heapq
import itertools
from collections.abc import Iterable, Iterator
from random import Random

import msgspec

from bench.simulators.meta import Delivery
from protocol import signatures

DUPLICATE = "duplicate"
DROPPED = "dropped"
"""The first attempt breaks off in the middle of the body; Meta retries it."""
MALFORMED = "malformed"
"""Validly signed, but no webhook: to be kept as undecodable and answered 200."""
FORGED = "forged"
"""Signed with another secret: to be answered 401. Never retried, for nobody genuine sent it."""

_NEARBY = 10
_FAR = 500
"""Places in the order of sending by which a delivery is late, at most: reordered, and delayed."""

_FIRST_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 6 * 3600.0
GIVE_UP_S = 7 * 86_400.0
"""Published: "with decreasing frequency for up to 7 days". The first pause and the doubling are our reading of it."""


class Faults(msgspec.Struct, frozen=True):
    """The share of deliveries, 0 to 1, that each fault befalls. Malformed and forged ones come in addition, so nothing true is lost by them.

    Raises ValueError for a share outside 0 to 1.
    """

    duplicate: float = 0.0
    reorder: float = 0.0
    delay: float = 0.0
    drop: float = 0.0
    malformed: float = 0.0
    forged: float = 0.0

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"the share of {name} must be between 0 and 1")


def spoil(traffic: Iterable[Delivery], faults: Faults, seed: int | str) -> Iterator[Delivery]:
    """Yield the deliveries as they will be sent. Same traffic, faults and seed, same result; holds back at most `_FAR` places."""
    random = Random(f"{seed}/faults")
    held: list[tuple[int, int, Delivery]] = []
    order = itertools.count()

    def hold(place: int, delivery: Delivery) -> None:
        heapq.heappush(held, (place, next(order), delivery))

    for number, delivery in enumerate(traffic):
        place = number
        if random.random() < faults.reorder:
            place += random.randint(1, _NEARBY)
        if random.random() < faults.delay:
            place += random.randint(_NEARBY, _FAR)
        dropped = random.random() < faults.drop
        hold(place, msgspec.structs.replace(delivery, fault=DROPPED) if dropped else delivery)
        if random.random() < faults.duplicate:
            # Next to the original they are in flight together; far from it, the original is long committed.
            later = random.choice((0, 0, random.randint(1, _FAR)))
            hold(place + later, msgspec.structs.replace(delivery, fault=DUPLICATE))
        if random.random() < faults.malformed:
            hold(place, _malformed(random, delivery))
        if random.random() < faults.forged:
            hold(place, _forged(random, delivery))
        while held and held[0][0] <= number:
            yield heapq.heappop(held)[2]
    while held:
        yield heapq.heappop(held)[2]


def _malformed(random: Random, delivery: Delivery) -> Delivery:
    # The ids by which the gateway finds the secret stand early and are left alone: the point is a body that is genuine and unreadable.
    body = delivery.body
    spoilt = random.choice(
        (
            body[: -random.randint(1, len(body) // 4)],
            body[:-1] + b',"note":"\xff"}',
            body[:-1] + b',"note":NaN}',
            body[:-1] + b',"note":1e999}',
            body[:-1] + b',"object":"page"}',
            body[:-1] + b',"note":' + b"[" * 100_000,
            b"[%b]" % body,
            body.replace(b"whatsapp_business_account", b"page", 1),
        )
    )
    signature = signatures.sign(delivery.tenant.app_secret.encode(), spoilt)
    return msgspec.structs.replace(delivery, body=spoilt, signature=signature, truth=(), fault=MALFORMED)


def _forged(random: Random, delivery: Delivery) -> Delivery:
    signature = signatures.sign(random.randbytes(16), delivery.body)
    return msgspec.structs.replace(delivery, signature=signature, truth=(), fault=FORGED)


def pause_after(attempt: int, random: Random) -> float:
    """Return the virtual seconds until the next try after failed attempt `attempt` (from 0): doubling, ±20 %."""
    pause = min(_FIRST_PAUSE_S * 2.0 ** min(attempt, 32), _LONGEST_PAUSE_S)
    return pause * random.uniform(0.8, 1.2)
