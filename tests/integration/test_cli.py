"""Every command as an operator or a script runs it: as a process, by its exit code and its output."""

import json
import re
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import trio
import trio_websocket

from bench.gateway_process import PARLEY, Credentials, GatewayProcess, command, environment
from protocol.signatures import sign
from store.contract import QuarantineEntry, RawWebhook
from store.postgres.store import open_store
from tests.support.spine import change, contact, text, webhook

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NUMBER, SECRET = "300000000000001", "app-secret-0123456789"


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory with a path short enough for a socket."""
    with TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True) as path:
        yield Path(path) / "data"


async def parley(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return await trio.to_thread.run_sync(partial(command, *arguments, more=more))


async def answer_of(home: Path, *arguments: str) -> Any:
    """Run a command with --json that must succeed."""
    done = await parley(*arguments, "--data-dir", str(home), "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


async def post(url: str, body: bytes, secret: str = SECRET) -> int:
    headers = {"x-hub-signature-256": sign(secret.encode(), body).decode(), "content-type": "application/json"}
    return await status_of(urllib.request.Request(f"{url}/webhooks/whatsapp", body, headers))


async def status_of(request: urllib.request.Request) -> int:
    def send() -> int:
        try:
            with urllib.request.urlopen(request) as answer:
                return int(answer.status)
        except urllib.error.HTTPError as error:
            with error:
                return error.code

    return await trio.to_thread.run_sync(send)


def a_webhook(message: str, number: str = NUMBER) -> bytes:
    return webhook(change([text(message)], contacts=[contact()], number=number), account=f"2{number[1:]}")


async def test_tenants_and_keys_beside_a_running_gateway(home: Path) -> None:
    async with GatewayProcess(home) as gateway:
        acme = await trio.to_thread.run_sync(partial(gateway.add_tenant, "acme", NUMBER, SECRET))
        assert await post(gateway.url, a_webhook("wamid.1")) == 200, "no restart, and no wait"
        assert len((await gateway.get("/api/v1/feed?after=0", acme.api_key))["data"]) == 2, "the key works at once"

        add = ("tenant", "add", "--verify-token", "t", "--phone-number-id")
        for arguments, code, said in (
            ((*add, "300000000000009", "acme"), 1, "there is a tenant 'acme' already"),
            ((*add, NUMBER, "other"), 1, f"{NUMBER} belongs to a tenant already"),
            ((*add, "300000000000009", "No Slug"), 2, "a slug is lower-case"),
            (("key", "add", "nobody"), 1, "there is no tenant 'nobody'"),
        ):
            done = await parley(*arguments, "--data-dir", str(home))
            assert (done.returncode, said in done.stderr, done.stdout) == (code, True, ""), done

        [listed] = await answer_of(home, "tenant", "list")
        assert (listed["tenant_id"], listed["slug"]) == (acme.tenant_id, "acme")
        assert listed["phone_number_ids"] == [NUMBER]
        second = await answer_of(home, "key", "add", "acme")
        first, other = await answer_of(home, "key", "list")
        assert other["key_id"] == second["key_id"]
        assert second["api_key"] not in json.dumps([first, other]), "shown once"
        await a_revoked_key_closes_its_sockets(gateway, home, second)
        assert [row["key_id"] for row in await answer_of(home, "key", "list")] == [first["key_id"]]

        done = await parley("migrate", "--data-dir", str(home))
        assert (done.returncode, done.stdout) == (0, "The schema is up to date.\n")
        await what_cannot_be_read_is_in_quarantine(gateway, home, acme)


async def a_revoked_key_closes_its_sockets(gateway: GatewayProcess, home: Path, key: dict[str, str]) -> None:
    # A stream of our own: trio-websocket does not close one that the server closes first.
    async with await trio.open_tcp_stream("127.0.0.1", gateway.port) as stream, trio.open_nursery() as nursery:
        headers = [("x-api-key", key["api_key"])]
        live = await trio_websocket.wrap_client_stream(nursery, stream, gateway.url, "/ws", extra_headers=headers)
        assert json.loads(await live.get_message())["type"] == "welcome"
        done = await parley("key", "revoke", key["key_id"], "--data-dir", str(home))
        assert (done.returncode, done.stdout) == (0, f"{key['key_id']} is revoked.\n")
        with trio.fail_after(5), pytest.raises(trio_websocket.ConnectionClosed) as closed:
            await live.get_message()
        assert closed.value.reason.code == 4001
        nursery.cancel_scope.cancel()
    request = urllib.request.Request(f"{gateway.url}/api/v1/me", headers={"x-api-key": key["api_key"]})
    assert await status_of(request) == 401


async def what_cannot_be_read_is_in_quarantine(gateway: GatewayProcess, home: Path, acme: Credentials) -> None:
    assert await post(gateway.url, b'{"object": [no json') == 200
    assert await post(gateway.url, a_webhook("wamid.2", "300000000000007")) == 200
    entries = await answer_of(home, "quarantine", "list")
    assert [entry["reason"] for entry in entries] == ["unrouted", "undecodable"], "newest first"
    assert entries[1]["payload"] == '{"object": [no json'
    assert len(await answer_of(home, "quarantine", "list", "--limit", "1")) == 1
    assert await answer_of(home, "quarantine", "list", "--tenant", "acme") == [], "they are nobody's"


async def test_replay_shows_and_adds_what_could_not_be_read_before(home: Path) -> None:
    now = time.time_ns() // 1_000_000
    async with GatewayProcess(home) as gateway:
        acme = await trio.to_thread.run_sync(partial(gateway.add_tenant, "acme", NUMBER, SECRET))
        assert await post(gateway.url, a_webhook("wamid.1")) == 200
        # A release that did not understand the second one has left it so.
        raw = RawWebhook("whk_old", "whatsapp", now, a_webhook("wamid.2"), "undecodable")
        async with open_store(None, home, serve=False) as store:
            entry = QuarantineEntry("qrt_old", now, "undecodable", "not known then", raw.body, webhook=raw.id)
            await store.append_batch([], webhooks=[raw], quarantine=[entry], at=now)
        found = await answer_of(home, "replay", "--since", "1h")
        assert (found["webhooks"], found["same"], found["only_now"], found["to_send"]) == (2, 1, 1, 1)
        [difference] = found["differences"]
        assert (difference["verdict"], difference["webhook"]) == ("only_now", "whk_old")
        assert (difference["kind"], difference["about"]) == ("message_recorded", ["wamid.2"])
        assert await messages(gateway, acme) == ["wamid.1"], "shown, not done"

        found = await answer_of(home, "replay", "--since", "1h", "--apply", "--url", gateway.url)
        assert (found["sent"], found["added"]) == (1, 1)
        assert await messages(gateway, acme) == ["wamid.1", "wamid.2"]
        found = await answer_of(home, "replay", "--since", "1h", "--until", "now", "--tenant", "acme")
        assert (found["same"], found["differences"], found["to_send"]) == (2, [], 0)

        dead = f"http://127.0.0.1:{a_free_port()}"
        for arguments, code, said in (
            (("--since", "1h", "--tenant", "nobody"), 1, "there is no tenant 'nobody'"),
            (("--since", "yesterday"), 2, "is no time"),
        ):
            done = await parley("replay", *arguments, "--data-dir", str(home))
            assert (done.returncode, said in done.stderr, done.stdout) == (code, True, ""), done
        async with open_store(None, home, serve=False) as store:
            raw = RawWebhook("whk_old_2", "whatsapp", now, a_webhook("wamid.3"), "undecodable")
            await store.append_batch([], webhooks=[raw], at=now)
        done = await parley("replay", "--since", "1h", "--data-dir", str(home), "--apply", "--url", dead)
        assert done.returncode == 1
        assert "--url names the running gateway" in done.stderr


async def messages(gateway: GatewayProcess, tenant: Credentials) -> list[str]:
    events = [each["event"] for each in await gateway.feed(tenant.api_key)]
    return [event["message_id"] for event in events if event["type"] == "message_recorded"]


async def test_doctor_beside_a_gateway_and_on_a_sick_machine(home: Path, tmp_path: Path) -> None:
    async with GatewayProcess(home) as gateway:
        await trio.to_thread.run_sync(partial(gateway.add_tenant, "acme", NUMBER, SECRET))
        found = await answer_of(home, "doctor", "--port", str(gateway.port))
        assert found["ok"]
        checks = {check["check"]: check for check in found["checks"]}
        assert {check["verdict"] for name, check in checks.items() if name not in ("open files", "disk")} == {"ok"}
        assert f"process {gateway.pid}" in checks["port"]["found"]
        assert f"pid {gateway.pid} since" in checks["served"]["found"]
        await what_is_measured_is_documented_and_watched(gateway)

    in_the_way = tmp_path / "file"
    in_the_way.write_text("")
    with taken_port() as port:
        nowhere = f"postgresql://nobody@127.0.0.1:{a_free_port()}/none"
        sick = await parley("doctor", "--json", "--port", str(port), DATABASE_URL=nowhere)
    assert sick.returncode == 1
    failed = {check["check"]: check for check in json.loads(sick.stdout)["checks"] if check["verdict"] == "fail"}
    assert failed.keys() == {"port", "database"}
    assert all(check["remedy"] for check in failed.values())
    sick = await parley("doctor", "--data-dir", str(in_the_way / "data"), "--port", "0")
    assert sick.returncode == 1
    assert "is no directory" in sick.stdout.replace("\n", " ")
    sick = await parley("doctor", PARLEY_COMMIT_SECONDS="soon")
    assert sick.returncode == 1
    assert "PARLEY_COMMIT_SECONDS" in sick.stdout


async def what_is_measured_is_documented_and_watched(gateway: GatewayProcess) -> None:
    """Check the operator's page, the alerts and the dashboard against the metrics there are."""

    def scrape() -> str:
        with urllib.request.urlopen(f"{gateway.url}/metrics") as answer:
            return str(answer.read().decode())

    kinds = dict(re.findall(r"^# TYPE (\S+) (\w+)$", await trio.to_thread.run_sync(scrape), re.MULTILINE))
    documented = set(re.findall(r"`((?:parley|process)_[a-z0-9_]+)`", (ROOT / "docs" / "operations.md").read_text()))
    assert documented == kinds.keys()
    samples = {*kinds, *(f"{name}_bucket" for name, kind in kinds.items() if kind == "histogram")}
    for path in ("prometheus/alerts.yaml", "grafana/dashboards/parley.json"):
        assert set(re.findall(r"(?:parley|process)_[a-z0-9_]+", (ROOT / "deploy" / path).read_text())) <= samples


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


