"""The directory: which conversation an item belongs to.

Owns the way from (tenant, endpoint, external id) to a conversation, and the merging of conversations whose contacts turn out to be one
person. Must not know how an item is handled once it is there.

Theory of operation. A contact has several external ids (phone number, business-scoped id, …) and a provider names some of them each time.
An id that leads somewhere is remembered here (least recently used go first) and durably as an alias, written in the commit that first names
it. A contact none of whose ids lead anywhere gets a new conversation id at once, in memory; it becomes durable with the
conversation's first event, or is forgotten with the process.

When the ids of one contact lead to several conversations, they are one person's: the oldest conversation survives; each other surrenders (its last
event) and the survivor takes over its messages and ids. Both steps are idempotent and always go in that direction, so an
interruption between them is mended by whichever item next comes to the one that surrendered.

Everything between two awaits is atomic here, and ids are only ever pointed somewhere between awaits; that is all the locking there is, but for
merges, which take turns.
"""

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable, Sequence
from hashlib import blake2b

import trio

from actors.ports import CONTROL, Answer, Clock, Contended, Moved, NewId, Surrender, Surrendered, TakeOver
from protocol.commands import ContactRef
from protocol.ids import CONVERSATION
from store.contract import Store

REMEMBERED = 500_000
"""Ids held in memory, some 150 bytes each; for a million active contacts, half of the look-ups are still free."""

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
        self._merging = trio.Lock()

    def lookup(self, endpoint: str, external_ids: Sequence[str]) -> str | None:
        """Return the conversation if every one of the ids is remembered and they agree; else None: `resolve` has to decide."""
        leads = self._leads
        found = None
        for external_id in external_ids:
            lead = leads.get((endpoint, external_id))
            if lead is None or (found is not None and lead != found):
                return None
            found = lead
        return found

    async def resolve(self, tenant: str, endpoint: str, contacts: Iterable[ContactRef]) -> None:
        """See to it that `lookup` answers for each of `contacts`. One query for all of them.

        Raises:
            StoreUnavailable: the aliases cannot be read.
            Contended, and what asking a conversation raises: a merge did not come to its end; try again.
        """
        unknown = [
            ids for ids in (contact.external_ids() for contact in contacts) if self.lookup(endpoint, ids) is None
        ]
        if not unknown:
            return
        stored = await self._store.find_conversations(tenant, endpoint, list({each for ids in unknown for each in ids}))
        for ids in unknown:
            # What is remembered is newer than what was read: nobody else points ids (SINGLE-WRITER).
            leads = {self._leads.get((endpoint, each)) or stored.get(each) for each in ids} - {None}
            conversations = sorted(lead for lead in leads if lead is not None)
            survivor = conversations[0] if conversations else self._new_id(CONVERSATION)
            if len(conversations) > 1:
                survivor = await self._merge(tenant, endpoint, conversations)
            self._point(endpoint, ids, survivor)

    async def follow(self, tenant: str, endpoint: str, conversation: str, moved: Moved) -> None:
        """Learn from an actor's `Moved` answer, so that resolving again leads on."""
        if moved.external_id is None:
            await self._merge(tenant, endpoint, [moved.into, conversation])
        else:
            # Another process pointed the id meanwhile. What led to `conversation` by memory alone is forgotten.
            self._forget(endpoint, conversation)
            self._point(endpoint, [moved.external_id], moved.into)

    def relearn(
        self, tenant: str, endpoint: str, conversation: str, added: Sequence[str], removed: Sequence[str]
    ) -> None:
        """Take note of a committed change of a contact's ids."""
        for external_id in removed:
            if self._leads.get((endpoint, external_id)) == conversation:
                del self._leads[endpoint, external_id]
        self._point(endpoint, added, conversation)

    def statistics(self) -> int:
        """Return how many ids are remembered."""
        return len(self._leads)

    async def _merge(self, tenant: str, endpoint: str, conversations: Sequence[str]) -> str:
        """Merge all into the first; return where everything leads in the end."""
        survivor, *others = conversations
        async with self._merging:
            for other in others:
                answer = await self._ask(tenant, other, Surrender(survivor, endpoint, self._clock()), CONTROL)
                if isinstance(answer, Moved):  # it ended elsewhere before: what led to it leads there
                    self._repoint(endpoint, other, answer.into)
                    raise Contended(f"{other} had ended in {answer.into}")
                if not isinstance(answer, Surrendered):
                    raise Contended(f"{other} did not surrender")
                taken = await self._ask(
                    tenant,
                    survivor,
                    TakeOver(other, answer.contact, endpoint, absorb_key(survivor, other), self._clock()),
                    CONTROL,
                )
                if isinstance(taken, Moved):
                    self._repoint(endpoint, survivor, taken.into)
                    raise Contended(f"{survivor} had ended in {taken.into}")
                self._point(endpoint, answer.contact.external_ids(), survivor)
                self._repoint(endpoint, other, survivor)
        return survivor

    def _point(self, endpoint: str, external_ids: Iterable[str], conversation: str) -> None:
        leads = self._leads
        for external_id in external_ids:
            leads[endpoint, external_id] = conversation
            leads.move_to_end((endpoint, external_id))
        while len(leads) > self._remembered:
            leads.popitem(last=False)

    def _repoint(self, endpoint: str, old: str, new: str) -> None:
        for key, lead in self._leads.items():  # a merge is rare, and a scan of memory cheaper than a second index
            if lead == old and key[0] == endpoint:
                self._leads[key] = new

    def _forget(self, endpoint: str, conversation: str) -> None:
        for key in [key for key, lead in self._leads.items() if lead == conversation and key[0] == endpoint]:
            del self._leads[key]


def absorb_key(survivor: str, other: str) -> bytes:
    """Return the dedupe key under which a conversation takes another one over once."""
    return blake2b(f"absorb:{survivor}:{other}".encode(), digest_size=16).digest()
