"""The schema: migrations add up to schema.sql, run once, and refuse a database that is not theirs."""

import os
import re
import subprocess
from pathlib import Path

import pytest
import trio

from store.contract import StoreRefused
from store.postgres import migrate
from store.postgres.embedded import Server
from store.postgres.store import open_store
from tests.support.postgres import create_database, execute


async def open_and_close(url: str) -> None:
    async with open_store(url, Path(), serve=False) as store:
        await store.check()


def dump(server: Server, url: str) -> str:
    """Return the schema as pg_dump writes it, without what holds rows of time or of migrations."""
    name = re.sub(r".*/(\w+)\?.*", r"\1", url)
    options = ["--schema-only", "--no-owner", "-T", "schema_migrations", "-T", "events_2*", "-T", "raw_webhooks_2*"]
    result = subprocess.run(
        [server.binaries / "pg_dump", "-h", server.socket_dir, "-U", "postgres", *options, name],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ,
    )
    return re.sub(r"\\(un)?restrict .*|-- Dumped .*", "", result.stdout)


@pytest.mark.slow
def test_schema_sql_is_what_the_migrations_add_up_to(postgres_server: Server, postgres_database: str) -> None:
    trio.run(open_and_close, postgres_database)
    written = create_database(postgres_server)
    schema = migrate.FOLDER.with_name("schema.sql").read_text(encoding="utf-8")
    trio.run(execute, written, schema, "select 1")
    migrated = dump(postgres_server, postgres_database)
    assert "CREATE FUNCTION public.append_batch" in migrated
    assert migrated == dump(postgres_server, written)


def test_migrations_are_numbered_without_gaps() -> None:
    assert [one.version for one in migrate.migrations()] == list(range(1, 1 + len(migrate.migrations())))


@pytest.mark.slow
async def test_processes_that_start_together_migrate_once(postgres_database: str) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(open_and_close, postgres_database)
    count = await execute(postgres_database, "select count(*) from schema_migrations")
    assert count == len(migrate.migrations())


@pytest.mark.slow
async def test_a_newer_schema_is_refused(postgres_database: str) -> None:
    await open_and_close(postgres_database)
    newer = "insert into schema_migrations (version, name, digest) values (9000, '9000_from_the_future', 'x')"
    await execute(postgres_database, newer, "select 1")
    with pytest.raises(StoreRefused, match=r"schema 9000 \(9000_from_the_future\).*start the newer release"):
        await open_and_close(postgres_database)


@pytest.mark.slow
async def test_a_migration_changed_after_the_fact_is_refused(postgres_database: str) -> None:
    await open_and_close(postgres_database)
    await execute(postgres_database, "update schema_migrations set digest = 'other' where version = 1", "select 1")
    with pytest.raises(StoreRefused, match="0001_tables was changed"):
        await open_and_close(postgres_database)


@pytest.mark.slow
async def test_a_failing_migration_leaves_nothing(
    postgres_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrate.Migration(9999, "9999_broken", "create table half_way (); select no_such_function()", "x")
    known = (*migrate.migrations(), broken)
    monkeypatch.setattr(migrate, "migrations", lambda: known)
    with pytest.raises(Exception, match="no_such_function"):
        await open_and_close(postgres_database)
    assert await execute(postgres_database, "select to_regclass('half_way') is null")
    assert await execute(postgres_database, "select max(version) from schema_migrations") == 2
