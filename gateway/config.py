"""Settings: what can be configured, its default, its meaning, and where a value came from.

Owns the one declaration of every setting; `parley config` and the documentation are printed from it. A value comes from, in rising
precedence: the default, the TOML file (`PARLEY_CONFIG` or `--config`), the environment (`PARLEY_<NAME>`, and `DATABASE_URL`), the command line.
A setting that is unknown or out of range stops the start and names itself (`ConfigError`). Must not know what is done with a value.
"""

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta


class ConfigError(Exception):
    """The configuration cannot be used. The text names the setting, where its value came from, and what would be right."""


def _data_home() -> str:
    return os.environ.get("XDG_DATA_HOME") or str(Path.home() / ".local" / "share")


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Every setting. Descriptions are what `parley config` prints."""

    host: Annotated[str, Meta(description="Address to listen on.", min_length=1)] = "127.0.0.1"
    port: Annotated[int, Meta(description="TCP port; 0 picks a free one.", ge=0, le=65535)] = 8080
    data_dir: Annotated[str, Meta(description="Directory of the embedded database.", min_length=1)] = msgspec.field(
        default_factory=lambda: str(Path(_data_home()) / "parley")
    )
    database_url: Annotated[
        str, Meta(description="PostgreSQL 15 or newer to use instead of the embedded one (also DATABASE_URL).")
    ] = ""
    app_secret: Annotated[
        str, Meta(description="Secret of the platform's own Meta app, for endpoints that name none.")
    ] = ""
    verify_token: Annotated[str, Meta(description="Verify token of the platform's own Meta app.")] = ""
    commit_seconds: Annotated[
        float, Meta(description="Seconds a webhook may wait for its commit before it is answered 503.", gt=0, le=30)
    ] = 2.0
    conversation_idle_seconds: Annotated[
        float, Meta(description="Seconds without work after which a conversation leaves memory.", ge=1)
    ] = 300.0
    conversations_resident: Annotated[
        int, Meta(description="Conversations of one tenant kept in memory at most.", ge=100)
    ] = 100_000
    raw_retention_days: Annotated[
        int, Meta(description="Days that raw webhooks are kept for replay; 0 keeps them for ever.", ge=0)
    ] = 30
    connections: Annotated[int, Meta(description="Connections served at once; more are answered 503.", ge=10)] = 10_000
    body_bytes: Annotated[int, Meta(description="Largest request body; a larger one is answered 413.", ge=4096)] = (
        16 * 1024 * 1024
    )
    socket_queue_bytes: Annotated[
        int, Meta(description="Bytes queued for one dashboard before it is closed as too slow (4008).", ge=65536)
    ] = 1024 * 1024
    allowed_origins: Annotated[
        tuple[str, ...],
        Meta(description="Web origins besides our own that may open sockets, comma-separated; * allows all."),
    ] = ()
    tls_certificate: Annotated[
        str, Meta(description="PEM file with the certificate chain; empty serves plain HTTP.")
    ] = ""
    tls_key: Annotated[str, Meta(description="PEM file with the certificate's private key.")] = ""
    drain_seconds: Annotated[
        float, Meta(description="Seconds that requests under way are given to finish at a stop.", ge=0, le=120)
    ] = 10.0
    log_level: Annotated[
        str, Meta(description="debug, info, warning or error.", pattern="^(debug|info|warning|error)$")
    ] = "info"
    log_format: Annotated[
        str, Meta(description="console, json, or auto (console on a terminal).", pattern="^(auto|console|json)$")
    ] = "auto"


SECRETS = frozenset({"app_secret", "verify_token", "database_url"})
"""Never printed in full."""


class Described(msgspec.Struct, frozen=True):
    """One line of `parley config`."""

    name: str
    environment: str
    value: Any
    default: Any
    source: str
    meaning: str


class Loaded(msgspec.Struct, frozen=True):
    """The settings, and for each that is not its default where it came from."""

    settings: Settings
    sources: Mapping[str, str]

    def described(self) -> list[Described]:
        """Return every setting, in the order of declaration; secrets show only whether they are set."""
        defaults = Settings()
        rows = []
        for field in msgspec.structs.fields(Settings):
            meta = next(each for each in field.type.__metadata__ if isinstance(each, Meta))
            value, default = getattr(self.settings, field.name), getattr(defaults, field.name)
            if field.name in SECRETS:
                value = "(set)" if value else ""
            rows.append(
                Described(
                    field.name,
                    variable(field.name),
                    value,
                    default,
                    self.sources.get(field.name, "default"),
                    meta.description or "",
                )
            )
        return rows


def variable(name: str) -> str:
    """Return a setting's environment variable."""
    return f"PARLEY_{name.upper()}"


def load(
    environment: Mapping[str, str], *, file: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Loaded:
    """Compose the settings. `overrides` are the command line's; those that are None count as absent.

    Raises:
        ConfigError: a file that cannot be read, a setting that does not exist, a value out of range.
    """
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    names = {field.name for field in msgspec.structs.fields(Settings)}
    path = file or environment.get("PARLEY_CONFIG")
    if path:
        for name, value in _read(path).items():
            if name not in names:
                raise ConfigError(f"{path}: there is no setting {name!r}; `parley config` lists them")
            values[name], sources[name] = value, path
    if environment.get("DATABASE_URL"):
        values["database_url"], sources["database_url"] = environment["DATABASE_URL"], "DATABASE_URL"
    for variable_name, text in environment.items():
        if not variable_name.startswith("PARLEY_") or variable_name == "PARLEY_CONFIG":
            continue
        name = variable_name.removeprefix("PARLEY_").lower()
        if name not in names:
            raise ConfigError(f"{variable_name}: there is no such setting; `parley config` lists them")
        split = name == "allowed_origins"
        values[name] = tuple(each.strip() for each in text.split(",") if each.strip()) if split else text
        sources[name] = variable_name
    for name, value in (overrides or {}).items():
        if value is not None:
            values[name], sources[name] = value, "command line"
    settings = _convert(values, sources)
    if bool(settings.tls_certificate) != bool(settings.tls_key):
        raise ConfigError("tls_certificate and tls_key go together: set both or neither")
    if settings.database_url and not settings.database_url.startswith(("postgresql://", "postgres://")):
        raise ConfigError(f"database_url from {sources['database_url']}: an address begins with postgresql://")
    return Loaded(settings, sources)


def _read(path: str) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text())
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {error}") from error


def _convert(values: Mapping[str, Any], sources: Mapping[str, str]) -> Settings:
    converted: dict[str, Any] = {}
    for field in msgspec.structs.fields(Settings):
        if field.name not in values:
            continue
        try:
            converted[field.name] = msgspec.convert(values[field.name], field.type, strict=False)
        except msgspec.ValidationError as error:
            shown = "" if field.name in SECRETS else f" (it is {values[field.name]!r})"
            raise ConfigError(f"{field.name} from {sources[field.name]}: {error}{shown}") from error
    return Settings(**converted)
