"""What is read back: streams, threads, lists; statuses that only grow; threads that merge."""

from itertools import permutations

from msgspec import structs

from store.contract import AliasWrite, Committed, MessageStatus, MessageWrite, Store
from tests.contract.conftest import World
from tests.support.appends import AT, TENANT, append, conversation, message

SENT, DELIVERED, READ, FAILED = 1, 2, 3, 4


async def test_a_stream_loads_as_snapshot_and_tail(store: Store, epoch: int) -> None:
    await store.append_batch([append("s", 0, 2, epoch=epoch), append("t", 0, 1, epoch=epoch)], at=AT)
    await store.append_batch([append("s", 2, 1, epoch=epoch, snapshot=b"three")], at=AT)
    await store.append_batch([append("s", 3, 2, epoch=epoch)], at=AT)
    s, unknown, t = await store.load_streams(["s", "unknown", "t"])
    assert (s.version, s.snapshot, s.snapshot_version) == (5, b"three", 3)
    assert [event.version for event in s.tail] == [4, 5]
    assert (unknown.version, unknown.snapshot, unknown.snapshot_version, unknown.tail) == (0, None, 0, ())
    assert (t.version, t.snapshot, [event.body for event in t.tail]) == (1, None, [b"t 1"])
    await store.append_batch([append("s", 5, 1, epoch=epoch, snapshot=b"six")], at=AT)
    [s] = await store.load_streams(["s"])
    assert (s.version, s.snapshot, s.snapshot_version, s.tail) == (6, b"six", 6, ())


async def test_a_stream_is_read_in_pages_by_its_tenant_only(store: Store, epoch: int) -> None:
    await store.append_batch([append("s", 0, 5, epoch=epoch)], at=AT)
    assert [e.version for e in await store.read_stream(TENANT, "s", after=1, limit=3)] == [2, 3, 4]
    assert [e.version for e in await store.read_stream(TENANT, "s", after=4)] == [5]
    assert await store.read_stream(TENANT, "s", after=5) == []
    assert await store.read_stream("tnt_b", "s") == []


async def test_a_feed_is_read_in_pages(store: Store, epoch: int) -> None:
    assert await store.read_feed(TENANT, after=0) == []
    empty = await store.feed_head(TENANT)
    assert (empty.head, empty.oldest) == (0, 1)
    await store.append_batch([append("s", 0, 5, epoch=epoch)], at=AT)
    head = await store.feed_head(TENANT)
    assert (head.epoch, head.head, head.oldest) == (empty.epoch, 5, 1)
    assert [e.offset for e in await store.read_feed(TENANT, after=1, limit=3)] == [2, 3, 4]
    assert await store.read_feed(TENANT, after=5) == []
    assert (await store.feed_head("tnt_b")).head == 0


async def test_statuses_only_grow_in_every_order(store: Store, epoch: int) -> None:
    """All 24 orders, one receipt a commit and all in one commit, before and after the message itself."""
    expected = 0
    for n, order in enumerate(permutations((SENT, DELIVERED, READ, FAILED))):
        receipts = [MessageWrite(f"m{n}", status=status, status_at=AT + status) for status in order]
        for name, batches in (("one", [[r] for r in receipts]), ("all", [receipts])):
            batches.insert(n % (len(batches) + 1), [message(f"m{n}", outbound=True)])
            written: list[int] = []
            for writes in batches:
                writes = [
                    MessageWrite(f"{w.message_id}-{name}", *[getattr(w, f) for f in w.__struct_fields__[1:]])
                    for w in writes
                ]
                [outcome] = await store.append_batch(
                    [append("s", expected, 1, epoch=epoch, messages=tuple(writes))], at=AT
                )
                assert isinstance(outcome, Committed)
                expected += 1
                written += [w.status for w in writes]
                [found] = await store.find_messages(TENANT, [f"m{n}-{name}"])
                assert found.status == max(written)
    rows = await store.list_messages(TENANT, "s", limit=100)
    assert len(rows) == 48
    assert all((row.status, row.status_at, row.content) == (FAILED, AT + FAILED, b"hello") for row in rows)


