"""`parley serve` as a process of its own, as an operator runs it: started, asked, killed."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, Self

import trio

PARLEY = (sys.executable, "-m", "gateway.cli")
START_SECONDS = 30.0


@dataclass(frozen=True)
class Credentials:
    """What `parley tenant add` answered, with what it was told."""

    tenant_id: str
    api_key: str
    phone_number_id: str
    app_secret: str


def command(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run a `parley` command to its end."""
    return subprocess.run(
        [*PARLEY, *arguments],
        capture_output=True,
        text=True,
        timeout=START_SECONDS,
        check=False,
        env=_environment(environment),
    )


def _environment(more: Mapping[str, str] | None) -> dict[str, str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PARLEY_") and key != "DATABASE_URL"}
    return {**clean, "PARLEY_LOG_FORMAT": "json", **(more or {})}


class GatewayProcess:
    """One gateway on one data directory; may be started again after it ended. An async context manager that ends it."""

    def __init__(self, data_dir: Path, *, port: int = 0, environment: Mapping[str, str] | None = None) -> None:
        self.data_dir = data_dir
        self.port = port
        self.log = data_dir.with_suffix(".log")
        self._environment = environment
        self._process: trio.Process | None = None
        self._log_file: IO[bytes] | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *exc: object) -> None:
        if self._process is not None:
            with trio.CancelScope(shield=True):
                await self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> float:
        """Start, wait until webhooks would be acknowledged, and return how many seconds that took."""
        began = trio.current_time()
        self._log_file = self.log.open("ab")
        self._process = await trio.lowlevel.open_process(
            [*PARLEY, "serve", "--port", str(self.port), "--data-dir", str(self.data_dir)],
            stderr=self._log_file,
            stdout=self._log_file,
            env=_environment(self._environment),
        )
        offset = self.log.stat().st_size
        with trio.fail_after(START_SECONDS):
            while True:
                if self._process.poll() is not None:
                    raise AssertionError(f"the gateway ended with {self._process.returncode}:\n{self.tail()}")
                if self.port == 0:
                    self.port = self._announced_port(offset)
                if self.port and await self._is_ready():
                    return trio.current_time() - began
                await trio.sleep(0.02)

    async def kill(self) -> None:
        """SIGKILL, and wait until it is gone."""
        assert self._process is not None
        self._process.kill()
        await self._process.wait()
        self._process = None
        if self._log_file is not None:
            self._log_file.close()

    async def stop(self) -> int:
        """SIGTERM; return the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        with trio.fail_after(START_SECONDS):
            code = await self._process.wait()
        self._process = None
        if self._log_file is not None:
            self._log_file.close()
        return code

    def add_tenant(self, slug: str, number: str, secret: str = "app-secret-0123456789") -> Credentials:
        """Add a tenant beside the running gateway."""
        answer = command(
            *("tenant", "add", slug, "--phone-number-id", number, "--app-secret", secret, "--verify-token", "t"),
            *("--data-dir", str(self.data_dir), "--json"),
            environment=self._environment,
        )
        assert answer.returncode == 0, answer.stderr
        found = json.loads(answer.stdout)
        return Credentials(found["tenant_id"], found["api_key"], number, secret)

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

    def tail(self, lines: int = 30) -> str:
        """Return the end of the log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    def _announced_port(self, offset: int) -> int:
        for line in self.log.read_bytes()[offset:].splitlines():
            if b'"ready"' in line:
                return int(json.loads(line)["address"].rpartition(":")[2])
        return 0

    async def _is_ready(self) -> bool:
        try:
            await self.get("/health/ready")
        except (urllib.error.URLError, OSError):
            return False
        return True

    def _get(self, path: str, key: str | None) -> Any:
        request = urllib.request.Request(f"{self.url}{path}", headers={"x-api-key": key} if key else {})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read())
