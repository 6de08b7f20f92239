"""Time limits for thousands of connections at the price of one timer.

Owns the list of live connections and the sweep over their deadlines. Must not know HTTP, lanes' inner life or sockets.

A cancel scope for each read costs more than the read (trio keeps deadlines in a heap); a float that one task
compares four times a second costs nothing, 10,000 connections being half a millisecond a sweep.
"""

import enum
from math import inf

import trio

from gateway.listener.answers import Answers


class Phase(enum.Enum):
    """What a connection is doing, and so what running out of time means for it."""

    IDLE = "idle"
    """Nothing of a request has come: closed in silence."""
    RECEIVING = "receiving"
    """In the middle of a request: answered 408."""
    WORKING = "working"
    """Ours to finish; has no deadline here."""
    LINGERING = "lingering"
    """Answered for the last time."""


class Life:
    """One connection under watch. The lane sets `phase` and `deadline`; the sweep cancels `scope`."""

    __slots__ = ("deadline", "expired", "lane", "phase", "scope")

    def __init__(self, deadline: float) -> None:
        self.lane = "ingest"
        self.phase = Phase.IDLE
        self.deadline = deadline
        self.expired = False
        self.scope = trio.CancelScope()

    def renew(self) -> trio.CancelScope:
        """Return a scope for the next lane, the last one's being used up."""
        self.scope = trio.CancelScope()
        return self.scope

    def expire(self) -> None:
        """End it: whatever it waits for is cancelled, once."""
        self.expired = True
        self.deadline = inf
        self.scope.cancel()


class Watch:
    """The live connections of a listener."""

    def __init__(self, tick: float, answers: Answers) -> None:
        self.lives: set[Life] = set()
        self.draining = False
        self._tick = tick
        self._idle_until = inf
        self._answers = answers
        self._leaving = trio.lowlevel.ParkingLot()

    def add(self, seconds: float) -> Life:
        """Watch a new connection, which has `seconds` for its first request."""
        life = Life(trio.current_time() + seconds)
        self.lives.add(life)
        return life

    def remove(self, life: Life) -> None:
        """Forget a connection."""
        self.lives.remove(life)
        self._leaving.unpark_all()

    async def wait_left(self) -> None:
        """Wait until a connection ends."""
        await self._leaving.park()

    async def sweep(self) -> None:
        """Expire what is late, for ever. A deadline within the next tick counts as passed, so no limit is exceeded."""
        while True:
            await trio.sleep(self._tick)
            self._answers.refresh_date()
            soon = trio.current_time() + self._tick
            no_idling = self._idle_until <= soon
            late = [life for life in self.lives if life.deadline <= soon or (no_idling and life.phase is Phase.IDLE)]
            for life in late:
                life.expire()

    def reopen(self) -> None:
        """Let connections stay again after a `drain`."""
        self.draining = False
        self._idle_until = inf

    async def drain(self, idle_seconds: float) -> None:
        """Wait until every connection has ended. Idle ones have `idle_seconds` for a request that is on its way."""
        self.draining = True
        self._idle_until = trio.current_time() + idle_seconds
        while self.lives:
            await self.wait_left()
