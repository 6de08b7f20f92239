"""What all answers have in common: who may ask, which errors, which headers."""

from typing import Any

import msgspec
import pytest
import trio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from trio.testing import MockClock, wait_all_tasks_blocked

from gateway.api import operation as operation_module
from gateway.api.app import RESOURCES
from gateway.api.operation import DEADLINE_SECONDS, MAX_PER_TENANT, Operation
from gateway.api.readiness import FRESH_SECONDS
from gateway.dashboard import CONTENT_SECURITY_POLICY
from gateway.listener import refusals as refusals_module
from gateway.problems import PROBLEMS, problem
from gateway.routing import MISS_INTERVAL, new_key
from store.contract import Tenant
from tests.gateway.api.conftest import (
    BAKERY,
    FLORIST,
    Gateway,
    body_of,
    conversation_id,
    exchange,
    make_gateway,
    problem_of,
)

OPERATIONS: list[Operation] = [one for resource in RESOURCES for one in resource.operations.declared]
GUARDED = [one for one in OPERATIONS if one.authenticated]
OWNED = [one for one in GUARDED if one.path_parameters]

# --- who asks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("operation", GUARDED, ids=lambda one: one.name)
async def test_without_a_valid_key_nothing_is_read(gateway: Gateway, operation: Operation) -> None:
    text, _ = gateway.keys[BAKERY.id]
    path = operation.paths[-1].replace("<conversation_id>", conversation_id(BAKERY, 1))
    refusals = []
    reads = gateway.store.reads
    for headers in (
        {},
        {"authorization": f"Basic {text}"},
        {"authorization": text},
        {"x-api-key": text[:-1]},
        {"x-api-key": text + "0"},
        {"x-api-key": text.upper()},
        {"x-api-key": text, "authorization": "Bearer pk_another"},
        {"authorization": "Bearer "},
    ):
        response = await gateway.client.get(f"{path}?nonsense=1", headers=headers)
        refusals.append(await problem_of(response, 401, "unauthenticated"))
        assert response.headers["www-authenticate"] == "Bearer"
    assert all(refusal == refusals[0] for refusal in refusals)
    assert gateway.store.reads == reads


async def test_either_header_will_do(gateway: Gateway) -> None:
    text, _ = gateway.keys[FLORIST.id]
    for me in (
        await gateway.json("/api/v1/me", None, authorization=f"bearer {text}"),
        await gateway.json("/api/v1/me", None, x_api_key=text),
    ):
        assert me["tenant"]["slug"] == "florist"


@pytest.mark.parametrize("operation", OWNED, ids=lambda one: one.name)
async def test_unknown_and_forbidden_look_the_same(gateway: Gateway, operation: Operation) -> None:
    def at(conversation: str) -> str:
        return operation.paths[0].replace("<conversation_id>", conversation)

    own = await gateway.get(at(conversation_id(BAKERY, 3)), BAKERY)
    assert own.status_code == 200
    answers = set()
    garbage = ("%00", "x" * 65, "a%0A", "%E2%82%AC")
    for conversation in (
        conversation_id(BAKERY, 3),  # the bakery's
        "cnv_01JZ8Y3V9Q6N5W4T7R2K1M0HXC",  # nobody's
        FLORIST.id,  # the stream of one's own tenant is no conversation
        *garbage,
    ):
        reads = gateway.store.reads
        response = await gateway.get(at(conversation), FLORIST, x_request_id="same")
        await problem_of(response, 404, "not_found")
        assert conversation not in garbage or gateway.store.reads == reads  # no database need cope with it
        answers.add((await body_of(response), str(sorted(response.headers.items()))))
    assert len(answers) == 1


async def test_lists_hold_the_own_tenants_alone(gateway: Gateway) -> None:
    for path in ("/api/v1/me", "/api/v1/conversations", "/api/v1/feed", "/api/v1/quarantine"):
        body = await body_of(await gateway.get(path, BAKERY))
        assert b"bakery" in body and b"florist" not in body and b"nobody" not in body, path
        assert b"secret" not in body and b"verify" not in body, path


async def test_a_revoked_key_is_refused_and_a_new_one_works(gateway: Gateway, autojump_clock: MockClock) -> None:
    await gateway.json("/api/v1/me")
    text, key = new_key(BAKERY.id, at=1)
    _, old = gateway.keys[BAKERY.id]
    await gateway.store.add_key(key)
    assert await gateway.store.revoke_key(old.id, 2)
    await trio.sleep(MISS_INTERVAL)
    await gateway.json("/api/v1/me", None, x_api_key=text)
    await problem_of(await gateway.get("/api/v1/me"), 401, "unauthenticated")


