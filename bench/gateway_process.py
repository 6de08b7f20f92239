"""A gateway as a process of its own, run as an operator runs it: started, watched, asked, killed.

Owns the process and the figures read from outside it. Must not import the gateway: everything goes through its command line and its port.
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import msgspec
import psutil
import trio

PARLEY = (sys.executable, "-m", "gateway.cli")
START_SECONDS = 60.0


class GatewayFailed(Exception):
    """The gateway ended, did not start, or a command was refused. The text has the end of its log."""


class Credentials(msgspec.Struct, frozen=True):
    """What `parley tenant add` answered, with what it was told."""

    tenant_id: str
    api_key: str
    phone_number_id: str
    app_secret: str
    waba_id: str


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds used so far, and memory held now in bytes, by the gateway and by its PostgreSQL. `at` is `time.monotonic()`."""

    at: float
    gateway_cpu: float
    gateway_rss: int
    database_cpu: float


def environment(more: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment without any setting of a gateway, plus `more`."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PARLEY_") and key != "DATABASE_URL"}
    return {**clean, "PARLEY_LOG_FORMAT": "json", **(more or {})}


def command(
    *arguments: str, stdin: str = "", more: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a `parley` command to its end."""
    return subprocess.run(  # noqa: S603  our own program
        [*PARLEY, *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env=environment(more),
    )


class GatewayProcess:
    """One gateway on one data directory; may be started again after it ended. An async context manager that ends it."""

    def __init__(self, data_dir: Path, *, port: int = 0, more: Mapping[str, str] | None = None) -> None:
        """`port` 0 picks a free one, which is kept over restarts. `more` are settings, as environment variables."""
        self.data_dir = data_dir
        self.port = port
        self.log = data_dir.with_suffix(".log")
        self._more = more
        self._process: trio.Process | None = None
        self._log_file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process is not None:
            with trio.CancelScope(shield=True):
                await self.stop()

    @property
    def url(self) -> str:
        """The gateway's address."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        """The process's id. Raises GatewayFailed when it does not run."""
        if self._process is None:
            raise GatewayFailed("the gateway does not run")
        return self._process.pid

    async def start(self) -> float:
        """Start, wait until webhooks would be acknowledged, and return how many seconds that took. Raises GatewayFailed."""
        began = trio.current_time()
        self._log_file = self.log.open("ab")
        offset = self.log.stat().st_size
        self._process = process = await trio.lowlevel.open_process(
            [*PARLEY, "serve", "--port", str(self.port), "--data-dir", str(self.data_dir)],
            stderr=self._log_file,
            stdout=self._log_file,
            env=environment(self._more),
            # A Ctrl-C goes to all of a terminal's group, and `stop` would be the second signal, which ends a gateway without its database.
            start_new_session=True,
        )
        while process.poll() is None:
            if trio.current_time() - began > START_SECONDS:
                raise GatewayFailed(f"the gateway is not ready after {START_SECONDS:g} s:\n{self.tail()}")
            if self.port == 0:
                self.port = self._announced_port(offset)
            if self.port and await self._is_ready():
                return trio.current_time() - began
            await trio.sleep(0.02)
        raise GatewayFailed(f"the gateway ended with {process.returncode}:\n{self.tail()}")

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone. Its PostgreSQL lives on, as after any crash."""
        if self._process is not None:
            self._process.kill()
            await self._gone(self._process)

    async def stop(self) -> int:
        """SIGTERM, and wait; return the exit code."""
        if self._process is None:
            return 0
        self._process.send_signal(signal.SIGTERM)
        return await self._gone(self._process)

    async def _gone(self, process: trio.Process) -> int:
        code = await process.wait()
        self._process = None
        if self._log_file is not None:
            self._log_file.close()
        return code

    def add_tenant(self, slug: str, number: str, secret: str = "app-secret-0123456789") -> Credentials:  # noqa: S107  invented
        """Add a tenant beside the running gateway. Raises GatewayFailed."""
        waba_id = f"2{number[1:]}"
        answer = command(
            *("tenant", "add", slug, "--phone-number-id", number, "--app-secret", secret, "--verify-token", "t"),
            *("--waba-id", waba_id, "--data-dir", str(self.data_dir), "--json"),
            more=self._more,
        )
        if answer.returncode:
            raise GatewayFailed(answer.stderr)
        found = json.loads(answer.stdout)
        return Credentials(found["tenant_id"], found["api_key"], number, secret, waba_id)

    def import_tenants(self, numbers: Sequence[str], secret: str) -> list[Credentials]:
        """Add a tenant for each number in one call, beside the running gateway. Raises GatewayFailed."""
        wanted = [
            {"slug": f"bench-{number}", "phone_number_id": number, "app_secret": secret, "waba_id": f"2{number[1:]}"}
            for number in numbers
        ]
        answer = command(
            *("tenant", "import", "-", "--data-dir", str(self.data_dir)),
            stdin="\n".join(json.dumps(each) for each in wanted),
            more=self._more,
        )
        if answer.returncode:
            raise GatewayFailed(answer.stderr)
        made = [json.loads(line) for line in answer.stdout.splitlines()]
        return [
            Credentials(found["tenant_id"], found["api_key"], each["phone_number_id"], secret, each["waba_id"])
            for each, found in zip(wanted, made, strict=True)
        ]

    async def get(self, path: str, key: str | None = None) -> Any:
        """GET a JSON document. Raises urllib.error.HTTPError for an answer that is no success."""
        return await trio.to_thread.run_sync(partial(self._get, path, key))

    async def feed(self, key: str) -> list[dict[str, Any]]:
        """Read a tenant's whole feed."""
        events: list[dict[str, Any]] = []
        while True:
            page = await self.get(f"/api/v1/feed?after={events[-1]['offset'] if events else 0}&limit=200", key)
            events += page["data"]
            if not page["data"]:
                return events

    def usage(self) -> Usage:
        """Read CPU and memory of the gateway, and of the PostgreSQL in its data directory. Costs a few milliseconds."""
        gateway = psutil.Process(self.pid)
        with gateway.oneshot():
            cpu, rss = _cpu(gateway), gateway.memory_info().rss
        database_cpu = 0.0
        for number, process in enumerate(self._database()):
            try:
                database_cpu += _cpu(process)
                if number == 0:  # the postmaster also knows what backends used that have ended
                    times = process.cpu_times()
                    database_cpu += times.children_user + times.children_system
            except psutil.NoSuchProcess:
                continue
        return Usage(time.monotonic(), cpu, rss, database_cpu)

    def database_memory(self) -> int:
        """Read the memory of the PostgreSQL in the data directory, in bytes; shared buffers count once, not once a backend."""
        total = 0
        for process in self._database():
            try:
                total += process.memory_full_info().pss
            except psutil.NoSuchProcess:
                continue
        return total

    def database_version(self) -> str | None:
        """Return the version of the PostgreSQL in the data directory, None if there is none."""
        for postmaster in self._database()[:1]:
            said = subprocess.run([postmaster.exe(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603  the running one
            return said.stdout.rpartition(" ")[2].strip()
        return None

    def _database(self) -> list[psutil.Process]:
        """Return the embedded PostgreSQL's processes, the postmaster first; none if it does not run or the gateway uses another."""
        try:
            pid = int((self.data_dir / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
            postmaster = psutil.Process(pid)
            return [postmaster, *postmaster.children(recursive=True)]
        except (FileNotFoundError, psutil.NoSuchProcess):
            return []

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(line[:2000] for line in self.log.read_text(errors="replace").splitlines()[-lines:])

    def _announced_port(self, offset: int) -> int:
        for line in self.log.read_bytes()[offset:].splitlines():
            if b'"ready"' in line:
                return int(json.loads(line)["address"].rpartition(":")[2])
        return 0

    async def _is_ready(self) -> bool:
        try:
            await self.get("/health/ready")
        except OSError:  # urllib's errors are OSErrors
            return False
        return True

    def _get(self, path: str, key: str | None) -> Any:
        headers = {"x-api-key": key} if key else {}
        request = urllib.request.Request(f"{self.url}{path}", headers=headers)  # noqa: S310  our own gateway
        with urllib.request.urlopen(request, timeout=5) as answer:  # noqa: S310  our own gateway
            return json.loads(answer.read())


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)
