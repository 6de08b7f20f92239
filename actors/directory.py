"""The directory: which conversation an item belongs to.

Owns the way from (tenant, endpoint, external id) to a conversation, and the merging of conversations whose contacts turn out to be one
person. Must not know how an item is handled once it is there.

Theory of operation. A contact has several external ids (phone number, business-scoped id, …) and a provider names some of them each time.
An id that leads somewhere is remembered here (least recently looked up go first) and durably as an alias, written in the commit that first
names it. A contact none of whose ids lead anywhere gets a new conversation id at once, in memory; it becomes durable with the
conversation's first event, or is forgotten with the process.

When the ids of one contact lead to several conversations, they are one person's: the oldest conversation survives; each other surrenders (its last
event) and the survivor takes over its messages and ids. Both steps are idempotent and always go in that direction, so an
interruption between them is mended by whichever item next comes to the one that surrendered, wherever its survivor has ended since.

Everything between two awaits is atomic here, and ids are only ever pointed somewhere between awaits; that is all the locking there is, but for
merges, which take turns on their endpoint. What was read is not believed if an id was forgotten meanwhile: it might be that one.
"""

from collections import OrderedDict, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b

import trio

from actors.ports import CONTROL, Answer, Clock, Contended, Moved, NewId, Recorded, Surrender, Surrendered, TakeOver
from protocol.commands import ContactRef
from protocol.ids import CONVERSATION
from store.contract import Store
from supervisor import DeadlineExceeded

REMEMBERED = 500_000
"""Ids held in memory, some 400 bytes each; for a million active contacts, half of the look-ups are still free."""

MERGE_SECONDS = 2.0
"""How long a merge may take, its turn included: as long as a webhook may wait for its commit."""

ATTEMPTS = 8
"""Queries of one resolution, or links of a chain of merges, before the item goes back to its sender. One or two are the rule."""

Ask = Callable[[str, str, object, int], Awaitable[Answer]]
"""ask(tenant, conversation, message, lane)"""


