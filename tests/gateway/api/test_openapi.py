"""The document says what the code does: every route, parameter and answer."""

from typing import Any

import msgspec
import pytest

from gateway.api.app import RESOURCES
from gateway.api.openapi import errors_of
from gateway.api.operation import Operation
from gateway.dashboard import assets
from gateway.http import Response
from gateway.problems import PROBLEMS, ProblemDetails
from protocol import events
from protocol.content import Content
from tests.gateway.api.conftest import BAKERY, Gateway, conversation_id

OPERATIONS: list[Operation] = [one for resource in RESOURCES for one in resource.operations.declared]


@pytest.fixture
async def document(gateway: Gateway) -> Any:
    return await gateway.json("/api/v1/openapi.json", None)


async def test_every_route_is_documented(gateway: Gateway, document: Any) -> None:
    served = {rule.rule.replace("<", "{").replace(">", "}") for rule in gateway.app.url_map.iter_rules()}
    undocumented = served - document["paths"].keys()
    assert undocumented == {*assets(), "/api/v1/openapi.json", "/webhooks/whatsapp"}
    assert document["paths"].keys() <= served


async def test_every_reference_leads_somewhere(document: Any) -> None:
    found: list[str] = []

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            if isinstance(node.get("$ref"), str):
                found.append(node["$ref"])
            found.extend(node.get("discriminator", {}).get("mapping", {}).values())
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(document)
    schemas = document["components"]["schemas"]
    assert {reference.removeprefix("#/components/schemas/") for reference in found} <= schemas.keys()
    assert {
        "Content",
        "EventBody",
        "ContactRef",
        "ProblemDetails",
        "MessageRecorded",
        "NoticeRecorded",
    } <= schemas.keys()


async def test_absent_raw_json_is_optional_and_the_rest_is_as_declared(document: Any) -> None:
    recorded = document["components"]["schemas"]["MessageRecorded"]
    assert recorded["required"] == ["type", "at", "message_id", "content"]
    assert recorded["properties"]["type"] == {"enum": ["message_recorded"]}
    assert recorded["properties"]["outbound"] == {"type": "boolean", "default": False}
    assert recorded["properties"]["referral"] == {}
    assert recorded["description"].startswith("A message stands in the thread.")


async def test_operations_are_described(document: Any) -> None:
    operations = [methods["get"] for methods in document["paths"].values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    for operation in operations:
        assert operation["summary"].endswith(".") and operation["tags"]
        for parameter in operation["parameters"]:
            assert parameter["schema"]["type"] in ("string", "integer", "boolean")
            assert parameter["in"] == "query" or parameter["required"]
    listing = document["paths"]["/api/v1/conversations"]["get"]
    assert [parameter["name"] for parameter in listing["parameters"]] == [
        "endpoint",
        "unanswered",
        "q",
        "cursor",
        "limit",
    ]
    assert listing["parameters"][-1]["schema"] == {"type": "integer", "minimum": 1, "maximum": 200, "default": 50}
    assert listing["security"] == [{"bearer": []}, {"header": []}]
    assert document["paths"]["/health/live"]["get"]["security"] == []
    one = document["paths"]["/api/v1/conversations/{conversation_id}"]["get"]
    assert set(one["responses"]) == {"200", "400", "401", "404", "500", "503"}
    assert "snapshot_required" in document["paths"]["/api/v1/feed"]["get"]["responses"]["410"]["description"]


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
def test_every_example_is_an_answer(operation: Operation) -> None:
    if operation.answer is Response:
        assert isinstance(operation.example, str)
        return
    encoded = msgspec.json.encode(operation.example)
    assert msgspec.json.decode(encoded, type=operation.answer) == operation.example
    assert set(errors_of(operation)) <= PROBLEMS.keys()


@pytest.mark.parametrize("operation", OPERATIONS, ids=lambda one: one.name)
async def test_every_answer_is_what_is_documented(gateway: Gateway, operation: Operation) -> None:
    path = operation.paths[0].replace("<conversation_id>", conversation_id(BAKERY, 4)).replace("<code>", "not_found")
    response = await gateway.get(path)
    body = await response.get_data(as_text=False)
    assert response.status_code == 200 and response.mimetype == operation.media_type
    if operation.answer is Response:
        return
    strict = msgspec.json.decode(body, type=operation.answer)
    assert set(msgspec.json.decode(body)) == set(strict.__struct_fields__)
    for entry in getattr(strict, "data", []) if isinstance(getattr(strict, "data", None), list) else []:
        if hasattr(entry, "content"):
            msgspec.json.decode(entry.content, type=Content)
        if hasattr(entry, "event"):
            events.decode(bytes(entry.event))


@pytest.mark.parametrize("operation", [one for one in OPERATIONS if one.authenticated], ids=lambda one: one.name)
async def test_every_error_is_documented(gateway: Gateway, operation: Operation) -> None:
    path = operation.paths[0].replace("<conversation_id>", conversation_id(BAKERY, 4))
    documented = errors_of(operation)
    seen = [
        await gateway.json(path, None, status=401),
        await gateway.json(f"{path}?nonsense=1", status=400),
    ]
    if operation.path_parameters:
        seen.append(await gateway.json(operation.paths[0].replace("<conversation_id>", "cnv_x"), status=404))
    if operation.query is not None and "cursor" in operation.query.__struct_fields__:
        seen.append(await gateway.json(f"{path}?cursor=x", status=400))
    for body in seen:
        assert msgspec.convert(body, ProblemDetails).code in documented
