"""Meta's side of the wire: the webhooks that a set of businesses would receive, in virtual time, from one seed.

Source: WhatsApp Cloud API reference, sections 1 and 2. Pure: no I/O, no clock. Owns how what happens (`life`) is put into webhooks, alone or
in batches of up to 20, and signed; `faults` spoils deliveries, `sender` makes requests of them.

Same seed, same traffic, byte for byte. Every tenant has a random stream of its own, `Random(f"{seed}/{phone_number_id}")` (Python seeds
from text through SHA-512, the same in every version and process), and draws from no other: adding, removing or reordering tenants does not
change what another receives. Nothing depends on hashes, sets' order or the time of day; `start_ms` only shifts timestamps.
"""

import heapq
import itertools
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from random import Random

import msgspec

from bench.simulators.life import DEFAULT_MIX, Fact, Life, Truth
from bench.simulators.world import SimTenant
from protocol import signatures
from protocol.whatsapp import compose, wire

START_MS = 1_790_000_000_000
"""September 2026: when a virtual world begins unless it is told otherwise."""

_LARGEST_BATCH = 20


class Delivery(msgspec.Struct, frozen=True):
    """One webhook request. `due_ms` is virtual Unix time; `number` counts a tenant's deliveries from 0.

    `fault` names what `faults` spoilt about it.
    """

    number: int
    due_ms: int
    tenant: SimTenant
    body: bytes
    signature: bytes
    truth: tuple[Truth, ...]
    fault: str | None = None


class Traffic:
    """An endless, repeatable stream of deliveries of several tenants, ordered by virtual time.

    `mix` overrides weights of `DEFAULT_MIX` (relative frequencies; 0 switches a thing off). `batch` is the share of webhooks that carry
    more than one item. Iterating twice gives the same deliveries twice.

    Raises ValueError for an unknown name in `mix`, no tenants, or fewer than one contact.
    """

    def __init__(
        self,
        seed: int | str,
        tenants: Sequence[SimTenant],
        contacts_per_tenant: int = 50,
        *,
        mix: Mapping[str, float] | None = None,
        batch: float = 0.15,
        start_ms: int = START_MS,
    ) -> None:
        weights = {**DEFAULT_MIX, **(mix or {})}
        if unknown := sorted(weights.keys() - DEFAULT_MIX.keys()):
            raise ValueError(f"the mix names {', '.join(unknown)}; known are {', '.join(DEFAULT_MIX)}")
        if not tenants or contacts_per_tenant < 1:
            raise ValueError("traffic needs at least one tenant with at least one contact")
        self.seed = seed
        self.tenants = tuple(tenants)
        self._contacts = contacts_per_tenant
        self._weights = weights
        self._batch = batch
        self._start_ms = start_ms

    def __iter__(self) -> Iterator[Delivery]:
        streams = [self._tenant(tenant) for tenant in self.tenants]
        return heapq.merge(*streams, key=attrgetter("due_ms"))

    def _tenant(self, tenant: SimTenant) -> Iterator[Delivery]:
        random = Random(f"{self.seed}/{tenant.phone_number_id}")
        life = Life(random, tenant, self._contacts, self._weights, self._start_ms)
        return _deliveries(random, tenant, life.facts(), self._batch)


def _deliveries(random: Random, tenant: SimTenant, facts: Iterator[Fact], batch: float) -> Iterator[Delivery]:
    secret = tenant.app_secret.encode()
    for number in itertools.count():
        size = random.randint(2, _LARGEST_BATCH) if random.random() < batch else 1
        told = list(itertools.islice(facts, size))
        body = compose.body(_entries(random, tenant, told))
        truth = tuple(itertools.chain.from_iterable(fact.truth for fact in told))
        yield Delivery(number, told[-1].at_ms, tenant, body, signatures.sign(secret, body), truth)


def _entries(random: Random, tenant: SimTenant, facts: list[Fact]) -> list[wire.Entry]:
    """Spread facts over entries, changes and arrays, as Meta's aggregation does: sometimes together, sometimes apart."""
    entries: list[wire.Entry] = []
    group: list[Fact] = []
    for fact in facts:
        together = (
            group
            and fact.array is not None
            and (group[0].field, group[0].array) == (fact.field, fact.array)
            and not (group[0].errors or fact.errors)
            and random.random() < 0.7
        )
        if group and not together:
            _add_change(random, tenant, entries, group)
            group = []
        group.append(fact)
    _add_change(random, tenant, entries, group)
    return entries


def _add_change(random: Random, tenant: SimTenant, entries: list[wire.Entry], group: list[Fact]) -> None:
    first = group[0]
    time: int | None = None
    if first.array is None:
        time = first.at_ms // 1000
        change = compose.change(first.field, first.item)
    else:
        # One contact each, in another order than the items: nobody may match them by position.
        named = [fact.contact for fact in group if fact.contact is not None]
        people = list({(contact.wa_id, contact.user_id): contact for contact in named}.values())
        random.shuffle(people)
        value = wire.ConversationValue(
            messaging_product="whatsapp",
            metadata=_metadata(tenant),
            contacts=people or None,
            errors=[compose.raw(error) for error in first.errors] or None,
        )
        items = [compose.raw(fact.item) for fact in group]
        change = compose.change(first.field, msgspec.structs.replace(value, **{first.array: items}))
    if entries and entries[-1].time == time and random.random() < 0.7:
        entries[-1].changes.append(change)
    else:
        entries.append(wire.Entry(id=tenant.waba_id, time=time, changes=[change]))


def _metadata(tenant: SimTenant) -> wire.Metadata:
    return wire.Metadata(display_phone_number=tenant.display_phone_number, phone_number_id=tenant.phone_number_id)
