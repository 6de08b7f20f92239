"""An actor runtime after OTP, in trio's structured concurrency. Imports trio and nothing else of Parley.

Where to look: `child_spec` (what a supervisor is told), `supervisor`, `restart_window`; `actor` (write one,
talk to one), `envelope`, `mailbox`; `pool` (the life of actors), `workers` (the tasks that carry them);
`registry`; `errors` (each with a stable code). Everything public is importable from here.

# What is supervised

A **task child** is `async def start(*, task_status)`: a service with a task of its own. An **actor** is a
mailbox and a behaviour; it costs a task only while it has something to do, and below 1 KB at rest. Actors live
in an `ActorPool`, by key, made on demand (OTP: simple_one_for_one). A pool and a `Supervisor` are task children
(`.child_spec()`); a single, permanent actor is `actor_child()`, which is a pool of one.

# Supervisors

*Start.* Children start in the order of the list, each when the one before has called `started()`. If one fails,
those that run are stopped in reverse order and `run` raises `ChildStartFailed`.

*Restart.* PERMANENT children are restarted whenever they end by themselves, TRANSIENT ones if they raised,
TEMPORARY ones never, and are forgotten. ONE_FOR_ONE restarts the child; REST_FOR_ONE stops those after it, the
last one first, and starts it and them in order; ONE_FOR_ALL does so with all. A child stopped by `stop_child`
stays stopped while its siblings are restarted (in OTP it would start). A start that fails during a restart
is the next failure.

*Escalation.* More than `Intensity.restarts` restarts of any children within `Intensity.period` seconds: all
children are stopped and `run` raises `SupervisorGaveUp` with the last failure as its cause. For the supervisor
above that is a failure like any other.

*Stop.* `stop()` and cancelling `run` do the same: children stop in reverse order, each before the one before it
is touched. A child with `ChildSpec.stop` is asked first and has `shutdown` seconds; then it is cancelled and
has `shutdown` seconds to clean up. A child without it is cancelled at once. Nothing in Python ends a task that
shields itself or swallows its cancellation; such a child is reported OVERDUE, its siblings are stopped
meanwhile, and `run` returns only when it has ended. It is never replaced while it runs: a restart that needs
this escalates. Only the process's end is a kill in OTP's sense. A child that has not called `started()` yet is
cancelled at once, and waited for without limit.

# Actors

*Order.* An actor has one turn at a time. Messages of one sender in one lane and rank are handled in the order
they were sent. A lower lane goes first, in a lane the lower rank; among those the first to come. There is
no order between actors. After 16 turns an actor queues behind the others; after 64 a worker yields to all tasks.

*Full.* Each lane has its own limit. `tell` and `ask` into a full one raise `MailboxFull`; nothing has happened
then. With `max_resident` actors all busy, or as many again still being
passivated, a message for a further one is refused with `PoolFull`.

*Deadline.* An `ask` whose time-out has passed raises `DeadlineExceeded`. Its message is skipped if it has not
begun, and handled to the end if it has. An `ask` that is cancelled for another reason is handled.

*Suspended.* A turn may wait for a reply without a worker: it returns a `Suspension`, and whoever settles that calls `resumed` at
once. It is one turn all the same: the actor has no other meanwhile, a crash in `resumed` is a crash of the turn, a stop waits
for it, and a kill returns its messages as `outcome_unknown`, after which the reply is ignored.

*Crash.* A turn that raises is a crash. Messages it had answered are done with; all others go back to the front
of their lanes, in order. The behaviour is discarded (without `stopped`), the factory makes a new one, `started`
loads its state. Until those messages are through, every turn takes one message only. A message that crashes a
turn of its own has one attempt more; at `max_attempts` it is handed to `on_poison`, whose result answers
its `ask`, and the actor goes on without it. Without that hook the ask raises `Poisoned`, and a tell goes to
`on_undelivered`. So a message can be handled more than once, never two at a time: effects belong in a store
that knows what it has seen.

*Failing to start.* If the factory, `started` or `on_poison` raises, no message is blamed. It is tried again
after 0.05 s, 0.1 s, ...; after `max_attempts` failures in a row the actor is given up and what waits is returned.

*Intensity.* Each of these failures counts in the pool's window. Beyond it the pool kills all its actors and
raises `SupervisorGaveUp`.

*Stop.* `ref.stop()`: the turn is finished, messages from now on are refused (`ActorStopped`), `stopped` is
called, what waits is returned. `pool.stop()` does it to all. *Kill.* `ref.kill()`: the turn is cancelled,
`stopped` is not called, and the turn's messages are returned too, as `outcome_unknown`. Cancelling a pool's `run`
kills all. Either way the next message to a key makes a new actor, if the pool takes messages.

*Undelivered.* A message that was accepted and then returned fails its `ask` with `Undelivered`; a tell goes
to `on_undelivered(key, envelope)`. Without that hook it is only counted.

*Passivation.* Who has been idle for `idle_timeout`, or longest when `max_resident` is exceeded, gets
`stopped(PASSIVATED)` and is dropped. A message that arrives meanwhile waits for that to end, and then for the
`started` of a new behaviour; there are never two of one key, and nothing is lost.

*Context variables* in a turn are those of the pool, not the sender's, and may be left over from another turn.
"""

from supervisor.actor import Actor, ActorRef, ActorStatistics, GoOn, StopReason
from supervisor.child_spec import ChildSpec, ChildState, Intensity, Node, Restart, Strategy
from supervisor.envelope import Deadlines, Envelope, Reply, Suspension
from supervisor.errors import (
    ActorStopped,
    ChildExists,
    ChildOverdue,
    ChildRunning,
    ChildStartFailed,
    DeadlineExceeded,
    MailboxFull,
    NameTaken,
    NotRunning,
    Poisoned,
    PoolFull,
    Refused,
    SupervisionError,
    SupervisorGaveUp,
    Undelivered,
    UnknownChild,
)
from supervisor.mailbox import Mailbox, MailboxLimits, MailboxStatistics
from supervisor.pool import ActorPool, PoolStatistics, actor_child
from supervisor.registry import Registry
from supervisor.restart_window import RestartWindow
from supervisor.supervisor import Supervisor

__all__ = [
    "Actor",
    "ActorPool",
    "ActorRef",
    "ActorStatistics",
    "ActorStopped",
    "ChildExists",
    "ChildOverdue",
    "ChildRunning",
    "ChildSpec",
    "ChildStartFailed",
    "ChildState",
    "DeadlineExceeded",
    "Deadlines",
    "Envelope",
    "GoOn",
    "Intensity",
    "Mailbox",
    "MailboxFull",
    "MailboxLimits",
    "MailboxStatistics",
    "NameTaken",
    "Node",
    "NotRunning",
    "Poisoned",
    "PoolFull",
    "PoolStatistics",
    "Refused",
    "Registry",
    "Reply",
    "Restart",
    "RestartWindow",
    "StopReason",
    "Strategy",
    "SupervisionError",
    "Supervisor",
    "SupervisorGaveUp",
    "Suspension",
    "Undelivered",
    "UnknownChild",
    "actor_child",
]
