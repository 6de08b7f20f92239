"""Many actors of one kind, each made when its first message arrives and dropped when it has been idle.

Owns the life of an actor: when it has its turn, what becomes of a crash, how it ends. Knows nothing of what
the actors are for.

An actor at rest is a few objects and no task. One that has messages, or is to end, is given to the workers.

The rule that makes this safe: **only the worker that carries an actor touches its behaviour**, be it to start
it, to give it a turn, to passivate or to stop it. `busy` says that the actor waits for a worker or is with
one, and there is one `_Cell` a key. Everyone else leaves a message (`mailbox`) or an order (`ending`).

The one exception is a suspended turn: no worker carries it, and what settles the reply it waits for goes on with it at once (`_resume`).
It is still the one turn of its actor: `busy` stays set, and `suspended` holds its envelopes.
"""

import logging
import math
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import trio

from supervisor.actor import Actor, ActorRef, ActorStatistics, GoOn, StopReason
from supervisor.child_spec import ChildSpec, Intensity, Node, Restart
from supervisor.envelope import Envelope, Suspension
from supervisor.errors import ActorStopped, Poisoned, PoolFull, Refused, SupervisorGaveUp, Undelivered
from supervisor.mailbox import Mailbox, MailboxLimits
from supervisor.restart_window import RestartWindow
from supervisor.workers import Workers

K = TypeVar("K", bound=Hashable)

logger = logging.getLogger("supervisor")

TURNS_PER_ACTIVATION = 16
"""After so many turns an actor queues behind the others: an endless mailbox delays them by no more."""

BACKOFF = 0.05
"""Seconds before an actor that failed to start is tried again; doubles with every failure in a row."""


class _Cell(Generic[K]):
    """All that there is of an actor at rest."""

    __slots__ = (
        "behaviour",
        "busy",
        "ending",
        "error",
        "failures",
        "go_on",
        "idle_since",
        "key",
        "mailbox",
        "scope",
        "suspended",
    )

    def __init__(self, key: K, mailbox: Mailbox) -> None:
        self.key = key
        self.mailbox = mailbox
        self.behaviour: Actor | None = None
        self.busy = False
        self.ending: StopReason | None = None
        self.failures = 0  # to start, or to hand over poison, in a row; the last of them is the error
        self.error: Exception | None = None
        self.idle_since = 0.0
        self.scope: trio.CancelScope | None = None  # of the worker that carries it
        self.suspended: Sequence[Envelope] | None = None  # what a turn holds that no worker carries
        self.go_on: GoOn | None = None  # the rest of that turn, once a worker has to


@dataclass(frozen=True, slots=True)
class PoolStatistics:
    """Present figures (`resident`, `active`, `depth`), and totals since the pool was made.

    `active` actors have work or are being stopped; `depth` is the messages waiting in all mailboxes.
    """

    resident: int
    active: int
    depth: int
    activations: int
    passivations: int
    crashes: int
    poisoned: int
    refused: int
    undelivered: int


