"""The journal's promises: fence, version, dedupe, alias, offsets; and that an append stands whole or not at all."""

import pytest
import trio

from store.contract import (
    AliasTaken,
    AliasWrite,
    Append,
    Committed,
    Duplicate,
    Fenced,
    Outcome,
    QuarantineEntry,
    RawWebhook,
    Store,
    Unstorable,
    VersionConflict,
)
from tests.contract.conftest import World
from tests.support.appends import AT, TENANT, append, conversation, key, message


async def one(store: Store, one_append: Append, at: int = AT) -> Outcome:
    [outcome] = await store.append_batch([one_append], at=at)
    return outcome


async def offsets(store: Store, tenant: str = TENANT) -> list[tuple[int, str, int]]:
    return [
        (event.offset, event.stream, event.version) for event in await store.read_feed(tenant, after=0, limit=10_000)
    ]


async def test_committed_events_get_the_next_versions_and_offsets(store: Store, epoch: int) -> None:
    assert await one(store, append("s", 0, 2, epoch=epoch)) == Committed(1, AT)
    assert await one(store, append("s", 2, 1, epoch=epoch), AT + 5) == Committed(3, AT + 5)
    assert await offsets(store) == [(1, "s", 1), (2, "s", 2), (3, "s", 3)]


async def test_everything_recorded_of_an_event_is_read_back(store: Store, epoch: int) -> None:
    await one(store, append("s", 0, 1, epoch=epoch, endpoint="e9", cause="whk_1"), AT + 7)
    [event] = await store.read_stream(TENANT, "s")
    assert (event.tenant, event.offset, event.stream, event.version) == (TENANT, 1, "s", 1)
    assert (event.kind, event.body, event.at, event.recorded_at) == ("noted", b"s 1", AT + 1, AT + 7)
    assert (event.endpoint, event.cause) == ("e9", "whk_1")
    assert [event] == await store.read_feed(TENANT, after=0)
    assert (await store.load_streams(["s"]))[0].tail == (event,)


async def test_stale_and_future_versions_are_refused(store: Store, epoch: int) -> None:
    await one(store, append("s", 0, 2, epoch=epoch))
    assert await one(store, append("s", 0, epoch=epoch)) == VersionConflict(2)
    assert await one(store, append("s", 1, epoch=epoch)) == VersionConflict(2)
    assert await one(store, append("s", 3, epoch=epoch)) == VersionConflict(2)
    assert await one(store, append("new", 1, epoch=epoch)) == VersionConflict(0)


async def test_a_stream_of_another_tenant_is_refused(store: Store, epoch: int) -> None:
    await one(store, append("s", 0, 1, epoch=epoch))
    await one(store, append("empty", 0, 0, epoch=epoch))
    assert await one(store, append("s", 1, epoch=epoch, tenant="tnt_b")) == VersionConflict(1)
    assert await one(store, append("empty", 0, epoch=epoch, tenant="tnt_b")) == VersionConflict(0)
    assert await offsets(store, "tnt_b") == []
    assert isinstance(await one(store, append("s", 1, epoch=epoch)), Committed)
    assert isinstance(await one(store, append("empty", 0, epoch=epoch)), Committed)


async def test_a_recorded_dedupe_key_is_refused_by_name(store: Store, epoch: int) -> None:
    await one(store, append("s", 0, epoch=epoch, dedupe=(key(1), key(2))))
    assert await one(store, append("s", 1, epoch=epoch, dedupe=(key(2),))) == Duplicate((key(2),))
    assert await one(store, append("t", 0, epoch=epoch, dedupe=(key(3), key(2), key(1)))) == Duplicate((key(2), key(1)))
    assert isinstance(await one(store, append("s", 1, epoch=epoch, dedupe=(key(3),))), Committed)


async def test_another_epoch_or_partition_is_fenced(store: Store, epoch: int) -> None:
    assert await one(store, append("s", epoch=epoch + 1)) == Fenced(1)
    assert await one(store, append("s", epoch=epoch - 1)) == Fenced(1)
    assert await one(store, append("s", epoch=epoch, partition=900)) == Fenced(900)
    assert (await store.acquire_partitions([1])) == {1: epoch + 1}
    assert await one(store, append("s", epoch=epoch)) == Fenced(1)
    assert isinstance(await one(store, append("s", epoch=epoch + 1)), Committed)


