"""The feed: every committed event, pushed once encoded to everyone who follows its tenant (promise NO-GAP).

Owns, for each tenant somebody watches, the newest events in a bounded ring, and the subscribers. Must not know sockets: a subscriber says
how it wants an event encoded and takes the result.

Theory of operation
-------------------
1. Offsets are allocated in the commit and the journal publishes in commit order, so what a tenant's ring holds is an unbroken run
   (base, head]. Everything at or below `head` is committed; something above it may be, too: the journal publishes after the commit.
2. A subscriber that resumes reads from the store up to the ring's base, never beyond: what lies above comes from the ring or is still to be
   published, and would come twice. Then the rest of the ring is delivered and the subscriber attached in one step without a
   checkpoint, so nothing can fall between.
3. Nothing is published for a tenant that nobody watches. So whoever begins to watch one first makes it known (`watched`) and then reads
   once more what was committed before that: such an event would otherwise wait for the next one to be noticed.
4. The same reading answers a subscriber that is ahead of the ring: it may come from a REST snapshot of a commit that is about to be published.
5. Where a commit did not pass here (a jump in the offsets, or `interrupt` by the journal) the run is broken: the ring is dropped and
   everyone is told where they stand, to follow again from there. An unwatched ring is dropped some time after the last subscriber left.
6. A commit given up may become visible after everyone has followed again, and its repetition is a duplicate that publishes nothing. Hence
   `doubt`: such a tenant is interrupted once more when it is certain what became of the commit.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol

import msgspec
import trio

from protocol.frames import SnapshotRequired, Topics, event_fields
from store.contract import FeedHead, StoredEvent

RING_EVENTS = 4096
RING_BYTES = 512 * 1024
"""Half of a client's queue (1 MiB): attaching delivers a whole ring at once and must not, by itself, make a client slow.

