"""How an operation of the API is declared, and how it is called.

Owns the decorator that resource files use, authentication, the deadline, the bound on requests in flight, and the way from a handler's
answer to HTTP. Must not know any resource.

A handler is an async function; its annotations are its declaration:

| a parameter of type | receives |
|---------------------|----------|
| Services | the ports |
| Identity | who asks; the operation then needs an API key |
| a subclass of Query | the query string; any other parameter in it is refused |
| anything else | the path's `<name>`; where the text does not fit the type, the answer is `not_found`, as for any unknown id |

It returns a struct, answered 200 as JSON, or a `gateway.http.Response`. It refuses by raising `Refusal`.
"""

import inspect
import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
import quart
import trio

from gateway.api.parameters import Query, parse_query
from gateway.api.services import Services
from gateway.http import Response
from gateway.problems import Refusal
from gateway.routing import Identity, presented_key

MAX_IN_FLIGHT = 256
"""API requests served at once; beyond, 503. They share a pool of some ten database connections, so more would only wait there."""
MAX_PER_TENANT = 64
"""Of these, what one tenant may have: more than all its people's pages ask for at once, and three others still find room (promise FAIR)."""
DEADLINE_SECONDS = 10.0
"""A read that takes longer is given up. Health checks of load balancers and people both stop waiting about here."""

Endpoint = Callable[..., Awaitable[Any]]
_encoder = msgspec.json.Encoder()


@dataclass(frozen=True)
class Operation:
    """One declared operation."""

    name: str
    tag: str
    paths: tuple[str, ...]
    summary: str
    description: str
    handler: Endpoint
    arguments: dict[str, Any]
    answer: Any
    media_type: str
    example: Any
    errors: tuple[str, ...]

    @property
    def query(self) -> type[Query] | None:
        """The struct of its query string."""
        return next((kind for kind in self.arguments.values() if _is(kind, Query)), None)

    @property
    def authenticated(self) -> bool:
        """Whether it needs an API key."""
        return Identity in self.arguments.values()

    @property
    def path_parameters(self) -> dict[str, Any]:
        """The path's parameters by name, with their types."""
        names = re.findall(r"<(\w+)>", self.paths[0])
        return {name: self.arguments[name] for name in names}


class Operations:
    """The operations of one resource, in the order of their declaration."""

    def __init__(self, tag: str) -> None:
        """`tag` groups them in the documentation."""
        self.tag = tag
        self.declared: list[Operation] = []

    def get(
        self, *paths: str, example: Any, errors: tuple[str, ...] = (), media_type: str = "application/json"
    ) -> Callable[[Endpoint], Endpoint]:
        """Declare a GET under `paths`. `example` is an answer for the documentation.

        `errors` are the codes it may refuse with, besides those that follow from what it takes.
        """

        def declare(handler: Endpoint) -> Endpoint:
            arguments = inspect.get_annotations(handler)
            answer = arguments.pop("return")
            summary, _, description = (inspect.getdoc(handler) or "").partition("\n\n")
            operation = Operation(
                name=handler.__name__,
                tag=self.tag,
                paths=paths,
                summary=summary,
                description=description,
                handler=handler,
                arguments=arguments,
                answer=answer,
                media_type=media_type,
                example=example,
                errors=errors,
            )
            self.declared.append(operation)
            return handler

        return declare


class ApiStatistics(msgspec.Struct, frozen=True):
    """The REST API and the pages. `requests` by status and `overloaded` are totals since the start."""

    requests: dict[int, int]
    in_flight: int
    overloaded: int


class Dispatcher:
    """Turns operations into Quart's view functions, and counts."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._in_flight: Counter[str] = Counter()
        self._overloaded = 0
        self._answers: Counter[int] = Counter()

    def view(self, operation: Operation) -> Endpoint:
        """Return the view function of `operation`."""

        async def view(**path: str) -> quart.Response:
            with trio.move_on_after(DEADLINE_SECONDS):
                # Health and metrics need no room: a process must answer them above all when it has none.
                if not operation.authenticated:
                    return await self._call(operation, path, None)
                # Who asks comes first: a stranger learns nothing about parameters or ids.
                identity = await self._authenticate()
                with self._room(identity.tenant.id):
                    return await self._call(operation, path, identity)
            raise Refusal("store_unavailable", f"No answer within {DEADLINE_SECONDS:g} s.")

        return view

    def count(self, status: int) -> None:
        """Count one answer of the application."""
        self._answers[status] += 1

    def statistics(self) -> ApiStatistics:
        """Return totals and the requests in flight."""
        return ApiStatistics(dict(self._answers), self._in_flight.total(), self._overloaded)

    @contextmanager
    def _room(self, tenant: str) -> Iterator[None]:
        """Hold one of the places for requests."""
        if self._in_flight.total() >= MAX_IN_FLIGHT or self._in_flight[tenant] >= MAX_PER_TENANT:
            self._overloaded += 1
            raise Refusal("overloaded", "Too many requests are being served.")
        self._in_flight[tenant] += 1
        try:
            yield
        finally:
            self._in_flight[tenant] -= 1
            if not self._in_flight[tenant]:
                del self._in_flight[tenant]

    async def _call(self, operation: Operation, path: dict[str, str], identity: Identity | None) -> quart.Response:
        arguments: dict[str, Any] = {}
        if operation.query is None:
            parse_query(quart.request.query_string, Query)  # any parameter at all is one too many
        for name, kind in operation.arguments.items():
            if kind is Services:
                arguments[name] = self._services
            elif kind is Identity:
                arguments[name] = identity
            elif _is(kind, Query):
                arguments[name] = parse_query(quart.request.query_string, kind)
            else:
                arguments[name] = _path_value(path[name], kind)
        answer = await operation.handler(**arguments)
        if isinstance(answer, Response):
            return as_quart(answer)
        return quart.Response(_encoder.encode(answer), content_type="application/json")

    async def _authenticate(self) -> Identity:
        token = presented_key(tuple(quart.request.scope["headers"]))
        identity = None if token is None else await self._services.routes.authenticate(token)
        if identity is None:
            # One text for no key, a malformed one, a revoked one and an unknown one.
            raise Refusal("unauthenticated", "Send a valid API key as `Authorization: Bearer …` or `x-api-key`.")
        return identity


def as_quart(response: Response) -> quart.Response:
    """Return the same answer in Quart's form."""
    answer = quart.Response(response.body, response.status)
    del answer.headers["content-type"]  # Quart's default; what the answer says stands in its own headers
    for name, value in response.headers:
        answer.headers.add(name.decode("ascii"), value.decode("latin-1"))
    if response.status in (204, 304):
        del answer.headers["content-length"]  # it would be that of no body at all (RFC 9110, section 8.6)
    return answer


def _path_value(text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind)
    except msgspec.ValidationError:
        raise not_found() from None


def not_found() -> Refusal:
    """Return the one refusal for what does not exist, what belongs to somebody else, and what cannot be an id."""
    return Refusal("not_found", "There is no such thing, or not for this key.")


def _is(kind: Any, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)
