"""Starts children in order, restarts those that fail, stops them in reverse order.

Theory of operation. Every child runs in the supervisor's nursery, but in a cancel scope of its own which is
shielded from the moment it has started: cancellation reaches a running child only through its supervisor, so
that cancelling a whole tree still takes it down in order. One task, the body of `run`, makes every change to
the children, one after the other; the end of a child and the requests of other tasks are events it is sent.
Therefore no restart ever interleaves with a stop.

Knows nothing of what its children do; a pool of actors is a child like any other.
"""

import logging
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

import trio

from supervisor.child_spec import ChildSpec, ChildState, Intensity, Node, Restart, Strategy
from supervisor.envelope import Reply
from supervisor.errors import (
    ChildExists,
    ChildOverdue,
    ChildRunning,
    ChildStartFailed,
    NotRunning,
    SupervisionError,
    SupervisorGaveUp,
    UnknownChild,
)
from supervisor.restart_window import RestartWindow

logger = logging.getLogger("supervisor")


class _Child:
    """A child and its present incarnation; each start makes a new `scope` and a new `ended`."""

    __slots__ = ("ended", "error", "restarts", "scope", "spec", "started_at", "state", "wanted")

    def __init__(self, spec: ChildSpec) -> None:
        self.spec = spec
        self.state = ChildState.STOPPED
        self.wanted = True  # until `stop_child`: what was stopped on request is not started with its siblings
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.restarts = 0
        self.error: BaseException | None = None
        self.started_at: float | None = None

    @property
    def alive(self) -> bool:
        return self.state in (ChildState.RUNNING, ChildState.STOPPING, ChildState.OVERDUE)

    def node(self) -> Node:
        """The child's line of the tree, with what it tells of its inside."""
        inside = self.spec.inspect() if self.spec.inspect is not None else None
        return Node(
            self.spec.name,
            "task" if inside is None else inside.kind,
            self.state.value,
            self.restarts,
            None if self.error is None else f"{type(self.error).__name__}: {self.error}",
            self.started_at,
            0 if inside is None else inside.mailbox_depth,
            () if inside is None else inside.children,
        )


class _Started:
    """The `task_status` a child gets: being in service is what puts it under the shield."""

    def __init__(self, child: _Child, task_status: trio.TaskStatus[None]) -> None:
        self._child = child
        self._task_status = task_status

    def started(self, value: object = None) -> None:
        cancelled = trio.current_effective_deadline() == -math.inf
        self._task_status.started()
        if cancelled:
            return  # `nursery.start` was cancelled and keeps the child; a shield would make it immortal
        self._child.scope.shield = True
        self._child.state = ChildState.RUNNING
        self._child.started_at = time.time()


