"""What each resource answers: shapes, pages, filters, refusals."""

import base64
from typing import Any

import pytest

from gateway.api.shapes import MAX_PAYLOAD
from protocol.ids import PARTITIONS
from store.contract import QuarantineEntry
from tests.gateway.api.conftest import BAKERY, ENDPOINTS, FLORIST, T0, Gateway, append_of, conversation_id, problem_of

FIRST = conversation_id(BAKERY, 1)
LAST = conversation_id(BAKERY, 7)


async def all_pages(gateway: Gateway, path: str, limit: int) -> list[Any]:
    found: list[Any] = []
    cursor = ""
    while True:
        page = await gateway.json(f"{path}?limit={limit}&cursor={cursor}")
        assert 0 < len(page["data"]) <= limit
        found += page["data"]
        cursor = page["next_cursor"]
        if cursor is None:
            return found


async def epoch(gateway: Gateway) -> str:
    return (await gateway.store.feed_head(BAKERY.id)).epoch


async def test_me(gateway: Gateway) -> None:
    me = await gateway.json("/api/v1/me")
    _, key = gateway.keys[BAKERY.id]
    assert me == {
        "tenant": {"id": BAKERY.id, "slug": "bakery", "name": "The Bakery", "status": "active"},
        "endpoints": [{"provider": "whatsapp", "external_id": ENDPOINTS[BAKERY.id], "display": None, "account": None}],
        "key": {"id": key.id, "prefix": key.prefix},
    }


async def test_a_conversation(gateway: Gateway) -> None:
    found = await gateway.json(f"/api/v1/conversations/{conversation_id(BAKERY, 2)}")
    assert found == {
        "data": {
            "id": conversation_id(BAKERY, 2),
            "endpoint": ENDPOINTS[BAKERY.id],
            "contact": {"phone": "491512", "name": "Mira"},
            "name": "bakery contact 2",
            "preview": "hello",
            "last_at": 1790000001000,
            "last_outbound": True,
            "last_status": "delivered",
            "unanswered": 0,
            "messages": 2,
            "version": 2,
            "merged_into": None,
        },
        "feed": {"epoch": await epoch(gateway), "offset": 28},
    }


async def test_messages_newest_first_with_their_stored_json(gateway: Gateway) -> None:
    page = await gateway.json(f"/api/v1/conversations/{conversation_id(BAKERY, 4)}/messages")
    newest, _, second, oldest = page["data"]
    assert newest["problems"] == [{"code": 131047, "title": "Re-engagement"}] and newest["status"] == "delivered"
    assert second["context"] == {"message_id": "wamid.before"} and second["status_at"] == second["at"] + 9
    assert oldest == {
        "message_id": "wamid.bakery.4.1",
        "conversation": conversation_id(BAKERY, 4),
        "seq": 7,
        "at": 1790000004001,
        "recorded_at": T0 + 500,
        "outbound": False,
        "origin": "customer",
        "content": {"type": "text", "body": "bakery 4/1 é"},
        "context": None,
        "author": None,
        "status": None,
        "status_at": None,
        "problems": [],
        "edited": False,
        "revoked": False,
    }
    response = await gateway.get(f"/api/v1/conversations/{FIRST}/messages")
    assert (
        rb'"content":{"type":"text","body":"bakery 1/1 \u00e9"},' in await response.get_data()
    )  # the very bytes, escapes and all


async def test_events_of_a_conversation(gateway: Gateway) -> None:
    whole = (await gateway.json(f"/api/v1/conversations/{LAST}/events"))["data"]
    assert [event["version"] for event in whole] == [1, 2, 3, 4, 5, 6, 7]
    assert whole[0]["event"]["type"] == "message_recorded" and whole[0]["conversation"] == LAST
    part = (await gateway.json(f"/api/v1/conversations/{LAST}/events?after=3&limit=2"))["data"]
    assert part == whole[3:5]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 200])
