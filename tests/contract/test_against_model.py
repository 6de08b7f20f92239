"""Any sequence of batches, acquisitions and reads: the store answers as a plain model of the contract does."""

from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Any, NamedTuple

import pytest
import trio
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from store.contract import (
    AliasTaken,
    AliasWrite,
    Append,
    Committed,
    Duplicate,
    Fenced,
    MessageWrite,
    Outcome,
    Store,
    VersionConflict,
)
from tests.contract.conftest import MemoryWorld, PostgresWorld, World
from tests.support.appends import AT, append, key

STREAMS = ("s0", "s1", "s2", "s3")
TENANT_OF = {"s0": "tnt_a", "s1": "tnt_a", "s2": "tnt_b", "s3": "tnt_a"}
PARTITION_OF = {"s0": 1, "s1": 2, "s2": 1, "s3": 2}


class Planned(NamedTuple):
    """An append relative to what is true when it comes: `late` and `stale` are how far its version and epoch are off."""

    stream: str
    late: int
    stale: int
    events: int
    keys: tuple[int, ...]
    aliases: tuple[AliasWrite, ...]
    messages: tuple[MessageWrite, ...]
    snapshot: bool


class Acquire(NamedTuple):
    store: int
    partitions: tuple[int, ...]


class Batch(NamedTuple):
    store: int
    appends: tuple[Planned, ...]


numbers = st.integers(0, 4)
mostly_zero = st.sampled_from((0, 0, 0, 0, 1, -1))
aliases = st.builds(
    AliasWrite,
    endpoint=st.just("e1"),
    external_id=st.sampled_from(("phone:1", "phone:2")),
    remove=st.booleans(),
    steal_from=st.none() | st.sampled_from(STREAMS),
)
writes = st.builds(
    MessageWrite,
    message_id=st.sampled_from(("m1", "m2")),
    status=st.integers(0, 4),
    status_at=st.none() | st.integers(1, 9),
    content=st.none() | st.sampled_from((b"x", b"y")),
    edited=st.booleans(),
)
planned = st.builds(
    Planned,
    stream=st.sampled_from(STREAMS),
    late=mostly_zero,
    stale=mostly_zero,
    events=st.integers(0, 3),
    keys=st.lists(numbers, max_size=2).map(tuple),
    aliases=st.lists(aliases, max_size=2, unique_by=lambda alias: alias.external_id).map(tuple),
    messages=st.lists(writes, max_size=3).map(tuple),
    snapshot=st.booleans(),
)
batches = st.builds(
    Batch,
    store=st.integers(0, 1),
    appends=st.lists(planned, min_size=1, max_size=4, unique_by=lambda one: one.stream).map(tuple),
)
acquisitions = st.builds(Acquire, store=st.integers(0, 1), partitions=st.sampled_from(((1,), (2,), (1, 2))))
scripts = st.lists(batches | batches | batches | acquisitions, max_size=12)