async def test_problems_belong_to_the_status_they_came_with(store: Store, epoch: int) -> None:
    """In every order, one receipt a commit and all in one: a delivery clears what a failure said, a late failure says nothing more."""
    receipts = [
        MessageWrite("", status=SENT, status_at=AT),
        MessageWrite("", status=DELIVERED, status_at=AT, problems=b"undelivered"),
        MessageWrite("", status=DELIVERED, status_at=AT),
        MessageWrite("", status=READ, status_at=AT),
    ]
    expected = 0
    for count, problems in ((3, b"undelivered"), (4, None)):
        for n, order in enumerate(permutations(receipts[:count])):
            for name, size in (("one", 1), ("all", count)):
                message_id = f"m{count}-{n}-{name}"
                writes = [structs.replace(each, message_id=message_id) for each in order]
                whole = message(message_id, outbound=True)
                for batch in ([whole], *(writes[i : i + size] for i in range(0, count, size))):
                    one = append("s", expected, 1, epoch=epoch, messages=tuple(batch))
                    assert [type(o) for o in await store.append_batch([one], at=AT)] == [Committed]
                    expected += 1
                row = (await store.list_messages(TENANT, "s", limit=1))[0]
                assert (row.message_id, row.problems) == (message_id, problems)


async def test_problems_of_an_absorbed_thread_come_with_its_status(store: Store, epoch: int) -> None:
    def thread(*statuses: tuple[int, bytes | None]) -> tuple[MessageWrite, ...]:
        return tuple(
            message(f"m{n}", outbound=True, status=status, problems=problems)
            for n, (status, problems) in enumerate(statuses)
        )

    x = append(
        "x", epoch=epoch, messages=thread((READ, None), (FAILED, b"x"), (SENT, b"x"), (SENT, b"x"), (SENT, b"x"))
    )
    y = append("y", epoch=epoch, messages=thread((SENT, b"y"), (SENT, None), (READ, None), (SENT, None), (SENT, b"y")))
    await store.append_batch([x, y], at=AT)
    merge = append("y", 1, epoch=epoch, conversation=conversation(absorbs="x"))
    assert [type(o) for o in await store.append_batch([merge], at=AT)] == [Committed]
    found = {row.message_id: (row.status, row.problems) for row in await store.list_messages(TENANT, "y")}
    assert found == {
        "m0": (READ, None),
        "m1": (FAILED, b"x"),
        "m2": (READ, None),
        "m3": (SENT, b"x"),
        "m4": (SENT, b"y"),
    }


async def test_a_receipt_waits_unseen_for_its_message(store: Store, epoch: int) -> None:
    receipt = MessageWrite("m", status=DELIVERED, status_at=AT + 2)
    await store.append_batch([append("s", 0, 1, epoch=epoch, messages=(receipt,))], at=AT)
    assert await store.find_messages(TENANT, ["m", "x"]) == [MessageStatus("s", "m", DELIVERED, None)]
    assert await store.list_messages(TENANT, "s") == []
    await store.append_batch([append("s", 1, 2, epoch=epoch, messages=(message("m", 2, outbound=True),))], at=AT + 9)
    [row] = await store.list_messages(TENANT, "s")
    assert (row.seq, row.recorded_at, row.status, row.status_at) == (3, AT + 9, DELIVERED, AT + 2)
    assert await store.find_messages("tnt_b", ["m"]) == []


async def test_absent_parts_stay_and_marks_remain(store: Store, epoch: int) -> None:
    whole = message("m", context=b"ctx", author="ada", problems=b"[]")
    await store.append_batch([append("s", epoch=epoch, messages=(whole,))], at=AT)
    edit = MessageWrite("m", content=b"better", edited=True)
    await store.append_batch([append("s", 1, epoch=epoch, messages=(edit, MessageWrite("m", revoked=True)))], at=AT + 1)
    await store.append_batch([append("s", 2, epoch=epoch, messages=(MessageWrite("m"),))], at=AT + 2)
    [row] = await store.list_messages(TENANT, "s")
    assert (row.content, row.context, row.author, row.problems, row.kind) == (b"better", b"ctx", "ada", b"[]", "text")
    assert (row.edited, row.revoked, row.seq, row.recorded_at, row.at) == (True, True, 1, AT, AT)


