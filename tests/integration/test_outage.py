"""PostgreSQL goes away under a running gateway: stopped, killed, hung. No 200 without a commit, 503 in time, back by itself, nothing lost.

RELIABILITY 2 and 12, quick form. Two people write all the time, each message again until it is acknowledged, and measure every answer.
"""

import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio

from bench.gateway_process import Credentials, GatewayProcess
from bench.simulators.http_client import BrokenConnection, Connection, connector, post_head, target_of
from protocol.signatures import sign
from store.postgres.embedded import Server
from tests.support.spine import change, contact, text, webhook

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]

ANSWERED = 2.5
"""Seconds a 503 may take: the commit's limit of 2 s, and the machine's own slowness."""
BACK = 10.0
"""Seconds from the server's return to the gateway's (RELIABILITY 12)."""


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory with a path short enough for a socket."""
    with TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "data"


class Writer:
    """Writes one message after the other, each again until it is acknowledged; tells what was answered and how long it took."""

    def __init__(self, phone: str, tenant: Credentials, url: str) -> None:
        self.phone = phone
        self.acknowledged = 0
        self.slowest = 0.0
        self.statuses: Counter[int] = Counter()
        self.answered = trio.Event()
        self._tenant = tenant
        self._target = target_of(f"{url}/webhooks/whatsapp")

    def message_id(self, number: int) -> str:
        return f"wamid.{self.phone}.{number:05d}"

    async def write(self) -> None:
        """Write until cancelled."""
        connection = Connection(await connector(self._target)())
        try:
            while True:
                began = trio.current_time()
                answer = await connection.request(self._request())
                self.slowest = max(self.slowest, trio.current_time() - began)
                self.statuses[answer.status] += 1
                self.acknowledged += answer.status == 200
                self.answered.set()
                self.answered = trio.Event()
                await trio.sleep(0.01)  # a light load, not a measurement
        except BrokenConnection as error:
            raise AssertionError("the gateway closed a connection of the ingest lane") from error
        finally:
            with trio.CancelScope(shield=True):
                await connection.aclose()

    async def next_answer(self, status: int, *, within: float) -> None:
        """Wait for the next answer with this status that began after now."""
        with trio.fail_after(within):
            seen = self.statuses[status]
            while self.statuses[status] <= seen:
                await self.answered.wait()

    def _request(self) -> bytes:
        message = text(self.message_id(self.acknowledged), sender=self.phone)
        body = webhook(change([message], contacts=[contact(self.phone)], number=self._tenant.phone_number_id))
        signature = sign(self._tenant.app_secret.encode(), body)
        head = b"X-Hub-Signature-256: %b\r\nContent-Length: %d\r\n\r\n" % (signature, len(body))
        return post_head(self._target) + head + body


@asynccontextmanager
async def under_load(home: Path) -> AsyncIterator[tuple[GatewayProcess, Server, list[Writer]]]:
    """Run a gateway with two writers; at the end, check that what they were promised is there, once, in order."""
    async with GatewayProcess(home) as gateway:
        pid = gateway.pid
        tenant = await trio.to_thread.run_sync(partial(gateway.add_tenant, "outage", "300000000000001"))
        writers = [Writer(f"49171000000{number}", tenant, gateway.url) for number in range(2)]
        async with trio.open_nursery() as nursery:
            for writer in writers:
                nursery.start_soon(writer.write)
                await writer.next_answer(200, within=5)
            server = Server(home)
            users = await trio.to_thread.run_sync(server.enter)
            try:
                yield gateway, server, writers
            finally:
                with trio.CancelScope(shield=True):
                    await trio.to_thread.run_sync(server.leave, users)  # the gateway still uses it: it goes on
            for writer in writers:
                await writer.next_answer(200, within=BACK)
            nursery.cancel_scope.cancel()
        events = await gateway.feed(tenant.api_key)
        assert gateway.pid == pid
        assert psutil.pid_exists(pid), "all the time the same process"
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    recorded = [each["event"]["message_id"] for each in events if each["event"]["type"] == "message_recorded"]
    for writer in writers:
        theirs = [message for message in recorded if f".{writer.phone}." in message]
        # At most the one whose answer had not come yet is there in addition.
        assert theirs[: writer.acknowledged] == [writer.message_id(n) for n in range(writer.acknowledged)]
        assert len(theirs) <= writer.acknowledged + 1
        assert writer.statuses.keys() == {200, 503}
        assert writer.slowest <= ANSWERED


async def is_away(gateway: GatewayProcess, writers: list[Writer]) -> None:
    """Check what the gateway says while it has no database."""
    for writer in writers:
        await writer.next_answer(503, within=2 * ANSWERED)
        before = writer.acknowledged
        await writer.next_answer(503, within=ANSWERED)
        assert writer.acknowledged == before, "no 200 without a commit"
    await until_readiness_is(
        503, gateway, within=1.5
    )  # an answer is 0.2 s fresh; one asked of a hung database takes 1 s


async def until_readiness_is(status: int, gateway: GatewayProcess, *, within: float) -> None:
    """Ask the gateway whether it is ready until it answers with this status."""
    with trio.fail_after(within):
        while True:
            connection = Connection(await connector(target_of(gateway.url))())
            answer = await connection.request(b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
            await connection.aclose()
            if answer.status == status:
                return
            await trio.sleep(0.02)


async def is_back(gateway: GatewayProcess, writers: list[Writer]) -> None:
    with trio.fail_after(BACK):
        for writer in writers:
            await writer.next_answer(200, within=BACK)
        await until_readiness_is(200, gateway, within=BACK)


async def test_a_database_that_is_stopped_again_and_again(home: Path) -> None:
    async with under_load(home) as (gateway, server, writers):
        for _ in range(3):
            await trio.to_thread.run_sync(server.stop, "immediate")
            await is_away(gateway, writers)
            await trio.to_thread.run_sync(server.start)
            await is_back(gateway, writers)


async def test_a_database_that_crashes_is_started_again_by_the_gateway(home: Path) -> None:
    async with under_load(home) as (gateway, server, writers):
        for _ in range(2):
            os.kill(postmaster(server), signal.SIGKILL)
            await writers[0].next_answer(503, within=2 * ANSWERED)
            await is_back(gateway, writers)


async def test_a_database_that_hangs(home: Path) -> None:
    async with under_load(home) as (gateway, server, writers):
        process = psutil.Process(postmaster(server))
        pids = [process.pid, *(child.pid for child in process.children())]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            with trio.fail_after(30):
                began = trio.current_time()
                await is_away(gateway, writers)
                await trio.sleep_until(began + 5)
                await is_away(gateway, writers)
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)
        await is_back(gateway, writers)


def postmaster(server: Server) -> int:
    return int(server.pid_file.read_text().split("\n")[0])
