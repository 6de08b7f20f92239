"""A dashboard's session: who it is, what it follows, and how it ends, whichever transport carries it.

Owns the requests of `protocol.frames` and their answers, the subscription, and the registry of all sessions (cap, revocation, shutdown). Must
not know bytes, sockets or HTTP: it meets the client as a `Link`.

Theory of operation
-------------------
1. A session lives as long as the `async with Sessions.open(link)` of its transport, and its nursery holds everything it starts.
2. Requests are handled synchronously, by a table from frame to method; one that takes time is carried on by a task and answered later. So the
   transport goes on reading (a `ping` is answered during a catch-up) and a new request can overtake an old one.
3. A subscription is one task: it follows the feed, then waits to hear that it was interrupted, and follows again from where it stands. The end
   of the task, whatever its cause, ends the following. A new subscription first stops the one before; what was stopped delivers
   nothing more, because the feed delivers only after `ready`, where it learns of it.
4. Nothing waits for a client but its own catch-up. Live events are pushed into the link's bounded queue; the link that has no room closes
   itself (SLOW_CONSUMER), and the client resumes from its offset.
"""

import random
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Protocol

import msgspec
import structlog
import trio

from actors.feed import RING_BYTES, Feed
from protocol import frames
from protocol.frames import (
    Authenticate,
    ClientFrame,
    Ping,
    Pong,
    Refused,
    ServerFrame,
    SnapshotRequired,
    Subscribe,
    Subscribed,
    Topics,
    Unsubscribe,
    Unsubscribed,
    Welcome,
    parse_topics,
)
from store.contract import StoreUnavailable

log = structlog.get_logger(__name__)

CATCH_UP_BYTES = RING_BYTES // 2
"""A catch-up waits while more than this is queued. With a whole ring on top, and the few bytes around each event, a queue of 1 MiB holds."""
RETRY_SECONDS = 0.25
RETRY_MAX_SECONDS = 5.0
"""An interrupted subscription tries the store again after the first, doubling up to the second, so a database that comes back is noticed
within 5 s (RELIABILITY 28) and 500 sessions are at most some 200 reads a second for one that is away."""


class Identity(Protocol):
    """Whom an API key stands for."""

    @property
    def tenant(self) -> str:
        """The tenant's id."""

    @property
    def key(self) -> str:
        """The key's id, never the key."""


Authenticator = Callable[[str], Awaitable[Identity | None]]
"""From an API key to whom it stands for; None for one that is not valid. May raise StoreUnavailable.

Between the look-up and the return there is no checkpoint: a key that is revoked in between would slip through `Sessions.close_key`.
"""

Answer = Callable[[ServerFrame], None]
"""Takes the one answer to a request."""


class Link(Protocol):
    """How a session reaches its client. Nothing here waits but `wait_below`."""

    @property
    def encode(self) -> Callable[[bytes], Any]:
        """See `actors.feed.Subscriber.encode`."""

    def push(self, frame: Any) -> bool:
        """Queue one encoded event. False: the link is closed; or it closes now, with SLOW_CONSUMER, for there was no room."""

    def send(self, frame: ServerFrame) -> None:
        """Queue a frame that no request asked for. Where there is no room, as `push`."""

    async def wait_below(self, mark: int) -> None:
        """Wait until fewer than `mark` bytes are queued, or the link is closed. Raises Cancelled in any case when the task is cancelled."""

    def close(self, code: int, reason: str) -> None:
        """Begin to end the connection; its `Sessions.open` ends a bounded time later. Only the first call counts."""

    @property
    def queued_bytes(self) -> int:
        """What waits to be written, in flight included."""


class SessionRefused(Exception):
    """There is no room for another session (OVERLOADED), or the gateway stops (GOING_AWAY)."""

    def __init__(self, code: int, reason: str) -> None:
        super().__init__(code, reason)
        self.code = code
        self.reason = reason


class SessionStatistics(msgspec.Struct, frozen=True):
    """Sessions open now, how many of them are authenticated, and what is queued for all of them; and counts since the start."""

    open: int
    authenticated: int
    queued_bytes: int
    opened: int
    refused: int


