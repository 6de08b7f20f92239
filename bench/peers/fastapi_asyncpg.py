# mypy: disable-error-code="import-not-found,untyped-decorator"
"""Peer: FastAPI on uvicorn (uvloop, httptools) + asyncpg + python-socketio. Everything is committed to PostgreSQL before the answer.

Runs in an environment of its own (`requirements.txt` beside it), never in Parley's: nothing imports it. Settings (environment): PORT,
APP_SECRET, DATABASE_URL, POOL. One process: python-socketio needs a Redis between several, and the machine's second core is PostgreSQL's.
"""

import hmac
import os
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import asyncpg
import orjson
import socketio
import uvicorn
from fastapi import FastAPI, Request, Response

SECRET = os.environ["APP_SECRET"].encode()

# The key is the dedupe: a message's id, or a receipt's message and status.
TABLE = """
CREATE TABLE IF NOT EXISTS events (
    id text PRIMARY KEY,
    endpoint text NOT NULL,
    contact text NOT NULL,
    kind text NOT NULL,
    body jsonb NOT NULL,
    received_at timestamptz NOT NULL DEFAULT now()
)"""

# asyncpg prepares it once a connection. One statement commits by itself: event and dedupe together.
INSERT = """
INSERT INTO events (id, endpoint, contact, kind, body)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::jsonb[])
ON CONFLICT (id) DO NOTHING
RETURNING id"""


class Item(NamedTuple):
    """One row of `events`."""

    id: str
    endpoint: str
    contact: str
    kind: str
    body: dict[str, Any]


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Open the pool, make the table."""
    async with asyncpg.create_pool(os.environ["DATABASE_URL"], max_size=int(os.environ.get("POOL", "10"))) as pool:
        await pool.execute(TABLE)
        app.state.pool = pool
        yield


app = FastAPI(lifespan=lifespan)
sio = socketio.AsyncServer(async_mode="asgi")


@sio.event
async def connect(sid: str, environ: dict[str, Any], auth: object) -> None:
    """Greet, as docs/realtime.md has it, so that the same dashboard can follow every peer."""
    await sio.emit("welcome", {"protocol": 1}, to=sid)


@sio.event
async def subscribe(sid: str, request: dict[str, Any]) -> dict[str, Any]:
    """Follow topics."""
    for topic in request["topics"]:
        await sio.enter_room(sid, topic)
    return {"type": "subscribed", "offset": 0}


@app.post("/webhooks/whatsapp")
async def webhook(request: Request) -> Response:
    """Verify, store, show, answer."""
    body = await request.body()
    wanted = "sha256=" + hmac.digest(SECRET, body, "sha256").hex()
    if not hmac.compare_digest(request.headers.get("x-hub-signature-256", ""), wanted):
        return Response(status_code=401)
    items = list(items_of(orjson.loads(body)))
    if items:
        ids, endpoints, contacts, kinds, bodies = zip(*items, strict=True)
        encoded = [orjson.dumps(each).decode() for each in bodies]
        rows = await request.app.state.pool.fetch(INSERT, ids, endpoints, contacts, kinds, encoded)
        fresh = {row["id"] for row in rows}
        for item in items:
            if item.id in fresh:
                await sio.emit("event", item._asdict(), room=["tenant", f"conversation:{item.contact}"])
    return Response()


def items_of(webhook: dict[str, Any]) -> Iterator[Item]:
    """Yield the messages and receipts of a webhook."""
    for entry in webhook["entry"]:
        for change in entry["changes"]:
            value = change["value"]
            endpoint = value["metadata"]["phone_number_id"]
            for body in value.get("messages", ()):
                yield Item(body["id"], endpoint, body["from"], body["type"], body)
            for body in value.get("statuses", ()):
                yield Item(f"{body['id']}/{body['status']}", endpoint, body["recipient_id"], "status", body)


if __name__ == "__main__":
    uvicorn.run(
        socketio.ASGIApp(sio, app),
        host="127.0.0.1",
        port=int(os.environ["PORT"]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
