"""`parley doctor`: what is wrong with this machine, configuration or database, and how to mend it, before anybody is served.

Owns what is good, doubtful and bad, and the words for it. Every check is a function from what was found to a `Finding`; the facts of the
database come from `store.postgres.inspect`, which changes nothing, so the doctor may be asked beside a running gateway.
"""

import errno
import importlib.metadata
import json as json_
import os
import platform
import re
import resource
import shutil
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Literal

import msgspec
import psutil
import typer
from cryptography import x509
from rich.markup import escape
from rich.table import Table

from gateway.cli.context import Config, DataDir, Json, out, print_json, run
from gateway.config import ConfigError, Loaded, Settings, load
from store.contract import Endpoint, Routes, StoreError
from store.postgres.inspect import Facts, inspect

GIB = 1 << 30
LEAST_DISK, SCARCE_DISK = 1 * GIB, 5 * GIB
"""Bytes free. Write-ahead log alone may take 2 GiB between checkpoints; below 1 GiB commits are about to fail."""
SPARE_FILES = 200
"""File descriptors needed besides one a connection: libraries, logs, database, pages."""
OLDEST_POSTGRES = 150000
SLOW_ROUND_TRIP, HOPELESS_ROUND_TRIP = 0.01, 0.25
"""Seconds. A webhook waits for about three round trips, and for its commit 2 s at most."""
CLOCK_APART, CLOCK_SET_BACK = 2.0, 5.0
"""Seconds between two clocks that are normal on machines that keep time by NTP; and below the newest event's time."""
CERTIFICATE_WARNING = timedelta(days=14)
PROBE_SECONDS = 2.0