class _Subscription:
    """One following of the feed: an `actors.feed.Subscriber`."""

    def __init__(self, feed: Feed, link: Link, tenant: str, topics: Topics, request: Subscribe, answer: Answer) -> None:
        self.encode = link.encode
        self._feed = feed
        self._link = link
        self._push = link.push  # looked up once: it is called for every event
        self._tenant = tenant
        self._topics = topics
        self._epoch = request.epoch
        self._offset = request.offset
        self._id = request.id
        self._answer: Answer | None = answer
        self._scope = trio.CancelScope()
        self._interrupted = trio.Event()

    def deliver(self, frame: Any, offset: int) -> None:
        self._offset = offset
        if not self._push(frame):
            self.stop()

    async def ready(self) -> None:
        await self._link.wait_below(CATCH_UP_BYTES)

    def interrupted(self, offset: int) -> None:
        self._offset = offset
        self._interrupted.set()

    def stop(self) -> None:
        """End it. A request that still waits for its answer is told so."""
        self._scope.cancel()
        self._feed.unfollow(self._tenant, self)
        self._settle(Refused(frames.SUPERSEDED, "a newer request came before this one had caught up", self._id))

    async def run(self) -> None:
        """Follow until stopped, or until the feed or the store say no."""
        with self._scope:
            try:
                await self._follow()
            finally:
                self._feed.unfollow(self._tenant, self)

    async def _follow(self) -> None:
        pause = RETRY_SECONDS
        while True:
            try:
                outcome = await self._feed.follow(
                    self._tenant, self._topics, self, epoch=self._epoch, offset=self._offset
                )
            except StoreUnavailable:
                if self._settle(Refused(frames.STORE_UNAVAILABLE, "the database cannot be read now", self._id)):
                    return
                await trio.sleep(pause * random.uniform(0.5, 1))  # noqa: S311  spreads the sessions, guards nothing
                pause = min(2 * pause, RETRY_MAX_SECONDS)
                continue
            if isinstance(outcome, SnapshotRequired):
                if not self._settle(msgspec.structs.replace(outcome, id=self._id)):
                    self._link.send(outcome)
                return
            self._epoch, self._offset = outcome
            self._settle(Subscribed(*outcome, self._id))
            await self._interrupted.wait()
            self._interrupted = trio.Event()
            pause = RETRY_SECONDS

    def _settle(self, frame: ServerFrame) -> bool:
        """Answer the request. False when it has been answered before."""
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(frame)
        return answer is not None


class Session:
    """One connection of a dashboard. Made by `Sessions.open`."""

    def __init__(self, feed: Feed, link: Link, nursery: trio.Nursery) -> None:
        self.connection = secrets.token_urlsafe(9)
        """Names it in logs; authorises nothing."""
        self.identity: Identity | None = None
        self.link = link
        self.nursery = nursery
        self._feed = feed
        self._subscription: _Subscription | None = None

    def identify(self, identity: Identity) -> Welcome:
        """Belong to `identity` from now on. Returns what to tell the client."""
        self.identity = identity
        return Welcome(self.connection, identity.tenant)

    def request(self, frame: ClientFrame, answer: Answer) -> None:
        """Handle one request. `answer` is called exactly once, now or later, unless the connection ends first."""
        if self.identity is None:
            answer(Refused(frames.NOT_AUTHENTICATED, "show an API key first", getattr(frame, "id", None)))
        else:
            _HANDLERS[type(frame)](self, self.identity, frame, answer)

    def close(self, code: int, reason: str) -> None:
        """End the connection with one of the close codes of `protocol.frames`. May be called again; the first counts."""
        self.link.close(code, reason)
        if self._subscription is not None:
            self._subscription.stop()

    def _authenticate(self, _: Identity, frame: Authenticate, answer: Answer) -> None:
        answer(Refused(frames.ALREADY_AUTHENTICATED, "this connection has shown its key"))

    def _subscribe(self, identity: Identity, frame: Subscribe, answer: Answer) -> None:
        topics = parse_topics(frame.topics)
        if isinstance(topics, Refused):
            answer(msgspec.structs.replace(topics, id=frame.id))
            return
        if (frame.epoch is None) != (frame.offset is None):
            answer(Refused(frames.BAD_POSITION, "a position is an epoch and an offset", frame.id))
            return
        if self._subscription is not None:
            self._subscription.stop()
        self._subscription = _Subscription(self._feed, self.link, identity.tenant, topics, frame, answer)
        self.nursery.start_soon(self._subscription.run)

    def _unsubscribe(self, _: Identity, frame: Unsubscribe, answer: Answer) -> None:
        if self._subscription is not None:
            self._subscription.stop()
            self._subscription = None
        answer(Unsubscribed(frame.id))

    def _ping(self, _: Identity, frame: Ping, answer: Answer) -> None:
        answer(Pong(frame.id))


