"""Whether the process lives, whether it would acknowledge webhooks, and how its parts are.

For orchestrators (`live`: restart me when this fails; `ready`: send me traffic while this is 200) and for people (`detailed`).
"""

from typing import Any, Literal

import msgspec

from gateway.api.operation import Operations
from gateway.api.services import Readiness, Services
from gateway.problems import Refusal
from gateway.routing import Identity

operations = Operations("health")


class Alive(msgspec.Struct, frozen=True):
    """The process answers."""

    status: Literal["live"] = "live"


class Ready(msgspec.Struct, frozen=True):
    """Webhooks would be acknowledged now."""

    status: Literal["ready"] = "ready"


class Detailed(msgspec.Struct, frozen=True):
    """Readiness, and each component's own statistics."""

    readiness: Readiness
    components: dict[str, Any]


@operations.get("/api/v1/health/live", "/health/live", example=Alive())
async def live() -> Alive:
    """Tell that the process answers."""
    return Alive()


@operations.get("/api/v1/health/ready", "/health/ready", example=Ready(), errors=("not_ready",))
async def ready(services: Services) -> Ready:
    """Tell whether webhooks would be acknowledged now.

    200 says that they would. Otherwise the problem `not_ready` has a member `reasons`: store_unavailable, store_slow, routes_not_loaded,
    journal_not_accepting.
    """
    readiness = await services.readiness()
    if not readiness.ready:
        raise Refusal("not_ready", ", ".join(readiness.reasons), members={"reasons": readiness.reasons})
    return Ready()


@operations.get(
    "/api/v1/health/detailed",
    "/health/detailed",
    example=Detailed(Readiness(True), {"journal": {"batches": 12, "waiting": 0}}),
)
async def detailed(services: Services, _: Identity) -> Detailed:
    """Show how each part of the process is. Answered 200 also when not ready: `readiness` says so."""
    return Detailed(await services.readiness(), dict(services.statistics()))
