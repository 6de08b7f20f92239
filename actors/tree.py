"""The supervision tree of a node, and the way to any actor in it.

```
node (rest_for_one)
├─ journal            one actor: every commit of the process passes it
├─ feed               sweeps what nobody watches
└─ tenants (one_for_one, children on demand, temporary)
   └─ <tenant>        its stream ▸ its conversations (pools: an actor a key, a task only while it works)
```

The order is that of need: if the journal has to be restarted, everything after it is too, because what its mailbox held was returned to
its senders. A tenant that gives up is dropped alone, refused for a while, and started again by its next message.
"""

from collections.abc import Callable, Sequence
from functools import partial

import trio

from actors.directory import Directory
from actors.feed import Feed
from actors.journal import Journal
from actors.ports import Answer, Clock, Deliver, Moved, NewId, Notice
from actors.tenant import TenantTree
from protocol.commands import ChangeIdentity
from store.contract import Store
from supervisor import (
    ActorStopped,
    ChildExists,
    ChildSpec,
    ChildStartFailed,
    Intensity,
    Node,
    NotRunning,
    PoolStatistics,
    Reply,
    Strategy,
    Supervisor,
)

TENANT_PAUSE = 5.0
"""Seconds a tenant that gave up is refused (503, so that its provider brings everything again) before it is tried anew."""

FEED_SWEEP = 10.0


class _Found:
    """The `task_status` of a tenant's subtree: once it runs it is found, whoever still waits for its start."""

    def __init__(self, found: Callable[[], None], task_status: trio.TaskStatus[None]) -> None:
        self._found = found
        self._task_status = task_status

    def started(self, value: None = None) -> None:
        self._found()
        self._task_status.started()


class Tree:
    """All actors of this process."""

    def __init__(
        self,
        store: Store,
        feed: Feed,
        journal: Journal,
        clock: Clock,
        new_id: NewId,
        *,
        idle_timeout: float = 300.0,
        max_resident: int = 100_000,
    ) -> None:
        """`idle_timeout` and `max_resident` apply to the conversations of each tenant."""
        self._store = store
        self._feed = feed
        self._clock = clock
        self._new_id = new_id
        self._idle_timeout = idle_timeout
        self._max_resident = max_resident
        self.journal = journal
        self.directory = Directory(store, clock, new_id, self._ask)
        self._tenants: dict[str, TenantTree] = {}
        self._paused_until: dict[str, float] = {}
        self._starting: dict[str, trio.Event] = {}
        self._tenant_supervisor = Supervisor("tenants", [], intensity=Intensity(0, 1.0))
        self._root = Supervisor(
            "node",
            [
                journal.child_spec(),
                ChildSpec("feed", self._sweep_feed),
                ChildSpec(
                    "tenants",
                    self._tenant_supervisor.run,
                    shutdown=30.0,
                    stop=self._tenant_supervisor.stop,
                    inspect=self._tenant_supervisor.statistics,
                ),
            ],
            strategy=Strategy.REST_FOR_ONE,
            intensity=Intensity(3, 30.0),
        )

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Acquire the partitions, then supervise until cancelled. Raises SupervisorGaveUp, StoreError."""
        await self.journal.acquire()
        await self._root.run(task_status=task_status)

    def stop(self) -> None:
        """Stop in order: tenants first (their turns finish and commit), the journal last; then `run` returns."""
        self._root.stop()

    def inspect(self) -> Node:
        """Return the live tree."""
        return self._root.statistics()

    def pools(self) -> Sequence[tuple[str, PoolStatistics]]:
        """Return the figures of each running tenant's conversations."""
        return [(tenant, tree.conversations.statistics()) for tenant, tree in self._tenants.items()]

    # --- the way to an actor

    async def tenant(self, tenant: str) -> TenantTree:
        """Return a tenant's running subtree, started if need be.

        Raises:
            ActorStopped: it is paused after giving up, or just ending, or the node's own tree is being restarted.
        """
        while True:
            tree = self._tenants.get(tenant)
            if tree is not None:
                return tree
            if tenant in self._starting:
                await self._starting[tenant].wait()
                continue
            if trio.current_time() < self._paused_until.get(tenant, 0.0):
                raise ActorStopped(f"tenant {tenant} gave up and is paused")
            await self._start(tenant)

    def running(self, tenant: str) -> TenantTree | None:
        """Return a tenant's subtree if it runs: the way of the hot path, without an await."""
        return self._tenants.get(tenant)

    def deliver(self, tree: TenantTree, conversation: str, message: Deliver, lane: int, rank: int) -> Reply[Answer]:
        """Post an item to a conversation. Raises MailboxFull, ActorStopped."""
        return tree.conversations.ref(conversation).ask_nowait(message, lane=lane, rank=rank)

    def notify(self, tree: TenantTree, notice: Notice) -> Reply[Answer]:
        """Post a notice to a tenant's own stream. Raises MailboxFull, ActorStopped."""
        return tree.stream.ref(tree.tenant).ask_nowait(notice)

    async def redeliver(
        self, tenant: str, endpoint: str, conversation: str, moved: Moved, message: Deliver, lane: int, rank: int
    ) -> tuple[str, Reply[Answer]]:
        """Post an item again after its conversation said `Moved`; return where it went and the new reply."""
        command = message.happened.command
        external_ids = message.happened.contact.external_ids()
        if isinstance(command, ChangeIdentity) and moved.external_id in command.new.external_ids():
            # The old and the new id have a conversation each: one person's, the item says so.
            external_ids = tuple(dict.fromkeys(external_ids + command.new.external_ids()))
        await self.directory.follow(tenant, endpoint, conversation, moved, external_ids)
        await self.directory.unite(tenant, endpoint, [external_ids])
        target = self.directory.lookup(endpoint, external_ids) or moved.into
        return target, self.deliver(await self.tenant(tenant), target, message, lane, rank)

    async def _ask(self, tenant: str, conversation: str, message: object, lane: int) -> Answer:
        tree = await self.tenant(tenant)
        answer: Answer = await tree.conversations.ref(conversation).ask(message, lane=lane)
        return answer

    # --- the tree's own

    async def _start(self, tenant: str) -> None:
        started = self._starting[tenant] = trio.Event()
        tree = TenantTree(
            tenant,
            self.journal,
            self._store,
            self.directory,
            self._new_id,
            idle_timeout=self._idle_timeout,
            max_resident=self._max_resident,
        )
        spec = tree.child_spec()

        async def start(*, task_status: trio.TaskStatus[None]) -> None:
            gave_up = True
            try:
                await spec.start(task_status=_Found(partial(self._tenants.__setitem__, tenant, tree), task_status))
                gave_up = False
            except trio.Cancelled:
                gave_up = False
                raise
            finally:
                self._tenants.pop(tenant, None)
                if gave_up:
                    self._paused_until[tenant] = trio.current_time() + TENANT_PAUSE

        try:
            await self._tenant_supervisor.start_child(
                ChildSpec(spec.name, start, spec.restart, spec.shutdown, spec.stop, spec.inspect)
            )
        except ChildExists as error:
            if tenant not in self._tenants:  # else somebody's start went through whose wait was cancelled
                raise ActorStopped(f"tenant {tenant} is just ending") from error
        except (NotRunning, ChildStartFailed) as error:
            raise ActorStopped(f"tenant {tenant} cannot be started now") from error
        finally:
            del self._starting[tenant]
            started.set()

    async def _sweep_feed(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            await trio.sleep(FEED_SWEEP)
            self._feed.sweep()
