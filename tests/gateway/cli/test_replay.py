"""What today's code makes of stored webhooks, against what was recorded: on a store in memory that lived through the past."""

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import msgspec
import pytest
import typer
from trio.testing import MockClock

from gateway import replay as engine
from gateway.cli.replay import moment
from gateway.providers.whatsapp_cloud import WhatsAppCloud
from store.contract import Endpoint, RawWebhook, Tenant
from store.memory import MemoryDatabase, MemoryStore
from tests.support.spine import (
    ACCOUNT,
    NOW,
    OTHER_TENANT,
    SECRET,
    TENANT,
    add_tenants,
    change,
    contact,
    spine,
    status,
    text,
    webhook,
)

NOBODYS = "300000000000077"


class History(MemoryStore):
    """The store in memory, with what replay asks in addition."""

    async def find_recorded(self, keys: Sequence[bytes]) -> set[bytes]:
        return {key for key in keys if key in self.database.dedupe}


async def replayed(database: MemoryDatabase, since: int = NOW, tenant: str | None = None) -> list[engine.Compared]:
    found = engine.replay(History(database), WhatsAppCloud(), since=since, until=NOW + 10**9, tenant=tenant)
    return [each async for each in found]


async def lived(*bodies: bytes) -> MemoryDatabase:
    """Return the database of a gateway that took these webhooks, a second apart."""
    database = MemoryDatabase()
    await add_tenants(MemoryStore(database))
    async with spine(database) as made:
        for body in bodies:
            made.now += 1000
            assert (await made.post(body)).status == 200
    return database


def said(message: str, body: str = "hello") -> bytes:
    return webhook(change([text(message, body)], contacts=[contact()]))


def verdicts(compared: engine.Compared) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.verdict, each.kind, each.about) for each in compared.differences]


def rewrite(database: MemoryDatabase, kind: str, body: Callable[[bytes], bytes]) -> None:
    """Change what was recorded, as an older release might have recorded it."""
    feed = database.feeds[TENANT]
    feed[:] = [msgspec.structs.replace(e, body=body(e.body)) if e.kind == kind else e for e in feed]


async def test_the_same_code_finds_the_same(autojump_clock: MockClock) -> None:
    database = await lived(
        said("wamid.1"),
        webhook(change([text("wamid.2")], contacts=[contact()]), change(statuses=[status("wamid.out", "delivered")])),
        said("wamid.1"),  # a repetition leaves nothing
        webhook({"field": "account_alerts", "value": {"alert": "x"}}),
    )
    [compared] = await replayed(database)
    assert (compared.same, compared.differences, compared.repeats) == (4, (), ())


async def test_what_came_before_the_period_is_no_difference(autojump_clock: MockClock) -> None:
    database = await lived(
        said("wamid.1"),
        webhook(change(statuses=[status("wamid.out", "read")])),
        webhook(change(statuses=[status("wamid.out", "sent")])),  # `current` was `read` then, and is `sent` alone
        said("wamid.2"),
    )
    [compared] = await replayed(database, since=NOW + 3000)
    assert (compared.webhooks, compared.same, compared.differences) == (2, 2, ())


async def test_a_chunk_s_border_is_no_difference(autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "CHUNK", 3)
    monkeypatch.setattr(engine, "PAGE", 2)
    monkeypatch.setattr(engine, "EVENTS_PAGE", 2)
    database = await lived(*(said(f"wamid.{n}") for n in range(10)))
    found = await replayed(database)
    assert [(each.webhooks, each.same, each.differences) for each in found] == [
        (3, 3, ()),
        (3, 3, ()),
        (3, 3, ()),
        (1, 1, ()),
    ]


async def test_what_could_not_be_decoded_then_is_new(autojump_clock: MockClock) -> None:
    database = await lived(said("wamid.1"))
    old = RawWebhook("whk_old", "whatsapp", NOW + 2000, said("wamid.2"), "undecodable")
    database.webhooks[old.id] = old
    [compared] = await replayed(database)
    assert verdicts(compared) == [("only_now", "message_recorded", ("wamid.2",))]
    [repeat] = compared.repeats
    assert (repeat.webhook, repeat.secret, len(repeat.keys)) == (old, SECRET, 1)
    async with spine(database) as made:
        assert (await made.post(repeat.webhook.body, repeat.secret)).status == 200
    assert set(repeat.keys) <= database.dedupe, "sent again, exactly this is recorded"
    [compared] = await replayed(database)
    assert (compared.same, compared.differences, compared.repeats) == (2, (), ())


