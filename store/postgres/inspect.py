"""What an operator has to know of a database before a gateway serves from it; asked without opening the store.

Migrates nothing, claims nothing, changes nothing: a release that is not installed yet can be tried on a database that another one serves.
Must not know what is good or bad: that is the caller's.
"""

import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import msgspec

from store.contract import Routes, StoreError, StoreRefused
from store.postgres import embedded
from store.postgres.bridge import open_bridge
from store.postgres.migrate import migrations
from store.postgres.pool import Connection, Link
from store.postgres.routes import load_routes
from store.postgres.serving import HOLDER, LOCK

PINGS = 5
"""Round trips measured; the shortest counts, the others waited for something else."""
SETTINGS = ("fsync", "synchronous_commit", "full_page_writes", "max_connections")


class Facts(msgspec.Struct, frozen=True):
    """One database, as found. Seconds are real seconds, times Unix milliseconds."""

    version: str
    version_number: int
    """As PostgreSQL counts: 150004 is 15.4."""
    read_only: bool
    settings: Mapping[str, str]
    """SETTINGS as they hold for connections like the journal's."""
    round_trip: float
    clock_ahead: float
    """Seconds by which the database's clock is ahead of this machine's; exact to half a round trip."""
    refused_write: str | None
    """Why a row could not be inserted (and rolled back); None: it could."""
    served_by: str | None
    """How the process signs itself that serves the database now."""
    connections: int
    """In use now, all databases of the server together."""
    schema: int | None
    """Newest migration that ran; None: an empty database."""
    schema_known: int
    """Newest migration of this release."""
    changed_migrations: tuple[str, ...] = ()
    """Migrations that are not, on this database, what this release knows under their number."""
    newest_event: int | None = None
    routes: Routes | None = None
    """None where the schema is not this release's."""


async def inspect(database_url: str | None, data_dir: Path) -> Facts:
    """Look at the database at `database_url`, or at the embedded one in `data_dir`, which is started for as long as that takes.

    Raises:
        StoreRefused: the embedded server cannot run, or the address is none.
        StoreUnavailable: the database cannot be reached, or does not answer in time.
    """
    escaped: Exception | None = None
    facts = None
    async with AsyncExitStack() as stack:
        url = database_url
        if url is None:
            url = await stack.enter_async_context(embedded.attach(data_dir, keep=False))
        bridge = await stack.enter_async_context(open_bridge())
        link = Link(url, {"application_name": "parley doctor"})
        try:
            facts = await bridge.run(link.run, _look)
        except (ValueError, asyncpg.InterfaceError) as error:
            escaped = StoreRefused(f"the database's address cannot be used: {error}")
        except asyncpg.PostgresError as error:
            escaped = StoreRefused(f"the database does not let this user look: {error}")
        except StoreError as error:
            escaped = error  # carried out past the nurseries, which would wrap it in groups that say nothing
        finally:
            await bridge.run(link.close)
    if escaped is not None:
        raise escaped
    assert facts is not None, "nothing escaped"  # noqa: S101
    return facts


async def _look(connection: Connection) -> Facts:
    round_trip, clock_ahead = await _clock(connection)
    number, version, read_only, connections = await _row(
        connection,
        "select current_setting('server_version_num')::int, current_setting('server_version'),"
        " pg_is_in_recovery() or current_setting('transaction_read_only')::boolean,"
        " (select count(*)::int from pg_stat_activity where backend_type = 'client backend')",
    )
    rows = await connection.fetch("select name, setting from pg_settings where name = any($1)", SETTINGS)
    holder = await connection.fetchrow(HOLDER, *LOCK)
    known = {each.version: each for each in migrations()}
    facts = Facts(
        version=version,
        version_number=number,
        read_only=read_only,
        settings={row["name"]: row["setting"] for row in rows},
        round_trip=round_trip,
        clock_ahead=clock_ahead,
        refused_write=None,
        served_by=None if holder is None else holder["application_name"],
        connections=connections,
        schema=None,
        schema_known=max(known),
    )
    if await connection.fetchval("select to_regclass('schema_migrations') is null"):
        write = "create table parley_doctor (probe integer)"
        return msgspec.structs.replace(facts, refused_write=await _refused(connection, write))
    ran = await connection.fetch("select version, name, digest from schema_migrations")
    changed = [row["name"] for row in ran if row["version"] in known and known[row["version"]].digest != row["digest"]]
    schema = max((row["version"] for row in ran), default=0)
    write = "insert into quarantine (id, at, reason, detail, payload) values ('doctor', 0, 'doctor', '', '')"
    return msgspec.structs.replace(
        facts,
        schema=schema,
        changed_migrations=tuple(changed),
        refused_write=await _refused(connection, write),
        newest_event=await _newest_event(connection),
        routes=await load_routes(connection) if schema == max(known) and not changed else None,
    )


async def _clock(connection: Connection) -> tuple[float, float]:
    """Return the shortest round trip, and by how much the database's clock is ahead at its middle."""
    best, ahead = float("inf"), 0.0
    for _ in range(PINGS):
        began, sent_at = time.perf_counter(), time.time()
        there: float = await connection.fetchval("select extract(epoch from clock_timestamp())::float8")
        took = time.perf_counter() - began
        if took < best:
            best, ahead = took, there - (sent_at + took / 2)
    return best, ahead


async def _refused(connection: Connection, statement: str) -> str | None:
    """Run a write and take it back; return what the database has against it."""
    transaction = connection.transaction()
    await transaction.start()
    try:
        await connection.execute(statement)
    except asyncpg.PostgresError as error:
        return str(error)
    finally:
        await transaction.rollback()
    return None


async def _newest_event(connection: Connection) -> int | None:
    # By each feed's head, which has an index; the events' times have none.
    newest: int | None = await connection.fetchval(
        "select max(e.recorded_at) from feeds f join events e on e.tenant = f.tenant and e.feed_offset = f.head"
    )
    return newest


async def _row(connection: Connection, query: str) -> asyncpg.Record:
    row = await connection.fetchrow(query)
    assert row is not None, "a select without from has one row"  # noqa: S101
    return row
