"""One node: all wiring, in one place. Nothing registers itself on import.

Owns which parts there are, who gets whom, and the order in which they start and stop. Must not know how any of them works.

```
parley (rest_for_one)
├─ routes         who is who: tenants, endpoints, keys
├─ actors         journal ▸ feed ▸ tenants ▸ conversations  (actors.tree)
├─ deadlines      ends the waiting for commits that do not come
├─ pump           writes to dashboards
├─ sockets        Socket.IO's sessions
├─ housekeeping   retention
└─ listener       the port: the last to open, the first to close
```

A stop goes the other way: the port closes and requests under way finish, the dashboards are told to come back, the tenants' turns commit, the
journal ends last.
"""

import gc
import random
import ssl
import time
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any, cast

import structlog
import trio

from actors.feed import Feed
from actors.journal import Journal
from actors.tree import Tree
from gateway import dashboard
from gateway.api.app import create_app
from gateway.api.readiness import ReadinessProbe
from gateway.api.services import Services
from gateway.config import Settings
from gateway.ingress import Ingress
from gateway.listener import Limits, Listener
from gateway.listener.handover import AsgiApp
from gateway.metrics import Metrics
from gateway.providers.whatsapp_cloud import WhatsAppCloud
from gateway.realtime.dashboards import dashboard_namespace
from gateway.realtime.engine import EngineSettings
from gateway.realtime.pump import Pump
from gateway.realtime.session import Sessions
from gateway.realtime.socketio import SocketIOServer
from gateway.realtime.websocket import dashboard_socket
from gateway.routing import RouteTable
from protocol.ids import new_id
from store.contract import ApiKey, Store, StoreRefused, StoreUnavailable
from supervisor import ChildSpec, Intensity, PoolStatistics, Strategy, Supervisor
from supervisor import Node as SupervisionNode

log = structlog.get_logger("parley.node")

HOUSEKEEPING_SECONDS = 3600.0
DAY = 86_400_000
GC_THRESHOLDS = (20_000, 20, 50)
"""Python's collector looks for cycles every 700 objects by default, and at all resident conversations every 70,000. The hot path makes no
cycles, so what it would look at are live actors: rarer looks cost some megabytes of garbage at most."""


# Seeded by the system at the start. Ids name things, they guard nothing (keys are made by `secrets`), and asking the system costs 0.5 µs a webhook.
_ENTROPY = random.Random()  # noqa: S311


class Identity:
    """Whom an API key stands for, as the realtime sessions want to know it: ids only."""

    __slots__ = ("key", "tenant")

    def __init__(self, tenant: str, key: str) -> None:
        self.tenant = tenant
        self.key = key


def clock() -> int:
    """Return Unix milliseconds."""
    return time.time_ns() // 1_000_000