async def test_a_second_store_fences_the_first(store: Store, epoch: int, world: World) -> None:
    async with world.open() as other:
        theirs = await other.acquire_partitions([1])
        assert await one(store, append("s", epoch=epoch)) == Fenced(1)
        assert await one(store, append("s", epoch=theirs[1])) == Fenced(1), "an epoch is worth nothing in other hands"
        assert isinstance(await one(other, append("s", epoch=theirs[1])), Committed)
        assert isinstance(await one(store, append("t", epoch=epoch, partition=2)), Committed)


async def test_an_alias_leads_to_its_first_conversation(store: Store, epoch: int) -> None:
    ada = (AliasWrite("e1", "phone:1"), AliasWrite("e1", "user:x"))
    await one(store, append("s", epoch=epoch, aliases=ada))
    assert await one(store, append("t", epoch=epoch, aliases=ada[1:])) == AliasTaken("user:x", "s")
    assert isinstance(await one(store, append("t", epoch=epoch, aliases=(AliasWrite("e2", "user:x"),))), Committed)
    other = append("u", epoch=epoch, aliases=ada, tenant="tnt_b")
    assert isinstance(await one(store, other), Committed)
    assert await store.find_conversations(TENANT, "e1", ["phone:1", "user:x", "user:y"]) == {
        "phone:1": "s",
        "user:x": "s",
    }
    assert await store.find_conversations(TENANT, "e2", ["user:x"]) == {"user:x": "t"}
    assert await store.find_conversations("tnt_b", "e1", ["user:x"]) == {"user:x": "u"}


async def test_an_alias_is_stolen_only_from_whom_it_names(store: Store, epoch: int) -> None:
    await one(store, append("s", epoch=epoch, aliases=(AliasWrite("e1", "phone:1"),)))
    wrong = AliasWrite("e1", "phone:1", steal_from="v")
    assert await one(store, append("t", epoch=epoch, aliases=(wrong,))) == AliasTaken("phone:1", "s")
    right = AliasWrite("e1", "phone:1", steal_from="s")
    assert isinstance(await one(store, append("t", epoch=epoch, aliases=(right,))), Committed)
    assert await store.find_conversations(TENANT, "e1", ["phone:1"]) == {"phone:1": "t"}


async def test_only_the_owner_of_an_alias_removes_it(store: Store, epoch: int) -> None:
    await one(store, append("s", epoch=epoch, aliases=(AliasWrite("e1", "phone:1"),)))
    gone = (AliasWrite("e1", "phone:1", remove=True),)
    await one(store, append("t", epoch=epoch, aliases=gone))
    assert await store.find_conversations(TENANT, "e1", ["phone:1"]) == {"phone:1": "s"}
    await one(store, append("s", 1, epoch=epoch, aliases=gone))
    assert await store.find_conversations(TENANT, "e1", ["phone:1"]) == {}


@pytest.mark.parametrize("reason", ["fenced", "version", "duplicate", "alias"])
async def test_a_refused_append_leaves_nothing(store: Store, epoch: int, reason: str) -> None:
    await one(store, append("s", epoch=epoch, dedupe=(key(1),), aliases=(AliasWrite("e1", "phone:1"),)))
    refused = append(
        "t",
        1 if reason == "version" else 0,
        3,
        epoch=epoch + (reason == "fenced"),
        dedupe=(key(2), key(1) if reason == "duplicate" else key(3)),
        aliases=(AliasWrite("e1", "phone:1" if reason == "alias" else "phone:2"), AliasWrite("e1", "phone:3")),
        messages=(message("m"),),
        conversation=conversation(),
        snapshot=b"state",
    )
    outcomes = await store.append_batch([refused, append("u", epoch=epoch)], at=AT)
    assert outcomes[0] in (Fenced(1), VersionConflict(0), Duplicate((key(1),)), AliasTaken("phone:1", "s"))
    assert outcomes[1] == Committed(2, AT), "a refused append uses no offset, and hurts no sibling"
    assert (await store.feed_head(TENANT)).head == 2
    [loaded] = await store.load_streams(["t"])
    assert (loaded.version, loaded.snapshot, loaded.tail) == (0, None, ())
    assert await store.find_messages(TENANT, ["m"]) == []
    assert await store.get_conversation(TENANT, "t") is None
    assert await store.find_conversations(TENANT, "e1", ["phone:2", "phone:3"]) == {}
    assert isinstance(await one(store, append("t", epoch=epoch, dedupe=(key(2), key(3)))), Committed)