class Directory:
    """Resolves contacts to conversations, for all tenants of this process."""

    def __init__(self, store: Store, clock: Clock, new_id: NewId, ask: Ask, *, remembered: int = REMEMBERED) -> None:
        """`ask` sends a message to a conversation's actor; used for merges only."""
        self._store = store
        self._clock = clock
        self._new_id = new_id
        self._ask = ask
        self._remembered = remembered
        self._leads: OrderedDict[tuple[str, str], str] = OrderedDict()  # (endpoint, external id) → conversation
        self._keys: dict[str, tuple[tuple[str, str], ...]] = {}  # and back
        self._forgotten = 0  # how often an id ceased to lead somewhere
        self._merging: defaultdict[tuple[str, str], trio.Lock] = defaultdict(trio.Lock)  # by tenant and endpoint

    def lookup(self, endpoint: str, external_ids: Sequence[str]) -> str | None:
        """Return the conversation if every one of the ids is remembered and they agree; else None: `resolve` has to decide."""
        leads = self._leads
        found = None
        for external_id in external_ids:
            key = endpoint, external_id
            lead = leads.get(key)
            if lead is None or (found is not None and lead != found):
                return None
            leads.move_to_end(key)
            found = lead
        return found

    async def resolve(self, tenant: str, endpoint: str, contacts: Iterable[ContactRef]) -> None:
        """See to it that `lookup` answers for each of `contacts`. Raises as `unite` does."""
        await self.unite(tenant, endpoint, [contact.external_ids() for contact in contacts])

    async def unite(self, tenant: str, endpoint: str, persons: Sequence[Sequence[str]]) -> None:
        """See to it that `lookup` answers for each of `persons`, given by all their external ids. One query for all of them.

        Raises:
            StoreUnavailable: the aliases cannot be read.
            Contended, DeadlineExceeded, and what asking a conversation raises: a merge did not come to its end; try again.
        """
        for _ in range(ATTEMPTS):
            unknown = [ids for ids in persons if self.lookup(endpoint, ids) is None]
            if not unknown:
                return
            forgotten = self._forgotten
            stored = await self._store.find_conversations(
                tenant, endpoint, list({each for ids in unknown for each in ids})
            )
            for ids in unknown:
                # What is remembered is newer than what was read: nobody else points ids (SINGLE-WRITER).
                leads = {self._leads.get((endpoint, each)) or stored.get(each) for each in ids}
                conversations = sorted(lead for lead in leads if lead is not None)
                survivor = conversations[0] if conversations else self._new_id(CONVERSATION)
                if len(conversations) > 1 and self._forgotten == forgotten:
                    survivor = await self._merge(tenant, endpoint, conversations)
                if self._forgotten != forgotten:
                    break
                self._point(endpoint, ids, survivor)
            else:
                return
        raise Contended("the ids kept changing")

    async def follow(
        self, tenant: str, endpoint: str, conversation: str, moved: Moved, external_ids: Sequence[str]
    ) -> None:
        """Learn from a `Moved` answer to an item of the contact with `external_ids`, so that resolving again leads on.

        Raises as `unite` does.
        """
        found = self.lookup(endpoint, external_ids)
        if found is not None and found != conversation:
            return  # learnt from another item's
        if moved.external_id is None:
            await self._merge(tenant, endpoint, [moved.into, conversation])
        else:
            # What led to `conversation` by memory alone is forgotten: the database knows better.
            self._forget([*self._keys.get(conversation, ()), (endpoint, moved.external_id)])

    def relearn(
        self, tenant: str, endpoint: str, conversation: str, added: Sequence[str], removed: Sequence[str]
    ) -> None:
        """Take note of a committed change of a contact's ids."""
        self._forgotten += bool(removed)
        self._forget([key for each in removed if self._leads.get(key := (endpoint, each)) == conversation])
        self._point(endpoint, added, conversation)

    def statistics(self) -> int:
        """Return how many ids are remembered."""
        return len(self._leads)

    async def _merge(self, tenant: str, endpoint: str, conversations: Sequence[str]) -> str:
        """Merge all into the first, which is the oldest; return where everything leads in the end."""
        survivor, *others = conversations
        with trio.move_on_after(MERGE_SECONDS):
            async with self._merging[tenant, endpoint]:
                for other in others:
                    survivor = await self._join(tenant, endpoint, survivor, other)
            return survivor
        raise DeadlineExceeded(f"{survivor} was not merged in time")

    async def _join(self, tenant: str, endpoint: str, survivor: str, other: str) -> str:
        """Make one of two conversations, each of which may have ended in a third already; return the one that goes on."""
        for _ in range(ATTEMPTS):
            end = await self._hand_over(tenant, endpoint, other, survivor)
            if end == survivor:
                return survivor
            survivor, other = sorted((survivor, end))
        raise Contended(f"{survivor} kept ending elsewhere")

    async def _hand_over(self, tenant: str, endpoint: str, other: str, into: str) -> str:
        """End `other` in `into`, or finish its end in another; return who took it over: the last in the chain of those that ended."""
        forgotten = self._forgotten
        answer = await self._ask(tenant, other, Surrender(into, endpoint, self._clock()), CONTROL)
        if isinstance(answer, Moved):  # it had ended elsewhere before
            into = answer.into
            answer = await self._ask(tenant, other, Surrender(into, endpoint, self._clock()), CONTROL)
        if not isinstance(answer, Surrendered):
            raise Contended(f"{other} did not surrender")
        for _ in range(ATTEMPTS):
            take_over = TakeOver(other, answer.contact, answer.standing, endpoint, absorb_key(other), self._clock())
            taken = await self._ask(tenant, into, take_over, CONTROL)
            if isinstance(taken, Recorded):
                break
            if not isinstance(taken, Moved) or taken.external_id is not None:
                raise Contended(f"{into} did not take {other} over")
            into = taken.into
        else:
            raise Contended(f"the end of {other} was not found")
        keys = self._keys.get(other, ())
        if self._forgotten == forgotten:
            self._point(endpoint, [external_id for _, external_id in keys], into)
        else:
            self._forget(keys)
        return into

    def _point(self, endpoint: str, external_ids: Iterable[str], conversation: str) -> None:
        leads = self._leads
        for external_id in external_ids:
            key = endpoint, external_id
            before = leads.get(key)
            if before != conversation:
                if before is not None:
                    self._unlink(key, before)
                leads[key] = conversation
                self._keys[conversation] = (*self._keys.get(conversation, ()), key)
            leads.move_to_end(key)
        while len(leads) > self._remembered:
            self._unlink(*leads.popitem(last=False))

    def _forget(self, keys: Iterable[tuple[str, str]]) -> None:
        for key in keys:
            conversation = self._leads.pop(key, None)
            if conversation is not None:
                self._unlink(key, conversation)
                self._forgotten += 1

    def _unlink(self, key: tuple[str, str], conversation: str) -> None:
        left = tuple(each for each in self._keys[conversation] if each != key)
        if left:
            self._keys[conversation] = left
        else:
            del self._keys[conversation]


def absorb_key(other: str) -> bytes:
    """Return the dedupe key under which a conversation is taken over once, whoever does it."""
    return blake2b(f"absorb:{other}".encode(), digest_size=16).digest()
