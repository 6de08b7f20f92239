"""NO-GAP over the network: clients stay subscribed while the gateway is stopped and killed under load, and miss nothing.

Node's own socket.io-client (with the upgrade, and by WebSocket alone) and a trio-websocket client follow one tenant's whole feed; in the end
each has seen every offset the store has, once, in order.
"""

import functools
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import trio
import trio_websocket

from bench.gateway_process import GatewayProcess
from bench.simulators.sender import Report
from bench.simulators.simulate import Options, simulate
from bench.simulators.world import SimTenant
from tests.support.tools import node_script

RESTARTS = 4


class Follower:
    """What one client saw."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.offsets: list[int] = []
        self.snapshots = 0
        self.changed = trio.Event()

    def saw(self, offset: int) -> None:
        self.offsets.append(offset)
        self.changed.set()
        self.changed = trio.Event()

    async def wait_for(self, offset: int) -> None:
        while not self.offsets or self.offsets[-1] < offset:
            await self.changed.wait()


async def follow_by_node(follower: Follower, script: Path, url: str, key: str, transports: str) -> None:
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                trio.run_process, ["node", str(script), url, key, transports], stdout=subprocess.PIPE, check=False
            )
        )
        said = b""
        async for data in process.stdout:
            *lines, said = (said + data).split(b"\n")
            for line in map(json.loads, lines):
                if "offset" in line:
                    follower.saw(line["offset"])
                follower.snapshots += line.get("subscribed", {}).get("type") == "snapshot_required"


async def follow_by_trio(follower: Follower, url: str, key: str) -> None:
    position: dict[str, Any] = {}
    host, _, port = url.removeprefix("http://").partition(":")
    while True:
        try:
            # A stream of our own: trio-websocket leaves one it opened itself unclosed when the handshake fails.
            async with await trio.open_tcp_stream(host, int(port)) as stream, trio.open_nursery() as nursery:
                headers = [("authorization", f"Bearer {key}")]
                socket = await trio_websocket.wrap_client_stream(nursery, stream, url, "/ws", extra_headers=headers)
                await socket.send_message(json.dumps({"type": "subscribe", "topics": ["tenant"], **position}))
                while True:
                    take(follower, position, json.loads(await socket.get_message()))
        except* (OSError, trio.BrokenResourceError, trio_websocket.ConnectionClosed, trio_websocket.HandshakeError):
            await trio.sleep(0.05)


def take(follower: Follower, position: dict[str, Any], frame: dict[str, Any]) -> None:
    match frame["type"]:
        case "event":
            follower.saw(frame["offset"])
            position["offset"] = frame["offset"]
        case "subscribed":
            position.update(epoch=frame["epoch"], offset=frame["offset"])
        case "snapshot_required":
            follower.snapshots += 1


@pytest.mark.slow
@pytest.mark.timeout(180)
async def test_clients_miss_nothing_over_restarts(tmp_path: Path) -> None:
    script = node_script("follow.mjs")
    async with GatewayProcess(tmp_path / "data") as gateway:
        tenant = gateway.add_tenant("restarted", "300000000000001")
        business = SimTenant(tenant.phone_number_id, "2000000000000001", tenant.app_secret, "4930000000")
        options = Options(
            url=f"{gateway.url}/webhooks/whatsapp", tenants=(business,), rate=100.0, seed="restart", time_factor=2000.0
        )
        followers = [Follower("node, upgrading"), Follower("node, websocket"), Follower("trio-websocket")]
        stop = trio.Event()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(follow_by_node, followers[0], script, gateway.url, tenant.api_key, "polling,websocket")
            nursery.start_soon(follow_by_node, followers[1], script, gateway.url, tenant.api_key, "websocket")
            nursery.start_soon(follow_by_trio, followers[2], gateway.url, tenant.api_key)
            async with trio.open_nursery() as load:
                load.start_soon(lambda: simulate(options, stop=stop, report=Report()))
                for restart in range(RESTARTS + 1):
                    with trio.fail_after(20):
                        for follower in followers:
                            await follower.wait_for((follower.offsets or [0])[-1] + 20)
                    if restart == RESTARTS:
                        break
                    if restart % 2:
                        await gateway.kill()
                    else:
                        assert await gateway.stop() == 0
                    await gateway.start()
                stop.set()
            events = await gateway.feed(tenant.api_key)
            with trio.fail_after(20):
                for follower in followers:
                    await follower.wait_for(len(events))
            nursery.cancel_scope.cancel()
    for follower in followers:
        first = follower.offsets[0]
        assert follower.offsets == list(range(first, len(events) + 1)), follower.name
        assert follower.snapshots == 0