async def test_pages_are_complete(gateway: Gateway, limit: int) -> None:
    conversations = await all_pages(gateway, "/api/v1/conversations", limit)
    order = [(row["last_at"], row["id"]) for row in conversations]
    assert order == sorted(order, reverse=True) and len(set(order)) == 7
    messages = await all_pages(gateway, f"/api/v1/conversations/{LAST}/messages", limit)
    assert [message["message_id"] for message in messages] == [f"wamid.bakery.7.{n}" for n in range(7, 0, -1)]
    quarantine = await all_pages(gateway, "/api/v1/quarantine", limit)
    assert [entry["id"] for entry in quarantine] == [f"qrt_bakery{n}" for n in range(4, -1, -1)]


async def test_filters(gateway: Gateway) -> None:
    async def names(query: str) -> list[str]:
        rows = (await gateway.json(f"/api/v1/conversations?{query}"))["data"]
        return [row["id"][-1] for row in rows]

    assert await names("unanswered=true") == ["7", "5", "3", "1"]
    assert await names("unanswered=false") == ["6", "4", "2"]
    assert await names("q=contact%206") == ["6"]
    assert await names(f"endpoint={ENDPOINTS[BAKERY.id]}&limit=2") == ["7", "6"]
    assert await names(f"endpoint={ENDPOINTS[FLORIST.id]}") == []
    assert len(await names("endpoint=&unanswered=&q=&cursor=&limit=")) == 7


@pytest.mark.parametrize(
    ("path", "method"),
    [
        ("/api/v1/conversations", "list_conversations"),
        (f"/api/v1/conversations/{FIRST}", "get_conversation"),
        (f"/api/v1/conversations/{FIRST}/messages", "list_messages"),
    ],
)
async def test_the_feed_position_is_older_than_the_rows(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, path: str, method: str
) -> None:
    """What is committed while the answer is put together is in the rows, or comes after the position, or both; never neither."""
    read = getattr(gateway.store, method)
    committed = []

    async def commit_and_read(*args: Any, **kwargs: Any) -> Any:
        append = append_of(BAKERY, 8, dict.fromkeys(range(PARTITIONS), 1))
        committed.append(await gateway.store.append_batch([append], at=T0))
        return await read(*args, **kwargs)

    monkeypatch.setattr(gateway.store, method, commit_and_read)
    position = (await gateway.json(path))["feed"]
    assert committed and position["offset"] == 28
    events = (await gateway.json(f"/api/v1/feed?after=28&epoch={position['epoch']}"))["data"]
    assert [event["conversation"] for event in events] == [conversation_id(BAKERY, 8)] * 8


async def test_feed_is_read_to_its_head_without_holes(gateway: Gateway) -> None:
    offset, found = 0, []
    while True:
        page = await gateway.json(f"/api/v1/feed?after={offset}&epoch={await epoch(gateway)}&limit=5")
        found += [event["offset"] for event in page["data"]]
        offset = page["offset"]
        assert page["head"] == 28
        if offset == page["head"]:
            break
    assert found == list(range(1, 29))
    page = await gateway.json("/api/v1/feed?after=28")
    assert page == {"epoch": await epoch(gateway), "offset": 28, "head": 28, "data": []}


