"""Replay: stored webhooks through today's code, compared with what was recorded when they came.

Owns the rerun (the real ingress and actors on a store in memory) and the comparison. Must not know the command line, nor write anything: what
is found is sent again by whoever asked.

Theory of operation
-------------------
1. Webhooks are rerun one after the other in order of arrival, each item of a webhook by itself, so that every event that comes out is known
   to be that item's. Routing, actors, machines and projection are those of a serving node; only the signature is not asked for again.
2. An event is recognised by what it is about (`_ABOUT`): a message's id, a receipt's message and status, a call's step. What follows from what
   came before it is not compared: ids of conversations, offsets and versions, who the contact was known to be, whether a receipt waited.
3. The dedupe keys in the database say which items were ever recorded. An event that only the rerun has is news if its item was not
   (undecodable then, unrouted then), another reading of the item if it was, and nothing if another period's webhook brought it first.
4. A webhook is stored without its signature. The rerun takes the app of the first endpoint it names, as the ingress tries that one first.

Bounds: a chunk ends after CHUNK webhooks or CHUNK_BYTES of bodies, and with it everything that was held for it: its bodies, its events of
then and now, and the store in memory, which begins empty for the next one. Rule 2 is what makes the border of a chunk harmless.
"""

import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal, Protocol

import msgspec
import trio

from actors.feed import Feed
from actors.journal import Journal
from actors.tree import Tree
from gateway.http import Request, Response
from gateway.ingress import Ingress, dedupe_key
from gateway.providers.contract import Authentic, Decoded, WebhookProvider
from gateway.routing import RouteTable
from protocol.commands import Item
from protocol.errors import RemoteProtocolError
from protocol.ids import new_id
from store.contract import (
    Append,
    Committed,
    Endpoint,
    NewEvent,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    Routes,
    Store,
    StoredEvent,
)
from store.memory import MemoryDatabase, MemoryStore

CHUNK = 5_000
CHUNK_BYTES = 64 << 20
PAGE = 100
EVENTS_PAGE = 500
KEYS_PAGE = 5_000
SLACK = 60_000
"""Milliseconds by which a webhook's commit may lie after its arrival: far beyond any commit's time limit."""
PATIENCE = 30.0
"""Seconds an item may take in the rerun: nobody waits for an answer, and the machine may be busy serving."""

Verdict = Literal["only_now", "only_then", "changed"]

_ABOUT: Mapping[str, tuple[str, ...]] = {
    "message_recorded": ("message_id",),
    "message_completed": ("message_id",),
    "message_edited": ("message_id", "original_id"),
    "message_revoked": ("message_id", "original_id"),
    "receipt_recorded": ("message_id", "raw_status", "participant"),
    "call_recorded": ("call_id", "event"),
    "preference_set": ("category", "at"),
    "unknown_kept": ("what", "payload"),
    "notice_recorded": ("account", "topic", "payload"),
}
"""What each kind of event is about. Kinds that are not here (who the contact is, merges) depend on what came before."""
_GROUP = {"message_completed": "message_recorded"}
"""Whether a message is recorded or completes a placeholder depends on whether that stood there already."""
_CONTEXT = frozenset({"current", "waiting", "status"})
"""Fields that depend on what came before, and on the order of webhooks that came at the same moment."""


class History(Store, Protocol):
    """The store whose past is replayed."""

    async def find_recorded(self, keys: Sequence[bytes]) -> set[bytes]:
        """Return the dedupe keys that were ever recorded."""


class Difference(msgspec.Struct, frozen=True):
    """One event that today's code yields and the past did not, or the other way, or with other content (`fields`: name to then and now)."""

    verdict: Verdict
    tenant: str
    endpoint: str | None
    webhook: str
    kind: str
    about: tuple[str, ...]
    fields: Mapping[str, tuple[Any, Any]]


class Repeat(msgspec.Struct, frozen=True):
    """A webhook that would add something if it were sent again: `keys` are its items' that were never recorded, all under `secret`."""

    webhook: RawWebhook
    secret: str
    keys: tuple[bytes, ...]