class Model:
    """The contract in a few dictionaries, one append at a time."""

    def __init__(self) -> None:
        self.fences = {1: (1, 0), 2: (1, 0)}
        self.versions = dict.fromkeys(STREAMS, 0)
        self.heads = {"tnt_a": 0, "tnt_b": 0}
        self.feeds: dict[str, list[tuple[int, str, int]]] = {"tnt_a": [], "tnt_b": []}
        self.keys: set[bytes] = set()
        self.aliases: dict[tuple[str, str], str] = {}
        self.statuses: dict[tuple[str, str], int] = {}
        self.snapshots: dict[str, tuple[int, bytes]] = {}

    def acquire(self, step: Acquire) -> dict[int, int]:
        for partition in step.partitions:
            self.fences[partition] = (self.fences[partition][0] + 1, step.store)
        return {partition: self.fences[partition][0] for partition in step.partitions}

    def append(self, store: int, one: Append) -> Outcome:
        if self.fences[one.partition] != (one.epoch, store):
            return Fenced(one.partition)
        if one.expected != self.versions[one.stream]:
            return VersionConflict(self.versions[one.stream])
        if known := tuple(k for k in one.dedupe if k in self.keys):
            return Duplicate(known)
        for alias in one.aliases:
            owner = self.aliases.get((one.tenant, alias.external_id))
            if not alias.remove and owner not in (None, one.stream, alias.steal_from):
                assert owner is not None
                return AliasTaken(alias.external_id, owner)
        first = self.heads[one.tenant] + 1
        for _ in one.events:
            self.heads[one.tenant] += 1
            self.versions[one.stream] += 1
            self.feeds[one.tenant].append((self.heads[one.tenant], one.stream, self.versions[one.stream]))
        self.keys.update(one.dedupe)
        for alias in one.aliases:
            if not alias.remove:
                self.aliases[one.tenant, alias.external_id] = one.stream
            elif self.aliases.get((one.tenant, alias.external_id)) == one.stream:
                del self.aliases[one.tenant, alias.external_id]
        for write in one.messages:
            place = (one.stream, write.message_id)
            self.statuses[place] = max(self.statuses.get(place, 0), write.status)
        if one.snapshot is not None:
            self.snapshots[one.stream] = (self.versions[one.stream], one.snapshot)
        return Committed(first, AT)

    def prepare(self, plan: Planned) -> Append:
        return append(
            plan.stream,
            max(0, self.versions[plan.stream] + plan.late),
            plan.events,
            epoch=self.fences[PARTITION_OF[plan.stream]][0] + plan.stale,
            tenant=TENANT_OF[plan.stream],
            partition=PARTITION_OF[plan.stream],
            dedupe=tuple(map(key, plan.keys)),
            aliases=plan.aliases,
            messages=plan.messages,
            snapshot=b"state" if plan.snapshot else None,
        )


async def follow(new_world: Callable[[], World], script: list[Any]) -> None:
    world, model = new_world(), Model()
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(world.open()) for _ in range(2)]
        await stores[0].acquire_partitions([1, 2])
        for step in script:
            if isinstance(step, Acquire):
                assert await stores[step.store].acquire_partitions(step.partitions) == model.acquire(step)
            else:
                batch = [model.prepare(plan) for plan in step.appends]
                outcomes = await stores[step.store].append_batch(batch, at=AT)
                # Keys repeated inside one append are named once or twice; what they are is what counts.
                assert list(map(plain, outcomes)) == [plain(model.append(step.store, one)) for one in batch]
        await compare(stores[1], model)


def plain(outcome: Outcome) -> object:
    return frozenset(outcome.keys) if isinstance(outcome, Duplicate) else outcome


async def compare(store: Store, model: Model) -> None:
    for stream, loaded in zip(STREAMS, await store.load_streams(STREAMS), strict=True):
        version, snapshot = model.snapshots.get(stream, (0, None))
        assert (loaded.version, loaded.snapshot_version, loaded.snapshot) == (model.versions[stream], version, snapshot)
        assert [event.version for event in loaded.tail] == list(range(version + 1, loaded.version + 1))
        events = await store.read_stream(TENANT_OF[stream], stream)
        assert [event.version for event in events] == list(range(1, loaded.version + 1))
    for tenant, feed in model.feeds.items():
        assert (await store.feed_head(tenant)).head == model.heads[tenant]
        assert [(e.offset, e.stream, e.version) for e in await store.read_feed(tenant, after=0)] == feed
        found = await store.find_conversations(tenant, "e1", ["phone:1", "phone:2"])
        assert found == {one: stream for (owner, one), stream in model.aliases.items() if owner == tenant}
        messages = await store.find_messages(tenant, ["m1", "m2"])
        assert {(m.conversation, m.message_id): m.status for m in messages} == {
            place: status for place, status in model.statuses.items() if TENANT_OF[place[0]] == tenant
        }


@pytest.mark.slow
@given(script=scripts)
@settings(max_examples=150, deadline=None)
def test_memory(script: list[Any]) -> None:
    trio.run(follow, MemoryWorld, script)


@pytest.mark.slow
@given(script=scripts)
@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes here, and memory's test shrinks
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_postgres(script: list[Any], postgres_url: str) -> None:
    trio.run(follow, lambda: PostgresWorld(postgres_url), script)
