"""What a supervisor is told about a child, and what it tells about one. Values only, no behaviour."""

import enum
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


class Restart(enum.Enum):
    """When a child that has ended by itself is started again."""

    PERMANENT = "permanent"  # always
    TRANSIENT = "transient"  # if it raised
    TEMPORARY = "temporary"  # never; the supervisor forgets it


class Strategy(enum.Enum):
    """Who else is restarted with a child. The others are stopped in reverse order, then all start in order."""

    ONE_FOR_ONE = "one_for_one"  # nobody
    ONE_FOR_ALL = "one_for_all"  # every child
    REST_FOR_ONE = "rest_for_one"  # the children that stand after it in the list


class ChildState(enum.Enum):
    """Where a child is in its life."""

    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    OVERDUE = "overdue"  # cancelled, out of time, and still running
    STOPPED = "stopped"  # on request; stays so until `restart_child`
    ENDED = "ended"  # by itself, and not to be restarted, or not yet


@dataclass(frozen=True, slots=True)
class Intensity:
    """How often restarting is worth a try: more than `restarts` within `period` seconds escalates."""

    restarts: int = 3
    period: float = 5.0

    def __post_init__(self) -> None:
        if self.restarts < 0 or not self.period > 0:
            raise ValueError("an intensity needs restarts >= 0 and a period > 0 s")


@dataclass(frozen=True, slots=True)
class Node:
    """One line of the live supervision tree; `dataclasses.asdict` makes it JSON.

    `started_at` is in Unix seconds, for people to read. `mailbox_depth` counts the messages that wait in the
    node and below it.
    """

    name: str
    kind: str
    state: str
    restarts: int = 0
    last_error: str | None = None
    started_at: float | None = None
    mailbox_depth: int = 0
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """How to start, stop and restart one child.

    `start` is called with the keyword `task_status`, calls `task_status.started()` once it is in service, and
    then runs for as long as the child lives. It is called again for each restart.

    `stop`, if given, asks the running child to finish what it is doing and to return; it is called before
    anything is cancelled and must neither wait nor raise. A child without `stop` is asked by being cancelled.

    `shutdown` is the grace in seconds. It is counted once for `stop`, after which the child is cancelled, and
    once for the clean-up after that. `math.inf`, for supervisors, waits as long as it takes.

    `inspect`, if given, describes the inside of the child for the live tree.
    """

    name: str
    start: Callable[..., Awaitable[None]]
    restart: Restart = Restart.PERMANENT
    shutdown: float = 5.0
    stop: Callable[[], None] | None = None
    inspect: Callable[[], Node] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a child needs a name")
        if math.isnan(self.shutdown) or self.shutdown <= 0:
            raise ValueError("a child needs some time to clean up: shutdown > 0 s")
