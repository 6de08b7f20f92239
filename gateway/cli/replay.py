"""`parley replay`: the raw webhooks of a period through today's code, and what that changes.

Owns the period, the report, and sending again what would add something. The rerun and the comparison are `gateway.replay`'s.
"""

import re
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

import msgspec
import trio
import typer

from gateway.cli.context import (
    Config,
    DataDir,
    Failed,
    Json,
    beside,
    err,
    out,
    print_json,
    print_table,
    run,
    settings_of,
)
from gateway.cli.tenants import find_tenant
from gateway.providers.whatsapp_cloud import SIGNATURE, WhatsAppCloud
from gateway.replay import Compared, Difference, Repeat
from gateway.replay import replay as run_replay
from protocol.signatures import sign
from store.contract import Tenant
from store.postgres.store import PostgresStore

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
RELATIVE = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)([smhdw])")
ATTEMPTS = 10
"""Times a webhook is sent while the gateway says 503."""
SHOWN = 60
"""Characters of a value in the table; `--json` has all of it."""


class Report(msgspec.Struct):
    """All chunks together. Counts are of everything; `differences` holds the first of them, as many as were asked for."""

    since: str
    until: str
    webhooks: int = 0
    same: int = 0
    only_now: int = 0
    only_then: int = 0
    changed: int = 0
    aside: Counter[str] = msgspec.field(default_factory=Counter)
    """Items that today's code puts in quarantine, by reason."""
    to_send: int = 0
    """Webhooks that would add something if they were sent again."""
    sent: int = 0
    added: int = 0
    """Items recorded by sending."""
    differences: list[Difference] = []


def replay(
    since: Annotated[
        str, typer.Option(help="Begin: 1h, 2d (ago), or ISO 8601; UTC unless it says otherwise.", metavar="TIME")
    ],
    until: Annotated[str, typer.Option(help="End, exclusive.", metavar="TIME")] = "now",
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's events.", metavar="SLUG")] = None,
    limit: Annotated[int, typer.Option(help="Differences to list; all are counted.", min=0, max=100_000)] = 200,
    apply: Annotated[
        bool, typer.Option("--apply", help="Send what would add something to a running gateway, signed anew.")
    ] = False,
    url: Annotated[str, typer.Option(help="The gateway to send to.")] = "http://127.0.0.1:8080",
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Run stored webhooks through today's code and show what it would record differently. Changes nothing without --apply.

    With --apply, a webhook goes whole: deduplication makes what was recorded before harmless. What was recorded and is read
    differently today is shown, and stays as it is.
    """
    settings = settings_of(config, data_dir=data_dir).settings
    now = time.time()
    begin, end = moment(since, now), moment(until, now)
    if begin >= end:
        raise typer.BadParameter(f"{since} is not before {until}")

    async def command() -> None:
        report = Report(iso(begin), iso(end))
        provider = WhatsAppCloud(settings.app_secret, settings.verify_token)
        async with beside(settings) as store:
            routes = await store.load_routes()
            owner = None if tenant is None else find_tenant(routes, tenant).id
            async for compared in run_replay(store, provider, since=begin, until=end, tenant=owner):
                add(report, compared, limit)
                if apply:
                    await send(report, compared.repeats, f"{url}{provider.path}", store)
        if json:
            print_json(report)
        else:
            show(report, routes.tenants, applied=apply)

    run(command)


def moment(text: str, now: float) -> int:
    """Return Unix milliseconds of `now`, of a time ago (`90s`, `1h`, `2d`), or of an ISO 8601 time. Raises typer.BadParameter."""
    if text == "now":
        return int(now * 1000)
    if ago := RELATIVE.fullmatch(text):
        return int((now - float(ago[1]) * UNITS[ago[2]]) * 1000)
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no time: 1h, 2d, now, 2026-11-20 or 2026-11-20T08:00Z") from error
    return int((found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp() * 1000)


def iso(at: int) -> str:
    """Return Unix milliseconds for people."""
    return datetime.fromtimestamp(at / 1000, UTC).isoformat(timespec="milliseconds")


def add(report: Report, compared: Compared, limit: int) -> None:
    """Add a chunk to the report."""
    report.webhooks += compared.webhooks
    report.same += compared.same
    report.aside.update(compared.aside)
    report.to_send += len(compared.repeats)
    for difference in compared.differences:
        setattr(report, difference.verdict, getattr(report, difference.verdict) + 1)
    report.differences += compared.differences[: max(0, limit - len(report.differences))]


async def send(report: Report, repeats: Sequence[Repeat], url: str, store: PostgresStore) -> None:
    """Send webhooks again, one after the other in order of arrival, and count what that added. Raises Failed."""
    for repeat in repeats:
        if not repeat.secret:
            err.print(f"{repeat.webhook.id} is not sent: its endpoint has no app secret to sign with")
            continue
        await trio.to_thread.run_sync(partial(_post, url, repeat.webhook.body, repeat.secret))
        report.sent += 1
        report.added += len(await store.find_recorded(repeat.keys))


def _post(url: str, body: bytes, secret: str) -> None:
    headers = {SIGNATURE.decode(): sign(secret.encode(), body).decode(), "content-type": "application/json"}
    for attempt in range(1, ATTEMPTS + 1):
        request = urllib.request.Request(url, body, headers)  # noqa: S310  the operator's own gateway
        try:
            with urllib.request.urlopen(request, timeout=30):  # noqa: S310
                return
        except urllib.error.HTTPError as error:
            if error.code != 503 or attempt == ATTEMPTS:
                raise Failed(f"{url} answered {error.code}: {error.read(500).decode(errors='replace')}") from error
            time.sleep(float(error.headers.get("retry-after", "1")))
        except urllib.error.URLError as error:
            raise Failed(f"{url}: {error.reason}; --url names the running gateway") from error


def show(report: Report, tenants: Sequence[Tenant], *, applied: bool) -> None:
    """Print the report for a person."""
    slugs = {each.id: each.slug for each in tenants}
    if report.differences:
        print_table(
            ["", "tenant", "webhook", "event", "about", "then → now"],
            [
                [
                    each.verdict.replace("_", " "),
                    slugs.get(each.tenant, each.tenant),
                    each.webhook,
                    each.kind,
                    " ".join(filter(None, each.about))[:SHOWN],
                    "; ".join(f"{name}: {_short(then)} → {_short(now)}" for name, (then, now) in each.fields.items()),
                ]
                for each in report.differences
            ],
        )
        out.print()
    aside = ", ".join(f"{count} {reason}" for reason, count in sorted(report.aside.items()))
    out.print(f"{report.webhooks} webhooks received from {report.since} until {report.until}")
    out.print(f"  same       {report.same} events")
    out.print(f"  only now   {report.only_now}, from {report.to_send} webhooks")
    out.print(f"  only then  {report.only_then}")
    out.print(f"  changed    {report.changed}")
    out.print(f"  set aside  {aside or 'nothing'}")
    listed, total = len(report.differences), report.only_now + report.only_then + report.changed
    if listed < total:
        out.print(f"{listed} of {total} differences are listed; --limit shows more.")
    if applied:
        out.print(f"{report.sent} webhooks were sent again and added {report.added} items.")
    elif report.to_send:
        out.print("Nothing was changed; --apply sends what would add something to a running gateway.")


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"