async def test_texts_a_database_cannot_hold_are_mended(store: Store, epoch: int) -> None:
    odd = append(
        "s",
        epoch=epoch,
        messages=(message("m\0", author="a\ud800"), MessageWrite("m\0", status=2)),
        conversation=conversation("Ada\0 \ud83d", preview="né\0"),
        aliases=(AliasWrite("e1", "user:\0"),),
    )
    assert await store.append_batch([odd, append("t", epoch=epoch)], at=AT) == [Committed(1, AT), Committed(2, AT)]
    [row] = await store.list_conversations(TENANT)
    assert (row.name, row.preview) == ("Ada\ufffd \ufffd", "né\ufffd")
    assert await store.find_messages(TENANT, ["m\0"]) == [MessageStatus("s", "m\0", 2, 1)]
    assert await store.find_conversations(TENANT, "e1", ["user:\0"]) == {"user:\0": "s"}


async def test_a_thread_is_read_in_pages_newest_first(store: Store, epoch: int) -> None:
    writes = tuple(message(f"m{n}", n) for n in range(1, 6))
    await store.append_batch([append("s", 0, 5, epoch=epoch, messages=writes)], at=AT)
    first = await store.list_messages(TENANT, "s", limit=2)
    assert [row.message_id for row in first] == ["m5", "m4"]
    rest = await store.list_messages(TENANT, "s", before=first[-1].seq)
    assert [row.message_id for row in rest] == ["m3", "m2", "m1"]
    assert await store.list_messages("tnt_b", "s") == []


async def test_conversations_are_listed_newest_first_in_pages(store: Store, epoch: int) -> None:
    rows = {"a": 5, "b": 7, "c": 5, "d": 1, "e": 9}
    batch = [append(name, epoch=epoch, conversation=conversation(last_at=AT + at)) for name, at in rows.items()]
    await store.append_batch(batch, at=AT)
    seen: list[str] = []
    before = None
    while page := await store.list_conversations(TENANT, before=before, limit=2):
        seen += [row.id for row in page]
        before = (page[-1].last_at, page[-1].id)
    assert seen == ["e", "b", "c", "a", "d"]
    assert await store.list_conversations("tnt_b") == []


async def test_the_list_is_filtered(store: Store, epoch: int) -> None:
    await store.append_batch(
        [
            append("a", epoch=epoch, conversation=conversation("Ada Lovelace", unanswered=0)),
            append("b", epoch=epoch, conversation=conversation("Émile", endpoint="e2", last_at=AT + 1)),
            append(
                "c",
                epoch=epoch,
                conversation=conversation("50% off_", last_at=AT + 2),
                aliases=(AliasWrite("e1", "phone:4915"), AliasWrite("e1", "user:DE.7x")),
            ),
        ],
        at=AT,
    )

    async def ids(**filters: object) -> list[str]:
        return [row.id for row in await store.list_conversations(TENANT, **filters)]  # type: ignore[arg-type]

    assert await ids() == ["c", "b", "a"]
    assert await ids(endpoint="e2") == ["b"]
    assert await ids(unanswered=True) == ["c", "b"]
    assert await ids(unanswered=False) == ["a"]
    assert await ids(search="love") == ["a"]
    assert await ids(search="éMI") == ["b"]
    assert await ids(search="0% off_") == ["c"]
    assert await ids(search="%") == ["c"]
    assert await ids(search="491") == ["c"]
    assert await ids(search="de.7X") == ["c"]
    assert await ids(search="phone") == [], "an id is searched without its kind"
    assert await ids(search="a", endpoint="e1", unanswered=False) == ["a"]


