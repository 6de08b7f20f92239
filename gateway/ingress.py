"""A webhook's one handler: verify ▸ decode ▸ split per conversation ▸ wait for the commit ▸ answer (promise ACK-AFTER-COMMIT).

Owns what becomes of every item of every webhook, whichever lane brought it: delivered, kept as unrouted, undecodable or bad, or refused as a
whole so that the provider brings it again. Must not know a provider's fields, SQL or sockets.

What is answered:

| case | answer | what is kept |
|---|---|---|
| no, wrong or repeated signature | 401 | a counter |
| signed, not decodable | 200 | the body, and a quarantine entry `undecodable` |
| an item that cannot be decoded | 200 | its siblings; a quarantine entry `bad_item` |
| an endpoint or account nobody has, or another app's | 200 | the body, and an entry `unrouted` |
| everything committed, now or earlier | 200 | all of it |
| a message that crashes its actor | 200 | an entry `crashed`, the body |
| the database away, a mailbox full, no commit in time | 503, Retry-After | perhaps a part; repeating is harmless |
"""

from collections.abc import Sequence
from hashlib import blake2b
from time import perf_counter

import msgspec

from actors.conversation import lane_of
from actors.distribution import SECONDS, Distribution, Histogram
from actors.ports import Answer, Clock, Contended, Deliver, Moved, NewId, Notice, NotOwner, Quarantined, Recorded
from actors.tenant import TenantTree
from actors.tree import Tree
from gateway.http import Request, Response
from gateway.problems import problem
from gateway.providers.contract import Authentic, Decoded, WebhookProvider
from gateway.routing import RouteTable
from protocol.commands import BadItem, ContactRef, Item, RecordNotice, RecordReceipt
from protocol.errors import RemoteProtocolError
from protocol.ids import QUARANTINED, WEBHOOK
from protocol.machines.conversation import Happened
from store.contract import Endpoint, QuarantineEntry, RawWebhook, Store, StoreUnavailable
from supervisor import DeadlineExceeded, Deadlines, Poisoned, Refused, Reply, Undelivered

COMMIT_SECONDS = 2.0
"""How long a webhook may wait for its commit. Meta wants half of all answers within 250 ms and 99 % within 1 s; past 2 s it is better
served by a 503 and its own retry than by a growing queue."""

HOPS = 4
"""How often an item is routed again because its conversation had just ended in another."""

PAYLOAD = 1 << 20
"""Bytes of a bad body shown in a quarantine entry; the raw webhook has the whole."""

OK = Response(200)

_NOBODY = ContactRef()

_Trees = dict[str, TenantTree]
"""The running subtrees of a webhook's tenants."""
_Places = dict[tuple[str, str], str]
"""(tenant, message id) → conversation, for receipts that name no contact."""


class IngressStatistics(msgspec.Struct, frozen=True):
    """Totals since the start: webhooks by their answer, items by their fate; and how long acknowledged webhooks took."""

    acknowledged: int
    unauthenticated: int
    undecodable: int
    unavailable: int
    items: int
    duplicates: int
    unrouted: int
    bad: int
    quarantined: int
    seconds: Histogram


class _Sent:
    """An item on its way: where it was posted, and the reply to wait for."""

    __slots__ = ("conversation", "endpoint", "lane", "message", "rank", "reply", "tenant")

    def __init__(
        self,
        tenant: str,
        endpoint: str,
        conversation: str,
        message: Deliver,
        lane: int,
        rank: int,
        reply: Reply[Answer],
    ) -> None:
        self.tenant = tenant
        self.endpoint = endpoint
        self.conversation = conversation
        self.message = message
        self.lane = lane
        self.rank = rank
        self.reply = reply