async def test_a_batch_answers_each_append_in_its_place(store: Store, epoch: int) -> None:
    await one(store, append("a", epoch=epoch, dedupe=(key(1),), aliases=(AliasWrite("e1", "phone:1"),)))
    batch = [
        append("b", epoch=epoch, tenant="tnt_b"),
        append("c", epoch=epoch + 1),
        append("d", 0, 2, epoch=epoch),
        append("e", epoch=epoch, dedupe=(key(1),)),
        append("f", 4, epoch=epoch, tenant="tnt_b"),
        append("g", epoch=epoch, aliases=(AliasWrite("e1", "phone:1"),)),
        append("h", epoch=epoch, tenant="tnt_b"),
        append("i", epoch=epoch),
    ]
    assert await store.append_batch(batch, at=AT) == [
        Committed(1, AT),
        Fenced(1),
        Committed(2, AT),
        Duplicate((key(1),)),
        VersionConflict(0),
        AliasTaken("phone:1", "a"),
        Committed(2, AT),
        Committed(4, AT),
    ]
    assert await offsets(store) == [(1, "a", 1), (2, "d", 1), (3, "d", 2), (4, "i", 1)]
    assert await offsets(store, "tnt_b") == [(1, "b", 1), (2, "h", 1)]


async def test_rivals_inside_one_batch_are_settled_in_order(store: Store, epoch: int) -> None:
    phone = (AliasWrite("e1", "phone:1"),)
    batch = [
        append("a", epoch=epoch, dedupe=(key(1),), aliases=phone),
        append("b", epoch=epoch, dedupe=(key(1),)),
        append("c", epoch=epoch, aliases=phone),
        append("d", epoch=epoch),
        append("d", 1, epoch=epoch),
    ]
    outcomes = await store.append_batch(batch, at=AT)
    assert outcomes[1:3] == [Duplicate((key(1),)), AliasTaken("phone:1", "a")]
    assert all(isinstance(outcomes[place], Committed) for place in (0, 3, 4))
    assert [stream for _, stream, _ in await offsets(store)] == ["a", "d", "d"]


async def test_the_second_rival_wins_where_the_first_is_refused(store: Store, epoch: int) -> None:
    batch = [append("a", 7, epoch=epoch, dedupe=(key(1),)), append("b", epoch=epoch, dedupe=(key(1),))]
    assert await store.append_batch(batch, at=AT) == [VersionConflict(0), Committed(1, AT)]


async def test_webhooks_and_quarantine_are_kept_in_any_case(store: Store, epoch: int) -> None:
    webhook = RawWebhook("whk_1", "meta", AT, b"{}", "routed", TENANT)
    entry = QuarantineEntry("qrt_1", AT, "bad_item", "no \0 id", b"item", TENANT, "whk_1", "s")
    refused = [append("s", 3, epoch=epoch)]
    for appends in ([], refused, [append("s", epoch=epoch)], []):
        await store.append_batch(appends, webhooks=[webhook], quarantine=[entry], at=AT)
    assert await store.list_webhooks(since=AT, until=AT + 1) == [webhook]
    [kept] = await store.list_quarantine()
    assert (kept.id, kept.detail, kept.payload, kept.stream) == ("qrt_1", "no \ufffd id", b"item", "s")


async def test_an_append_without_events_records_the_rest(store: Store, epoch: int) -> None:
    await one(store, append("s", 0, 1, epoch=epoch))
    assert isinstance(await one(store, append("s", 1, 0, epoch=epoch, dedupe=(key(1),))), Committed)
    assert await one(store, append("s", 1, 1, epoch=epoch, dedupe=(key(1),))) == Duplicate((key(1),))
    assert await one(store, append("s", 1, 1, epoch=epoch)) == Committed(2, AT)


