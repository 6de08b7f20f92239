"""What an actor is to those who write one (`Actor`) and to those who talk to one (`ActorRef`).

Neither knows how an actor comes to have its turn: that is the pool's.
"""

import enum
import math
from collections.abc import Awaitable, Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from supervisor.envelope import Envelope, Reply, Suspension
from supervisor.mailbox import MailboxStatistics

if TYPE_CHECKING:
    from supervisor.pool import ActorPool


class StopReason(enum.IntEnum):
    """Why an actor ends, the more forceful the higher: an order under way is only replaced by a higher one."""

    PASSIVATED = 1  # it had nothing to do; its next message brings it back
    STOPPED = 2  # somebody asked it to
    SHUTDOWN = 3  # its pool stops
    FAILED = 4  # it could not be started, or its poison could not be handed over
    KILLED = 5  # in the middle of whatever it did


GoOn = Callable[[], Awaitable["Suspension[Any] | None"]]
"""The rest of a turn, for a worker to carry out."""


class Actor:
    """The behaviour of an actor: subclass it, and keep in it whatever may be lost and loaded again.

    No two of these methods ever run at once for one key, not even across a crash or a passivation. A method may
    await anything; meanwhile other actors have their turns. Give a subclass of which there are many
    `__slots__`. Context variables are those of the pool, not those of the sender.
    """

    __slots__ = ()

    batch: ClassVar[int] = 1
    """How many envelopes one turn may take."""

    async def started(self) -> None:
        """Load the state. Runs before the first turn of each new instance: at first, after a crash, on return."""

    async def turn(self, envelopes: Sequence[Envelope]) -> Suspension[Any] | None:
        """Handle `envelopes` (at least one, at most `batch`), the most urgent first.

        An envelope is through once it is answered with `Envelope.answer` or `Envelope.fail`, and at the latest
        when the turn is over. A turn may be over before it answers, and keep the replies to answer them later.
        If it raises, those that are not through are handled again.

        A turn that returns a `Suspension` is not over: it goes on in `resumed`. Until then the actor has no other
        turn, and nothing but its state and its envelopes is held for it.
        """
        for envelope in envelopes:
            envelope.answer(await self.receive(envelope.message))
        return None

    def resumed(self, envelopes: Sequence[Envelope], reply: Suspension[Any]) -> "Suspension[Any] | GoOn | None":
        """Go on with the turn that returned `reply`, which is settled now. Neither waits nor takes long: somebody else's task runs it.

        None: the turn is over. A `Suspension`: it waits once more. A `GoOn`: what is left has to wait for something; a worker
        calls it, and its result is taken as that of `turn`. Raising is a crash, as in `turn`.
        """
        raise NotImplementedError(f"{type(self).__name__} suspends no turns")

    async def receive(self, message: Any) -> Any:
        """Handle one message; what it returns answers `ask`. Raising is a crash, not an answer."""
        raise NotImplementedError(f"{type(self).__name__} handles no messages")

    async def stopped(self, reason: StopReason) -> None:
        """Say farewell: nothing runs after it. Is left out after a crash and on a kill, so nothing may depend on it."""


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """One resident actor. `busy` means that it has work or is being stopped."""

    busy: bool
    mailbox: MailboxStatistics


class ActorRef:
    """A cheap handle on the actor of one key, whether it is resident or not. It never goes stale."""

    __slots__ = ("_pool", "key")

    def __init__(self, pool: "ActorPool[Any]", key: Hashable) -> None:
        self._pool = pool
        self.key = key

    def __repr__(self) -> str:
        return f"<ActorRef {self.key!r} in {self._pool.name}>"

    def tell(self, message: Any, *, lane: int = 0, rank: int = 0) -> None:
        """Send `message`, without waiting and without an answer.

        Raises:
            MailboxFull: no room in this lane (`PoolFull`: none for a further actor).
            ActorStopped: the actor is stopping, or its pool does not run.
        """
        self._pool.post(self.key, Envelope(message, lane, rank))

    def ask_nowait(self, message: Any, *, lane: int = 0, rank: int = 0) -> Reply[Any]:
        """Send `message`; the answer will be in the reply. Raises as `tell` does."""
        reply: Reply[Any] = Reply()
        self._pool.post(self.key, Envelope(message, lane, rank, reply))
        return reply

    def ask_suspended(self, message: Any, *, lane: int = 0, rank: int = 0) -> Suspension[Any]:
        """Send `message`; for a turn to return what comes back. Raises as `tell` does."""
        reply: Suspension[Any] = Suspension()
        self._pool.post(self.key, Envelope(message, lane, rank, reply))
        return reply

    async def ask(self, message: Any, *, timeout: float = math.inf, lane: int = 0, rank: int = 0) -> Any:  # noqa: ASYNC109 - see Reply.wait
        """Send `message` and wait at most `timeout` seconds for the answer.

        Raises:
            MailboxFull, ActorStopped: as `tell` does; the message was not accepted.
            DeadlineExceeded: no answer in time; a message that has not begun by then is skipped.
            Undelivered: the actor ended first.
            Poisoned: the message crashed the actor too often, and its pool has no `on_poison` to answer.
        """
        return await self.ask_nowait(message, lane=lane, rank=rank).wait(timeout)

    def stop(self) -> None:
        """Let the actor finish its turn and end; what waits in its mailbox is returned. Does not wait for it.

        A message after its end brings a new instance to life, as for any actor that is not resident.
        """
        self._pool.order(self.key, StopReason.STOPPED)

    def kill(self) -> None:
        """End the actor now: its turn is cancelled and returned as well, its outcome unknown."""
        self._pool.order(self.key, StopReason.KILLED)

    async def wait_stopped(self) -> None:
        """Wait until the actor is not resident. From its own turn this would wait for ever."""
        await self._pool.wait_gone(self.key)

    def statistics(self) -> ActorStatistics | None:
        """What the actor is about; nothing if it is not resident."""
        return self._pool.actor_statistics(self.key)
