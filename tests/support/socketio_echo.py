"""The echo application that the public Engine.IO v4 and Socket.IO v5 suites expect, on our own transport.

Run `python -m tests.support.socketio_echo --port 3000` and, in the suites' folders, `npm ci && npm test`. Both use port
3000 and the timings below: `/engine.io/` answers the first suite, `/socket.io/` the second.
"""

import argparse
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from gateway.http import Frame, Handler, SocketHandler
from gateway.listener import Listener
from gateway.realtime.engine import EngineServer, EngineSettings, Session
from gateway.realtime.socketio import ConnectRefused, Socket, SocketIOServer

SUITE_SETTINGS = EngineSettings(ping_interval=0.3, ping_timeout=0.2, origins=frozenset("*"))
SUITE_CONNECT_TIMEOUT = 1.0


class EngineEcho:
    """An Engine.IO application that says everything back."""

    def __init__(self, session: Session) -> None:
        self._session = session

    async def run(self, *, task_status: trio.TaskStatus[None]) -> None:
        task_status.started()
        await self._session.closed.wait()

    async def message(self, data: str | bytes) -> None:
        self._session.send(data if isinstance(data, bytes) else Frame(b"4" + data.encode()))


async def echo(socket: Socket) -> None:
    """The main namespace: the suites' `message` and `message-with-ack`, and a few more for the tests with clients."""
    if socket.auth.get("token") == "wrong":
        raise ConnectRefused("unauthorized", {"code": "E1"})
    socket.accept()
    socket.emit("auth", socket.auth)
    while True:
        event = await socket.receive()
        match event.name:
            case "message":
                socket.emit("message-back", *event.args)
            case "message-with-ack" if event.ack_id is not None:
                socket.ack(event.ack_id, *event.args)
            case "ask-me":
                socket.emit("asked", await socket.emit_with_ack("question", *event.args, timeout=5))
            case "leave":
                return


async def custom(socket: Socket) -> None:
    socket.accept()
    socket.emit("auth", socket.auth)
    while True:
        await socket.receive()


async def nothing_else(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
) -> None:
    """The ASGI application behind the listener: there is nothing but the two paths."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})


async def serve(
    port: int,
    settings: EngineSettings = SUITE_SETTINGS,
    connect_timeout: float = SUITE_CONNECT_TIMEOUT,
    *,
    task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve the echo on a loopback port, 0 for any; the port is what `task_status` is told.

    Cancelled, the servers answer held GETs and close their WebSockets while the listener waits for its requests.
    """
    engine = EngineServer(EngineEcho, settings)
    server = SocketIOServer({"/": echo, "/custom": custom}, settings, connect_timeout=connect_timeout)
    handlers: dict[str, Handler] = {"/engine.io/": engine.http, "/socket.io/": server.http}
    sockets: dict[str, SocketHandler] = {"/engine.io/": engine.websocket, "/socket.io/": server.websocket}
    listener = Listener(handlers=handlers, sockets=sockets, app=nothing_else)
    async with trio.open_nursery() as nursery:
        await nursery.start(engine.run)
        await nursery.start(server.run)
        # The suites say "localhost", which may be either family; a port of the system's choice is one of them.
        addresses = await nursery.start(listener.serve, "localhost" if port else "127.0.0.1", port)
        task_status.started(addresses[0][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=3000)
    trio.run(serve, parser.parse_args().port)


if __name__ == "__main__":
    main()