Verdict = Literal["ok", "warn", "fail"]


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """The outcome of one check. `remedy` says what to do about it; `ok` needs none."""

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def doctor(
    host: Annotated[str | None, typer.Option(help="Address the gateway is to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="TCP port the gateway is to listen on.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Check configuration, machine and database; say what is wrong and how to mend it. Exit code 1 if a check fails."""
    findings: list[Finding] = []

    async def command() -> None:
        loaded, configured = configuration(config, host=host, port=port, data_dir=data_dir)
        findings.extend([configured, python(), libraries()])
        if loaded is None:
            return
        settings = loaded.settings
        findings.extend(machine(settings))
        findings.extend(await database(settings))

    run(command)
    failed = any(finding.verdict == "fail" for finding in findings)
    if json:
        print_json({"ok": not failed, "checks": findings})
    else:
        show(findings)
    if failed:
        raise typer.Exit(1)


def show(findings: list[Finding]) -> None:
    """Print the findings for a person: one line each, and under those that are not ok what to do."""
    signs = {"ok": "[green]✓[/]", "warn": "[bold yellow]![/]", "fail": "[bold red]✗[/]"}
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]→[/] {escape(finding.remedy)}" if finding.remedy else ""
        table.add_row(signs[finding.verdict], finding.check, escape(finding.found) + remedy)
    out.print(table)
    failed, warned = (sum(finding.verdict == verdict for finding in findings) for verdict in ("fail", "warn"))
    if failed:
        out.print(f"\n[bold red]{failed} of {len(findings)} checks failed:[/] the gateway would not work as it should.")
    elif warned:
        out.print(f"\n[bold yellow]Nothing failed, {warned} to look at.[/]")
    else:
        out.print("\n[bold green]All is well.[/]")


# --- configuration and machine


def configuration(file: str | None, **overrides: object) -> tuple[Loaded | None, Finding]:
    """Load the settings as `parley serve` would."""
    try:
        loaded = load(os.environ, file=file, overrides=overrides)
    except ConfigError as error:
        remedy = "Correct or remove this setting. `parley config` lists every setting with its meaning and default."
        return None, Finding("configuration", "fail", str(error), remedy)
    sources = sorted(set(loaded.sources.values()))
    return loaded, Finding("configuration", "ok", f"valid; from {', '.join(sources)}" if sources else "all defaults")


def python() -> Finding:
    """Say which Python this is; an older one than Parley needs could not have installed it."""
    return Finding(
        "python", "ok", f"{platform.python_implementation()} {platform.python_version()} on {platform.machine()}"
    )


def libraries(distribution: str = "parley-gateway") -> Finding:
    """Check that everything is installed that the package names."""
    found, missing = [], []
    for requirement in importlib.metadata.requires(distribution) or ():
        if "extra ==" in requirement:
            continue
        name = re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0]
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        remedy = "Install exactly what the release was tested with: pip install --require-hashes -r requirements.lock"
        return Finding("libraries", "fail", f"missing: {', '.join(missing)}", remedy)
    return Finding("libraries", "ok", ", ".join(found))


def machine(settings: Settings) -> Iterator[Finding]:
    """Check everything outside the database."""
    if not settings.database_url:
        yield from data_directory(Path(settings.data_dir))
    yield open_files(settings.connections, *resource.getrlimit(resource.RLIMIT_NOFILE))
    yield port_free(settings)
    if settings.tls_certificate:
        yield certificate(Path(settings.tls_certificate), Path(settings.tls_key), datetime.now(UTC))


def data_directory(path: Path) -> Iterator[Finding]:
    """Check that the embedded database can live in `path` and has room."""
    there = path
    while not there.exists() and there != there.parent:
        there = there.parent
    if not there.is_dir():
        yield Finding("data directory", "fail", f"{there} is no directory", "Set PARLEY_DATA_DIR to a directory.")
        return
    if not os.access(there, os.W_OK | os.X_OK):
        remedy = f"Make it writable for this user (chown {os.geteuid()} {there}), or set PARLEY_DATA_DIR to another."
        yield Finding("data directory", "fail", f"{there} cannot be written to by user {os.geteuid()}", remedy)
        return
    yield Finding("data directory", "ok", str(path) if there == path else f"{path} (will be made)")
    yield disk(there, shutil.disk_usage(there).free)


def disk(path: Path, free: int) -> Finding:
    """Judge `free` bytes."""
    found = f"{free / GIB:.1f} GiB free at {path}"
    remedy = f"Free some space: with a full disk every webhook is answered 503. `du -xh {path} | sort -h | tail` shows what takes it."
    if free < LEAST_DISK:
        return Finding("disk", "fail", found, remedy)
    return Finding("disk", "warn", found, remedy) if free < SCARCE_DISK else Finding("disk", "ok", found)


def open_files(connections: int, soft: int, hard: int) -> Finding:
    """Judge the limit of open files against the number of connections."""
    needed = connections + SPARE_FILES
    if soft == resource.RLIM_INFINITY or soft >= needed:
        limit = "no limit" if soft == resource.RLIM_INFINITY else str(soft)
        return Finding("open files", "ok", f"{limit}, for {connections} connections")
    room = "" if hard == resource.RLIM_INFINITY or hard >= needed else f" (the hard limit is {hard})"
    return Finding(
        "open files",
        "warn" if soft > 2 * SPARE_FILES else "fail",
        f"the limit is {soft}, {connections} connections need {needed}: past it new connections fail",
        f"Raise it: `ulimit -n {needed}`, LimitNOFILE={needed} in systemd, --ulimit nofile={needed} in Docker{room}; "
        f"or set PARLEY_CONNECTIONS to {max(10, soft - SPARE_FILES)} at most.",
    )


def port_free(settings: Settings) -> Finding:
    """Try to open the port; if it is taken, find out by whom."""
    host, port = settings.host, settings.port
    if port == 0:
        return Finding("port", "ok", f"a free one on {host} is picked at the start")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except socket.gaierror as error:
        return Finding("port", "fail", f"{host}: {error.strerror}", "Set PARLEY_HOST to an address of this machine.")
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return _taken(settings)
        if error.errno == errno.EACCES:
            remedy = (
                "Ports below 1024 need a privilege (CAP_NET_BIND_SERVICE). Use PARLEY_PORT=8080 behind a proxy instead."
            )
            return Finding("port", "fail", f"this user may not open port {port}", remedy)
        remedy = "Set PARLEY_HOST to an address of this machine; 0.0.0.0 takes all of them."
        return Finding("port", "fail", f"{host}:{port}: {error.strerror}", remedy)
    return Finding("port", "ok", f"{host}:{port} is free")


def _taken(settings: Settings) -> Finding:
    holder = _listener(settings.port)
    where = f"{settings.host}:{settings.port}"
    if _is_parley(settings):
        return Finding("port", "ok", f"{where} is served by a running Parley{f' ({holder})' if holder else ''}")
    remedy = f"Stop that program, or set PARLEY_PORT to another port. `ss -ltnp 'sport = :{settings.port}'` shows it."
    return Finding("port", "fail", f"{where} is taken by {holder or 'another program'}", remedy)


def _listener(port: int) -> str:
    try:
        found = (each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN)
        pid = next((each.pid for each in found if each.laddr.port == port and each.pid), None)
        return "" if pid is None else f"{psutil.Process(pid).name()}, process {pid}"
    except psutil.Error:  # another user's, and we are not told
        return ""


def _is_parley(settings: Settings) -> bool:
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.host, settings.host)  # noqa: S104  asked, not bound
    scheme = "https" if settings.tls_certificate else "http"
    context = ssl._create_unverified_context()  # noqa: S323  nothing secret is sent: who answers is all that is asked
    try:
        url = f"{scheme}://{host}:{settings.port}/health/live"
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS, context=context) as answer:  # noqa: S310  http or https
            return bool(json_.loads(answer.read(1024)) == {"status": "live"})
    except (OSError, ValueError, urllib.error.URLError):
        return False


def certificate(chain: Path, key: Path, now: datetime) -> Finding:
    """Check that the certificate can be served with the key, and for how long."""
    remedy = (
        "Set PARLEY_TLS_CERTIFICATE and PARLEY_TLS_KEY to PEM files that belong together and that this user may read."
    )
    try:
        first = x509.load_pem_x509_certificates(chain.read_bytes())[0]
        key.read_bytes()
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(chain, key)
    except ssl.SSLError as error:
        reason = "does not belong to the key" if "MISMATCH" in (error.reason or "") else f"or its key: {error.reason}"
        return Finding("TLS certificate", "fail", f"{chain} {reason}", remedy)
    except OSError as error:
        return Finding("TLS certificate", "fail", f"{error.filename}: {error.strerror}", remedy)
    except ValueError as error:
        return Finding("TLS certificate", "fail", f"{chain} is no PEM certificate: {error}", remedy)
    ends = first.not_valid_after_utc
    renew = (
        "Renew it, put the new files in place and restart: Meta does not deliver to an address with a bad certificate."
    )
    if now < first.not_valid_before_utc:
        clock = "Check this machine's clock; else have the certificate issued again."
        return Finding(
            "TLS certificate", "fail", f"not valid before {first.not_valid_before_utc:%Y-%m-%d %H:%M}", clock
        )
    if now > ends:
        return Finding("TLS certificate", "fail", f"expired on {ends:%Y-%m-%d %H:%M} UTC", renew)
    days = (ends - now).days
    verdict: Verdict = "warn" if ends - now < CERTIFICATE_WARNING else "ok"
    found = f"valid until {ends:%Y-%m-%d} ({days} days)"
    return Finding("TLS certificate", verdict, found, renew if verdict == "warn" else "")


# --- database


async def database(settings: Settings) -> list[Finding]:
    """Look at the database and judge it."""
    try:
        facts = await inspect(settings.database_url or None, Path(settings.data_dir))
    except StoreError as error:
        remedy = (
            "Check host, port, user, password and database name of DATABASE_URL, and that the server runs."
            if settings.database_url
            else f"The server's own log says why: {settings.data_dir}/postgres/log."
        )
        return [Finding("database", "fail", str(error), remedy)]
    findings = list(judge(facts, time.time()))
    if facts.routes is not None:
        findings.append(endpoints(facts.routes, settings))
    return findings


def judge(facts: Facts, now: float) -> Iterator[Finding]:
    """Judge a database. `now` is this machine's clock, Unix seconds."""
    if facts.version_number < OLDEST_POSTGRES:
        yield Finding("database", "fail", f"PostgreSQL {facts.version}", "Parley needs PostgreSQL 15 or newer.")
    else:
        room = f"{facts.connections} of {facts.settings['max_connections']} connections in use"
        yield Finding("database", "ok", f"PostgreSQL {facts.version}, {room}")
    yield _durability(facts)
    yield _schema(facts)
    if facts.refused_write is None:
        yield Finding("write test", "ok", "a row was inserted and taken back")
    else:
        remedy = (
            "This is a standby or was made read-only: point DATABASE_URL at the primary."
            if facts.read_only
            else "Check the user's rights (it has to own the tables) and the server's disk."
        )
        yield Finding("write test", "fail", facts.refused_write, remedy)
    served = f"by {facts.served_by}" if facts.served_by else "by nobody now"
    yield Finding("served", "ok", served)
    yield _round_trip(facts.round_trip)
    yield _clock(facts, now)


def _durability(facts: Facts) -> Finding:
    off = [
        name for name in ("fsync", "synchronous_commit", "full_page_writes") if facts.settings.get(name, "on") == "off"
    ]
    if not off:
        return Finding("durability", "ok", "fsync, synchronous_commit and full_page_writes are on")
    return Finding(
        "durability",
        "warn",
        f"{' and '.join(off)} OFF: ACKNOWLEDGED MESSAGES ARE LOST when the machine fails",
        f"Switch on: {'; '.join(f'alter system set {name} = on' for name in off)}; select pg_reload_conf();",
    )


def _schema(facts: Facts) -> Finding:
    if facts.schema is None:
        return Finding("schema", "ok", "an empty database: `parley serve` makes the tables")
    if facts.changed_migrations:
        found = f"{', '.join(facts.changed_migrations)} ran here in another form than this release has"
        return Finding("schema", "fail", found, "Start the release that made this database, or restore its backup.")
    if facts.schema > facts.schema_known:
        found = f"{facts.schema}, newer than this release's {facts.schema_known}"
        return Finding("schema", "fail", found, "Start the newer release, or restore the backup made before it ran.")
    if facts.schema < facts.schema_known:
        found = f"{facts.schema}, this release brings {facts.schema_known}"
        return Finding("schema", "warn", found, "`parley serve` migrates at its start; make a backup before.")
    return Finding("schema", "ok", f"{facts.schema}, up to date")


def _round_trip(seconds: float) -> Finding:
    found = f"{seconds * 1000:.1f} ms"
    remedy = "Put the gateway next to its database: every webhook waits for about three round trips."
    if seconds > HOPELESS_ROUND_TRIP:
        return Finding("round trip", "fail", found, remedy)
    if seconds > SLOW_ROUND_TRIP:
        return Finding("round trip", "warn", found, remedy)
    return Finding("round trip", "ok", found)


def _clock(facts: Facts, now: float) -> Finding:
    ahead = facts.newest_event / 1000 - now if facts.newest_event is not None else 0.0
    if ahead > CLOCK_SET_BACK:
        return Finding(
            "clock",
            "fail",
            f"this machine's clock is {ahead:.0f} s behind the newest recorded event: it was set back, or the other one was ahead",
            "Set the clock right (timedatectl; chronyc tracking) before serving: ids, times and retention follow it. "
            "Nothing is lost or reordered meanwhile.",
        )
    if abs(facts.clock_ahead) > CLOCK_APART:
        which = "ahead of" if facts.clock_ahead > 0 else "behind"
        found = f"the database's clock is {abs(facts.clock_ahead):.1f} s {which} this machine's"
        return Finding("clock", "warn", found, "Let both keep time by NTP: timedatectl set-ntp true; chronyc tracking.")
    return Finding("clock", "ok", f"within {max(abs(facts.clock_ahead), 0.001) * 1000:.0f} ms of the database's")


def endpoints(routes: Routes, settings: Settings) -> Finding:
    """Check that every endpoint's webhooks can be verified, and its callback address be registered."""
    if not routes.endpoints:
        return Finding("endpoints", "warn", "no tenants yet", "`parley tenant add --help` shows how to add one.")

    def lacking(name: Literal["app_secret", "verify_token"]) -> list[Endpoint]:
        return [each for each in routes.endpoints if not getattr(each, name) and not getattr(settings, name)]

    slugs = {tenant.id: tenant.slug for tenant in routes.tenants}
    names = {
        what: ", ".join(f"{each.external_id} ({slugs.get(each.tenant, each.tenant)})" for each in found[:5])
        for what, found in (("app secret", lacking("app_secret")), ("verify token", lacking("verify_token")))
        if found
    }
    if names:
        return Finding(
            "endpoints",
            "fail" if "app secret" in names else "warn",
            "; ".join(f"no {what}: {which}" for what, which in names.items()),
            "Without a secret every webhook is refused (401), without a token Meta cannot verify the address. Set the platform's own: "
            "PARLEY_APP_SECRET and PARLEY_VERIFY_TOKEN.",
        )
    return Finding(
        "endpoints", "ok", f"{len(routes.endpoints)} of {len(routes.tenants)} tenants, with secret and token"
    )