async def test_the_feeds_head_is_never_behind_its_events(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    read = gateway.store.read_feed

    async def commit_and_read(tenant: str, *, after: int, limit: int = 500) -> Any:
        await gateway.store.append_batch([append_of(BAKERY, 8, dict.fromkeys(range(PARTITIONS), 1))], at=T0)
        return await read(tenant, after=after, limit=limit)

    monkeypatch.setattr(gateway.store, "read_feed", commit_and_read)
    page = await gateway.json("/api/v1/feed?after=20")
    assert page["offset"] == page["head"] == 36


@pytest.mark.parametrize(
    ("query", "oldest", "reason"),
    [
        ("after=5&epoch=another", 1, "epoch_changed"),
        ("after=29", 1, "ahead"),
        ("after=8", 10, "too_old"),
        ("", 2, "too_old"),
    ],
)
async def test_a_position_that_cannot_be_resumed(gateway: Gateway, query: str, oldest: int, reason: str) -> None:
    gateway.store.oldest = oldest
    found = await problem_of(await gateway.get(f"/api/v1/feed?{query}"), 410, "snapshot_required")
    assert (found["reason"], found["epoch"], found["offset"]) == (reason, await epoch(gateway), 28)
    assert not found["retryable"]


@pytest.mark.parametrize("pruned", [9, 28])
async def test_events_pruned_while_the_feed_is_read_leave_no_hole(gateway: Gateway, pruned: int) -> None:
    gateway.store.pruned = pruned
    await problem_of(await gateway.get("/api/v1/feed?after=5"), 410, "snapshot_required")
    assert len((await gateway.json(f"/api/v1/feed?after={pruned}"))["data"]) == 28 - pruned


async def test_quarantine_shows_text_as_text_and_the_rest_as_base64(gateway: Gateway) -> None:
    def entry(name: str, payload: bytes) -> QuarantineEntry:
        return QuarantineEntry(f"qrt_{name}", 100, "undecodable", "why", payload, BAKERY.id, "whk_1", "cnv_1")

    entries = [
        entry("1", '{"é":'.encode()),
        entry("2", b"\xff\x00"),
        entry("3", "é".encode() * (MAX_PAYLOAD + 1)),
        entry("4", b"\xff" * (MAX_PAYLOAD + 1)),
    ]
    await gateway.store.append_batch([], quarantine=entries, at=T0)
    long_binary, long_text, binary, text = (await gateway.json("/api/v1/quarantine?limit=4"))["data"]
    assert (text["payload"], text["encoding"], text["size"], text["truncated"]) == ('{"é":', "utf-8", 6, False)
    assert (text["webhook"], text["conversation"]) == ("whk_1", "cnv_1")
    assert (base64.b64decode(binary["payload"]), binary["encoding"]) == (b"\xff\x00", "base64")
    assert (len(long_text["payload"]), long_text["size"]) == (MAX_PAYLOAD, 2 * MAX_PAYLOAD + 2)
    assert len(base64.b64decode(long_binary["payload"])) == MAX_PAYLOAD
    assert long_text["truncated"] and long_binary["truncated"]


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=1e2", "limit"),
        ("limit=5.0", "limit"),
        ("limit=-1", "limit"),
        ("limit=%D9%A3", "limit"),
        ("limit=99999999999999999999", "limit"),
        ("limit=5&limit=5", "limit"),
        ("unanswered=yes", "unanswered"),
        ("unanswered=1", "unanswered"),
        ("unanswered=null", "unanswered"),
        ("Limit=5", "Limit"),
        ("unaswered=true", "unaswered"),
        ("q=a%00b", "q"),
        ("q=" + "x" * 201, "q"),
        ("endpoint=%0A", "endpoint"),
        ("cursor=" + "x" * 1001, "cursor"),
    ],
)
async def test_a_bad_parameter_is_named(gateway: Gateway, query: str, names: str) -> None:
    reads = gateway.store.reads
    found = await problem_of(await gateway.get(f"/api/v1/conversations?{query}"), 400, "bad_request")
    assert names in found["detail"] and gateway.store.reads == reads


async def test_positions_stay_within_what_counts_exactly(gateway: Gateway) -> None:
    for path in ("/api/v1/feed", f"/api/v1/conversations/{FIRST}/events"):
        await problem_of(await gateway.get(f"{path}?after={2**53}"), 400, "bad_request")
        await problem_of(await gateway.get(f"{path}?after=-1"), 400, "bad_request")
    await problem_of(await gateway.get(f"/api/v1/feed?after={2**53 - 1}"), 410, "snapshot_required")


async def test_too_many_parameters_are_not_parsed(gateway: Gateway) -> None:
    response = await gateway.get("/api/v1/conversations?" + "&".join(f"a{n}=1" for n in range(1000)))
    found = await problem_of(response, 400, "bad_request")
    assert "a0" not in found["detail"]  # refused as a whole, before any was looked at
    await problem_of(await gateway.get("/api/v1/me?x=1"), 400, "bad_request")
