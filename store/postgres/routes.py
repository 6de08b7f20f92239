"""Tenants, endpoints and API keys: what requests are routed and admitted by. Every change notifies all processes of the database."""

import asyncio

from store.contract import ApiKey, Endpoint, Routes, Tenant
from store.postgres.pool import Connection

CHANNEL = "parley_routes"


async def load_routes(connection: Connection) -> Routes:
    """Return all tenants, endpoints and live keys, as of one moment."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        tenants = await connection.fetch("select id, slug, name, status from tenants order by id")
        endpoints = await connection.fetch(
            "select provider, external_id, tenant, app_secret, verify_token, account, display from endpoints order by 1, 2"
        )
        keys = await connection.fetch(
            "select id, tenant, prefix, digest, created_at, revoked_at from api_keys where revoked_at is null order by id"
        )
    return Routes(
        tuple(Tenant(*row) for row in tenants),
        tuple(Endpoint(*row) for row in endpoints),
        tuple(ApiKey(*row) for row in keys),
    )


async def add_tenant(connection: Connection, tenant: Tenant) -> bool:
    """Record a tenant; False when its slug (or id) is taken."""
    return await _change(
        connection,
        "insert into tenants (id, slug, name, status) values ($1, $2, $3, $4) on conflict do nothing returning 1",
        tenant.id,
        tenant.slug,
        tenant.name,
        tenant.status,
    )


async def add_endpoint(connection: Connection, endpoint: Endpoint) -> bool:
    """Record an endpoint; False when (provider, external_id) is taken."""
    return await _change(
        connection,
        "insert into endpoints (provider, external_id, tenant, app_secret, verify_token, account, display) "
        "values ($1, $2, $3, $4, $5, $6, $7) on conflict do nothing returning 1",
        endpoint.provider,
        endpoint.external_id,
        endpoint.tenant,
        endpoint.app_secret,
        endpoint.verify_token,
        endpoint.account,
        endpoint.display,
    )


async def add_key(connection: Connection, key: ApiKey) -> None:
    """Record an API key."""
    await _change(
        connection,
        "insert into api_keys (id, tenant, prefix, digest, created_at, revoked_at) values ($1, $2, $3, $4, $5, $6) returning 1",
        key.id,
        key.tenant,
        key.prefix,
        key.digest,
        key.created_at,
        key.revoked_at,
    )


async def revoke_key(connection: Connection, key_id: str, at: int) -> bool:
    """Revoke a key; False when there is no such live key."""
    sql = "update api_keys set revoked_at = $2 where id = $1 and revoked_at is null returning 1"
    return await _change(connection, sql, key_id, at)


async def _change(connection: Connection, sql: str, *arguments: object) -> bool:
    async with connection.transaction():
        if await connection.fetchval(sql, *arguments) is None:
            return False
        await connection.execute(f"notify {CHANNEL}")
        return True


class RouteListener:
    """Hears of changes on a connection of its own. What is notified between two waits is not lost: the next one returns at once."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()

    async def start(self, connection: Connection) -> None:
        """Listen on a new connection. Whatever changed before it stood counts as a change."""
        await connection.add_listener(CHANNEL, self._heard)
        connection.add_termination_listener(self._lost)
        self._changed.set()

    async def wait(self, limit: float) -> None:
        """Return when something may have changed, at the latest after `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                await self._changed.wait()
        except TimeoutError:
            pass
        self._changed.clear()

    def _heard(self, connection: object, pid: int, channel: str, payload: object) -> None:
        self._changed.set()

    def _lost(self, connection: object) -> None:
        self._changed.set()
