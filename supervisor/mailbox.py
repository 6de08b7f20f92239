"""The bounded queue of one actor: lanes by priority, ranks within a lane, arrival within a rank.

Pure data structure: it neither waits nor wakes anybody.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from supervisor.envelope import Envelope
from supervisor.errors import MailboxFull

RANKS = 256
"""A rank is below this, so that lane and rank make one small integer to order by."""


@dataclass(frozen=True, slots=True)
class MailboxLimits:
    """How many envelopes each lane holds; lane 0 is served first.

    Each lane has room of its own rather than a share of a total: a full lane never keeps another one's
    messages out, which is the point of having a lane for control messages.
    """

    lanes: tuple[int, ...] = (1000,)

    def __post_init__(self) -> None:
        if not self.lanes or min(self.lanes) < 1:
            raise ValueError("a mailbox needs at least one lane, and room for one message in each")

    @property
    def capacity(self) -> int:
        """How many envelopes fit in all lanes together."""
        return sum(self.lanes)


@dataclass(frozen=True, slots=True)
class MailboxStatistics:
    """`depth` has one figure per lane; `high_water` is the largest total there has been.

    `refused` were not let in; `expired` were skipped because their asker's deadline had passed.
    """

    depth: tuple[int, ...]
    refused: int
    expired: int
    high_water: int


class Mailbox:
    """A mailbox that takes little memory while it is empty: its queues exist while they hold something."""

    __slots__ = ("_depths", "_expired", "_high_water", "_limits", "_queues", "_refused", "depth", "suspects")

    def __init__(self, limits: MailboxLimits) -> None:
        self._limits = limits
        self._queues: dict[int, deque[Envelope]] | None = None  # by lane * RANKS + rank; none is empty
        self._depths = [0] * len(limits.lanes)
        self._refused = 0
        self._expired = 0
        self._high_water = 0
        self.depth = 0
        """How many envelopes wait in all lanes."""
        self.suspects = 0
        """How many of them have been in a turn that did not end well."""

    def put_nowait(self, envelope: Envelope) -> None:
        """Queue `envelope` behind those of its lane and rank. Raises MailboxFull, ValueError (no such lane)."""
        lane = envelope.lane
        if not 0 <= lane < len(self._depths) or not 0 <= envelope.rank < RANKS:
            raise ValueError(f"no such place in this mailbox: lane {lane}, rank {envelope.rank}")
        if self._depths[lane] >= self._limits.lanes[lane]:
            self._refused += 1
            raise MailboxFull(f"lane {lane} is full")
        self._queue(envelope).append(envelope)
        if self.depth > self._high_water:
            self._high_water = self.depth

    def put_back(self, envelopes: Sequence[Envelope]) -> None:
        """Queue again what `take` gave, ahead of all others of the same lane and rank, in the same order.

        Is never refused, so a lane that filled up meanwhile holds more than its limit until they are taken.
        """
        for envelope in reversed(envelopes):
            envelope.begun = True
            self._queue(envelope).appendleft(envelope)
        self.suspects += len(envelopes)

    def _queue(self, envelope: Envelope) -> deque[Envelope]:
        """Count `envelope` in, and find the queue it belongs to."""
        self.depth += 1
        self._depths[envelope.lane] += 1
        queues = self._queues
        if queues is None:
            queues = self._queues = {}
        priority = envelope.lane * RANKS + envelope.rank
        queue = queues.get(priority)
        if queue is None:
            queue = queues[priority] = deque()
        return queue

    def take(self, count: int) -> list[Envelope]:
        """Take up to `count` envelopes, the most urgent first, leaving out those nobody waits for any more."""
        taken: list[Envelope] = []
        queues = self._queues
        while queues and len(taken) < count:
            priority = min(queues)
            queue = queues[priority]
            while queue and len(taken) < count:
                envelope = queue.popleft()
                self.depth -= 1
                self._depths[envelope.lane] -= 1
                if envelope.begun:
                    self.suspects -= 1
                elif envelope.reply is not None and envelope.reply.expired:
                    self._expired += 1
                    continue
                taken.append(envelope)
            if not queue:
                del queues[priority]
        if not queues:
            self._queues = None
        return taken

    def statistics(self) -> MailboxStatistics:
        """What is in it now, and what has been."""
        return MailboxStatistics(tuple(self._depths), self._refused, self._expired, self._high_water)