class Compared(msgspec.Struct, frozen=True):
    """The outcome of one chunk. `aside`: how many items today's code puts in quarantine, by reason."""

    webhooks: int
    same: int
    differences: tuple[Difference, ...]
    repeats: tuple[Repeat, ...]
    aside: Mapping[str, int]


class _Event(msgspec.Struct, frozen=True):
    """An event of then or now, ready to be compared. `key`: the dedupe key of the item that yielded it (now only)."""

    tenant: str
    endpoint: str | None
    webhook: str
    kind: str
    body: Mapping[str, Any]
    key: bytes = b""

    def identity(self) -> tuple[str, ...]:
        return (self.tenant, self.endpoint or "", _GROUP.get(self.kind, self.kind), *self.about())

    def about(self) -> tuple[str, ...]:
        return tuple(_text(self.body.get(field)) for field in _ABOUT[self.kind])


async def replay(
    history: History, provider: WebhookProvider, *, since: int, until: int, tenant: str | None = None
) -> AsyncIterator[Compared]:
    """Compare the webhooks of `provider` received in [since, until), chunk by chunk; `tenant`: look at this tenant's events only.

    Raises:
        StoreUnavailable: the past cannot be read.
    """
    routes = await history.load_routes()
    async for webhooks in _chunks(history, provider.name, since, until):
        rerun = await _rerun(webhooks, provider, routes)
        now = [event for event in rerun.events if tenant in (None, event.tenant)]
        keys = list({event.key for event in now})
        recorded: set[bytes] = set()
        for start in range(0, len(keys), KEYS_PAGE):
            recorded |= await history.find_recorded(keys[start : start + KEYS_PAGE])
        then: list[_Event] = []
        for each in routes.tenants:
            if tenant in (None, each.id):
                then += await _recorded_events(history, each.id, webhooks)
        same, differences = compare(then, now, recorded)
        yield Compared(
            len(webhooks), same, tuple(differences), tuple(_repeats(webhooks, rerun, now, recorded)), rerun.aside
        )


def compare(then: Sequence[_Event], now: Sequence[_Event], recorded: set[bytes]) -> tuple[int, list[Difference]]:
    """Return how many events are the same, and the differences. `recorded`: keys of items that were ever recorded (rule 3)."""
    same = 0
    differences: list[Difference] = []
    before: dict[tuple[str, ...], list[_Event]] = defaultdict(list)
    for event in then:
        before[event.identity()].append(event)
    after: list[_Event] = []
    for event in now:
        match = before.get(event.identity())
        if not match:
            after.append(event)
        elif fields := _changed(old := match.pop(0), event):
            differences.append(_difference("changed", event, fields, old.webhook))
        else:
            same += 1
    rest: dict[tuple[str, str], list[_Event]] = defaultdict(list)
    for events in before.values():
        for event in events:
            rest[event.tenant, event.webhook].append(event)
    for event in after:
        if event.key not in recorded:
            differences.append(_difference("only_now", event, {}, event.webhook))
        elif other := rest.get((event.tenant, event.webhook)):  # recorded from this webhook, and read as something else
            old = other.pop(0)
            fields = {"kind": (old.kind, event.kind), "body": (old.body, event.body)}
            differences.append(_difference("changed", event, fields, old.webhook))
    for events in rest.values():
        differences.extend(_difference("only_then", event, {}, event.webhook) for event in events)
    return same, differences


def _changed(old: _Event, new: _Event) -> dict[str, tuple[Any, Any]]:
    names = {"content"} if old.kind != new.kind else (old.body.keys() | new.body.keys()) - _CONTEXT
    return {
        name: (old.body.get(name), new.body.get(name))
        for name in sorted(names)
        if old.body.get(name) != new.body.get(name)
    }


def _difference(verdict: Verdict, event: _Event, fields: Mapping[str, tuple[Any, Any]], webhook: str) -> Difference:
    return Difference(verdict, event.tenant, event.endpoint, webhook, event.kind, event.about(), fields)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else "" if value is None else msgspec.json.encode(value).decode()


