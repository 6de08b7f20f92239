"""`create_app`: the Quart application, put together from the resources.

Owns what all answers have in common: request ids, security headers, problem+json for every error, and the handlers that lanes serve too. Must not
know what a resource does.
"""

import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable
from functools import cache
from types import TracebackType

import msgspec
import quart
import structlog
from quart_trio import QuartTrio
from werkzeug.exceptions import HTTPException

from gateway.api import (
    conversations,
    events,
    feed,
    health,
    me,
    messages,
    metrics,
    openapi,
    pages,
    problem_codes,
    quarantine,
)
from gateway.api.operation import Dispatcher, as_quart, not_found
from gateway.api.services import Services
from gateway.dashboard import Asset
from gateway.http import Handler, Request
from gateway.problems import Refusal, problem
from protocol.ids import new_id
from store.contract import StoreUnavailable

RESOURCES = (health, me, conversations, messages, events, feed, quarantine, metrics, problem_codes)
"""Modules with `operations`, in the order of the documentation."""

BODY_SECONDS = 30.0
"""For a whole body; the same as the lanes'."""

_REQUEST_ID = re.compile(r"[0-9A-Za-z._:-]{1,80}")
_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    408: "request_timeout",
    413: "body_too_large",
    415: "unsupported_media_type",
}
"""Problem codes of what Quart itself refuses; any other 4xx of it is a `bad_request`."""

log = structlog.get_logger()

Sys = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class _Application(QuartTrio):
    """Quart, with our log."""

    def log_exception(self, exception_info: Sys) -> None:
        """Log what a handler raised; the query stays out, it may hold a customer's name."""
        log.error(
            "request_failed",
            method=quart.request.method,
            path=quart.request.path,
            request_id=quart.g.request_id,
            exc_info=exception_info,
        )


def create_app(services: Services) -> QuartTrio:
    """Return the application, with its metrics registered as `api`."""
    app = _Application("gateway.api", static_folder=None)
    app.url_map.merge_slashes = False  # `//` is no path of ours, and a redirect is no answer to an API client
    app.config["MAX_CONTENT_LENGTH"] = services.body_bytes
    app.config["BODY_TIMEOUT"] = BODY_SECONDS
    app.config["PROPAGATE_EXCEPTIONS"] = False  # whatever fails is answered, under test as well
    dispatcher = Dispatcher(services)
    services.metrics.register(
        "api", dispatcher.statistics, counters=("requests", "overloaded"), labels={"requests": "status"}
    )
    services.metrics.register("routes", services.routes.statistics, counters=("loads", "failures", "misses"))

    for resource in RESOURCES:
        blueprint = quart.Blueprint(resource.operations.tag, resource.__name__)
        for operation in resource.operations.declared:
            for place, path in enumerate(operation.paths):
                blueprint.add_url_rule(
                    path, endpoint=f"{operation.name}-{place}", view_func=dispatcher.view(operation), methods=["GET"]
                )
        app.register_blueprint(blueprint)
    app.register_blueprint(pages.blueprint({**services.assets, "/api/v1/openapi.json": _document()}))
    for path, handler in services.handlers.items():
        app.add_url_rule(
            path,
            endpoint=f"handler {path}".replace(".", "-"),
            view_func=_foreign(handler),
            methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"],
            provide_automatic_options=False,  # which methods there are is the handler's to say
        )
    _add_errors(app)
    _add_envelope(app, services, dispatcher)
    return app


@cache  # the same for every application
def _document() -> Asset:
    operations = [operation for resource in RESOURCES for operation in resource.operations.declared]
    body = msgspec.json.encode(openapi.document(operations))
    return Asset(body, "application/json", f'"{hashlib.sha256(body).hexdigest()[:32]}"')


def _foreign(handler: Handler) -> Callable[[], Awaitable[quart.Response]]:
    async def view() -> quart.Response:
        request = quart.request
        body = await request.get_data(cache=True, as_text=False, parse_form_data=False)
        return as_quart(
            await handler(
                Request(
                    method=request.method,
                    path=request.path,
                    query=request.query_string,
                    headers=tuple((bytes(name), bytes(value)) for name, value in request.scope["headers"]),
                    body=body,
                    client=request.remote_addr or "",
                )
            )
        )

    return view


def _add_errors(app: QuartTrio) -> None:
    @app.errorhandler(Refusal)
    async def refused(refusal: Refusal) -> quart.Response:
        return as_quart(refusal.response)

    @app.errorhandler(StoreUnavailable)
    async def unavailable(_: StoreUnavailable) -> quart.Response:
        return as_quart(problem("store_unavailable", "Try again shortly."))

    @app.errorhandler(HTTPException)
    async def failed(error: HTTPException) -> quart.Response:
        """Answer what Quart refuses, and (500) what a handler raised."""
        status = error.code or 500
        if status >= 500:
            return as_quart(problem("internal_error", f"Mention request {quart.g.request_id} to whoever runs this."))
        code = _CODES.get(status, "bad_request")
        if status == 404:
            return as_quart(not_found().response)
        answer = as_quart(problem(code, str(error.description)))
        allowed = dict(error.get_headers()).get("Allow")
        if allowed is not None:
            answer.headers["allow"] = allowed
        return answer


def _add_envelope(app: QuartTrio, services: Services, dispatcher: Dispatcher) -> None:
    @app.before_request
    async def name_request() -> None:
        shown = quart.request.headers.get("x-request-id", "")
        usable = _REQUEST_ID.fullmatch(shown)
        quart.g.request_id = shown if usable else new_id("req", services.clock(), secrets.token_bytes(10))

    @app.after_request
    async def complete(response: quart.Response) -> quart.Response:
        dispatcher.count(response.status_code)
        response.headers["x-request-id"] = quart.g.request_id
        response.headers.setdefault("x-content-type-options", "nosniff")
        response.headers.setdefault("cache-control", "no-store")  # customers' words; nothing between us may keep them
        return response
