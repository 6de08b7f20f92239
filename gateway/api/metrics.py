"""The metrics page, for Prometheus. It needs no key and names no tenant (`gateway.metrics`, rule 5)."""

import quart

from gateway.api.operation import Operations
from gateway.api.services import Services
from gateway.http import Response

operations = Operations("metrics")


@operations.get("/metrics", example="parley_api_in_flight 0.0", media_type="text/plain")
async def metrics(services: Services) -> Response:
    """Return every metric, in Prometheus' text format or as OpenMetrics."""
    page, content_type = services.metrics.render(quart.request.headers.get("accept", ""))
    return Response(200, page, ((b"content-type", content_type.encode("ascii")),))