Counted are the events themselves; what they are encoded to is kept beside them and takes a few times as much.
"""
DOUBT = 5.0
"""Seconds after which a commit given up is over: the server ends it by itself after 1.5 (`statement_timeout`)."""
PAGE = 100
"""Events per read while catching up: some 60 KB. A page is held while its client takes it, by every client that resumes at the same time."""


class Subscriber(Protocol):
    """One follower. `encode` is shared by all of its kind, so that each event is encoded once per kind, not per follower."""

    @property
    def encode(self) -> Callable[[bytes], Any]:
        """Turn `protocol.frames.event_fields` into what `deliver` takes. The same object for all followers that can share the result."""

    def deliver(self, frame: Any, offset: int) -> None:
        """Take one event, without blocking or raising. A follower whose queue is full closes itself; it never stops the others."""

    async def ready(self) -> None:
        """Return when the follower has room: a ring (RING_BYTES), and an event. Raises Cancelled if the task is, even when there is room."""

    def interrupted(self, offset: int) -> None:
        """Hear that the feed let go of the follower. What it wanted up to `offset` has been delivered: follow again from there."""


class FeedReader(Protocol):
    """What the feed needs of the store."""

    async def feed_head(self, tenant: str) -> FeedHead: ...  # noqa: D102  see store.contract.Store

    async def read_feed(self, tenant: str, *, after: int, limit: int = PAGE) -> list[StoredEvent]: ...  # noqa: D102


class FeedStatistics(msgspec.Struct, frozen=True):
    """Counts since the start, and what is held now."""

    watched_tenants: int
    subscribers: int
    ring_bytes: int
    published: int
    delivered: int
    encoded: int


class _Entry:
    """One event in a ring, with what it was encoded to so far."""

    __slots__ = ("conversation", "encoded", "endpoint", "fields", "offset")

    def __init__(self, event: StoredEvent) -> None:
        self.offset = event.offset
        self.conversation = event.stream
        self.endpoint = event.endpoint
        self.fields = event_fields(
            event.stream, event.endpoint, event.offset, event.version, event.recorded_at, event.body
        )
        self.encoded: dict[Callable[[bytes], Any], Any] = {}


class _TenantFeed:
    """The ring and the followers of one tenant. The ring holds the offsets (base, head]."""

    __slots__ = ("base", "bytes", "complete", "epoch", "followers", "head", "left_at", "ring")

    def __init__(self, epoch: str, head: int) -> None:
        self.epoch = epoch
        self.base = head
        self.head = head
        self.bytes = 0
        self.ring: deque[_Entry] = deque()
        self.followers: dict[Subscriber, Topics] = {}
        self.left_at: float | None = trio.current_time()
        self.complete = False
        """Whether what was committed between the reading of `head` and the first publishing has been read, too."""


class Feed:
    """All tenants' feeds of this process. Every method but `follow` is synchronous, and `follow` attaches without a checkpoint."""

    def __init__(self, store: FeedReader, *, linger: float = 60.0) -> None:
        """Read gaps from `store`; keep an unwatched tenant's ring for `linger` seconds, for reconnects."""
        self._store = store
        self._linger = linger
        self._doubted: dict[str, float] = {}
        self._feeds: dict[str, _TenantFeed] = {}
        self._published = 0
        self._delivered = 0
        self._encoded = 0

    def watched(self, tenant: str) -> bool:
        """Tell whether publishing for `tenant` has any effect: the journal builds no events for one that nobody watches.

        To be asked after the commit.
        """
        return tenant in self._feeds

    def publish(self, events: Sequence[StoredEvent]) -> None:
        """Deliver committed events, in commit order, to whoever follows their tenant. What was published before is skipped."""
        for event in events:
            feed = self._feeds.get(event.tenant)
            if feed is None or event.offset <= feed.head:
                continue
            if event.offset != feed.head + 1:
                self.interrupt((event.tenant,))
                continue
            entry = _Entry(event)
            feed.ring.append(entry)
            feed.head = event.offset
            feed.bytes += len(entry.fields)
            while len(feed.ring) > RING_EVENTS or feed.bytes > RING_BYTES:
                old = feed.ring.popleft()
                feed.base = old.offset
                feed.bytes -= len(old.fields)
            self._published += 1
            # A copy: a follower that has no room leaves on the way.
            for follower, topics in tuple(feed.followers.items()):
                if topics.everything or topics.want(entry.endpoint, entry.conversation):
                    self._deliver(entry, follower)

    def doubt(self, tenants: Iterable[str]) -> None:
        """Hear that a commit of `tenants` may have happened, or may still: interrupt them now, and again once it must be visible.

        Whoever follows again at once may read before such a commit becomes visible, and it is never published. So they are interrupted once
        more when a later commit of the tenant has waited for it (`settle`), and by the sweep when none comes.
        """
        again = trio.current_time() + DOUBT
        tenants = set(tenants)
        self._doubted.update(dict.fromkeys(tenants, again))
        self.interrupt(tenants)

    def settle(self, tenants: Iterable[str]) -> None:
        """Hear, before it is published, that a transaction took its turn in the feeds of `tenants`: whatever was doubtful is visible."""
        if self._doubted:
            self.interrupt([tenant for tenant in tenants if self._doubted.pop(tenant, None) is not None])

    def interrupt(self, tenants: Iterable[str]) -> None:
        """Let go of everyone who follows one of `tenants`: a commit of theirs may have happened that will never be published here.

        They follow again from where they stand, and so find out from the store.
        """
        for tenant in tenants:
            feed = self._feeds.pop(tenant, None)
            if feed is not None:
                for follower in feed.followers:
                    follower.interrupted(feed.head)

    async def follow(
        self,
        tenant: str,
        topics: Topics,
        subscriber: Subscriber,
        *,
        epoch: str | None = None,
        offset: int | None = None,
    ) -> tuple[str, int] | SnapshotRequired:
        """Deliver what `subscriber` missed after (`epoch`, `offset`), attach it, and return the (epoch, offset) it is at.

        Without a position it starts at the newest event. A subscriber that already follows the tenant is moved to the new topics. There is no
        checkpoint between the attachment and the return.

        Raises StoreUnavailable. Then, and when cancelled or refused, it is not attached; what was delivered was in order and without gap.
        """
        self.unfollow(tenant, subscriber)
        while True:
            feed = await self._open(tenant)
            if offset is not None:
                if epoch is not None and epoch != feed.epoch:
                    return SnapshotRequired("epoch_changed", feed.epoch, feed.head)
                epoch = feed.epoch
                if offset > feed.head:
                    await self._complete(tenant, feed)
                    if self._feeds.get(tenant) is not feed:
                        continue
                    if offset > feed.head:
                        return SnapshotRequired("ahead", feed.epoch, feed.head)
                while offset < feed.base:
                    page = await self._store.read_feed(tenant, after=offset, limit=min(PAGE, feed.base - offset))
                    if not page or page[0].offset != offset + 1:
                        return SnapshotRequired("too_old", feed.epoch, feed.head)
                    for event in page:
                        await subscriber.ready()
                        if topics.want(event.endpoint, event.stream):
                            self._deliver(_Entry(event), subscriber)
                        offset = event.offset
            await subscriber.ready()
            if self._feeds.get(tenant) is feed and (offset is None or offset >= feed.base):
                self._attach(feed, topics, subscriber, feed.head if offset is None else offset)
                return feed.epoch, feed.head
            # The ring moved on, was broken or dropped while the subscriber made room: go on from what it has.

    def unfollow(self, tenant: str, subscriber: Subscriber) -> None:
        """Stop delivering to `subscriber`. Harmless when it does not follow."""
        feed = self._feeds.get(tenant)
        if feed is not None and feed.followers.pop(subscriber, None) is not None and not feed.followers:
            feed.left_at = trio.current_time()

    def sweep(self) -> None:
        """Drop the rings that nobody has watched for the linger time, look again where in doubt. Called now and then by the node."""
        now = trio.current_time()
        for tenant, again in self._doubted.items():
            if again <= now:
                self._doubted[tenant] = math.inf  # once: what is later still is for `settle`
                self.interrupt((tenant,))
        for tenant, feed in list(self._feeds.items()):
            if not feed.followers and feed.left_at is not None and now - feed.left_at >= self._linger:
                del self._feeds[tenant]

    def statistics(self) -> FeedStatistics:
        """Return counts and sizes."""
        feeds = self._feeds.values()
        return FeedStatistics(
            watched_tenants=len(feeds),
            subscribers=sum(len(feed.followers) for feed in feeds),
            ring_bytes=sum(feed.bytes for feed in feeds),
            published=self._published,
            delivered=self._delivered,
            encoded=self._encoded,
        )

    async def _open(self, tenant: str) -> _TenantFeed:
        """Return the tenant's feed, watched and complete."""
        feed = self._feeds.get(tenant)
        if feed is None:
            known = await self._store.feed_head(tenant)
            # Another follower may have made it meanwhile.
            feed = self._feeds.setdefault(tenant, _TenantFeed(known.epoch, known.head))
        if not feed.complete:
            await self._complete(tenant, feed)
        return feed

    async def _complete(self, tenant: str, feed: _TenantFeed) -> None:
        """Publish what is committed above the head. What the journal publishes meanwhile is skipped here, or there, by its offset."""
        while self._feeds.get(tenant) is feed:
            page = await self._store.read_feed(tenant, after=feed.head, limit=PAGE)
            self.publish(page)
            if len(page) < PAGE:
                feed.complete = True
                return

    def _attach(self, feed: _TenantFeed, topics: Topics, subscriber: Subscriber, cursor: int) -> None:
        # No checkpoint between the ring's last event and the attachment: this is where NO-GAP is won.
        for entry in feed.ring:
            if entry.offset > cursor and topics.want(entry.endpoint, entry.conversation):
                self._deliver(entry, subscriber)
        feed.followers[subscriber] = topics
        feed.left_at = None

    def _deliver(self, entry: _Entry, follower: Subscriber) -> None:
        encode = follower.encode
        frame = entry.encoded.get(encode)
        if frame is None:
            frame = entry.encoded[encode] = encode(entry.fields)
            self._encoded += 1
        self._delivered += 1
        follower.deliver(frame, entry.offset)