def a_free_port() -> int:
    with taken_port() as port:
        return port


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"PARLEY_PORT": "http"}, "port from PARLEY_PORT"),
        ({"PARLEY_PROT": "80"}, "PARLEY_PROT: there is no such setting"),
        ({"PARLEY_CONFIG": "/nowhere/parley.toml"}, "/nowhere/parley.toml: No such file"),
        ({"DATABASE_URL": "mysql://db"}, "database_url from DATABASE_URL"),
    ],
)
async def test_a_bad_setting_stops_the_start_and_is_named(settings: dict[str, str], said: str) -> None:
    done = await parley("serve", **settings)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


async def test_settings_are_listed_without_secrets() -> None:
    done = await parley("config", "--json", PARLEY_APP_SECRET="hunter2", PARLEY_CONNECTIONS="77")
    rows = {row["name"]: row for row in json.loads(done.stdout)}
    assert done.returncode == 0
    assert "hunter2" not in done.stdout
    assert (rows["connections"]["value"], rows["connections"]["source"]) == (77, "PARLEY_CONNECTIONS")
    assert all(row["meaning"] and row["environment"] == f"PARLEY_{name.upper()}" for name, row in rows.items())
    table = await parley("config")
    assert all(row["environment"] in table.stdout for row in rows.values())
    documented = (ROOT / "docs" / "operations.md").read_text()
    assert all(f"| `{row['environment']}` |" in documented and row["meaning"] in documented for row in rows.values())


