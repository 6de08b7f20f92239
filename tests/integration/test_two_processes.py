"""SINGLE-WRITER between processes: a second gateway on one database is refused by name, or takes over and the first one stops."""

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio

from bench.gateway_process import PARLEY, GatewayProcess, command, environment
from bench.simulators.sender import Report
from bench.simulators.simulate import Options, simulate
from bench.simulators.world import SimTenant

pytestmark = pytest.mark.slow


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory with a path short enough for a socket."""
    with TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "data"


async def test_a_second_process_is_refused_and_the_first_goes_on(home: Path) -> None:
    async with GatewayProcess(home) as first:
        second = await trio.to_thread.run_sync(command, "serve", "--port", "0", "--data-dir", str(home))
        assert second.returncode == 1
        [said] = second.stderr.splitlines()
        assert "another process serves this database" in said
        assert f"pid {first.pid} since" in said, "it names the first"
        assert "--take-over" in said, "and the way out"
        assert await first.get("/health/ready") == {"status": "ready"}
        assert await first.stop() == 0


async def test_a_take_over_under_load_stops_the_first_and_corrupts_nothing(home: Path) -> None:
    async with GatewayProcess(home) as first:
        tenant = await trio.to_thread.run_sync(partial(first.add_tenant, "acme", "300000000000001"))
        stop, report = trio.Event(), Report()
        business = SimTenant(tenant.phone_number_id, "200000000000001", tenant.app_secret, "4930000000")
        options = Options(
            url=f"{first.url}/webhooks/whatsapp",
            tenants=(business,),
            rate=100.0,
            seed="take-over",
            contacts=30,
            time_factor=2000.0,
        )
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: simulate(options, stop=stop, report=report))
            await acknowledged(report, 30)
            log = home.with_suffix(".second")
            with log.open("wb") as output:
                second = await trio.lowlevel.open_process(
                    [*PARLEY, "serve", "--take-over", "--port", "0", "--data-dir", str(home)],
                    stderr=output,
                    env=environment(),
                )
            try:
                await ended(first.pid)
                assert await first.stop() == 1, "it had ended by itself"
                stop.set()
                assert '"fenced"' in first.tail()
                [said] = [line for line in first.tail().splitlines() if line.startswith("parley:")]
                assert "another process took" in said
                first.port = await announced_port(log)
                events = await first.feed(tenant.api_key)  # asked of the second, on its own port
                assert await first.get("/health/ready") == {"status": "ready"}
            finally:
                second.terminate()
                assert await second.wait() == 0
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    versions: dict[str, list[int]] = {}
    for event in events:
        versions.setdefault(event["conversation"], []).append(event["version"])
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())
    assert len(events) >= report.acknowledged


async def ended(pid: int) -> None:
    """Wait until a process of ours has ended."""
    process = psutil.Process(pid)
    with trio.fail_after(20):
        while process.status() != psutil.STATUS_ZOMBIE:  # noqa: ASYNC110  another process's
            await trio.sleep(0.02)


async def acknowledged(report: Report, count: int) -> None:
    """Wait until so many webhooks were acknowledged."""
    with trio.fail_after(20):
        while report.acknowledged < count:  # noqa: ASYNC110  a plain counter
            await trio.sleep(0.02)


async def announced_port(log: Path) -> int:
    """Wait until a gateway says in its log where it listens."""
    with trio.fail_after(20):
        while True:
            for line in (await trio.Path(log).read_text()).splitlines():
                if '"ready"' in line:
                    return int(json.loads(line)["address"].rpartition(":")[2])
            await trio.sleep(0.05)