async def test_sixty_four_writers_on_one_stream(store: Store, epoch: int) -> None:
    outcomes: list[tuple[int, Outcome]] = []

    async def write() -> None:
        expected = 0
        while True:
            outcome = await one(store, append("s", expected, epoch=epoch))
            outcomes.append((expected, outcome))
            if isinstance(outcome, Committed):
                return
            assert isinstance(outcome, VersionConflict)
            assert outcome.actual > expected, "only a stale version is refused"
            expected = outcome.actual

    async with trio.open_nursery() as nursery:
        for _ in range(64):
            nursery.start_soon(write)
    events = await store.read_stream(TENANT, "s")
    assert [event.version for event in events] == list(range(1, 65))
    assert [event.offset for event in events] == list(range(1, 65))
    committed = [expected for expected, outcome in outcomes if isinstance(outcome, Committed)]
    assert sorted(committed) == list(range(64)), "each version was accepted once"


async def test_twenty_copies_in_parallel_are_one(store: Store, epoch: int, world: World) -> None:
    outcomes: list[Outcome] = []

    async def deliver(to: Store, copy: int, their_epoch: int, partition: int) -> None:
        mine = append(f"s{copy}", epoch=their_epoch, partition=partition, dedupe=(key(7),))
        outcomes.append(await one(to, mine))

    async with world.open() as other, trio.open_nursery() as nursery:
        theirs = (await other.acquire_partitions([2]))[2]
        for copy in range(10):
            nursery.start_soon(deliver, store, copy, epoch, 1)
            nursery.start_soon(deliver, other, 10 + copy, theirs, 2)
    assert sum(isinstance(outcome, Committed) for outcome in outcomes) == 1
    assert outcomes.count(Duplicate((key(7),))) == 19


@pytest.mark.slow
async def test_feeds_have_no_holes_with_two_stores_writing(store: Store, epoch: int, world: World) -> None:
    tenants = ["tnt_c", "tnt_a", "tnt_b"]

    async def write(to: Store, name: str, their_epoch: int, partition: int) -> None:
        for n in range(10):
            batch = [
                append(
                    f"{name}{t}{n}",
                    1 if (n + t) % 4 == 0 else 0,
                    1 + t,
                    epoch=their_epoch,
                    partition=partition,
                    tenant=tenants[t],
                )
                for t in ((0, 1, 2) if n % 2 else (2, 1, 0))
            ]
            await to.append_batch(batch, at=AT)

    async with world.open() as other:
        theirs = (await other.acquire_partitions([2]))[2]
        async with trio.open_nursery() as nursery:
            for n in range(4):
                nursery.start_soon(write, store, f"x{n}", epoch, 1)
                nursery.start_soon(write, other, f"y{n}", theirs, 2)
    for tenant in tenants:
        found = [offset for offset, _, _ in await offsets(store, tenant)]
        assert found == list(range(1, 1 + len(found)))
        assert len(found) > 20
        assert (await store.feed_head(tenant)).head == len(found)


async def test_an_append_that_cannot_be_stored_hurts_no_sibling(store: Store, epoch: int) -> None:
    batch = [
        append(f"s{n}", epoch=epoch, messages=(message("m", at=2**70 if n in (3, 4, 9) else AT),)) for n in range(12)
    ]
    webhook = RawWebhook("whk_1", "meta", AT, b"{}", "routed")
    outcomes = await store.append_batch(batch, webhooks=[webhook], at=AT)
    bad = [n for n, outcome in enumerate(outcomes) if outcome == Unstorable("value out of int64 range")]
    assert bad == [3, 4, 9]
    assert [stream for _, stream, _ in await offsets(store)] == [f"s{n}" for n in range(12) if n not in bad]
    assert await store.append_batch([batch[3]], webhooks=[webhook], at=AT) == [outcomes[3]]
    assert await store.list_webhooks(since=AT, until=AT + 1) == [webhook]