class Ingress:
    """The webhooks of one provider."""

    def __init__(
        self,
        provider: WebhookProvider,
        routes: RouteTable,
        tree: Tree,
        store: Store,
        clock: Clock,
        new_id: NewId,
        *,
        commit_seconds: float = COMMIT_SECONDS,
    ) -> None:
        self.provider = provider
        self._routes = routes
        self._tree = tree
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self.deadlines = Deadlines(commit_seconds)
        """Has to run beside the ingress: it ends the waiting for commits that do not come."""
        self._acknowledged = self._unauthenticated = self._undecodable = self._unavailable = 0
        self._items = self._duplicates = self._unrouted = self._bad = self._quarantined = 0
        self._seconds = Distribution(SECONDS)

    def statistics(self) -> IngressStatistics:
        """Return totals."""
        return IngressStatistics(
            self._acknowledged,
            self._unauthenticated,
            self._undecodable,
            self._unavailable,
            self._items,
            self._duplicates,
            self._unrouted,
            self._bad,
            self._quarantined,
            self._seconds.snapshot(),
        )

    async def handle(self, request: Request) -> Response:
        """Answer the provider. Never raises for anything the request or the database does."""
        if request.method == "POST":
            return await self._post(request)
        if request.method == "GET":
            return self.provider.challenge(request, self._routes)
        return problem("method_not_allowed", f"{request.method} is not served here.", allow="GET, POST")

    async def _post(self, request: Request) -> Response:
        began = perf_counter()
        try:
            signed = await self.provider.verify(request, self._routes)
            if not isinstance(signed, Authentic):
                self._unauthenticated += 1
                return signed
            webhook = RawWebhook(
                self._new_id(WEBHOOK), self.provider.name, self._clock(), request.body, verdict="routed"
            )
            try:
                decoded = self.provider.decode(request.body)
            except RemoteProtocolError as error:
                self._undecodable += 1
                await self._keep(
                    webhook, "undecodable", [self._entry("undecodable", error.detail, request.body, webhook)]
                )
            else:
                await self._take(webhook, decoded, signed.secret)
        except StoreUnavailable:
            self._unavailable += 1
            return problem("store_unavailable", "The database cannot take the webhook now.")
        except (Refused, DeadlineExceeded, Undelivered, Poisoned, NotOwner, Contended) as error:
            self._unavailable += 1
            return problem("overloaded", f"The webhook cannot be taken now ({error.code}).")
        self._acknowledged += 1
        self._seconds.add(perf_counter() - began)
        return OK

    async def _take(self, webhook: RawWebhook, decoded: Decoded, secret: str) -> None:
        """Deliver every item that has an owner, keep aside those without, and return when all is committed."""
        items = decoded.items
        self._items += len(items)
        aside = [self._set_aside(bad, webhook) for bad in decoded.bad]
        deliverable: list[tuple[Item, Endpoint]] = []
        for item in items:
            owners = await self._owners(item, secret)
            if owners:
                deliverable.extend((item, owner) for owner in owners)
            else:
                self._unrouted += 1
                aside.append(self._unrouted_entry(item, webhook))
        if aside:
            verdict = "partial" if deliverable else "unrouted" if items else "undecodable"
            webhook = msgspec.structs.replace(webhook, verdict=verdict)
        sent, notices = self._post_all(deliverable, webhook, aside, *await self._prepare(deliverable))
        if aside:
            await self._keep(webhook, webhook.verdict, aside)
        for each in sent:
            await self._settle(each)
        for reply in notices:
            self._count(await reply.wait())

    async def _owners(self, item: Item, secret: str) -> Sequence[Endpoint]:
        """Return the endpoints an item is for, of those that the signature speaks for."""
        routes, name, secret_of = self._routes, self.provider.name, self.provider.secret_of
        if item.endpoint is not None:
            endpoint = routes.endpoint(name, item.endpoint) or await routes.find_endpoint(name, item.endpoint)
            return (endpoint,) if endpoint is not None and secret_of(endpoint) == secret else ()
        # A notice about an account goes to each of its tenants once.
        by_tenant = {each.tenant: each for each in reversed(routes.endpoints_of_account(name, item.account))}
        return [each for each in by_tenant.values() if secret_of(each) == secret]

    async def _prepare(self, deliverable: Sequence[tuple[Item, Endpoint]]) -> tuple[_Trees, _Places]:
        """Wait for all that posting needs, so that it needs no waiting: tenants running, contacts resolved, nameless receipts found.

        One query an endpoint for its contacts, one a tenant for receipts that name nobody (hidden numbers, reference 4): theirs is their
        message's conversation.
        """
        trees: _Trees = {}
        unknown: dict[tuple[str, str], list[ContactRef]] = {}
        nameless: dict[str, dict[str, None]] = {}
        lookup = self._tree.directory.lookup
        for item, owner in deliverable:
            tenant, contact, command = owner.tenant, item.contact, item.command
            if tenant not in trees:
                trees[tenant] = self._tree.running(tenant) or await self._tree.tenant(tenant)
            if contact is not None:
                if lookup(owner.external_id, contact.external_ids()) is None:
                    unknown.setdefault((tenant, owner.external_id), []).append(contact)
            elif isinstance(command, RecordReceipt):
                nameless.setdefault(tenant, {})[command.message_id] = None
        places: _Places = {}
        for tenant, message_ids in nameless.items():
            for found in await self._store.find_messages(tenant, list(message_ids)):
                places[tenant, found.message_id] = found.conversation
        for (tenant, endpoint), contacts in unknown.items():
            await self._tree.directory.resolve(tenant, endpoint, contacts)
        return trees, places

    def _post_all(
        self,
        deliverable: Sequence[tuple[Item, Endpoint]],
        webhook: RawWebhook,
        aside: list[QuarantineEntry],
        trees: _Trees,
        places: _Places,
    ) -> tuple[list[_Sent], list[Reply[Answer]]]:
        """Post every item to its actor, in the webhook's order; what turns out to lead nowhere is added to `aside`."""
        sent: list[_Sent] = []
        notices: list[Reply[Answer]] = []
        for item, owner in deliverable:
            tenant, endpoint, command, contact = owner.tenant, owner.external_id, item.command, item.contact
            key = dedupe_key(tenant, item.endpoint or item.account, item.dedupe)
            if isinstance(command, RecordNotice):
                notice = Notice(item.account, item.endpoint, item.at or webhook.received_at, command, key, webhook)
                reply = self._tree.notify(trees[tenant], notice)
                self.deadlines.watch(reply)
                notices.append(reply)
                continue
            if contact is not None:
                conversation = self._tree.directory.lookup(endpoint, contact.external_ids())
                if conversation is None:
                    raise Contended("the contact's ids changed while they were looked up")
            elif isinstance(command, RecordReceipt):
                conversation = places.get((tenant, command.message_id))
            else:
                conversation = None
            if conversation is None:
                self._unrouted += 1
                aside.append(self._unrouted_entry(item, webhook, tenant))
                continue
            happened = Happened(endpoint, contact or _NOBODY, item.at or webhook.received_at, command)
            message = Deliver(happened, key, webhook)
            lane, rank = lane_of(command)
            reply = self._tree.deliver(trees[tenant], conversation, message, lane, rank)
            self.deadlines.watch(reply)
            sent.append(_Sent(tenant, endpoint, conversation, message, lane, rank, reply))
        return sent, notices

    async def _settle(self, sent: _Sent) -> None:
        """Wait until the item is committed, going after it where its conversation has moved."""
        for _ in range(HOPS):
            answer = await sent.reply.wait()
            if not isinstance(answer, Moved):
                self._count(answer)
                return
            sent.conversation, sent.reply = await self._tree.redeliver(
                sent.tenant, sent.endpoint, sent.conversation, answer, sent.message, sent.lane, sent.rank
            )
            self.deadlines.watch(sent.reply)
        raise Contended("the conversation kept moving")

    def _count(self, answer: Answer) -> None:
        if isinstance(answer, Recorded):
            self._duplicates += answer.duplicate
        elif isinstance(answer, Quarantined):
            self._quarantined += 1

    async def _keep(self, webhook: RawWebhook, verdict: str, entries: Sequence[QuarantineEntry]) -> None:
        await self._tree.journal.keep(msgspec.structs.replace(webhook, verdict=verdict), entries)

    def _set_aside(self, bad: BadItem, webhook: RawWebhook) -> QuarantineEntry:
        self._bad += 1
        endpoint = None if bad.endpoint is None else self._routes.endpoint(self.provider.name, bad.endpoint)
        return self._entry("bad_item", bad.reason, bad.payload, webhook, endpoint.tenant if endpoint else None)

    def _unrouted_entry(self, item: Item, webhook: RawWebhook, tenant: str | None = None) -> QuarantineEntry:
        where = f"endpoint {item.endpoint}" if item.endpoint is not None else f"account {item.account}"
        detail = f"{item.dedupe}: nobody has {where}" if tenant is None else f"{item.dedupe}: names no conversation"
        return self._entry("unrouted", detail, msgspec.json.encode(item), webhook, tenant)

    def _entry(
        self, reason: str, detail: str, payload: bytes, webhook: RawWebhook, tenant: str | None = None
    ) -> QuarantineEntry:
        return QuarantineEntry(
            id=self._new_id(QUARANTINED),
            at=webhook.received_at,
            reason=reason,
            detail=detail,
            payload=payload[:PAYLOAD],
            tenant=tenant,
            webhook=webhook.id,
        )


def dedupe_key(tenant: str, scope: str, dedupe: str) -> bytes:
    """Return the 16-byte key under which the store records an item once (EFFECTIVELY-ONCE), within its tenant and endpoint or account."""
    return blake2b(f"{tenant}\0{scope}\0{dedupe}".encode(), digest_size=16).digest()