async def test_what_had_no_owner_then_is_new(autojump_clock: MockClock) -> None:
    database = await lived(webhook(change([text("wamid.1")], contacts=[contact()], number=NOBODYS)))
    [compared] = await replayed(database)
    assert (compared.differences, compared.aside) == ((), {"unrouted": 1})
    late = MemoryStore(database)
    await late.add_tenant(Tenant("tnt_late", "late", "late"))
    await late.add_endpoint(Endpoint("whatsapp", NOBODYS, "tnt_late", SECRET, "t", ACCOUNT))
    [compared] = await replayed(database)
    assert verdicts(compared) == [("only_now", "message_recorded", ("wamid.1",))]
    assert compared.differences[0].tenant == "tnt_late"
    [compared] = await replayed(database, tenant=TENANT)
    assert (compared.differences, compared.repeats) == ((), ())


async def test_what_another_app_signed_reaches_nobody_in_the_rerun_either(autojump_clock: MockClock) -> None:
    both = webhook(
        change([text("wamid.1")], contacts=[contact()]),
        change([text("wamid.2")], contacts=[contact()], number="300000000000002"),
    )
    database = await lived(both)
    [compared] = await replayed(database)
    assert (compared.same, compared.differences, compared.repeats) == (1, (), ())
    assert OTHER_TENANT not in database.feeds


async def test_other_content_is_a_change_and_names_the_field(autojump_clock: MockClock) -> None:
    database = await lived(said("wamid.1", "new"))
    rewrite(database, "message_recorded", lambda body: body.replace(b'"new"', b'"old"'))
    [compared] = await replayed(database)
    [difference] = compared.differences
    assert (difference.verdict, difference.kind) == ("changed", "message_recorded")
    then, now = difference.fields["content"]
    assert (then["body"], now["body"]) == ("old", "new")
    assert compared.repeats == (), "it is recorded: sending it again adds nothing"


async def test_another_reading_of_a_recorded_item_is_a_change(autojump_clock: MockClock) -> None:
    database = await lived(said("wamid.1"))
    unknown = b'{"type":"unknown_kept","at":1,"what":"message","payload":{}}'
    feed = database.feeds[TENANT]
    feed[1] = msgspec.structs.replace(feed[1], kind="unknown_kept", body=unknown)
    [compared] = await replayed(database)
    [difference] = compared.differences
    assert (difference.verdict, difference.fields["kind"]) == ("changed", ("unknown_kept", "message_recorded"))


async def test_what_today_s_code_does_not_find_any_more(autojump_clock: MockClock) -> None:
    database = await lived(said("wamid.1"))
    kept = next(iter(database.webhooks.values()))
    database.webhooks[kept.id] = msgspec.structs.replace(kept, body=b"{}")
    [compared] = await replayed(database)
    assert verdicts(compared) == [("only_then", "message_recorded", ("wamid.1",))]
    assert compared.aside == {"undecodable": 1}


@pytest.mark.parametrize(
    ("written", "found"),
    [
        ("now", 1_790_000_000_000),
        ("90s", 1_789_999_910_000),
        ("1h", 1_789_996_400_000),
        ("1.5d", 1_789_870_400_000),
        ("2026-09-21", int(datetime(2026, 9, 21, tzinfo=UTC).timestamp()) * 1000),
        ("2026-09-21T08:00+02:00", int(datetime(2026, 9, 21, 6, tzinfo=UTC).timestamp()) * 1000),
        ("2026-09-21T06:00:00Z", int(datetime(2026, 9, 21, 6, tzinfo=UTC).timestamp()) * 1000),
    ],
)
def test_a_time_is_a_while_ago_or_iso(written: str, found: int) -> None:
    assert moment(written, 1_790_000_000.0) == found


@pytest.mark.parametrize("written", ["", "1", "h", "-1h", "yesterday", "2026-13-01", "1y"])
def test_what_is_no_time_is_refused(written: str) -> None:
    with pytest.raises(typer.BadParameter):
        moment(written, 0.0)
