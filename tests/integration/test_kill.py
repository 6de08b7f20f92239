"""ACK-AFTER-COMMIT: the process is killed again and again under load, and everything it acknowledged is there, once, in order.

RELIABILITY 1, quick form. Two loads run at once: simulated WhatsApp traffic with faults, whose ledger says what was acknowledged; and people who
write one message after the other, each again until it is acknowledged, whose threads must be exactly what they wrote.
"""

import itertools
import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import trio

from bench.gateway_process import Credentials, GatewayProcess
from bench.simulators.faults import Faults
from bench.simulators.http_client import BrokenConnection, Connection, connector, post_head, target_of
from bench.simulators.ledger import acknowledged, read_entries
from bench.simulators.sender import Report
from bench.simulators.simulate import Options, simulate
from bench.simulators.world import SimTenant
from protocol.signatures import sign
from tests.support.spine import change, contact, text, webhook

KILLS = 20
PEOPLE = 8


class Person:
    """Writes one message after the other, each again until it is acknowledged."""

    def __init__(self, number: int, tenant: Credentials, url: str) -> None:
        self.phone = f"49170000{number:04d}"
        self.written = 0
        self._tenant = tenant
        self._target = target_of(f"{url}/webhooks/whatsapp")

    async def write(self, stop: trio.Event) -> None:
        connection: Connection | None = None
        while not stop.is_set():
            message = text(f"wamid.{self.phone}.{self.written:05d}", str(self.written), sender=self.phone)
            body = webhook(
                change([message], contacts=[contact(self.phone, name=self.phone)], number=self._tenant.phone_number_id)
            )
            request = post_head(self._target) + b"X-Hub-Signature-256: %b\r\nContent-Length: %d\r\n\r\n%b" % (
                sign(self._tenant.app_secret.encode(), body),
                len(body),
                body,
            )
            try:
                if connection is None:
                    connection = Connection(await connector(self._target)())
                answer = await connection.request(request)
            except (BrokenConnection, OSError):
                if connection is not None:
                    await connection.aclose()
                connection = None
                await trio.sleep(0.01)
                continue
            assert answer.status in (200, 503), answer
            if answer.status == 200:
                self.written += 1
            else:
                await trio.sleep(0.02)
        if connection is not None:
            await connection.aclose()


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_twenty_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    await kill_under_load(tmp_path, KILLS)


@pytest.mark.long
@pytest.mark.timeout(1800)
async def test_a_hundred_kills_lose_nothing_and_repeat_nothing(tmp_path: Path) -> None:
    await kill_under_load(tmp_path, 100)


async def kill_under_load(tmp_path: Path, kills: int) -> None:
    moments = random.Random(2)
    async with GatewayProcess(tmp_path / "data") as gateway:
        tenant = gateway.add_tenant("killed", "300000000000001")
        ledger = tmp_path / "ledger.jsonl"
        report, stop = Report(), trio.Event()
        people = [Person(number, tenant, gateway.url) for number in range(PEOPLE)]
        business = SimTenant(tenant.phone_number_id, "200000000000001", tenant.app_secret, "4930000000")
        options = Options(
            url=f"{gateway.url}/webhooks/whatsapp",
            tenants=(business,),
            rate=150.0,
            seed="kill",
            contacts=60,
            ledger=ledger,
            time_factor=2000.0,
            faults=Faults(duplicate=0.05, reorder=0.05, delay=0.02, drop=0.05, malformed=0.01),
        )
        starts = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(lambda: simulate(options, stop=stop, report=report))
            for person in people:
                nursery.start_soon(person.write, stop)
            for _ in range(kills):
                await trio.sleep(moments.uniform(0.1, 0.8))
                await gateway.kill()
                starts.append(await gateway.start())
            await trio.sleep(0.5)
            stop.set()
        events = await gateway.feed(tenant.api_key)
        threads = [await thread(gateway, person.phone, tenant.api_key) for person in people]

    assert max(starts) <= 5.0, starts  # the reliability scorecard's pass mark, with room to spare
    assert [event["offset"] for event in events] == list(range(1, len(events) + 1))
    versions: dict[str, list[int]] = {}
    for event in events:
        versions.setdefault(event["conversation"], []).append(event["version"])
    assert all(found == list(range(1, len(found) + 1)) for found in versions.values())

    # people's threads: everything acknowledged, once, in order; at most the one message whose answer was cut off in addition
    for person, found in zip(people, threads, strict=True):
        assert person.written > 0
        assert found[: person.written] == [str(n) for n in range(person.written)]
        assert len(found) <= person.written + 1

    # simulated traffic: every acknowledged item has exactly one event
    recorded = Counter(key for event in events if (key := dedupe_of(event["event"])) is not None)
    assert not [key for key, count in recorded.items() if count > 1]
    promised = {
        truth.key: truth.kind
        for truth in itertools.chain.from_iterable(acknowledged(read_entries(ledger)).values())
        # A change of number is no message: its event names the ids that changed.
        if truth.key.startswith(("m:", "s:")) and truth.kind != "system"
    }
    assert len(promised) > 100
    assert not {key: kind for key, kind in promised.items() if key not in recorded}
    assert report.statuses[401] == 0


async def thread(gateway: GatewayProcess, phone: str, key: str) -> list[str]:
    """Return the texts of a person's thread, oldest first."""
    [row] = (await gateway.get(f"/api/v1/conversations?q={phone}", key))["data"]
    found: list[str] = []
    cursor = ""
    while True:
        page = await gateway.get(f"/api/v1/conversations/{row['id']}/messages?limit=200{cursor}", key)
        found += [message["content"]["body"] for message in page["data"]]
        if page["next_cursor"] is None:
            return found[::-1]
        cursor = f"&cursor={page['next_cursor']}"


def dedupe_of(event: dict[str, Any]) -> str | None:
    """Return the simulator's key of an event that stands for a message or a receipt."""
    match event["type"]:
        case "message_recorded":
            placeholder = event["content"].get("provider_type") == "media_placeholder"
            return f"m:{event['message_id']}" + (":placeholder" if placeholder else "")
        case "message_edited" | "message_revoked":
            return f"m:{event['message_id']}"
        case "receipt_recorded":
            participant = f":{event['participant']}" if event.get("participant") else ""
            return f"s:{event['message_id']}:{event['raw_status']}{participant}"
        case _:
            return None


def test_the_kill_test_reads_events_as_the_simulator_names_them() -> None:
    assert dedupe_of({"type": "message_recorded", "message_id": "a", "content": {"type": "text"}}) == "m:a"
    assert dedupe_of({"type": "receipt_recorded", "message_id": "a", "raw_status": "sent"}) == "s:a:sent"
    assert dedupe_of(json.loads('{"type":"conversation_started"}')) is None