async def test_wrong_use_and_the_version() -> None:
    for arguments in (("serve", "--prot", "80"), ("dance",), ("simulate",)):
        done = await parley(*arguments)
        assert (done.returncode, done.stdout) == (2, ""), arguments
    done = await parley("--version")
    assert done.returncode == 0
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


async def test_a_port_that_is_taken(home: Path) -> None:
    with taken_port() as port:
        done = await parley("serve", "--port", str(port), "--data-dir", str(home))
    assert done.returncode == 1
    assert str(port) in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (home / "postgres" / "postmaster.pid").exists(), "its database is stopped"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
async def test_demo_shows_its_address_and_stops_when_asked(home: Path, number: signal.Signals) -> None:
    demo = [*PARLEY, "demo", "--port", "0", "--data-dir", str(home), "--seed", "cli", "--contacts", "20"]
    with (home.parent / "stderr").open("wb") as errors:
        process = await trio.lowlevel.open_process(demo, stdout=subprocess.PIPE, stderr=errors, env=environment())
        try:
            assert process.stdout is not None
            said = b""
            with trio.fail_after(30):
                while b"Ctrl-C" not in said:
                    data = await process.stdout.receive_some()
                    assert data, (home.parent / "stderr").read_text()
                    said += data
            found = re.search(rb"dashboard +(http://127\.0\.0\.1:\d+)/#key=(pk_\w+)", said)
            assert found, said
            url, key = found[1].decode(), found[2].decode()
            await until_traffic(url, key)
            process.send_signal(number)
            with trio.fail_after(20):
                assert await process.wait() == 0
        finally:
            process.kill()
            await process.wait()
            await process.stdout.aclose()
    assert "Traceback" not in (home.parent / "stderr").read_text()
    assert not (home / "postgres" / "postmaster.pid").exists()


