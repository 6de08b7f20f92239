"""Parley's listener: one TCP port in front of everything, and a lane for each kind of request.

```
accept ─▶ ingest lane ──── head of each request ─┬─▶ a Handler's path: served here, kept alive, pipelined   (hot path)
                                                 ├─▶ an upgrade to a SocketHandler's path ─▶ realtime lane
                                                 └─▶ anything else ─▶ hypercorn, for good ─▶ asgi.HandlersFirst ─▶ app
```

| file | owns |
|---|---|
| `listener` | accepting, the cap, TLS, the way through the lanes, shutdown |
| `sniff`, `chunked` | HTTP/1 syntax, pure |
| `answers`, `refusals` | answers as bytes; the table of refusals |
| `ingest_lane`, `realtime_lane`, `handover` | the lanes |
| `asgi` | the same handlers under hypercorn |
| `wire`, `watch`, `limits` | bytes in and out, deadlines, the figures |
| `statistics` | what is counted |

Deadlines: each of a connection's phases has one (`limits`), enforced by one sweep in the ingest lane (`watch`) and by the
stream and the ASGI boundary under hypercorn (`handover`). No peer holds a connection by being slow; nothing is read
beyond a limit.
"""

from gateway.listener.limits import Limits
from gateway.listener.listener import Listener
from gateway.listener.statistics import ListenerStatistics

__all__ = ["Limits", "Listener", "ListenerStatistics"]
