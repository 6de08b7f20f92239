"""Brings a database's schema up to this release: numbered SQL files, forward only, one process at a time, each recorded.

Owns `migrations/` and the table `schema_migrations`. `schema.sql` is what they add up to, for people to read; a test compares the two.
"""

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from store.contract import StoreRefused
from store.postgres.pool import Connection

FOLDER = Path(__file__).parent / "migrations"
LOCK = (1885434476, 0)
"""Advisory lock: "parl" in ASCII, and which of our locks. 0 migrations, 1 serving, 2 the gate of commits, 3 making partitions
(the last two in the migrations)."""
TIME_LIMIT = 600
"""Seconds a migration may take: a big table is not changed within an operation's limit."""


class Migration(NamedTuple):
    """One file: its number, its name, its text, and the digest by which a change after the fact is noticed."""

    version: int
    name: str
    sql: str
    digest: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Return this release's migrations in order."""
    found = []
    for path in sorted(FOLDER.glob("*.sql")):
        text = path.read_text(encoding="utf-8")
        found.append(Migration(int(path.name[:4]), path.stem, text, hashlib.sha256(text.encode()).hexdigest()))
    return tuple(found)


async def migrate(connection: Connection) -> list[str]:
    """Run what is missing; return the names of the migrations that ran. Waits for another process that is migrating.

    Raises:
        StoreRefused: the database is newer than this release, or an earlier migration is not what this release knows under its number.
    """
    if await _missing(connection) == []:  # the usual start: one look, no lock
        return []
    await connection.execute(f"set statement_timeout = '{TIME_LIMIT}s'; set lock_timeout = '{TIME_LIMIT}s'")
    await connection.execute("select pg_advisory_lock($1, $2)", *LOCK)
    try:
        await connection.execute(
            "create table if not exists schema_migrations "
            "(version integer primary key, name text not null, digest text not null, applied_at timestamptz not null default now())"
        )
        ran = []
        for migration in await _missing(connection):
            async with connection.transaction():
                await connection.execute(migration.sql)
                await connection.execute(
                    "insert into schema_migrations (version, name, digest) values ($1, $2, $3)",
                    migration.version,
                    migration.name,
                    migration.digest,
                )
            ran.append(migration.name)
        return ran
    finally:
        await connection.execute("select pg_advisory_unlock($1, $2)", *LOCK)
        await connection.execute("reset statement_timeout; reset lock_timeout")


async def _missing(connection: Connection) -> list[Migration]:
    known = migrations()
    if await connection.fetchval("select to_regclass('schema_migrations') is null"):
        return list(known)
    applied = {
        row["version"]: row for row in await connection.fetch("select version, name, digest from schema_migrations")
    }
    newest = max(applied, default=0)
    if newest > known[-1].version:
        raise StoreRefused(
            f"the database has schema {newest} ({applied[newest]['name']}), this release knows up to {known[-1].version}: "
            "start the newer release, or restore the backup made before it ran"
        )
    for migration in known:
        if migration.version in applied and applied[migration.version]["digest"] != migration.digest:
            raise StoreRefused(
                f"migration {migration.name} was changed after it ran on this database: start the release that made the database"
            )
    return [migration for migration in known if migration.version not in applied]