async def until_traffic(url: str, key: str) -> None:
    """Wait until the demo's own traffic has been recorded."""

    def events() -> list[Any]:
        request = urllib.request.Request(f"{url}/api/v1/feed?after=0", headers={"x-api-key": key})
        with urllib.request.urlopen(request) as answer:
            return list(json.load(answer)["data"])

    with trio.fail_after(20):
        while not await trio.to_thread.run_sync(events):  # noqa: ASYNC110  another process's
            await trio.sleep(0.05)


async def test_ctrl_c_during_the_start_is_a_stop_that_was_asked_for(home: Path) -> None:
    process = await trio.lowlevel.open_process(
        [*PARLEY, "serve", "--port", "0", "--data-dir", str(home)], stderr=subprocess.DEVNULL, env=environment()
    )
    with trio.fail_after(30):
        while not (home / "postgres.lock").exists():  # noqa: ASYNC110  another process's
            await trio.sleep(0.005)
        process.send_signal(signal.SIGINT)
        assert await process.wait() == 0
    assert not (home / "postgres" / "postmaster.pid").exists()


async def test_simulate_counts_as_json(home: Path) -> None:
    async with GatewayProcess(home) as gateway:
        tenant = await trio.to_thread.run_sync(partial(gateway.add_tenant, "acme", NUMBER, SECRET))
        business = f"{NUMBER}:2{NUMBER[1:]}:{SECRET}:4930000000"
        done = await parley(
            *("simulate", "--url", f"{gateway.url}/webhooks/whatsapp", "--tenant", business),
            *("--rate", "0", "--count", "50", "--seed", "cli", "--forged", "0.1", "--json"),
        )
        assert done.returncode == 0, done.stderr
        counts = json.loads(done.stdout)
        assert counts["acknowledged"] == counts["statuses"]["200"] >= 50
        assert counts["forged_accepted"] == 0
        assert len(await gateway.feed(tenant.api_key)) >= counts["items"] > 0
