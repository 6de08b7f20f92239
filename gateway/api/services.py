"""What the application is given to work with. Owns the ports only; must not know Quart or who stands behind a port."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from gateway.dashboard import Asset
from gateway.http import Handler
from gateway.metrics import Metrics
from gateway.routing import RouteTable
from store.contract import Store


class Readiness(msgspec.Struct, frozen=True):
    """Whether webhooks would be acknowledged now; where not, `reasons` are stable codes (see `gateway.api.readiness`)."""

    ready: bool
    reasons: tuple[str, ...] = ()


@dataclass(frozen=True)
class Services:
    """The ports of the application."""

    store: Store
    routes: RouteTable
    metrics: Metrics
    readiness: Callable[[], Awaitable[Readiness]]
    statistics: Callable[[], Mapping[str, Any]]
    """What `/health/detailed` shows: by component, anything msgspec can encode. Any tenant's key may read it, so it names no tenant."""
    clock: Callable[[], int]
    """Unix milliseconds."""
    assets: Mapping[str, Asset] = field(default_factory=dict)
    """The dashboard's files by path (`gateway.dashboard.assets()`)."""
    handlers: Mapping[str, Handler] = field(default_factory=dict)
    """Handlers by path that a lane serves as well, so that none of their requests depends on its lane."""
    body_bytes: int = 16 * 1024 * 1024
    """The most that a body for `handlers` may have; the same as the lanes'."""
