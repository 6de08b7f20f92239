"""`parley quarantine`: what was kept aside because this release could not take it, for the operator: also what belongs to no tenant."""

from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from gateway.cli.context import Config, DataDir, Json, beside, out, print_json, print_table, run, settings_of
from gateway.cli.tenants import find_tenant
from store.contract import QuarantineEntry

PAGE = 200
SHOWN = 100
"""Characters of a payload in the table; `--json` has it whole."""

quarantine = typer.Typer(no_args_is_help=True, help="See what was kept aside.")


@quarantine.command("list")
def list_quarantine(
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's: slug or id.", metavar="SLUG")] = None,
    limit: Annotated[int, typer.Option(help="Newest entries to show.", min=1, max=100_000)] = 50,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """List quarantined items, newest first. `parley replay` shows what today's code would make of them."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings) as store:
            routes = await store.load_routes()
            owner = None if tenant is None else find_tenant(routes, tenant).id
            entries: list[QuarantineEntry] = []
            while len(entries) < limit:
                before = entries[-1].id if entries else None
                page = await store.list_quarantine(tenant=owner, limit=min(PAGE, limit - len(entries)), before=before)
                if not page:
                    break
                entries += page
        slugs = {each.id: each.slug for each in routes.tenants}
        rows: list[dict[str, Any]] = [
            {
                "id": entry.id,
                "at": entry.at,
                "reason": entry.reason,
                "tenant": slugs.get(entry.tenant, entry.tenant) if entry.tenant is not None else None,
                "detail": entry.detail,
                "webhook": entry.webhook,
                "conversation": entry.stream,
                "payload": entry.payload.decode(errors="replace"),
            }
            for entry in entries
        ]
        if json:
            print_json(rows)
        elif rows:
            columns = ["id", "at", "reason", "tenant", "detail", "payload"]
            for row in rows:
                row["at"] = f"{datetime.fromtimestamp(row['at'] / 1000, UTC):%Y-%m-%d %H:%M:%S}"
                row["payload"] = row["payload"][:SHOWN]
            print_table(columns, [[row[name] for name in columns] for row in rows])
        else:
            out.print("Nothing is in quarantine.")

    run(command)
