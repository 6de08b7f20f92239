"""The gateway: everything that touches the network, and all wiring.

Where to look: `cli/` starts things, `node.py` wires them, `listener/` reads requests, `ingress.py` takes webhooks, `providers/` knows what is a
provider's own, `realtime/` serves dashboards' sockets, `api/` serves REST and pages, `dashboard/` is the page. `http.py` is what they agree on.
"""