# --- the past


async def _chunks(history: Store, provider: str, since: int, until: int) -> AsyncIterator[list[RawWebhook]]:
    chunk: list[RawWebhook] = []
    size = 0
    after: str | None = None
    while page := await history.list_webhooks(since=since, until=until, after=after, limit=PAGE):
        since, after = page[-1].received_at, page[-1].id
        for webhook in page:
            if webhook.provider == provider:
                chunk.append(webhook)
                size += len(webhook.body)
            if len(chunk) >= CHUNK or size >= CHUNK_BYTES:
                yield chunk
                chunk, size = [], 0
    if chunk:
        yield chunk


async def _recorded_events(history: Store, tenant: str, webhooks: Sequence[RawWebhook]) -> list[_Event]:
    """Return the events of a tenant that these webhooks caused."""
    causes = {webhook.id for webhook in webhooks}
    first, last = webhooks[0].received_at, webhooks[-1].received_at + SLACK
    after = await _offset_before(history, tenant, first)
    found: list[_Event] = []
    while page := await history.read_feed(tenant, after=after, limit=EVENTS_PAGE):
        after = page[-1].offset
        found += [_recorded(event) for event in page if event.cause in causes and event.kind in _ABOUT]
        if page[-1].recorded_at > last:
            break
    return found


def _recorded(event: StoredEvent) -> _Event:
    return _Event(event.tenant, event.endpoint, event.cause or "", event.kind, msgspec.json.decode(event.body))


async def _offset_before(history: Store, tenant: str, moment: int) -> int:
    """Return the offset of the last event recorded before `moment`, by bisection: a feed has no holes and grows with time."""
    feed = await history.feed_head(tenant)
    low, high = feed.oldest - 1, feed.head
    while low < high:
        middle = (low + high + 1) // 2
        found = await history.read_feed(tenant, after=middle - 1, limit=1)
        if found and found[0].recorded_at < moment:
            low = middle
        else:
            high = middle - 1
    return low


# --- the rerun


class _Rerun:
    """What came out of a chunk."""

    def __init__(self) -> None:
        self.events: list[_Event] = []
        self.secrets: dict[str, str] = {}
        """By webhook: the secret of the app it is taken to be from."""
        self.aside: Counter[str] = Counter()


class _Witness(MemoryStore):
    """A store that tells what was committed and put aside, and keeps no webhook."""

    def __init__(self) -> None:
        super().__init__(MemoryDatabase())
        self.committed: list[tuple[Append, NewEvent]] = []
        self.aside: list[QuarantineEntry] = []

    async def append_batch(
        self,
        appends: Sequence[Append],
        *,
        webhooks: Sequence[RawWebhook] = (),
        quarantine: Sequence[QuarantineEntry] = (),
        at: int,
    ) -> list[Outcome]:
        outcomes = await super().append_batch(appends, at=at)
        for append, outcome in zip(appends, outcomes, strict=True):
            if isinstance(outcome, Committed):
                self.committed += [(append, event) for event in append.events]
        self.aside += quarantine
        return outcomes


class _Stored:
    """A provider whose webhooks were verified when they came: hands the ingress one item, under one secret."""

    def __init__(self, provider: WebhookProvider) -> None:
        self._provider = provider
        self.name, self.path = provider.name, provider.path
        self.secret = ""
        self.decoded = Decoded([], [])

    async def verify(self, request: Request, routes: RouteTable) -> Authentic | Response:
        return Authentic(self.secret)

    def decode(self, body: bytes) -> Decoded:
        return self.decoded

    def challenge(self, request: Request, routes: RouteTable) -> Response:
        return self._provider.challenge(request, routes)

    def secret_of(self, endpoint: Endpoint) -> str:
        return self._provider.secret_of(endpoint)


