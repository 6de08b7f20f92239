"""What a provider is answered, and what is kept, for every kind of webhook (issue: bad input; RELIABILITY 5, 6, 17, 18)."""

import json

import pytest
from trio.testing import MockClock

from gateway.http import Request
from gateway.providers import whatsapp_cloud
from protocol.signatures import sign
from store.contract import Endpoint
from tests.support.spine import (
    ACCOUNT,
    NUMBER,
    OTHER_ACCOUNT,
    OTHER_NUMBER,
    OTHER_SECRET,
    OTHER_TENANT,
    SECRET,
    TENANT,
    Spine,
    change,
    contact,
    spine,
    text,
    webhook,
)

BODY = webhook(change([text("wamid.1")], contacts=[contact()]))


async def raw_verdicts(made: Spine) -> list[str]:
    return [each.verdict for each in await made.store.list_webhooks(since=0, until=2**50)]


@pytest.mark.parametrize(
    "signature",
    [
        None,
        sign(b"another secret", BODY),
        sign(OTHER_SECRET.encode(), BODY),  # another tenant's, valid for that one
        sign(SECRET.encode(), BODY).upper(),
        sign(SECRET.encode(), BODY)[:-1],
        b"sha1=" + sign(SECRET.encode(), BODY)[7:47],
        sign(SECRET.encode(), json.dumps(json.loads(BODY), separators=(",", ":")).encode()),
    ],
)
async def test_a_wrong_signature_is_401_and_leaves_nothing(autojump_clock: MockClock, signature: bytes | None) -> None:
    async with spine() as made:
        headers = () if signature is None else ((b"x-hub-signature-256", signature),)
        answer = await made.ingress.handle(Request("POST", "/webhooks/whatsapp", b"", headers, BODY, "test"))
        assert answer.status == 401
        assert await made.events() == []
        assert await raw_verdicts(made) == []
        assert await made.store.list_quarantine() == []
        assert made.ingress.statistics().unauthenticated == 1


async def test_a_repeated_signature_header_is_refused(autojump_clock: MockClock) -> None:
    async with spine() as made:
        good = (b"x-hub-signature-256", sign(SECRET.encode(), BODY))
        answer = await made.ingress.handle(
            Request(
                "POST", "/webhooks/whatsapp", b"", (good, (b"x-hub-signature-256", b"sha256=" + b"0" * 64)), BODY, "t"
            )
        )
        assert answer.status == 401


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"{",
        b'{"object":NaN}',
        b'\xff\xfe{"object":"whatsapp_business_account"}',
        b"[" * 100_000,
        b'{"object":"page","entry":[]}',
        b'{"object":"whatsapp_business_account","entry":' + b"9" * 10_000 + b"}",
    ],
)
async def test_signed_nonsense_is_kept_and_answered_200(autojump_clock: MockClock, body: bytes) -> None:
    async with spine() as made:
        assert (await made.post(body)).status == 200
        assert await raw_verdicts(made) == ["undecodable"]
        [entry] = await made.store.list_quarantine()
        assert (entry.reason, entry.payload) == ("undecodable", body)


async def test_an_unknown_number_is_kept_as_unrouted(autojump_clock: MockClock) -> None:
    async with spine() as made:
        assert (await made.post(webhook(change([text("wamid.1")], number="999")))).status == 200
        assert await raw_verdicts(made) == ["unrouted"]
        [entry] = await made.store.list_quarantine()
        assert (entry.reason, entry.tenant) == ("unrouted", None)


async def test_one_app_cannot_write_to_another_s_number(autojump_clock: MockClock) -> None:
    """The signature speaks for the endpoints under its secret only, whatever else the body names."""
    async with spine() as made:
        body = webhook(
            change([text("wamid.1")], contacts=[contact()]),
            change([text("wamid.2")], number=OTHER_NUMBER),
            account=ACCOUNT,
        )
        assert (await made.post(body)).status == 200
        assert [event.kind for event in await made.events()] == ["conversation_started", "message_recorded"]
        assert await made.events(OTHER_TENANT) == []
        assert await raw_verdicts(made) == ["partial"]


