"""What can go wrong in the runtime, each with a stable `code` and whether trying again can help.

A caller at the network's edge maps `code` to its own answer without knowing how the runtime works inside.
"""

from typing import Any, ClassVar


class SupervisionError(Exception):
    """Base of everything this package raises on purpose."""

    code: ClassVar[str] = "supervision_error"
    retryable: ClassVar[bool] = False


class Refused(SupervisionError):
    """A message was not accepted: it is still the sender's, nothing has been done with it."""

    retryable = True


class MailboxFull(Refused):
    """The lane of the mailbox the message was meant for has no room."""

    code = "mailbox_full"


class PoolFull(MailboxFull):
    """The pool holds `max_resident` actors and none of them can make room for a new one by now."""

    code = "pool_full"


class ActorStopped(Refused):
    """The actor is stopping, or the pool it lives in does not run."""

    code = "actor_stopped"


class DeadlineExceeded(SupervisionError):
    """No answer came in time. The message may still be handled, unless its turn had not come by then."""

    code = "deadline_exceeded"
    retryable = True


class Undelivered(SupervisionError):
    """An accepted message came back because its actor ended first.

    `outcome_unknown` is false when no turn ever saw the message, and true when a turn was cut off in the
    middle of it: what that turn did to the outside world may have happened.
    """

    code = "undelivered"
    retryable = True

    def __init__(self, message: Any, *, outcome_unknown: bool) -> None:
        super().__init__("returned to its sender" + ("; outcome unknown" if outcome_unknown else ""))
        self.message = message
        self.outcome_unknown = outcome_unknown


class Poisoned(SupervisionError):
    """The message crashed its actor `max_attempts` times and was taken out; the last crash is the cause."""

    code = "poisoned"

    def __init__(self, message: Any) -> None:
        super().__init__("the message crashed its actor too often")
        self.message = message


class ChildStartFailed(SupervisionError):
    """A child failed before it called `task_status.started()`; why is the cause."""

    code = "child_start_failed"

    def __init__(self, supervisor: str, child: str) -> None:
        super().__init__(f"{supervisor}: child {child} failed to start")
        self.supervisor = supervisor
        self.child = child


class ChildOverdue(SupervisionError):
    """A child still runs although it was cancelled and its time to clean up is over."""

    code = "child_overdue"

    def __init__(self, supervisor: str, child: str) -> None:
        super().__init__(f"{supervisor}: child {child} does not end")
        self.supervisor = supervisor
        self.child = child


class SupervisorGaveUp(SupervisionError):
    """Restarting did not help: the failure goes one level up. The last failure of `child` is the cause."""

    code = "supervisor_gave_up"

    def __init__(self, supervisor: str, child: str, reason: str) -> None:
        super().__init__(f"{supervisor} gave up on {child}: {reason}")
        self.supervisor = supervisor
        self.child = child


class NotRunning(SupervisionError):
    """The supervisor that was asked does not run, or stopped before it came to the request."""

    code = "not_running"
    retryable = True


class UnknownChild(SupervisionError):
    """The supervisor has no child of that name."""

    code = "unknown_child"


class ChildExists(SupervisionError):
    """The supervisor has a child of that name already."""

    code = "child_exists"


class ChildRunning(SupervisionError):
    """What was asked for can only be done with a child that does not run."""

    code = "child_running"


class NameTaken(SupervisionError):
    """The registry holds another actor under that name."""

    code = "name_taken"