async def test_a_row_of_the_list_says_how_its_conversation_stands(store: Store, epoch: int) -> None:
    row = conversation(contact=b'{"phone":"1"}', last_outbound=True, unanswered=0, messages=2, preview="ok")
    writes = (
        message("m1", 1, outbound=True, status=READ),
        message("m2", 2, outbound=True, status=SENT),
        message("m3", 3),
    )
    await store.append_batch([append("s", 0, 3, epoch=epoch, conversation=row, messages=writes)], at=AT)
    [listed] = await store.list_conversations(TENANT)
    assert listed == await store.get_conversation(TENANT, "s")
    assert (listed.id, listed.endpoint, listed.contact, listed.preview) == ("s", "e1", b'{"phone":"1"}', "ok")
    assert (listed.last_at, listed.last_outbound, listed.last_status) == (AT, True, SENT)
    assert (listed.unanswered, listed.messages, listed.version, listed.merged_into) == (0, 2, 3, None)
    await store.append_batch([append("s", 3, 1, epoch=epoch, messages=(MessageWrite("m2", status=READ),))], at=AT)
    later = await store.get_conversation(TENANT, "s")
    assert later is not None
    assert (later.last_status, later.version) == (READ, 4)
    await store.append_batch([append("s", 4, 1, epoch=epoch, conversation=conversation())], at=AT)
    inbound = await store.get_conversation(TENANT, "s")
    assert inbound is not None
    assert inbound.last_status == 0
    assert await store.get_conversation("tnt_b", "s") is None
    assert await store.get_conversation(TENANT, "t") is None


async def test_absorbing_moves_the_thread_and_keeps_its_order(store: Store, epoch: int, world: World) -> None:
    async def record(stream: str, expected: int, *writes: MessageWrite, **more: object) -> None:
        one = append(stream, expected, 1, epoch=epoch, messages=writes, conversation=conversation(stream), **more)
        assert [type(o) for o in await store.append_batch([one], at=AT + expected)] == [Committed]

    await record("x", 0, message("m1"))
    await record("y", 0, message("m2"))
    await record(
        "x", 1, message("m3"), MessageWrite("m4", status=READ, status_at=AT + 3), MessageWrite("m6", status=SENT)
    )
    await record("y", 1, message("m4", status=SENT, status_at=AT + 1), MessageWrite("m5", status=READ))
    await record("x", 2, message("m5", status=SENT, status_at=AT))
    await store.append_batch(
        [
            append("x", 3, 1, epoch=epoch, conversation=conversation("x", merged_into="y")),
            append("y", 2, 1, epoch=epoch, messages=(message("m7"),), conversation=conversation("y", absorbs="x")),
        ],
        at=AT,
    )
    rows = await store.list_messages(TENANT, "y")
    assert [row.message_id for row in rows] == ["m7", "m5", "m4", "m3", "m2", "m1"]
    assert [row.seq for row in rows] == [7, 5, 4, 3, 2, 1]
    by_id = {row.message_id: row for row in rows}
    assert (by_id["m4"].status, by_id["m4"].status_at) == (READ, AT + 3)
    assert by_id["m5"].status == READ
    assert {row.conversation for row in rows} == {"y"}
    assert await store.list_messages(TENANT, "x") == []
    assert await store.find_messages(TENANT, ["m1", "m6"]) == [
        MessageStatus("y", "m1", 0, 1),
        MessageStatus("y", "m6", SENT, None),
    ]
    assert [row.id for row in await store.list_conversations(TENANT)] == ["y"]
    merged = await store.get_conversation(TENANT, "x")
    assert merged is not None
    assert merged.merged_into == "y"


async def test_an_edit_that_comes_before_its_message_is_not_undone_by_it(store: Store, epoch: int) -> None:
    edit = MessageWrite("m", kind="text", content=b"edited", edited=True)
    await store.append_batch([append("s", 0, epoch=epoch, messages=(edit,), conversation=conversation())], at=AT)
    await store.append_batch([append("s", 1, epoch=epoch, messages=(message("m", content=b"original"),))], at=AT)
    await store.append_batch([append("t", 0, 2, epoch=epoch, messages=(edit, message("n", 2, content=b"x")))], at=AT)
    [row] = await store.list_messages(TENANT, "s")
    assert (row.content, row.edited) == (b"edited", True)
    both = (edit, message("m", content=b"original"))
    await store.append_batch([append("u", 0, 2, epoch=epoch, messages=both, conversation=conversation())], at=AT)
    [row] = await store.list_messages(TENANT, "u")
    assert row.content == b"edited"
