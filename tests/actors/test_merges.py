"""Merges, and the way to conversations that ended in one: number changes, chains of interrupted merges, a directory under change."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from actors.directory import MERGE_SECONDS, Directory
from actors.ports import Answer, Contended, Moved, Surrender
from actors.tenant import TenantTree
from protocol.commands import ContactRef
from protocol.events import ConversationAbsorbed, decode
from protocol.machines import conversation as machine
from store.contract import ConversationRow
from store.memory import MemoryDatabase, MemoryStore
from supervisor import ActorStopped, DeadlineExceeded
from tests.support.spine import NOW, NUMBER, TENANT, Spine, add_tenants, change, contact, spine, text, webhook

OLD, NEW = "491", "492"


async def say(made: Spine, message_id: str, phone: str | None, name: str = "Mira", user_id: str | None = None) -> int:
    more = {} if user_id is None else {"from_user_id": user_id}
    at = 1_790_000_000 + int(message_id.rpartition(".")[2])
    item = text(message_id, message_id, sender=phone, at=at, **more)
    return (await made.post(webhook(change([item], contacts=[contact(phone, user_id, name)])))).status


def changed_number(old: str = OLD, new: str = NEW, **more: str) -> dict[str, Any]:
    system = {"wa_id": new, "type": "user_changed_number", **more}
    return {"from": old, "id": "wamid.S", "timestamp": "1790000050", "type": "system", "system": system}


async def rows(made: Spine) -> list[ConversationRow]:
    return await made.store.list_conversations(TENANT)


async def threads(made: Spine) -> set[tuple[str, ...]]:
    found = set()
    for row in await rows(made):
        found.add(tuple(sorted(each.message_id for each in await made.store.list_messages(TENANT, row.id))))
    return found


# --- a new number that has a conversation already


@pytest.mark.parametrize("more", [{}, {"body": "changed"}])
@pytest.mark.parametrize("first", [OLD, NEW])
@pytest.mark.parametrize("restart", [False, True])
async def test_a_change_to_a_number_with_a_conversation_merges_both(
    autojump_clock: MockClock, first: str, restart: bool, more: dict[str, str]
) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    second = NEW if first == OLD else OLD
    async with spine(database) as made:
        assert await say(made, "wamid.1", first) == 200
        assert await say(made, "wamid.2", second) == 200
        if not restart:
            assert (await made.post(webhook(change([changed_number(**more)])))).status == 200
    async with spine(database) as made:
        made.now += 1000  # its ids are others
        if restart:
            assert (await made.post(webhook(change([changed_number(**more)])))).status == 200
        assert await say(made, "wamid.3", NEW) == 200
        assert await threads(made) == {("wamid.1", "wamid.2", "wamid.3")}
        assert await say(made, "wamid.4", OLD, "Stranger") == 200
        assert await threads(made) == {("wamid.1", "wamid.2", "wamid.3"), ("wamid.4",)}


async def test_what_does_not_name_the_taken_id_is_recorded_in_the_same_turn(autojump_clock: MockClock) -> None:
    async with spine() as made:
        assert await say(made, "wamid.1", OLD) == 200
        assert await say(made, "wamid.2", NEW) == 200
        items = [text("wamid.3", sender=OLD), changed_number(), text("wamid.4", sender=OLD)]
        moved: list[str] = []
        real = made.tree.redeliver

        async def counting(*args: Any) -> Any:
            moved.append(type(args[4].happened.command).__name__)
            return await real(*args)

        made.tree.redeliver = counting  # type: ignore[method-assign,assignment]
        assert (await made.post(webhook(change(items)))).status == 200
        assert moved == ["ChangeIdentity"]
        assert await threads(made) == {("wamid.1", "wamid.2", "wamid.3", "wamid.4")}


# --- interrupted merges


async def test_a_survivor_that_was_merged_itself_passes_the_interrupted_merge_on(autojump_clock: MockClock) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as made:
        for n, user_id in enumerate(("DE.1", "DE.2", "DE.3"), 1):
            assert await say(made, f"wamid.{n}", None, user_id=user_id) == 200
        c, b, a = sorted(row.id for row in await rows(made))
        tree = await made.tree.tenant(TENANT)
        await tree.conversations.ref(a).ask(Surrender(b, NUMBER, NOW))  # and the process dies
    async with spine(database) as made:
        tree = await made.tree.tenant(TENANT)
        await tree.conversations.ref(b).ask(Surrender(c, NUMBER, NOW))  # and dies again
    async with spine(database) as made:
        assert await say(made, "wamid.4", None, user_id="DE.3") == 200
        assert await say(made, "wamid.5", None, user_id="DE.2") == 200
        [row] = await rows(made)
        assert (row.messages, row.unanswered) == (5, 5)
        absorbed = [each.other for each in await made.decoded() if isinstance(each, ConversationAbsorbed)]
        assert sorted(absorbed) == [b, a]  # each once


async def test_a_conversation_is_taken_over_once_however_the_chain_grew(autojump_clock: MockClock) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as made:
        for n, user_id in enumerate(("DE.1", "DE.2", "DE.3"), 1):
            assert await say(made, f"wamid.{n}", None, user_id=user_id) == 200
        c, b, a = sorted(row.id for row in await rows(made))
        await made.tree.directory.follow(TENANT, NUMBER, a, Moved(b), [])
        await made.tree.directory.follow(TENANT, NUMBER, b, Moved(c), [])
    async with spine(database) as made:
        await made.tree.directory.follow(TENANT, NUMBER, a, Moved(b), [])
        [row] = await rows(made)
        assert (row.id, row.messages) == (c, 3)


async def test_ids_of_a_conversation_that_ended_elsewhere_are_united_with_another(autojump_clock: MockClock) -> None:
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as made:
        assert await say(made, "wamid.1", "491") == 200
        assert await say(made, "wamid.2", "492") == 200
        assert await say(made, "wamid.3", None, user_id="DE.3") == 200
        _, b, a = sorted(row.id for row in await rows(made))
        tree = await made.tree.tenant(TENANT)
        await tree.conversations.ref(a).ask(Surrender(b, NUMBER, NOW))
    async with spine(database) as made:
        assert await say(made, "wamid.4", "491", user_id="DE.3") == 200  # leads to c and to a, which ended in b
        [row] = await rows(made)
        assert row.messages == 4


async def test_a_merge_that_gets_no_answer_is_given_up_and_holds_nobody_elses(autojump_clock: MockClock) -> None:
    asked: list[tuple[str, str]] = []

    async def ask(tenant: str, conversation: str, message: object, lane: int) -> Answer:
        asked.append((tenant, conversation))
        if tenant == TENANT:
            await trio.sleep_forever()
        return Moved("cnv_nowhere", "phone:1")

    directory = Directory(MemoryStore(MemoryDatabase()), lambda: NOW, lambda prefix: f"{prefix}_0", ask)
    async with trio.open_nursery() as nursery:

        async def stuck() -> None:
            began = trio.current_time()
            with pytest.raises(DeadlineExceeded):
                await directory.follow(TENANT, NUMBER, "cnv_2", Moved("cnv_1"), ["phone:1"])
            assert trio.current_time() - began == MERGE_SECONDS

        nursery.start_soon(stuck)
        nursery.start_soon(stuck)  # which waits for its turn only
        await wait_all_tasks_blocked()
        with trio.fail_after(1), pytest.raises(Contended):
            await directory.follow("tnt_two", NUMBER, "cnv_4", Moved("cnv_3"), ["phone:1"])
    assert asked[0] == (TENANT, "cnv_2")
    assert asked.count((TENANT, "cnv_2")) == 1


# --- what the list shows after a merge


async def test_the_list_shows_the_whole_thread_after_a_merge(autojump_clock: MockClock) -> None:
    async with spine() as made:
        assert await say(made, "wamid.1", "491") == 200
        assert await say(made, "wamid.8", None, user_id="DE.7") == 200
        assert await say(made, "wamid.9", None, user_id="DE.7") == 200
        younger = max(await rows(made), key=lambda row: row.id)
        assert await say(made, "wamid.2", "491", user_id="DE.7") == 200
        [row] = await rows(made)
        assert row.id != younger.id
        assert (row.messages, row.unanswered, row.last_at) == (4, 4, 1_790_000_009_000)
        [absorbed] = [each for each in await made.decoded() if isinstance(each, ConversationAbsorbed)]
        assert absorbed.standing.preview == "wamid.9"
        events = await made.store.read_stream(TENANT, row.id)
        state = machine.INITIAL
        for event in events:
            state = machine.evolve(state, decode(event.body))
        assert state.window.opened_at == 1_790_000_009_000


# --- the directory's memory


class Pausing(MemoryStore):
    """Says when a query has read, and keeps what it read until told."""

    def __init__(self, database: MemoryDatabase, found: Sequence[dict[str, str]]) -> None:
        super().__init__(database)
        self.found = list(found)
        self.go_on = trio.Event()

    async def find_conversations(self, tenant: str, endpoint: str, external_ids: Sequence[str]) -> dict[str, str]:
        found = self.found.pop(0)
        await self.go_on.wait()
        return found


async def nobody(tenant: str, conversation: str, message: object, lane: int) -> Answer:
    raise AssertionError("nothing is to be merged")


async def test_an_id_removed_during_the_query_does_not_come_back(autojump_clock: MockClock) -> None:
    store = Pausing(MemoryDatabase(), [{"phone:491": "cnv_1"}, {}])
    directory = Directory(store, lambda: NOW, lambda prefix: f"{prefix}_9", nobody)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(directory.resolve, TENANT, NUMBER, [ContactRef(phone="491")])
        await wait_all_tasks_blocked()
        directory.relearn(TENANT, NUMBER, "cnv_1", ["phone:492"], ["phone:491"])
        store.go_on.set()
    assert directory.lookup(NUMBER, ["phone:491"]) == "cnv_9"
    assert directory.lookup(NUMBER, ["phone:492"]) == "cnv_1"


async def test_the_least_recently_looked_up_id_goes_first(autojump_clock: MockClock) -> None:
    ids = iter(range(100))
    store = MemoryStore(MemoryDatabase())
    directory = Directory(store, lambda: NOW, lambda prefix: f"{prefix}_{next(ids)}", nobody, remembered=2)
    await directory.resolve(TENANT, NUMBER, [ContactRef(phone="1"), ContactRef(phone="2")])
    assert directory.lookup(NUMBER, ["phone:1"]) == "cnv_0"
    await directory.resolve(TENANT, NUMBER, [ContactRef(phone="3")])
    assert directory.statistics() == 2
    assert directory.lookup(NUMBER, ["phone:2"]) is None
    assert directory.lookup(NUMBER, ["phone:1"]) == "cnv_0"


async def test_what_another_item_learnt_is_not_asked_again(autojump_clock: MockClock) -> None:
    directory = Directory(MemoryStore(MemoryDatabase()), lambda: NOW, lambda prefix: f"{prefix}_0", nobody)
    directory.relearn(TENANT, NUMBER, "cnv_1", ["phone:1"], [])
    await directory.follow(TENANT, NUMBER, "cnv_2", Moved("cnv_1"), ["phone:1"])
    await directory.follow(TENANT, NUMBER, "cnv_2", Moved("cnv_3", "phone:2"), ["phone:1"])
    assert directory.lookup(NUMBER, ["phone:1"]) == "cnv_1"


# --- a tenant's start


async def test_a_tenant_cannot_be_had_while_the_node_does_not_run(autojump_clock: MockClock) -> None:
    async with spine() as made:
        pass
    with pytest.raises(ActorStopped):
        await made.tree.tenant(TENANT)


async def test_a_start_whose_first_caller_left_is_found_by_the_next(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate, asked = trio.Event(), trio.Event()
    real = TenantTree.child_spec

    def slow(self: TenantTree) -> Any:
        spec = real(self)

        async def start(inner: Any, *, task_status: trio.TaskStatus[None]) -> None:
            asked.set()
            await gate.wait()
            await inner(task_status=task_status)

        return dataclasses.replace(spec, start=partial(start, spec.start))

    monkeypatch.setattr(TenantTree, "child_spec", slow)
    async with spine() as made:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(made.tree.tenant, TENANT)
            await asked.wait()
            nursery.cancel_scope.cancel()
        gate.set()
        with trio.fail_after(1):
            assert (await made.tree.tenant(TENANT)).tenant == TENANT
