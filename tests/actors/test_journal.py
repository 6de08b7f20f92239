"""The journal on a store that misbehaves: what it tells its senders, and what it tells the feed (NO-GAP)."""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
import trio
from msgspec import Raw
from trio.testing import MockClock, wait_all_tasks_blocked

import actors.journal
from actors.conversation import PAGE, Conversation
from actors.feed import DOUBT, Feed
from actors.journal import Journal
from actors.ports import Notice
from actors.tenant import TenantStream
from protocol.commands import RecordNotice
from protocol.frames import Topics
from protocol.machines import conversation as machine
from store.contract import Append, Committed, Duplicate, Outcome, RawWebhook, StoreUnavailable
from store.memory import MemoryStore
from supervisor import ActorStopped, Envelope, MailboxFull, Poisoned, Undelivered
from supervisor.envelope import Reply
from tests.actors.test_feed import Follower
from tests.support.appends import AT, TENANT, append, key
from tests.support.spine import TENANT as BUSINESS
from tests.support.spine import change, contact, spine, text, webhook

EVERYTHING = Topics(True, frozenset(), frozenset())
Behaviour = Callable[..., Awaitable[list[Outcome]]]


class Made:
    """A journal and a feed on a store whose `append_batch` may be replaced."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.real: Behaviour = self.store.append_batch
        self.feed = Feed(self.store)
        self.journal = Journal(self.store, self.feed, lambda: AT, on_fenced=lambda _: None)

    def behave(self, behaviour: Behaviour) -> None:
        self.store.append_batch = behaviour  # type: ignore[method-assign,assignment]

    def append(self, stream: str, expected: int = 0, **more: Any) -> Append:
        partition, epoch = self.journal.place(stream)
        return append(stream, expected, epoch=epoch, partition=partition, **more)

    async def follow(self) -> Follower:
        follower = Follower()
        await self.feed.follow(TENANT, EVERYTHING, follower, offset=0)
        return follower


@asynccontextmanager
async def journal() -> AsyncIterator[Made]:
    made = Made()
    await made.journal.acquire()
    spec = made.journal.child_spec()
    async with trio.open_nursery() as nursery:
        await nursery.start(spec.start)
        yield made
        assert spec.stop is not None
        spec.stop()


async def away(*_: object, **__: object) -> list[Outcome]:
    raise StoreUnavailable("the link was cut")


async def given_up(made: Made, late: Append) -> Follower:
    """Have `late`'s commit given up; return who followed again before it became visible."""
    first = await made.follow()
    made.behave(away)
    with pytest.raises(StoreUnavailable):
        await made.journal.append(late)
    made.behave(made.real)
    assert first.interrupted_at == 0
    return await made.follow()


async def test_a_commit_seen_late_reaches_the_followers_when_its_repetition_is_a_duplicate(
    autojump_clock: MockClock,
) -> None:
    async with journal() as made:
        late = made.append("cnv_1", dedupe=(key(1),))
        follower = await given_up(made, late)
        assert isinstance((await made.real([late], at=AT))[0], Committed)  # the zombie
        again = made.append("cnv_1", 1, dedupe=(key(1),))
        assert isinstance(await made.journal.append(again), Duplicate)
        assert follower.interrupted_at == 0
        assert (await made.follow()).offsets == [1]
        # it is settled: the next commit is simply published
        follower = await made.follow()
        await made.journal.append(made.append("cnv_1", 1))
        assert (follower.offsets, follower.interrupted_at) == ([1, 2], None)


async def test_a_commit_seen_late_reaches_the_followers_even_when_nothing_more_comes(
    autojump_clock: MockClock,
) -> None:
    async with journal() as made:
        late = made.append("cnv_1")
        follower = await given_up(made, late)
        await made.real([late], at=AT)
        await made.journal.append(made.append("cnv_2", tenant="tnt_other"))
        made.feed.sweep()
        assert not follower.wakeup.is_set()
        await trio.sleep(DOUBT)
        made.feed.sweep()
        assert follower.interrupted_at == 0
        follower = await made.follow()
        made.feed.sweep()
        assert (follower.offsets, follower.interrupted_at) == ([1], None)


async def test_everyone_in_a_failed_batch_gets_an_error_of_their_own(autojump_clock: MockClock) -> None:
    async with journal() as made:
        made.behave(away)
        caught: list[BaseException] = []

        async def commit(n: int) -> None:
            with pytest.raises(StoreUnavailable, match="the link was cut") as error:
                await made.journal.append(made.append(f"cnv_{n}"))
            caught.append(error.value)

        async with trio.open_nursery() as nursery:
            for n in range(3):
                nursery.start_soon(commit, n)
        assert len(set(map(id, caught))) == 3
        assert made.journal.statistics().unavailable < 3, "they shared a batch"


async def test_an_append_that_crashes_the_journal_is_found_and_its_siblings_are_committed(
    autojump_clock: MockClock,
) -> None:
    """Even when its sender tries as often as an actor does: the batch's crash, then three alone for each of four tries."""
    async with journal() as made:

        async def crash(appends: Sequence[Append], **more: Any) -> list[Outcome]:
            if any(each.stream == "cnv_bad" for each in appends):
                raise ZeroDivisionError("unforeseen")
            return await made.real(appends, **more)

        made.behave(crash)
        outcomes: list[Outcome] = []

        async def commit(n: int) -> None:
            outcomes.append(await made.journal.append(made.append(f"cnv_{n}")))

        async with trio.open_nursery() as nursery:
            for n in range(5):
                nursery.start_soon(commit, n)
            for _ in range(4):
                with pytest.raises(Poisoned):
                    await made.journal.append(made.append("cnv_bad"))
        assert [type(outcome) for outcome in outcomes] == [Committed] * 5