# --- errors -----------------------------------------------------------------------------------------------------------


async def test_every_error_is_a_problem(gateway: Gateway) -> None:
    for path in ("/nope", "/api/v1/nope", "/api/v1/me/", "/static/../../pyproject.toml", "/static/%2e%2e/x", "/%ff"):
        await problem_of(await gateway.get(path), 404, "not_found")
    start, *_ = await exchange(gateway.app, "//health//live")  # the test client would tidy it up
    assert start["status"] == 404
    for method in ("POST", "PUT", "DELETE", "PATCH", "TRACE", "BREW"):
        response = await gateway.client.open("/api/v1/me", method=method)  # type: ignore[call-arg]  # stub lacks defaults
        await problem_of(response, 405, "method_not_allowed")
        assert "GET" in response.headers["allow"]


async def test_a_bug_is_logged_and_answered_without_its_text(gateway: Gateway) -> None:
    async def fail() -> None:
        raise RuntimeError("password=hunter2")

    gateway.store.before_read = fail
    with capture_logs() as logs:
        response = await gateway.get("/api/v1/conversations?q=Mira", x_request_id="abc-1")
    found = await problem_of(response, 500, "internal_error")
    assert "hunter2" not in str(found) and "abc-1" in found["detail"]
    (entry,) = logs
    assert (entry["event"], entry["log_level"], entry["request_id"]) == ("request_failed", "error", "abc-1")
    assert entry["path"] == "/api/v1/conversations"


async def test_the_database_away(gateway: Gateway) -> None:
    gateway.store.database.outage = "db.internal is away"
    for operation in GUARDED:
        if operation.name in ("me", "detailed"):
            continue  # they ask the database for nothing
        path = operation.paths[0].replace("<conversation_id>", conversation_id(BAKERY, 1))
        response = await gateway.get(path)
        found = await problem_of(response, 503, "store_unavailable")
        assert found["retryable"] and int(response.headers["retry-after"]) > 0
        assert "db.internal" not in str(found)
    await gateway.json("/api/v1/me")
    await gateway.json("/health/live")


async def test_a_database_that_hangs_is_given_up(gateway: Gateway, autojump_clock: MockClock) -> None:
    gateway.store.before_read = trio.sleep_forever
    asked = trio.current_time()
    await problem_of(await gateway.get("/api/v1/conversations"), 503, "store_unavailable")
    assert trio.current_time() - asked == pytest.approx(DEADLINE_SECONDS)


