"""Where the `type` of a problem leads: what its code means."""

import msgspec

from gateway.api.operation import Operations, not_found
from gateway.problems import PROBLEMS

operations = Operations("problems")


class ProblemKind(msgspec.Struct, frozen=True):
    """A problem code. `retryable`: the same request may succeed later, unchanged."""

    code: str
    status: int
    title: str
    retryable: bool


@operations.get("/problems/<code>", example=ProblemKind("not_found", 404, PROBLEMS["not_found"].title, False))
async def problem_kind(code: str) -> ProblemKind:
    """Explain a problem code."""
    kind = PROBLEMS.get(code)
    if kind is None:
        raise not_found()
    return ProblemKind(code, kind.status, kind.title, kind.retryable)
