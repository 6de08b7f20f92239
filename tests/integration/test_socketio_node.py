"""Node's own socket.io-client against our transport, on real sockets.

See `tests.support.tools` for where the client comes from.
"""

import functools
import json
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.realtime.engine import EngineSettings
from tests.support import socketio_echo
from tests.support.tools import node_script

pytestmark = pytest.mark.slow

TRANSPORTS = ["polling,websocket", "websocket", "polling"]


@pytest.fixture(scope="session")
def client_script() -> Path:
    """The script that drives Node's client."""
    return node_script("client.mjs")


class NodeClient:
    """A running client.mjs and what it says."""

    def __init__(self, process: trio.Process) -> None:
        self.process = process
        self._said = b""

    async def next(self) -> Any:
        """Return the next thing the client says; None when it has nothing more to say."""
        assert self.process.stdout is not None
        while b"\n" not in self._said:
            data = await self.process.stdout.receive_some()
            if not data:
                return None
            self._said += data
        line, _, self._said = self._said.partition(b"\n")
        return json.loads(line)

    async def all(self) -> dict[str, list[Any]]:
        """Return everything it says to its end, by key, and see it end well."""
        said: dict[str, list[Any]] = {}
        while (line := await self.next()) is not None:
            for key, value in line.items():
                said.setdefault(key, []).append(value)
        assert await self.process.wait() == 0
        return said


@asynccontextmanager
async def node_client(script: Path, port: int, scenario: str, transports: str) -> AsyncIterator[NodeClient]:
    command = ["node", str(script), f"http://127.0.0.1:{port}", scenario, transports]
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            process = await nursery.start(functools.partial(trio.run_process, command, stdout=subprocess.PIPE))
            yield NodeClient(process)


@asynccontextmanager
async def echo_server(port: int = 0) -> AsyncIterator[int]:
    """Serve the echo; leaving shuts it down in order."""
    settings = EngineSettings(ping_interval=0.4, ping_timeout=2, close_grace=1)
    async with trio.open_nursery() as nursery:
        yield await nursery.start(functools.partial(socketio_echo.serve, settings=settings), port)
        nursery.cancel_scope.cancel()


ROUND = {
    "back": [1, "zwei €", {"3": [True, None]}],
    "binary": ["\x00\x01\xff", ""],
    "ack": "x",
    "ackBinary": "b",
    "asked": ["yes", "really?"],
}


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_events_acks_and_binary(client_script: Path, transports: str) -> None:
    async with echo_server() as port, node_client(client_script, port, "talk", transports) as client:
        said = await client.all()
    assert said.pop("auth") == [{"token": "T"}]
    assert said.pop("transport") == [transports.split(",")[-1]]
    assert said == {key: [value, value] for key, value in ROUND.items()}


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_a_burst_survives_the_upgrade(client_script: Path, transports: str) -> None:
    async with echo_server() as port, node_client(client_script, port, "burst", transports) as client:
        assert (await client.all())["inOrder"] == [True]


async def test_refusals(client_script: Path) -> None:
    async with echo_server() as port, node_client(client_script, port, "refused", TRANSPORTS[0]) as client:
        assert await client.all() == {
            "refused": ["unauthorized"],
            "data": [{"code": "E1"}],
            "nowhere": ["Invalid namespace"],
            "custom": [{"a": 1}],
        }


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_a_client_that_is_put_out_stays_away(client_script: Path, transports: str) -> None:
    async with echo_server() as port, node_client(client_script, port, "putOut", transports) as client:
        assert await client.all() == {"reason": ["io server disconnect"], "active": [False]}


@pytest.mark.parametrize("transports", TRANSPORTS)
async def test_a_client_comes_back_after_a_restart(client_script: Path, transports: str) -> None:
    async with trio.open_nursery() as nursery:
        first = trio.CancelScope()

        async def live(*, task_status: trio.TaskStatus[int]) -> None:
            with first:
                async with echo_server() as port:
                    task_status.started(port)
                    await trio.sleep_forever()

        port = await nursery.start(live)
        async with node_client(client_script, port, "restart", transports) as client:
            assert await client.next() == {"connected": True}
            first.cancel()
            reason = await client.next()
            assert reason["reason"] in ("transport close", "transport error")
            async with echo_server(port):
                assert await client.next() == {"back": ["again"]}