class Supervisor:
    """A supervisor, with OTP's strategies, restart types and intensity.

    `children` are those it starts with, each time it is run. More can come by `start_child`; these are
    forgotten when the supervisor is run again, as in OTP.
    """

    def __init__(
        self,
        name: str,
        children: Sequence[ChildSpec],
        *,
        strategy: Strategy = Strategy.ONE_FOR_ONE,
        intensity: Intensity = Intensity(),  # noqa: B008 - frozen
    ) -> None:
        names = [spec.name for spec in children]
        if len(set(names)) != len(names):
            raise ValueError(f"{name}: two children of one name")
        self.name = name
        self._specs = tuple(children)
        self._strategy = strategy
        self._intensity = intensity
        self._window = RestartWindow(intensity)
        self._children: dict[str, _Child] = {}  # in the order of their start
        self._calls: set[Reply[Any]] = set()
        self._nursery: trio.Nursery | None = None
        self._stop = trio.CancelScope()
        # Not bounded by a number, but by what feeds it: one end per running child, one request per waiting task.
        self._send, self._events = trio.open_memory_channel[Callable[[], Awaitable[None]]](math.inf)

    # --- Running

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Supervise until `stop` or cancellation; either way every child is stopped first, the last one first.

        Raises:
            ChildStartFailed: a child failed to start, at the first start of all.
            SupervisorGaveUp: restarts exceeded `intensity`, or a child to be restarted does not end.
        """
        if self._nursery is not None:
            raise RuntimeError(f"{self.name} runs already")
        self._window = RestartWindow(self._intensity)
        self._children = {spec.name: _Child(spec) for spec in self._specs}
        self._send, self._events = trio.open_memory_channel(math.inf)
        self._stop = trio.CancelScope()
        failure: SupervisionError | None = None
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    with self._stop:
                        for child in tuple(self._children.values()):
                            await self._start(child)
                        task_status.started()
                        async for event in self._events:
                            await event()
                except SupervisionError as error:
                    failure = error
                finally:
                    with trio.CancelScope(shield=True):
                        await self._stop_all(tuple(self._children.values()))
        finally:
            self._nursery = None
            for reply in self._calls:
                if not reply.settled:
                    reply.fail(NotRunning(self.name))
        if failure is not None:
            raise failure

    def stop(self) -> None:
        """Stop every child, the last one first, each within its grace; then `run` returns. Does not wait."""
        self._stop.cancel()

    async def _run_child(self, child: _Child, *, task_status: trio.TaskStatus[None]) -> None:
        """Run one incarnation of a child. The place where its failure is caught."""
        child.state = ChildState.STARTING
        child.scope = scope = trio.CancelScope()
        child.ended = trio.Event()
        try:
            with scope:
                await child.spec.start(task_status=_Started(child, task_status))
        except Exception as error:
            child.error = error
            if child.state is ChildState.STARTING:
                raise  # out of `nursery.start`, to `_start`
            self._log("a child failed", child, error)
        finally:
            if child.state is ChildState.RUNNING:
                self._send.send_nowait(partial(self._ended, child, scope))
            on_request = child.state in (ChildState.STOPPING, ChildState.OVERDUE)
            child.state = ChildState.STOPPED if on_request else ChildState.ENDED
            child.ended.set()

    # --- What the body of `run` does

    async def _start(self, child: _Child) -> None:
        if self._nursery is None:
            raise NotRunning(self.name)
        try:
            await self._nursery.start(self._run_child, child)
        except Exception as error:
            child.error = error
            self._log("a child failed to start", child, error)
            raise ChildStartFailed(self.name, child.spec.name) from error

    async def _halt(self, child: _Child) -> None:
        """Stop a running child. It is stopped afterwards, or overdue.

        First it is asked (`ChildSpec.stop`), then cancelled; either has `shutdown` seconds. More is not to be
        had: Python cannot end a task that shields itself or swallows its cancellation. Such a child is
        reported as overdue and left behind in the nursery, so that `run` cannot return before it has ended.
        """
        spec = child.spec
        child.state = ChildState.STOPPING
        if spec.stop is not None:
            try:
                spec.stop()
            except Exception as error:
                self._log("a child could not be asked to stop", child, error)
            else:
                with trio.move_on_after(spec.shutdown):
                    await child.ended.wait()
                    return
        child.scope.cancel()
        with trio.move_on_after(spec.shutdown):
            await child.ended.wait()
            return
        child.state = ChildState.OVERDUE
        self._log("a child is overdue", child, None)

    async def _stop_all(self, children: Sequence[_Child]) -> None:
        for child in reversed(children):
            if child.alive:
                await self._halt(child)

    async def _ended(self, child: _Child, scope: trio.CancelScope) -> None:
        """A running child has ended by itself."""
        if child.scope is not scope or child.state is not ChildState.ENDED or not child.wanted:
            return  # it was restarted with a sibling or stopped on request before this came to be handled
        restart = child.spec.restart
        if restart is Restart.PERMANENT or (restart is Restart.TRANSIENT and child.error is not None):
            await self._restart(child)
        elif restart is Restart.TEMPORARY:
            self._children.pop(child.spec.name, None)

    async def _restart(self, failed: _Child) -> None:
        """Restart `failed` and whom the strategy puts with it; a start that fails is one more failure."""
        while True:
            failed.restarts += 1
            if self._window.add(trio.current_time()):
                allowed = f"more than {self._intensity.restarts} restarts in {self._intensity.period:g} s"
                raise SupervisorGaveUp(self.name, failed.spec.name, allowed) from failed.error
            group = self._group(failed)
            await self._stop_all(group)
            try:
                for child in group:
                    if child.spec.restart is Restart.TEMPORARY:
                        if child.state is not ChildState.OVERDUE:
                            self._children.pop(child.spec.name, None)
                    elif child.wanted:
                        await self._start_again(child)
            except ChildStartFailed as error:
                failed = self._children[error.child]
            else:
                return

    async def _start_again(self, child: _Child) -> None:
        if child.state is ChildState.OVERDUE:
            # There must never be two of it, and waiting would hold up everybody else.
            overdue = ChildOverdue(self.name, child.spec.name)
            raise SupervisorGaveUp(self.name, child.spec.name, "it does not end") from overdue
        await self._start(child)

    def _group(self, failed: _Child) -> tuple[_Child, ...]:
        children = tuple(self._children.values())
        match self._strategy:
            case Strategy.ONE_FOR_ONE:
                return (failed,)
            case Strategy.ONE_FOR_ALL:
                return children
            case Strategy.REST_FOR_ONE:
                return children[children.index(failed) :]

    def _log(self, what: str, child: _Child, error: Exception | None) -> None:
        logger.error(what, exc_info=error, extra={"supervisor": self.name, "child": child.spec.name})

    # --- Requests of other tasks

    async def start_child(self, spec: ChildSpec) -> None:
        """Add a child behind the others and start it. If it fails to start it is not kept.

        These requests are carried out one after the other by the supervisor itself: cancelling the wait for one
        does not undo it, and a child that makes one before it has started waits for ever.

        Raises:
            ChildExists: the name is in use, be it by a child that has ended.
            ChildStartFailed: it failed to start. NotRunning: the supervisor does not run, or stopped meanwhile.
        """

        async def start() -> None:
            if spec.name in self._children:
                raise ChildExists(spec.name)
            child = self._children[spec.name] = _Child(spec)
            try:
                await self._start(child)
            except ChildStartFailed:
                del self._children[spec.name]
                raise

        await self._call(start)

    async def stop_child(self, name: str) -> None:
        """Stop a child and wait until it has ended. It stays in the list, unless it is temporary, and stopped.

        Raises UnknownChild, NotRunning, and ChildOverdue if it does not end.
        """

        async def stop() -> None:
            child = self._find(name)
            child.wanted = False
            if child.alive:
                await self._halt(child)
            if child.state is ChildState.OVERDUE:
                raise ChildOverdue(self.name, name)
            child.state = ChildState.STOPPED
            if child.spec.restart is Restart.TEMPORARY:
                del self._children[name]

        await self._call(stop)

    async def restart_child(self, name: str) -> None:
        """Start a child that was stopped or has ended. If that fails it is left as it is.

        Raises UnknownChild, ChildRunning, ChildStartFailed, NotRunning.
        """

        async def restart() -> None:
            child = self._find_still(name)
            await self._start(child)
            child.wanted = True

        await self._call(restart)

    async def delete_child(self, name: str) -> None:
        """Forget a child that was stopped or has ended. Raises UnknownChild, ChildRunning, NotRunning."""

        async def delete() -> None:
            self._find_still(name)
            del self._children[name]

        await self._call(delete)

    def _find(self, name: str) -> _Child:
        if name not in self._children:
            raise UnknownChild(name)
        return self._children[name]

    def _find_still(self, name: str) -> _Child:
        child = self._find(name)
        if child.alive:
            raise ChildRunning(name)
        return child

    async def _call(self, operation: Callable[[], Awaitable[None]]) -> None:
        """Have the body of `run` carry out `operation`; what it refuses is raised here and not there."""
        if self._nursery is None:
            raise NotRunning(self.name)
        reply: Reply[None] = Reply()

        async def event() -> None:
            try:
                await operation()
            except SupervisionError as error:
                reply.fail(error)
            else:
                reply.set(None)

        self._calls.add(reply)
        try:
            self._send.send_nowait(event)
            await reply.wait()
        finally:
            self._calls.discard(reply)

    # --- For those who look on

    def children(self) -> tuple[Node, ...]:
        """The children in the order of their start."""
        return tuple(child.node() for child in self._children.values())

    def statistics(self) -> Node:
        """The live tree from here downwards."""
        children = self.children()
        depth = sum(child.mailbox_depth for child in children)
        state = "stopped" if self._nursery is None else "running"
        return Node(self.name, "supervisor", state, mailbox_depth=depth, children=children)

    def child_spec(self, *, restart: Restart = Restart.PERMANENT) -> ChildSpec:
        """This supervisor as a child of another one, which gives it all the time its children take."""
        return ChildSpec(self.name, self.run, restart, math.inf, stop=self.stop, inspect=self.statistics)
