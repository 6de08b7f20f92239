"""`parley tenant` and `parley key`: who may use the gateway. They work beside a running one, which notices by itself."""

import re
import sys
from typing import Annotated

import msgspec
import typer

from gateway.cli.context import Config, DataDir, Failed, Json, beside, out, print_json, print_table, run, settings_of
from gateway.node import clock, fresh_id
from gateway.routing import new_key
from protocol.ids import TENANT
from store.contract import ApiKey, Endpoint, Routes, Tenant
from store.postgres.store import PostgresStore

tenant = typer.Typer(no_args_is_help=True, help="Add and list tenants.")
key = typer.Typer(no_args_is_help=True, help="Add, list and revoke API keys.")

SLUG = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
ENDPOINT = re.compile(r"[0-9A-Za-z_.:@+-]{1,128}")


@tenant.command("add")
def add_tenant(
    slug: Annotated[str, typer.Argument(help="Short unique name: lower-case letters, digits, hyphens.")],
    phone_number_id: Annotated[str, typer.Option(help="Meta's id of the WhatsApp number.")],
    app_secret: Annotated[
        str, typer.Option(help="Secret of the tenant's Meta app; empty: the platform's own (PARLEY_APP_SECRET).")
    ] = "",
    verify_token: Annotated[str, typer.Option(help="Token of Meta's verification handshake.")] = "",
    name: Annotated[str | None, typer.Option(help="Name shown to people.")] = None,
    waba_id: Annotated[str | None, typer.Option(help="WhatsApp Business Account, for notices about it.")] = None,
    display: Annotated[str | None, typer.Option(help="The number as people write it.")] = None,
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Add a tenant with its first number, and print an API key: it is shown this once."""
    settings = settings_of(config, data_dir=data_dir).settings
    wanted = Wanted(slug, phone_number_id, app_secret, verify_token, name, waba_id, display)

    async def command() -> None:
        wanted.check()
        async with beside(settings) as store:
            found = await added(store, await store.load_routes(), wanted)
        if json:
            print_json(found)
        else:
            print_table(["", ""], list(found.items()))
            out.print("\nKeep the API key: it is not shown again. A running gateway knows the tenant already.")

    run(command)


@tenant.command("import")
def import_tenants(
    file: Annotated[
        typer.FileText, typer.Argument(help="JSON lines: slug, phone_number_id, and what else `add` takes; - is stdin.")
    ],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Add many tenants. Prints a JSON line for each that was added, with its API key: it is shown this once."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        wanted = []
        for number, line in enumerate(file, 1):
            try:
                wanted.append(msgspec.json.decode(line, type=Wanted))
                wanted[-1].check()
            except (msgspec.MsgspecError, typer.BadParameter) as error:
                raise Failed(f"line {number}: {error}; nothing was added") from error
        async with beside(settings) as store:
            routes = await store.load_routes()
            for each in wanted:
                sys.stdout.write(msgspec.json.encode(await added(store, routes, each)).decode() + "\n")

    run(command)


class Wanted(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A tenant to add, with its first number: the options of `parley tenant add`, and a line of `parley tenant import`."""

    slug: str
    phone_number_id: str
    app_secret: str = ""
    verify_token: str = ""
    name: str | None = None
    waba_id: str | None = None
    display: str | None = None

    def check(self) -> None:
        """Raise BadParameter for what cannot be a slug or a number's id."""
        if not SLUG.fullmatch(self.slug):
            raise typer.BadParameter(f"{self.slug!r}: a slug is lower-case letters, digits and hyphens, at most 63")
        if not ENDPOINT.fullmatch(self.phone_number_id):
            raise typer.BadParameter(f"{self.phone_number_id!r} is no phone number id")


async def added(store: PostgresStore, routes: Routes, wanted: Wanted) -> dict[str, str]:
    """Add a tenant, and return what there is to tell of it. Raises Failed when the slug or the number is taken."""
    endpoint = Endpoint(
        "whatsapp",
        wanted.phone_number_id,
        "",
        wanted.app_secret,
        wanted.verify_token,
        account=wanted.waba_id,
        display=wanted.display,
    )
    made, token, api_key = await provision(
        store, routes, slug=wanted.slug, name=wanted.name or wanted.slug, endpoint=endpoint
    )
    return {
        "tenant_id": made.id,
        "slug": made.slug,
        "phone_number_id": wanted.phone_number_id,
        "api_key": token,
        "key_id": api_key.id,
    }


async def provision(
    store: PostgresStore, routes: Routes, *, slug: str, name: str, endpoint: Endpoint
) -> tuple[Tenant, str, ApiKey]:
    """Record a tenant, its endpoint and a key. Raises Failed when the slug or the number is taken, in `routes` or since."""
    # Looked up before anything is written: a number that is taken should not leave a tenant without one behind.
    if any(each.slug == slug for each in routes.tenants):
        raise Failed(f"there is a tenant {slug!r} already")
    if any((each.provider, each.external_id) == (endpoint.provider, endpoint.external_id) for each in routes.endpoints):
        raise Failed(f"{endpoint.external_id} belongs to a tenant already")
    made = Tenant(fresh_id(TENANT), slug, name)
    if not await store.add_tenant(made):
        raise Failed(f"there is a tenant {slug!r} already")
    if not await store.add_endpoint(msgspec.structs.replace(endpoint, tenant=made.id)):
        raise Failed(f"{endpoint.external_id} belongs to a tenant already")
    token, api_key = new_key(made.id, at=clock())
    await store.add_key(api_key)
    return made, token, api_key


@tenant.command("list")
def list_tenants(data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """List tenants with their numbers."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings) as store:
            routes = await store.load_routes()
        rows = [
            {
                "tenant_id": each.id,
                "slug": each.slug,
                "name": each.name,
                "status": each.status,
                "phone_number_ids": ([point.external_id for point in routes.endpoints if point.tenant == each.id]),
                "keys": sum(api_key.tenant == each.id for api_key in routes.keys),
            }
            for each in routes.tenants
        ]
        if json:
            print_json(rows)
        elif rows:
            print_table(list(rows[0]), rows)
        else:
            out.print("No tenants yet. `parley tenant add --help` shows how to add one.")

    run(command)


def find_tenant(routes: Routes, name: str) -> Tenant:
    """Return the tenant with this slug or id. Raises Failed."""
    for each in routes.tenants:
        if name in (each.slug, each.id):
            return each
    raise Failed(f"there is no tenant {name!r}; `parley tenant list` shows them")


@key.command("add")
def add_key(
    tenant: Annotated[str, typer.Argument(help="Slug or id of the tenant.")],
    data_dir: DataDir = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Add an API key and print it: it is shown this once."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings) as store:
            owner = find_tenant(await store.load_routes(), tenant)
            token, api_key = new_key(owner.id, at=clock())
            await store.add_key(api_key)
        if json:
            print_json({"key_id": api_key.id, "tenant_id": owner.id, "api_key": token})
        else:
            out.print(f"{token}\n\nKeep it: it is not shown again. Its id is {api_key.id}.")

    run(command)


@key.command("list")
def list_keys(data_dir: DataDir = None, config: Config = None, json: Json = False) -> None:
    """List the live API keys, by what people recognise them by."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings) as store:
            routes = await store.load_routes()
        slugs = {each.id: each.slug for each in routes.tenants}
        rows = [
            {
                "key_id": each.id,
                "prefix": each.prefix,
                "tenant": slugs.get(each.tenant, each.tenant),
                "created_at": each.created_at,
            }
            for each in routes.keys
        ]
        if json:
            print_json(rows)
        else:
            print_table(["key_id", "prefix", "tenant", "created_at"], rows)

    run(command)


@key.command("revoke")
def revoke_key(
    key_id: Annotated[str, typer.Argument(help="The key's id (key_…), not the key.")],
    data_dir: DataDir = None,
    config: Config = None,
) -> None:
    """Revoke an API key. Live connections that showed it are closed within seconds."""
    settings = settings_of(config, data_dir=data_dir).settings

    async def command() -> None:
        async with beside(settings) as store:
            if not await store.revoke_key(key_id, clock()):
                raise Failed(f"there is no live key {key_id!r}; `parley key list` shows them")
        out.print(f"{key_id} is revoked.")

    run(command)