async def test_requests_in_flight_are_bounded(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenant's share first, then the whole; and what tells how the process is needs no room."""
    monkeypatch.setattr(operation_module, "MAX_IN_FLIGHT", MAX_PER_TENANT + 1)
    release = trio.Event()
    gateway.store.before_read = release.wait
    statuses = []

    async def ask(tenant: Tenant) -> None:
        statuses.append((await gateway.get("/api/v1/conversations", tenant)).status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(MAX_PER_TENANT):
            nursery.start_soon(ask, BAKERY)
        await wait_all_tasks_blocked()
        await problem_of(await gateway.get("/api/v1/conversations", BAKERY), 503, "overloaded")
        await gateway.json("/api/v1/me", FLORIST)
        nursery.start_soon(ask, FLORIST)
        await wait_all_tasks_blocked()
        response = await gateway.get("/api/v1/me", FLORIST)
        await problem_of(response, 503, "overloaded")
        assert response.headers["retry-after"]
        await gateway.json("/health/live", None)
        page = await body_of(await gateway.get("/metrics", None))
        assert b"parley_api_in_flight 65.0" in page and b"parley_api_overloaded_total 2.0" in page
        release.set()
    assert statuses == [200] * (MAX_PER_TENANT + 1)
    for tenant in (BAKERY, FLORIST):
        await gateway.json("/api/v1/conversations", tenant)


def test_what_the_listener_refuses_stands_in_the_table() -> None:
    refusals = [one for one in vars(refusals_module).values() if isinstance(one, refusals_module.Refusal)]
    assert refusals
    for refusal in refusals:
        assert PROBLEMS[refusal.code].status == refusal.status


def test_the_table_of_problems() -> None:
    for code, kind in PROBLEMS.items():
        answer = problem(code, "why", x_extra="1", members={"more": [1]})
        body = msgspec.json.decode(answer.body)
        assert body == {
            "type": f"/problems/{code}",
            "title": kind.title,
            "status": kind.status,
            "detail": "why",
            "code": code,
            "retryable": kind.retryable,
            "more": [1],
        }
        assert dict(answer.headers).get(b"x-extra") == b"1"
        # Whoever may try again on 503 is told when; a client's own mistake is never worth repeating.
        assert (kind.status == 503) == (b"retry-after" in dict(answer.headers))
        assert not (kind.retryable and kind.status < 500 and kind.status != 408)
    assert dict(problem("overloaded", "why", retry_after="30").headers)[b"retry-after"] == b"30"
    with pytest.raises(KeyError):
        problem("no_such_code", "why")


async def test_a_problem_type_leads_to_its_meaning(gateway: Gateway) -> None:
    for code, kind in PROBLEMS.items():
        found = await gateway.json(f"/problems/{code}", None)
        assert found == {"code": code, "status": kind.status, "title": kind.title, "retryable": kind.retryable}
    await problem_of(await gateway.get("/problems/nope", None), 404, "not_found")


# --- headers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shown", "kept"),
    [("abc-1.2:3_X", True), ("x" * 80, True), ("x" * 81, False), ("", False), ("a b", False), ("<script>", False)],
)
async def test_request_ids(gateway: Gateway, shown: str, kept: bool) -> None:
    for path in ("/health/live", "/nope", "/", "/api/v1/me"):
        answered = (await gateway.get(path, None, x_request_id=shown)).headers.getlist("x-request-id")
        assert (answered == [shown]) == kept
        assert kept or answered[0].startswith("req_")


async def test_request_ids_differ(gateway: Gateway) -> None:
    ids = {(await gateway.get("/health/live")).headers["x-request-id"] for _ in range(20)}
    assert len(ids) == 20


async def test_head_and_options(gateway: Gateway) -> None:
    text, _ = gateway.keys[BAKERY.id]
    head = await gateway.client.head("/api/v1/me", headers={"x-api-key": text})
    assert head.status_code == 200 and head.headers["content-type"] == "application/json"
    options = await gateway.client.options("/api/v1/me")
    assert options.status_code == 200 and set(options.headers["allow"].split(", ")) == {"GET", "HEAD", "OPTIONS"}


async def test_api_answers_are_not_kept_by_caches(gateway: Gateway) -> None:
    response = await gateway.get("/api/v1/conversations")
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-content-type-options"] == "nosniff"


async def test_pages(gateway: Gateway) -> None:
    page = await gateway.get("/", None)
    assert page.status_code == 200 and page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["content-security-policy"] == CONTENT_SECURITY_POLICY
    assert page.headers["cache-control"] == "no-cache"
    tag = page.headers["etag"]
    for known in (tag, f'"other", {tag}', f"W/{tag}", "*"):
        again = await gateway.get("/", None, if_none_match=known)
        assert again.status_code == 304 and await body_of(again) == b"", known
        assert again.headers["etag"] == tag
    assert (await gateway.get("/", None, if_none_match='"other"')).status_code == 200
    (start, *_) = await exchange(gateway.app, "/", [(b"if-none-match", tag.encode())])
    assert start["status"] == 304
    assert not {b"content-length", b"content-type"} & {name.lower() for name, _ in start["headers"]}
    script = await gateway.get("/static/js/app.js", None)
    assert script.status_code == 200 and script.headers["content-type"].startswith("text/javascript")
    assert (await gateway.get("/api/v1/openapi.json", None, if_none_match=tag)).status_code == 200


# --- health -----------------------------------------------------------------------------------------------------------


async def test_readiness_flips_and_says_why(gateway: Gateway, autojump_clock: MockClock) -> None:
    async def reasons() -> list[str]:
        await trio.sleep(2 * FRESH_SECONDS)
        found = await problem_of(await gateway.get("/health/ready", None), 503, "not_ready")
        detailed = await gateway.json("/health/detailed")
        assert detailed["readiness"] == {"ready": False, "reasons": found["reasons"]}
        return list(found["reasons"])

    assert await gateway.json("/health/ready", None) == {"status": "ready"}
    gateway.store.database.outage = "db.internal is away"
    gateway.accepting = False
    assert await reasons() == ["store_unavailable", "journal_not_accepting"]
    gateway.store.database.outage = None
    assert await reasons() == ["journal_not_accepting"]
    gateway.accepting = True
    gateway.store.before_read = trio.sleep_forever
    assert await reasons() == ["store_slow"]
    gateway.store.before_read = None
    await trio.sleep(2 * FRESH_SECONDS)
    assert await gateway.json("/api/v1/health/ready", None) == {"status": "ready"}
    detailed = await gateway.json("/health/detailed")
    assert detailed["readiness"]["ready"] and detailed["components"]["routes"]["tenants"] == 2


async def test_not_ready_before_the_routes_are_loaded() -> None:
    gateway = await make_gateway(load=False)
    found = await problem_of(await gateway.get("/health/ready", None), 503, "not_ready")
    assert found["reasons"] == ["routes_not_loaded"]
    await gateway.json("/api/v1/me")  # a miss, which loads
    await gateway.json("/health/ready", None)


async def test_many_who_ask_cost_one_check(gateway: Gateway) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(50):
            nursery.start_soon(gateway.json, "/health/ready", None)
    assert gateway.store.checks == 1


# --- handlers that lanes serve too ------------------------------------------------------------------------------------


async def test_a_lanes_handler_is_served_here_too(gateway: Gateway) -> None:
    response = await gateway.client.post(
        "/webhooks/whatsapp?a=1&a=2", data=b"\x00raw", headers={"X-Hub-Signature": "s"}
    )
    assert (response.status_code, response.headers["x-lane"]) == (202, "none")
    (request,) = gateway.requests
    assert (request.method, request.path, request.query, request.body) == (
        "POST",
        "/webhooks/whatsapp",
        b"a=1&a=2",
        b"\x00raw",
    )
    assert request.header(b"x-hub-signature") == b"s"
    for method in ("GET", "PUT", "OPTIONS"):
        response = await gateway.client.open("/webhooks/whatsapp", method=method)  # type: ignore[call-arg]  # as above
        assert response.status_code == 202


async def test_a_body_over_the_limit(gateway: Gateway) -> None:
    assert (await gateway.client.post("/webhooks/whatsapp", data=b"x" * 1000)).status_code == 202
    response = await gateway.client.post("/webhooks/whatsapp", data=b"x" * 1001)
    await problem_of(response, 413, "body_too_large")
    assert len(gateway.requests) == 1


# --- garbage ----------------------------------------------------------------------------------------------------------

FUZZ = settings(max_examples=75, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
LISTS = ("/api/v1/conversations", f"/api/v1/conversations/{conversation_id(BAKERY, 7)}/messages", "/api/v1/quarantine")
QUERY_TEXT = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E, exclude_characters="#"), max_size=60)