async def test_a_message_that_crashes_the_journal_is_quarantined(autojump_clock: MockClock) -> None:
    async with spine() as made:
        real = made.store.append_batch

        async def crash(appends: Sequence[Append], **more: Any) -> list[Outcome]:
            if any(b"wamid.BAD" in event.body for each in appends for event in each.events):
                raise ZeroDivisionError("unforeseen")
            return await real(appends, **more)

        made.store.append_batch = crash  # type: ignore[method-assign]
        items = [text("wamid.1"), text("wamid.BAD"), text("wamid.2")]
        assert (await made.post(webhook(change(items, contacts=[contact()])))).status == 200
        [entry] = await made.store.list_quarantine(tenant=BUSINESS)
        assert (entry.reason, entry.detail) == ("crashed", "NotStorable: unforeseen")
        [row] = await made.store.list_conversations(BUSINESS)
        assert row.messages == 2


async def test_a_transaction_carries_a_bounded_number_of_bytes(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actors.journal, "BATCH_BYTES", 25)
    async with journal() as made:
        gate = trio.Event()
        batches: list[list[str]] = []

        async def record(appends: Sequence[Append], *, webhooks: Sequence[RawWebhook], **more: Any) -> list[Outcome]:
            await gate.wait()
            batches.append([each.id for each in webhooks])
            if "whk_6" in batches[-1]:
                raise StoreUnavailable("away")
            return await made.real(appends, webhooks=webhooks, **more)

        made.behave(record)
        kept: list[str] = []

        async def keep(name: str) -> None:
            await made.journal.keep(RawWebhook(name, "meta", AT, b"0123456789", "partial"))
            kept.append(name)

        async def keep_in_vain(name: str) -> None:
            with pytest.raises(StoreUnavailable):
                await keep(name)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep, "whk_0")
            await wait_all_tasks_blocked()
            for n in range(1, 4):
                nursery.start_soon(keep, f"whk_{n}")
                await wait_all_tasks_blocked()
            for n in range(4, 8):
                nursery.start_soon(keep_in_vain, f"whk_{n}")
                await wait_all_tasks_blocked()
            gate.set()
        assert [len(batch) for batch in batches] == [1, 3, 3]
        assert sorted(kept) == ["whk_0", "whk_1", "whk_2", "whk_3"], "what was committed was answered so"


async def test_what_waits_when_the_journal_stops_is_returned_to_its_senders(autojump_clock: MockClock) -> None:
    async with journal() as made:
        gate = trio.Event()

        async def slow(*args: Any, **more: Any) -> list[Outcome]:
            await gate.wait()
            return await made.real(*args, **more)

        made.behave(slow)
        results: list[object] = []

        async def commit(n: int) -> None:
            try:
                results.append(type(await made.journal.append(made.append(f"cnv_{n}"))))
            except Undelivered as error:
                results.append(type(error))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(commit, 1)
            await wait_all_tasks_blocked()
            nursery.start_soon(commit, 2)
            await wait_all_tasks_blocked()
            stop = made.journal.child_spec().stop
            assert stop is not None
            stop()
            gate.set()
        assert results == [Committed, Undelivered]


@pytest.mark.parametrize(
    "error", [MailboxFull("full"), ActorStopped("stopped"), Undelivered(None, outcome_unknown=True)]
)
async def test_a_journal_that_takes_nothing_now_quarantines_no_notice(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made()

    async def refuse(*_: object) -> Outcome:
        raise error

    monkeypatch.setattr(made.journal, "append", refuse)
    notice = Notice(
        "acc", None, AT, RecordNotice("t", Raw(b"{}")), key(1), RawWebhook("w", "meta", AT, b"{}", "routed")
    )
    reply: Reply[Any] = Reply()
    await TenantStream(TENANT, made.journal, made.store).turn([Envelope(notice, reply=reply)])
    with pytest.raises(type(error)):
        reply.result()


async def test_a_stream_whose_snapshot_is_of_another_release_is_read_in_pages(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.conversation.PAGE", 50)
    assert PAGE == 500
    async with spine() as made:
        for n in range(200):
            await made.post(webhook(change([text(f"wamid.{n}")], contacts=[contact()])))
        [row] = await made.store.list_conversations(BUSINESS)
        [loaded] = await made.store.load_streams([row.id])
        monkeypatch.setattr(machine, "decode_snapshot", lambda _: None)
        limits: list[int] = []
        real = made.store.read_stream

        async def read(tenant: str, stream: str, *, after: int = 0, limit: int = 500) -> Any:
            limits.append(limit)
            return await real(tenant, stream, after=after, limit=limit)

        made.store.read_stream = read  # type: ignore[method-assign]
        actor = Conversation(BUSINESS, row.id, made.journal, made.store, made.tree.directory)
        await actor._load()
        assert max(limits) == 50
        assert sum(limits) == loaded.snapshot_version
        assert (actor._version, actor._state.summary.messages) == (loaded.version, 200)