def fresh_id(prefix: str) -> str:
    """Return a new id."""
    return new_id(prefix, time.time_ns() // 1_000_000, _ENTROPY.randbytes(10))


class Node:
    """A gateway on one store. `run` is called once."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.addresses: list[tuple[str, int]] = []
        self._store = store
        self._fenced: str | None = None
        self.ended = trio.Event()
        """Set when `run` is over, whatever ended it."""
        self.metrics = Metrics()
        self.routes = RouteTable(store)
        self.feed = Feed(store)
        self.journal = Journal(store, self.feed, clock, on_fenced=self._on_fenced)
        self.tree = Tree(
            store,
            self.feed,
            self.journal,
            clock,
            fresh_id,
            idle_timeout=settings.conversation_idle_seconds,
            max_resident=settings.conversations_resident,
        )
        self.ingress = Ingress(
            WhatsAppCloud(settings.app_secret, settings.verify_token),
            self.routes,
            self.tree,
            store,
            clock,
            fresh_id,
            commit_seconds=settings.commit_seconds,
        )
        origins = frozenset(settings.allowed_origins)
        self.sessions = Sessions(self.feed, self._authenticate, limit=settings.connections)
        self.pump = Pump()
        self.socketio = SocketIOServer(
            {"/": dashboard_namespace(self.sessions)},
            EngineSettings(
                origins=origins, max_outbox_bytes=settings.socket_queue_bytes, max_sessions=settings.connections
            ),
            pump=self.pump,
        )
        self.routes.on_keys_revoked(self._close_sessions)
        app = create_app(
            Services(
                store=store,
                routes=self.routes,
                metrics=self.metrics,
                readiness=ReadinessProbe(store, self.routes, self.journal.accepting),
                statistics=self.statistics,
                clock=clock,
                assets=dashboard.assets(),
            )
        )
        self.listener = Listener(
            handlers={
                self.ingress.provider.path: self.ingress.handle,
                "/socket.io/": self.socketio.http,
            },
            sockets={
                "/ws": dashboard_socket(
                    self.sessions, origins=origins, max_queue_bytes=settings.socket_queue_bytes, pump=self.pump
                ),
                "/socket.io/": self.socketio.websocket,
            },
            app=cast(AsgiApp, app),  # Quart types its ASGI events more closely than a server of any application can
            limits=Limits(
                body_bytes=settings.body_bytes,
                connections=settings.connections,
                drain_seconds=settings.drain_seconds,
            ),
            ssl_context=_tls(settings),
        )
        self._register_metrics()
        self._supervisor = Supervisor(
            "parley",
            [
                ChildSpec("routes", self.routes.run),
                ChildSpec("actors", self.tree.run, shutdown=60.0, stop=self.tree.stop, inspect=self.tree.inspect),
                ChildSpec("deadlines", self.ingress.deadlines.run),
                ChildSpec("pump", self.pump.run),
                ChildSpec("sockets", self.socketio.run, shutdown=10.0),
                ChildSpec("housekeeping", self._housekeeping),
                ChildSpec("listener", self._listen, shutdown=settings.drain_seconds + 10.0),
            ],
            strategy=Strategy.REST_FOR_ONE,
            intensity=Intensity(5, 60.0),
        )

    async def run(self, *, task_status: trio.TaskStatus[list[tuple[str, int]]] = trio.TASK_STATUS_IGNORED) -> None:
        """Serve until `stop` or cancellation. Reports the bound addresses once webhooks would be acknowledged.

        Raises:
            StoreRefused: another process took this one's place.
            SupervisorGaveUp, ChildStartFailed: a part cannot be kept running; the cause is attached.
        """
        try:
            async with trio.open_nursery() as nursery:
                await nursery.start(self._supervisor.run)
                # What exists now lives for ever: it need not be looked at in every collection.
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                task_status.started(self.addresses)
        finally:
            self.ended.set()
        if self._fenced is not None:
            raise StoreRefused(self._fenced)

    def stop(self) -> None:
        """Stop in order; then `run` returns."""
        self._supervisor.stop()

    def statistics(self) -> Mapping[str, Any]:
        """Return every component's figures, and the live supervision tree."""
        return {
            "webhooks": self.ingress.statistics(),
            "journal": self.journal.statistics(),
            "feed": self.feed.statistics(),
            "conversations": self._conversations(),
            "listener": self.listener.statistics(),
            "sessions": self.sessions.statistics(),
            "socketio": self.socketio.statistics(),
            "pump": self.pump.statistics(),
            "supervision": self._supervision(),
        }

    # --- parts of its own

    async def _listen(self, *, task_status: trio.TaskStatus[None]) -> None:
        # Restarted, it is where it was, and lets the dashboards in again that it sent away.
        port = self.addresses[0][1] if self.addresses else self.settings.port
        self.sessions.reopen()
        async with trio.open_nursery() as nursery:
            try:
                self.addresses[:] = await nursery.start(self.listener.serve, self.settings.host, port)
                task_status.started()
                await trio.sleep_forever()
            except* OSError as errors:  # the system's own text does not say where
                where = f"{self.settings.host}:{port}"
                raise OSError(f"cannot listen on {where}: {errors.exceptions[0]}") from None
            finally:
                # The dashboards first: they are told to come back, while webhooks under way still finish.
                with trio.CancelScope(shield=True):
                    await self.sessions.shutdown()

    async def _housekeeping(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        while True:
            if self.settings.raw_retention_days:
                try:
                    pruned = await self._store.prune_webhooks(clock() - self.settings.raw_retention_days * DAY)
                except StoreUnavailable as error:
                    log.warning("retention_postponed", error=str(error))
                else:
                    if pruned:
                        log.info("raw_webhooks_pruned", count=pruned)
            await trio.sleep(HOUSEKEEPING_SECONDS)

    async def _authenticate(self, token: str) -> Identity | None:
        found = await self.routes.authenticate(token)
        return None if found is None else Identity(found.tenant.id, found.key.id)

    def _close_sessions(self, keys: Collection[ApiKey]) -> None:
        for key in keys:
            closed = self.sessions.close_key(key.id)
            log.info("key_revoked", key=key.id, sessions_closed=closed)

    def _on_fenced(self, partition: int) -> None:
        if self._fenced is None:
            self._fenced = f"another process took over this database (partition {partition} has a newer epoch)"
            log.error("fenced", partition=partition)
            self.stop()

    def _conversations(self) -> PoolStatistics:
        """Sum the figures of all tenants' conversations: nothing here may name one."""
        pools = [pool for _, pool in self.tree.pools()]
        return PoolStatistics(
            **{each.name: sum(getattr(pool, each.name) for pool in pools) for each in fields(PoolStatistics)}
        )

    def _supervision(self) -> SupervisionNode:
        """Return the live tree as far as any tenant may see it: without the tenants."""
        return _nameless(self._supervisor.statistics())

    def _register_metrics(self) -> None:
        register = self.metrics.register
        register(
            "webhooks",
            self.ingress.statistics,
            counters=[name for name in self.ingress.statistics().__struct_fields__ if name != "seconds"],
        )
        register("journal", self.journal.statistics, counters=("appends", "events", "refused", "unavailable"))
        register(
            "conversations",
            self._conversations,
            counters=("activations", "passivations", "crashes", "poisoned", "refused", "undelivered"),
        )
        register("feed", self.feed.statistics, counters=("published", "delivered", "encoded"))
        register("sessions", self.sessions.statistics, counters=("opened", "refused"))
        register("listener", self.listener.statistics, counters=("accepted", "answers", "refused", "failed"))
        register("pump", self.pump.statistics, counters=("writes", "left"))
        register("socketio", self.socketio.statistics, counters=("opened", "closed"))


def _nameless(node: SupervisionNode) -> SupervisionNode:
    children = () if node.name == "tenants" else tuple(map(_nameless, node.children))
    return replace(node, children=children)


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not settings.tls_certificate:
        return None
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    return context