def run(check: Any, *arguments: Any) -> None:
    """Run an async check of one example: hypothesis and pytest-trio do not share a test function's fixtures."""
    trio.run(check, *arguments)


@pytest.mark.slow
@FUZZ
@given(st.sampled_from(LISTS), st.text(max_size=80) | st.binary(max_size=40).map(lambda raw: raw.hex()))
def test_no_cursor_of_garbage_is_taken(path: str, cursor: str) -> None:
    async def check() -> None:
        gateway = await make_gateway((BAKERY,))
        response = await gateway.client.get(
            path, query_string={"cursor": cursor}, headers={"x-api-key": gateway.keys[BAKERY.id][0]}
        )
        assert response.status_code in ((200,) if not cursor else (400,))

    run(check)


@pytest.mark.slow
@FUZZ
@given(st.sampled_from([one.paths[0] for one in GUARDED]), QUERY_TEXT, st.text(min_size=1, max_size=20))
def test_no_query_or_path_makes_an_error_of_ours(path: str, query: str, identity: str) -> None:
    async def check() -> None:
        gateway = await make_gateway((BAKERY,))
        quoted = "".join(f"%{byte:02x}" for byte in identity.encode("utf-8", "surrogatepass"))
        response = await gateway.get(f"{path.replace('<conversation_id>', quoted)}?{query}")
        assert response.status_code in (200, 400, 404, 410)

    run(check)


async def test_a_cursor_belongs_to_its_list(gateway: Gateway) -> None:
    cursors = {path: (await gateway.json(f"{path}?limit=1"))["next_cursor"] for path in LISTS}
    for path in LISTS:
        for origin, cursor in cursors.items():
            response = await gateway.get(f"{path}?cursor={cursor}")
            assert response.status_code == (200 if path == origin else 400)
            changed = cursor[:-2] + ("AA" if cursor[-2:] != "AA" else "BB")
            assert (await gateway.get(f"{path}?cursor={changed}")).status_code in (200, 400)


@pytest.mark.parametrize("host", [b"", b"a b", b"\xff", b"[::1", b"x:99999999", b"evil.example/%2e", b"\x00"])
async def test_no_host_header_breaks_an_answer(gateway: Gateway, host: bytes) -> None:
    start, *_ = await exchange(gateway.app, "/health/live", [(b"host", host)])
    assert start["type"] == "http.response.start" and start["status"] in (200, 400)