class ActorPool(Generic[K]):
    """OTP's simple_one_for_one, with actors that exist as soon as they are spoken to.

    `factory` makes the behaviour for a key, for a new actor and again after each crash.
    `intensity` is how many crashes of all its actors together the pool bears before it gives up. It must leave
    room for poison: one such message costs up to `max_attempts` + 1 crashes.
    `max_resident` actors are kept; for one more, the one that has been idle longest is passivated.
    `idle_timeout`, in seconds, passivates whoever had nothing to do for that long.
    `on_poison(key, envelope, error)` takes over a message that crashed its actor `max_attempts` times; what it
    returns answers an `ask`. While it fails the actor does not go on.
    `on_undelivered(key, envelope)` gets back what was told and never handled; it must not raise.
    `eager` keys are started with the pool; the pool fails to start if one of them does.
    """

    def __init__(
        self,
        name: str,
        factory: Callable[[K], Actor],
        *,
        mailbox: MailboxLimits = MailboxLimits(),  # noqa: B008 - frozen
        intensity: Intensity = Intensity(100, 5.0),  # noqa: B008 - frozen
        max_resident: int = 100_000,
        idle_timeout: float = math.inf,
        max_attempts: int = 3,
        on_poison: Callable[[K, Envelope, Exception], Awaitable[Any]] | None = None,
        on_undelivered: Callable[[K, Envelope], None] | None = None,
        eager: Iterable[K] = (),
        kind: str = "pool",
    ) -> None:
        if max_resident < 1 or max_attempts < 1 or not idle_timeout > 0:
            raise ValueError("a pool needs max_resident and max_attempts >= 1, and an idle_timeout > 0 s")
        self.name = name
        self._factory = factory
        self._limits = mailbox
        self._intensity = intensity
        self._max_resident = max_resident
        self._idle_timeout = idle_timeout
        self._max_attempts = max_attempts
        self._on_poison = on_poison
        self._on_undelivered = on_undelivered
        self._eager = tuple(eager)
        self._kind = kind

        self._cells: dict[K, _Cell[K]] = {}
        self._idle: OrderedDict[K, _Cell[K]] = OrderedDict()  # the one that has been idle longest comes first
        self._gone: dict[K, trio.Event] = {}
        self._depth = self._activations = self._passivations = 0
        self._crashes = self._poisoned = self._refused = self._undelivered = 0
        # What follows is of one run.
        self._window = RestartWindow(intensity)
        self._nursery: trio.Nursery | None = None
        self._workers: Workers[_Cell[K]] | None = None
        self._accepting = False
        self._stop = trio.Event()
        self._empty = trio.Event()
        self._failure: SupervisorGaveUp | None = None

    # --- For those who talk to the actors

    def ref(self, key: K) -> ActorRef:
        """A handle on the actor of `key`. Costs nothing and brings nothing to life."""
        return ActorRef(self, key)

    def post(self, key: K, envelope: Envelope) -> None:
        """Put `envelope` into the mailbox of the actor of `key`, which is made if need be.

        Raises:
            ActorStopped: the actor is stopping, or the pool does not run.
            MailboxFull: the lane is full. PoolFull: all residents are busy and there may be no more of them.
            ValueError: there is no such lane or rank.
        """
        cell = self._cells.get(key)
        try:
            if cell is None:
                cell = self._admit(key)
                cell.mailbox.put_nowait(envelope)
                self._cells[key] = cell
            elif self._accepting and (cell.ending is None or cell.ending is StopReason.PASSIVATED):
                cell.mailbox.put_nowait(envelope)
            else:
                raise ActorStopped(f"an actor of {self.name} is stopping")
        except Refused:
            self._refused += 1
            raise
        self._depth += 1
        if not cell.busy:
            self._activations += 1
            self._schedule(cell)

    def order(self, key: K, reason: StopReason) -> None:
        """Make the actor of `key` end, if it is resident and not already ending as forcefully."""
        cell = self._cells.get(key)
        if cell is not None:
            self._order(cell, reason)

    async def wait_gone(self, key: K) -> None:
        """Wait until the actor of `key` is not resident."""
        if key in self._cells:
            await self._gone.setdefault(key, trio.Event()).wait()
        else:
            await trio.lowlevel.checkpoint()

    # --- For those who run the pool

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Be the pool until `stop` or cancellation, which kills. May be run again afterwards, empty.

        Raises SupervisorGaveUp when its actors crash more often than `intensity` allows; they are all killed.
        """
        if self._nursery is not None:
            raise RuntimeError(f"{self.name} runs already")
        self._window = RestartWindow(self._intensity)
        self._stop = trio.Event()
        self._empty = trio.Event()
        self._failure = None
        try:
            for key in self._eager:
                behaviour = self._factory(key)
                await behaviour.started()
                cell = self._cells[key] = _Cell(key, Mailbox(self._limits))
                cell.behaviour = behaviour
                self._rest(cell)
            async with trio.open_nursery() as self._nursery:
                self._workers = Workers(self._nursery, self._carry)
                self._accepting = True
                try:
                    if self._idle_timeout != math.inf:
                        self._nursery.start_soon(self._sweep)
                    task_status.started()
                    await self._stop.wait()
                    if self._cells:
                        await self._empty.wait()
                    self._nursery.cancel_scope.cancel()
                finally:
                    # From here on the nursery may close before this task runs again: whoever posts to an actor, or settles
                    # what one waits for, must not try to start a worker in it.
                    self._accepting = False
                    self._workers = None
        finally:
            self._nursery = None
            for cell in tuple(self._cells.values()):
                self._forget(cell)
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Take no more messages, let each actor finish its turn and end, return what waits; then `run` returns."""
        self._accepting = False
        self._stop.set()
        for cell in tuple(self._cells.values()):
            self._order(cell, StopReason.SHUTDOWN)

    def child_spec(self, *, restart: Restart = Restart.PERMANENT, shutdown: float = 5.0) -> ChildSpec:
        """This pool as a child of a supervisor."""
        return ChildSpec(self.name, self.run, restart, shutdown, stop=self.stop, inspect=self.inspect)

    def inspect(self) -> Node:
        """This pool's line of the supervision tree."""
        return Node(self.name, self._kind, self._state(), mailbox_depth=self._depth)

    def _state(self) -> str:
        if self._nursery is None:
            return "stopped"
        return "running" if self._accepting else "stopping"

    def statistics(self) -> PoolStatistics:
        """Figures, at a cost that does not depend on how many actors there are."""
        return PoolStatistics(
            resident=len(self._cells),
            active=len(self._cells) - len(self._idle),
            depth=self._depth,
            activations=self._activations,
            passivations=self._passivations,
            crashes=self._crashes,
            poisoned=self._poisoned,
            refused=self._refused,
            undelivered=self._undelivered,
        )

    def actor_statistics(self, key: K) -> ActorStatistics | None:
        """The actor of `key`, if it is resident."""
        cell = self._cells.get(key)
        return None if cell is None else ActorStatistics(cell.busy, cell.mailbox.statistics())

    # --- Coming, resting, going

    def _admit(self, key: K) -> _Cell[K]:
        """Make a cell for a new resident; beyond `max_resident` another one has to go for it.

        Going may take a while, and for that while there are more residents, but never more than twice as many.
        """
        if not self._accepting:
            raise ActorStopped(f"{self.name} does not run")
        if len(self._cells) >= self._max_resident:
            if not self._idle or len(self._cells) >= 2 * self._max_resident:
                raise PoolFull(f"{self.name}: all {len(self._cells)} actors are busy or going")
            self._order(next(iter(self._idle.values())), StopReason.PASSIVATED)
        return _Cell(key, Mailbox(self._limits))

    def _order(self, cell: _Cell[K], reason: StopReason) -> None:
        if cell.ending is not None and cell.ending >= reason:
            return
        cell.ending = reason
        if not cell.busy:
            self._schedule(cell)
        elif reason is StopReason.KILLED:
            if cell.scope is not None:
                cell.scope.cancel()
            elif cell.suspended is not None and cell.go_on is None:
                self._forget(cell)  # nobody else will: it is neither carried nor queued

    def _schedule(self, cell: _Cell[K]) -> None:
        cell.busy = True
        self._idle.pop(cell.key, None)
        if self._workers is not None:
            self._workers.add(cell)

    def _rest(self, cell: _Cell[K]) -> None:
        cell.busy = False
        cell.idle_since = trio.current_time()
        self._idle[cell.key] = cell

    def _forget(self, cell: _Cell[K]) -> None:
        """Make an end of the actor, and return what is in its mailbox."""
        del self._cells[cell.key]
        self._idle.pop(cell.key, None)
        if cell.suspended is not None:
            self._put_back(cell, cell.suspended)
            cell.suspended = cell.go_on = None
        self._depth -= cell.mailbox.depth
        for envelope in cell.mailbox.take(cell.mailbox.depth):
            error = Undelivered(envelope.message, outcome_unknown=envelope.begun)
            error.__cause__ = cell.error
            self._return(cell.key, envelope, error)
        if (gone := self._gone.pop(cell.key, None)) is not None:
            gone.set()
        if not self._cells and not self._accepting:
            self._empty.set()

    def _return(self, key: K, envelope: Envelope, error: Exception) -> None:
        """Give a message back: to whoever asked, as `error`; if nobody did, to the pool's owner."""
        self._undelivered += 1
        if envelope.reply is not None:
            envelope.fail(error)
        elif self._on_undelivered is not None:
            try:
                self._on_undelivered(key, envelope)
            except Exception:
                # The rest of the mailbox has to be returned whatever became of this one.
                logger.exception("on_undelivered failed", extra={"pool": self.name, "key": key})

    async def _sweep(self) -> None:
        """Passivate who has been idle too long. One task for all: the order of `_idle` is the order of their time."""
        while True:
            now = trio.current_time()
            while self._idle:
                cell = next(iter(self._idle.values()))
                if cell.idle_since + self._idle_timeout > now:
                    await trio.sleep_until(cell.idle_since + self._idle_timeout)
                    break
                self._order(cell, StopReason.PASSIVATED)
            else:
                await trio.sleep(self._idle_timeout)

    # --- Carrying an actor, which is a worker's work

    async def _carry(self, cell: _Cell[K], scope: trio.CancelScope) -> int:
        """Give one actor its activation: some turns, or its end. Gives back how many turns it had."""
        cell.scope = scope
        try:
            for turns in range(TURNS_PER_ACTIVATION):
                # The rest of a turn comes before an end, unless the end is a kill.
                ends = cell.ending is StopReason.KILLED or (cell.ending is not None and cell.go_on is None)
                if ends and not await self._end(cell):
                    return turns
                if not cell.mailbox.depth and cell.go_on is None:
                    self._rest(cell)
                    return turns
                if cell.behaviour is None:
                    await self._start(cell)
                else:
                    await self._turn(cell, cell.behaviour)
                if cell.suspended is not None and cell.go_on is None:
                    if cell.ending is StopReason.KILLED:  # in the turn, which outlived its cancellation
                        self._forget(cell)
                    return turns
        except BaseException:
            if cell.ending is StopReason.KILLED:
                self._forget(cell)
            raise
        finally:
            cell.scope = None
        self._schedule(cell)
        return TURNS_PER_ACTIVATION

    async def _start(self, cell: _Cell[K]) -> None:
        try:
            behaviour = self._factory(cell.key)
            await behaviour.started()
        except Exception as error:
            await self._failed(cell, error)
        else:
            cell.behaviour = behaviour
            cell.failures = 0
            cell.error = None

    async def _turn(self, cell: _Cell[K], behaviour: Actor) -> None:
        """One turn, or the rest of one. In careful mode, while something that crashed waits, with a single envelope."""
        go_on, envelopes = cell.go_on, cell.suspended
        if go_on is None or envelopes is None:
            mailbox = cell.mailbox
            before = mailbox.depth
            envelopes = mailbox.take(1 if mailbox.suspects else behaviour.batch)
            self._depth -= before - mailbox.depth
            if not envelopes:  # nobody waited for them any more
                return
            error = envelopes[0].error
            if error is not None and envelopes[0].attempts >= self._max_attempts:
                await self._poison(cell, envelopes[0], error)
                return
        cell.go_on = cell.suspended = None
        try:
            reply = await (behaviour.turn(envelopes) if go_on is None else go_on())
        except BaseException as error:
            self._turn_failed(cell, envelopes, error)
            if not isinstance(error, Exception):
                raise
        else:
            if reply is not None:
                self._suspend(cell, envelopes, reply)

    def _turn_failed(self, cell: _Cell[K], envelopes: Sequence[Envelope], error: BaseException) -> None:
        cell.behaviour = None
        self._put_back(cell, envelopes)
        if isinstance(error, Exception):
            if len(envelopes) == 1:
                envelopes[0].attempts += 1
                envelopes[0].error = error
            self._crashed(cell, error)

    def _suspend(self, cell: _Cell[K], envelopes: Sequence[Envelope], reply: Suspension[Any]) -> None:
        cell.suspended = envelopes
        reply.when_settled(lambda: self._resume(cell, envelopes, reply))

    def _resume(self, cell: _Cell[K], envelopes: Sequence[Envelope], reply: Suspension[Any]) -> None:
        """Go on with a suspended turn, in the task of whoever settled `reply`; that task gets no exception of it."""
        if cell.suspended is not envelopes or cell.behaviour is None:
            return  # killed meanwhile: its envelopes were returned
        cell.suspended = None
        try:
            rest = cell.behaviour.resumed(envelopes, reply)
        except Exception as error:
            self._turn_failed(cell, envelopes, error)
        else:
            if isinstance(rest, Suspension):
                self._suspend(cell, envelopes, rest)
                return
            if rest is not None:
                cell.suspended, cell.go_on = envelopes, rest
        if cell.scope is not None:
            return  # settled before the turn had returned: the worker that carries it sees the rest
        if cell.go_on is not None or cell.mailbox.depth or cell.ending is not None:
            self._schedule(cell)
        else:
            self._rest(cell)

    async def _end(self, cell: _Cell[K]) -> bool:
        """Carry out the order to end. True if the actor lives on, since passivation gives way to a message."""
        reason = cell.ending
        if reason is StopReason.PASSIVATED and cell.mailbox.depth:
            cell.ending = None
            return True
        behaviour, cell.behaviour = cell.behaviour, None
        if behaviour is not None and reason is not None and reason < StopReason.FAILED:
            try:
                await behaviour.stopped(reason)
            except Exception as error:
                self._crashed(cell, error)
        if cell.ending is StopReason.PASSIVATED:
            self._passivations += 1
            if cell.mailbox.depth:
                cell.ending = None
                return True
        self._forget(cell)
        return False

    # --- Crashes

    def _put_back(self, cell: _Cell[K], envelopes: Sequence[Envelope]) -> None:
        envelopes = [envelope for envelope in envelopes if not envelope.through]
        cell.mailbox.put_back(envelopes)
        self._depth += len(envelopes)

    async def _poison(self, cell: _Cell[K], envelope: Envelope, error: Exception) -> None:
        """Take a message that keeps crashing its actor out of its way, and into safety."""
        try:
            if self._on_poison is not None:
                envelope.answer(await self._on_poison(cell.key, envelope, error))
            else:
                poisoned = Poisoned(envelope.message)
                poisoned.__cause__ = error
                self._return(cell.key, envelope, poisoned)
        except BaseException as failure:
            self._put_back(cell, [envelope])
            if not isinstance(failure, Exception):
                raise
            await self._failed(cell, failure)
        else:
            self._poisoned += 1
            cell.failures = 0
            cell.error = None

    async def _failed(self, cell: _Cell[K], error: Exception) -> None:
        """The runtime's own work for this actor failed: wait before the next try, and give up after some."""
        cell.failures += 1
        cell.error = error
        self._crashed(cell, error)
        if cell.failures >= self._max_attempts:
            cell.ending = max(cell.ending or StopReason.FAILED, StopReason.FAILED)
        elif cell.ending is None:
            await trio.sleep(BACKOFF * 2 ** (cell.failures - 1))

    def _crashed(self, cell: _Cell[K], error: Exception) -> None:
        """Count a crash, and give the whole pool up when that is one too many."""
        self._crashes += 1
        logger.error("an actor crashed", exc_info=error, extra={"pool": self.name, "key": cell.key})
        if self._window.add(trio.current_time()) and self._nursery is not None and self._workers is not None:
            allowed = f"more than {self._intensity.restarts} crashes in {self._intensity.period:g} s"
            self._failure = SupervisorGaveUp(self.name, repr(cell.key), allowed)
            self._failure.__cause__ = error
            self._accepting = False
            cell.ending = StopReason.KILLED
            self._workers.clear()
            self._nursery.cancel_scope.cancel()