async def test_of_a_thousand_changes_one_bad_one_hurts_nobody(autojump_clock: MockClock) -> None:
    """RELIABILITY 6."""
    async with spine() as made:
        changes = [change([text(f"wamid.{n}", sender=f"49{n}")], contacts=[contact(f"49{n}")]) for n in range(1000)]
        changes[500]["value"]["messages"][0] = {"id": 17, "type": ["text"]}
        assert (await made.post(webhook(*changes))).status == 200
        recorded = [event for event in await made.events() if event.kind == "message_recorded"]
        assert len(recorded) == 999
        [entry] = await made.store.list_quarantine(tenant=TENANT)
        assert entry.reason == "bad_item"
        assert json.loads(entry.payload) == {"id": 17, "type": ["text"]}


async def test_every_item_of_a_batch_is_processed(autojump_clock: MockClock) -> None:
    async with spine() as made:
        one = change([text("wamid.1"), text("wamid.2")], contacts=[contact()])
        two = change([text("wamid.3", sender="4912")], contacts=[contact("4912", name="Other")])
        await made.post(webhook(one, two))
        assert sum(event.kind == "message_recorded" for event in await made.events()) == 3


async def test_a_notice_goes_to_the_tenant_s_own_stream_once(autojump_clock: MockClock) -> None:
    async with spine() as made:
        value = {
            "event": "APPROVED",
            "message_template_id": 1600000000000001,
            "message_template_name": "a",
            "message_template_language": "de",
        }
        entry = {
            "id": ACCOUNT,
            "time": 1790000000,
            "changes": [{"field": "message_template_status_update", "value": value}],
        }
        body = json.dumps({"object": "whatsapp_business_account", "entry": [entry]}).encode()
        assert (await made.post(body)).status == 200
        assert (await made.post(body)).status == 200
        [event] = await made.events()
        assert (event.stream, event.kind, event.version) == (TENANT, "notice_recorded", 1)
        assert json.loads(event.body)["payload"] == value


async def test_an_unknown_field_is_kept_where_it_belongs(autojump_clock: MockClock) -> None:
    async with spine() as made:
        assert (await made.post(webhook({"field": "telepathy", "value": {"x": 1}}))).status == 200
        [event] = await made.events()
        assert (event.kind, json.loads(event.body)["known"]) == ("notice_recorded", False)


async def test_a_tenant_added_meanwhile_is_known_without_a_restart(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.store.add_endpoint(Endpoint("whatsapp", "777", TENANT, "new-secret", "t"))
        assert (await made.post(webhook(change([text("wamid.1")], number="777")), "new-secret")).status == 200
        assert len(await made.events()) == 2


async def test_sweeps_over_all_secrets_have_a_budget(autojump_clock: MockClock) -> None:
    async with spine() as made:
        statuses = [(await made.post(b"{}", "nobody's")).status for _ in range(whatsapp_cloud.SWEEPS_PER_SECOND + 5)]
        assert statuses[0] == 401
        assert statuses[-1] == 503


async def test_the_handshake_takes_any_endpoint_s_token_and_echoes_exactly(autojump_clock: MockClock) -> None:
    async with spine() as made:

        async def ask(query: bytes) -> tuple[int, bytes]:
            answer = await made.ingress.handle(Request("GET", "/webhooks/whatsapp", query, (), b"", "test"))
            return answer.status, answer.body

        good = f"hub.mode=subscribe&hub.verify_token=verify-{OTHER_NUMBER}&hub.challenge=115\x38a".encode()
        assert await ask(good) == (200, b"1158a")
        assert (await ask(good.replace(b"verify-", b"verify_")))[0] == 403
        assert (await ask(good.replace(b"subscribe", b"unsubscribe")))[0] == 403
        assert (await ask(b"hub.mode=subscribe"))[0] == 400
        assert (await ask(b"hub.mode=subscribe&hub.verify_token=&hub.challenge=1"))[0] == 403


async def test_other_methods_are_refused(autojump_clock: MockClock) -> None:
    async with spine() as made:
        answer = await made.ingress.handle(Request("PUT", "/webhooks/whatsapp", b"", (), b"", "test"))
        assert answer.status == 405
        assert dict(answer.headers)[b"allow"] == b"GET, POST"


async def test_the_same_ids_at_two_tenants_are_two_facts(autojump_clock: MockClock) -> None:
    async with spine() as made:
        await made.post(BODY)
        other = webhook(change([text("wamid.1")], contacts=[contact()], number=OTHER_NUMBER), account=OTHER_ACCOUNT)
        await made.post(other, OTHER_SECRET)
        assert len(await made.events(TENANT)) == len(await made.events(OTHER_TENANT)) == 2
        assert NUMBER != OTHER_NUMBER