# What a client may ask for. A frame that is not here is not in `ClientFrame` either, so it was refused before.
_HANDLERS: Mapping[type, Callable[[Session, Identity, Any, Answer], None]] = {
    Authenticate: Session._authenticate,
    Subscribe: Session._subscribe,
    Unsubscribe: Session._unsubscribe,
    Ping: Session._ping,
}


class Sessions:
    """All sessions of this process."""

    def __init__(self, feed: Feed, authenticate: Authenticator, *, limit: int = 10_000) -> None:
        """Allow `limit` connections at a time, those that have not shown a key yet included."""
        self.authenticate = authenticate
        self._feed = feed
        self._limit = limit
        self._sessions: set[Session] = set()
        self._stopping = False
        self._empty = trio.Event()
        self._opened = 0
        self._refused = 0

    @asynccontextmanager
    async def open(self, link: Link) -> AsyncIterator[Session]:
        """Hold a session for as long as its connection lives; whatever it started ends with it.

        Raises:
            SessionRefused: before anything else happened.
        """
        if self._stopping or len(self._sessions) >= self._limit:
            self._refused += 1
            if self._stopping:
                raise SessionRefused(frames.GOING_AWAY, "the gateway stops")
            raise SessionRefused(frames.OVERLOADED, "too many connections")
        async with trio.open_nursery() as nursery:
            session = Session(self._feed, link, nursery)
            self._sessions.add(session)
            self._opened += 1
            try:
                yield session
            finally:
                self._sessions.discard(session)
                if not self._sessions:
                    self._empty.set()
                nursery.cancel_scope.cancel()

    def close_key(self, key: str) -> int:
        """Close the live sessions of a key that was revoked, by its id. Returns how many."""
        return self._close_where(lambda identity: identity.key == key)

    def close_tenant(self, tenant: str) -> int:
        """Close the live sessions of a tenant that was suspended. Returns how many."""
        return self._close_where(lambda identity: identity.tenant == tenant)

    def reopen(self) -> None:
        """Let clients in again after a `shutdown`."""
        self._stopping = False

    async def shutdown(self, *, grace: float = 5.0) -> None:
        """Let nobody in any more and close all sessions with GOING_AWAY; cancel those that are still there after `grace` seconds."""
        self._stopping = True
        for session in tuple(self._sessions):
            session.close(frames.GOING_AWAY, "the gateway stops")
        with trio.move_on_after(grace):
            while self._sessions:
                self._empty = trio.Event()
                await self._empty.wait()
        for session in tuple(self._sessions):
            log.warning("session_cut_off", connection=session.connection)
            session.nursery.cancel_scope.cancel()

    def statistics(self) -> SessionStatistics:
        """Return counts and what is queued."""
        return SessionStatistics(
            open=len(self._sessions),
            authenticated=sum(session.identity is not None for session in self._sessions),
            queued_bytes=sum(session.link.queued_bytes for session in self._sessions),
            opened=self._opened,
            refused=self._refused,
        )

    def _close_where(self, concerned: Callable[[Identity], bool]) -> int:
        found = [session for session in self._sessions if session.identity and concerned(session.identity)]
        for session in found:
            session.close(frames.UNAUTHENTICATED, "the key is no longer valid")
        return len(found)
