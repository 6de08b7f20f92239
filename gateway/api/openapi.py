"""The OpenAPI 3.1 document, made from the declarations of the operations.

Owns the translation only: names, parameters, answers, errors and examples all come from where they are used, so that the document cannot say
anything else than the code does. Must not know any resource.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any

import msgspec

from gateway.api.operation import Operation
from gateway.http import Response
from gateway.problems import CONTENT_TYPE, PROBLEMS, ProblemDetails
from protocol.commands import ContactRef
from protocol.content import Content, Context, Problem
from protocol.events import ConversationEvent, TenantEvent

_TEMPLATE = "#/components/schemas/{name}"
_STORED: Mapping[str, Any] = {"Content": Content, "EventBody": ConversationEvent | TenantEvent}
"""Unions that stored JSON is made of, under the names by which `gateway.api.shapes` refers to them."""

_KEY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]


def document(operations: Sequence[Operation]) -> dict[str, Any]:
    """Return the document for `operations`."""
    answers = [operation.answer for operation in operations if operation.answer is not Response]
    shapes = [*answers, ProblemDetails, ContactRef, Context, Problem, *_STORED.values()]
    schemas, components = msgspec.json.schema_components(shapes, ref_template=_TEMPLATE)
    components.update(zip(_STORED, schemas[-len(_STORED) :], strict=True))
    schema_of = dict(zip(map(id, answers), schemas, strict=False))
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Parley",
            "version": "1",
            "description": "Conversations with your customers, whichever provider carries them. Times are Unix milliseconds. "
            f"Errors are {CONTENT_TYPE} (RFC 9457): look at `code`, and at `retryable` before you try again.",
        },
        "paths": {
            _path(path): {"get": _operation(operation, path, schema_of.get(id(operation.answer), {"type": "string"}))}
            for operation in operations
            for path in operation.paths
        },
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
            },
        },
    }


def errors_of(operation: Operation) -> list[str]:
    """Return every code the operation may refuse with: those it names, and those that follow from what it takes."""
    codes = {*operation.errors, "bad_request", "internal_error"}
    if operation.authenticated:
        codes |= {"unauthenticated", "store_unavailable", "overloaded"}
    if operation.path_parameters:
        codes.add("not_found")
    if operation.query is not None and "cursor" in operation.query.__struct_fields__:
        codes.add("bad_cursor")
    return sorted(codes, key=lambda code: (PROBLEMS[code].status, code))


def _operation(operation: Operation, path: str, answer: Any) -> dict[str, Any]:
    first = path == operation.paths[0]
    example = msgspec.json.decode(msgspec.json.encode(operation.example))
    found: dict[str, Any] = {
        "operationId": operation.name if first else f"{operation.name}_at{re.sub(r'[^a-z]+', '_', path)}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "parameters": list(_parameters(operation)),
        "responses": {
            "200": {
                "description": operation.summary,
                "content": {operation.media_type: {"schema": answer, "example": example}},
            },
            **_errors(errors_of(operation)),
        },
        "security": _KEY if operation.authenticated else [],
    }
    if operation.description:
        found["description"] = operation.description
    return found


def _parameters(operation: Operation) -> Iterable[dict[str, Any]]:
    for name, kind in operation.path_parameters.items():
        yield _parameter(name, "path", kind, required=True)
    if operation.query is not None:
        for field in msgspec.structs.fields(operation.query):
            yield _parameter(field.encode_name, "query", field.type, required=False, default=field.default)


def _parameter(name: str, place: str, kind: Any, *, required: bool, default: Any = None) -> dict[str, Any]:
    schema = msgspec.json.schema(kind)
    if "anyOf" in schema:  # an absent parameter is how a query string says null
        schema = next(choice for choice in schema["anyOf"] if choice != {"type": "null"})
    description = schema.pop("description", None)
    if default is not None:
        schema["default"] = default
    found = {"name": name, "in": place, "required": required, "schema": schema}
    return found if description is None else {**found, "description": description}


def _errors(codes: Sequence[str]) -> dict[str, Any]:
    """Return the answers by status; codes that share one are told apart by `code`."""
    return {
        str(status): {
            "description": "; ".join(f"`{code}`: {PROBLEMS[code].title}" for code in group),
            "content": {CONTENT_TYPE: {"schema": {"$ref": _TEMPLATE.format(name=ProblemDetails.__name__)}}},
        }
        for status, group in groupby(codes, key=lambda code: PROBLEMS[code].status)
    }


def _path(path: str) -> str:
    return re.sub(r"<(\w+)>", r"{\1}", path)
