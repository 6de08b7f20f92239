"""PostgreSQL of our own: shared by processes, surviving their deaths and its own."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pytest
import trio

from store.contract import Committed, StoreRefused, StoreUnavailable, Tenant
from store.postgres.embedded import Server
from store.postgres.store import open_store
from tests.support.appends import AT, append

pytestmark = pytest.mark.slow

SERVE = """
import sys, trio
from pathlib import Path
from store.postgres.store import open_store
from tests.support.appends import AT, append

async def main():
    async with open_store(None, Path(sys.argv[1])) as store:
        epoch = (await store.acquire_partitions([1]))[1]
        [outcome] = await store.append_batch([append("s", 0, 3, epoch=epoch)], at=AT)
        print(type(outcome).__name__, flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)

trio.run(main)
"""
ROOT = Path(__file__).parents[2]


@pytest.fixture
def home() -> Iterator[Path]:
    """A data directory with a path short enough for a socket."""
    with TemporaryDirectory(prefix="parley-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@contextmanager
def serving(home: Path) -> Iterator[subprocess.Popen[str]]:
    """Run another process that serves `home`; it has written one append, and ends when it reads a line."""
    command = [sys.executable, "-c", SERVE, str(home)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, **pipes) as process:  # type: ignore[call-overload]
        try:
            assert process.stdout.readline() == "Committed\n"
            yield process
        finally:
            process.kill()


def postmaster(home: Path) -> int:
    return int((home / "postgres" / "postmaster.pid").read_text().split("\n")[0])


def gone(pid: int) -> bool:
    """Whether the process ended; where the first process of a container does not reap, its zombie stays."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


async def test_processes_share_the_server_and_the_last_one_stops_it(home: Path) -> None:
    with serving(home) as other:
        pid = postmaster(home)
        async with open_store(None, home, serve=False) as tool:
            assert await tool.add_tenant(Tenant("tnt_1", "ada", "Ada's"))
        with pytest.raises(
            StoreRefused, match=rf"another process serves this database: parley .* pid {other.pid} since"
        ):
            async with open_store(None, home):
                pytest.fail("two processes serve one database")
        assert postmaster(home) == pid, "it goes on for the process that serves"
        async with open_store(None, home, serve=False) as tool:
            assert len((await tool.load_routes()).tenants) == 1
        other.communicate("stop\n", timeout=20)
        assert other.returncode == 0
    assert not (home / "postgres" / "postmaster.pid").exists()
    assert gone(pid)


async def test_a_killed_process_leaves_a_database_that_starts_at_once(home: Path) -> None:
    with serving(home) as other:
        pid = postmaster(home)
        other.kill()
        with trio.fail_after(5):
            async with open_store(None, home) as store:
                assert postmaster(home) == pid, "the server had gone on"
                [loaded] = await store.load_streams(["s"])
                assert loaded.version == 3
                epochs = await store.acquire_partitions([1])
                assert await store.append_batch([append("s", 3, epoch=epochs[1])], at=AT) == [Committed(4, AT)]
    assert gone(pid)


async def test_a_killed_server_is_started_again_under_the_living_process(home: Path) -> None:
    async with open_store(None, home) as store:
        epochs = await store.acquire_partitions([1])
        for expected in range(2):
            assert await store.append_batch([append("s", expected, epoch=epochs[1])], at=AT) == [
                Committed(expected + 1, AT)
            ]
            os.kill(postmaster(home), signal.SIGKILL)
            with trio.fail_after(10):
                while True:
                    try:
                        await store.check()
                        [loaded] = await store.load_streams(["s"])
                        break
                    except StoreUnavailable:
                        await trio.sleep(0.02)
            assert loaded.version == expected + 1


async def test_everything_killed_and_started_again(home: Path) -> None:
    with serving(home) as other:
        os.kill(postmaster(home), signal.SIGKILL)
        other.kill()
        other.wait()
        with trio.fail_after(10):
            async with open_store(None, home) as store:
                [loaded] = await store.load_streams(["s"])
                assert loaded.version == 3


def test_a_stale_pid_file_that_names_another_program(home: Path) -> None:
    server = Server(home)
    users = server.enter()
    stale = server.pid_file.read_text()
    server.stop("immediate")
    server.leave(users)
    server.pid_file.write_text(stale.replace(stale.split("\n")[0], str(os.getppid()), 1))
    again = Server(home)
    users = again.enter()
    assert postmaster(home) != os.getppid()
    again.leave(users)


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    far = home / ("a long and winding name, with a comma " * 3)
    server = Server(far)
    users = server.enter()
    assert server.socket_dir != server.pgdata
    assert (server.socket_dir / ".s.PGSQL.5432").is_socket()
    assert server.socket_dir.stat().st_mode & 0o077 == 0
    server.leave(users)
    server.socket_dir.rmdir()


def test_a_data_directory_that_cannot_be_made(home: Path) -> None:
    (home / "file").write_text("in the way")
    with pytest.raises(StoreRefused, match="cannot use"):
        Server(home / "file" / "data").enter()


def test_a_half_made_cluster_is_made_again(home: Path) -> None:
    (home / "postgres.new").mkdir()
    (home / "postgres.new" / "PG_VERSION").write_text("18\n")
    server = Server(home)
    server.leave(server.enter())
    assert not (home / "postgres.new").exists()