class _Spine:
    """One node's ingress and actors, without a network, on a store in memory."""

    def __init__(self, provider: WebhookProvider) -> None:
        self.now = 0
        self.store = _Witness()
        self.provider = _Stored(provider)
        self.routes = RouteTable(self.store)
        count = itertools.count(1)

        def fresh(prefix: str) -> str:
            return new_id(prefix, self.now, next(count).to_bytes(10, "big"))

        def clock() -> int:
            return self.now

        feed = Feed(self.store)
        journal = Journal(self.store, feed, clock, on_fenced=lambda _: None)
        self.tree = Tree(self.store, feed, journal, clock, fresh)
        self.ingress = Ingress(self.provider, self.routes, self.tree, self.store, clock, fresh, commit_seconds=PATIENCE)

    async def take(self, body: bytes, decoded: Decoded) -> None:
        """Take items as if they had just come."""
        self.provider.decoded = decoded
        answer = await self.ingress.handle(Request("POST", self.provider.path, b"", (), body, "replay"))
        if answer.status != 200:
            raise RuntimeError(f"the rerun was answered {answer.status}: {answer.body.decode(errors='replace')}")


@asynccontextmanager
async def _spine(provider: WebhookProvider, routes: Routes) -> AsyncIterator[_Spine]:
    spine = _Spine(provider)
    for tenant in routes.tenants:
        await spine.store.add_tenant(tenant)
    for endpoint in routes.endpoints:
        await spine.store.add_endpoint(endpoint)
    async with trio.open_nursery() as services:
        await services.start(spine.routes.run)
        async with trio.open_nursery() as nursery:
            await nursery.start(spine.tree.run)
            yield spine
            spine.tree.stop()
        services.cancel_scope.cancel()


async def _rerun(webhooks: Sequence[RawWebhook], provider: WebhookProvider, routes: Routes) -> _Rerun:
    found = _Rerun()
    async with _spine(provider, routes) as spine:
        for webhook in webhooks:
            spine.now = webhook.received_at
            try:
                decoded = provider.decode(webhook.body)
            except RemoteProtocolError:
                found.aside["undecodable"] += 1
                continue
            owners = [_owners(spine, item) for item in decoded.items]
            spine.provider.secret = next((provider.secret_of(each) for owned in owners for each in owned), "")
            for item, owned in zip(decoded.items, owners, strict=True):
                keys = {
                    each.tenant: dedupe_key(each.tenant, item.endpoint or item.account, item.dedupe)
                    for each in owned
                    if provider.secret_of(each) == spine.provider.secret
                }
                await spine.take(webhook.body, Decoded([item], []))
                found.events += [
                    _Event(append.tenant, append.endpoint, webhook.id, event.kind, msgspec.json.decode(event.body), key)
                    for append, event in spine.store.committed
                    if event.kind in _ABOUT and (key := keys.get(append.tenant, b""))
                ]
                spine.store.committed.clear()
            if decoded.bad:
                found.aside["bad_item"] += len(decoded.bad)
            found.aside.update(entry.reason for entry in spine.store.aside)
            spine.store.aside.clear()
            found.secrets[webhook.id] = spine.provider.secret
    return found


def _owners(spine: _Spine, item: Item) -> list[Endpoint]:
    """Return the endpoints an item names, whoever signed; of an account's, one a tenant."""
    if item.endpoint is not None:
        endpoint = spine.routes.endpoint(spine.provider.name, item.endpoint)
        return [] if endpoint is None else [endpoint]
    found = reversed(spine.routes.endpoints_of_account(spine.provider.name, item.account))
    return list({each.tenant: each for each in found}.values())


def _repeats(
    webhooks: Sequence[RawWebhook], rerun: _Rerun, now: Sequence[_Event], recorded: set[bytes]
) -> list[Repeat]:
    news: dict[str, dict[bytes, None]] = defaultdict(dict)
    for event in now:
        if event.key not in recorded:
            news[event.webhook][event.key] = None
    return [
        Repeat(webhook, rerun.secrets[webhook.id], tuple(news[webhook.id]))
        for webhook in webhooks
        if webhook.id in news
    ]