def actor_child(
    name: str,
    factory: Callable[[], Actor],
    *,
    mailbox: MailboxLimits = MailboxLimits(),  # noqa: B008 - frozen
    intensity: Intensity = Intensity(),  # noqa: B008 - frozen
    max_attempts: int = 3,
    on_poison: Callable[[str, Envelope, Exception], Awaitable[Any]] | None = None,
    on_undelivered: Callable[[str, Envelope], None] | None = None,
    restart: Restart = Restart.PERMANENT,
    shutdown: float = 5.0,
) -> tuple[ChildSpec, ActorRef]:
    """A single actor as a child of a supervisor: a pool of one, started eagerly and never passivated.

    Its crashes are mended in place, its mailbox kept, until `intensity` is exceeded. `Intensity(restarts=0)`
    makes the first crash the supervisor's business, and thereby its siblings' if the strategy says so; what
    waits in the mailbox is returned then.
    """
    pool = ActorPool[str](
        name,
        lambda _: factory(),
        mailbox=mailbox,
        intensity=intensity,
        max_resident=1,
        max_attempts=max_attempts,
        on_poison=on_poison,
        on_undelivered=on_undelivered,
        eager=(name,),
        kind="actor",
    )
    return pool.child_spec(restart=restart, shutdown=shutdown), pool.ref(name)
