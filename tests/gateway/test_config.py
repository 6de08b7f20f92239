"""Where a setting's value comes from, and that a bad one is named."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.config import ConfigError, Settings, load


def test_without_anything_all_is_default() -> None:
    loaded = load({})
    assert loaded.settings == Settings()
    assert loaded.sources == {}
    assert {row.source for row in loaded.described()} == {"default"}


def test_precedence_rises_from_file_to_environment_to_command_line(tmp_path: Path) -> None:
    file = tmp_path / "parley.toml"
    file.write_text('port = 1\nhost = "file"\nlog_level = "debug"\nallowed_origins = ["https://a.example"]\n')
    environment = {"PARLEY_CONFIG": str(file), "PARLEY_PORT": "2", "PARLEY_HOST": "environment", "HOME": "/"}
    loaded = load(environment, overrides={"port": 3, "data_dir": None})
    settings = loaded.settings
    assert (settings.port, settings.host, settings.log_level) == (3, "environment", "debug")
    assert settings.allowed_origins == ("https://a.example",)
    assert loaded.sources == {
        "port": "command line",
        "host": "PARLEY_HOST",
        "log_level": str(file),
        "allowed_origins": str(file),
    }
    assert load({}, file=str(file)).settings.port == 1


def test_the_environment_is_text() -> None:
    settings = load(
        {
            "PARLEY_COMMIT_SECONDS": "1.5",
            "PARLEY_CONNECTIONS": "50",
            "PARLEY_ALLOWED_ORIGINS": " https://a.example, ,https://b.example",
            "DATABASE_URL": "postgresql://a/b",
        }
    ).settings
    assert (settings.commit_seconds, settings.connections) == (1.5, 50)
    assert settings.allowed_origins == ("https://a.example", "https://b.example")
    assert settings.database_url == "postgresql://a/b"
    both = {"DATABASE_URL": "postgresql://a/b", "PARLEY_DATABASE_URL": "postgresql://c/d"}
    assert load(both).settings.database_url == "postgresql://c/d", "ours is the more particular"


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ({"PARLEY_PORT": "65536"}, "port from PARLEY_PORT"),
        ({"PARLEY_PORT": "http"}, "'http'"),
        ({"PARLEY_HOST": ""}, "host from PARLEY_HOST"),
        ({"PARLEY_LOG_LEVEL": "loud"}, "log_level from PARLEY_LOG_LEVEL"),
        ({"PARLEY_BODY_BYTES": "1"}, "body_bytes from PARLEY_BODY_BYTES"),
        ({"PARLEY_COMMIT_SECONDS": "nan"}, "commit_seconds from PARLEY_COMMIT_SECONDS"),
        ({"PARLEY_PROT": "1"}, "PARLEY_PROT: there is no such setting"),
        ({"PARLEY_TLS_KEY": "key.pem"}, "go together"),
        ({"DATABASE_URL": "mysql://x"}, "database_url from DATABASE_URL"),
        ({"PARLEY_CONFIG": "/nowhere"}, "/nowhere: No such file"),
    ],
)
def test_a_bad_setting_is_named(environment: dict[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load(environment)
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("prot = 1", "there is no setting 'prot'"),
        ("port = ", "Invalid value"),
        ("port = 'x'", "port from"),
        ("\xff", ""),
    ],
)
def test_a_bad_file_is_named(tmp_path: Path, text: str, said: str) -> None:
    file = tmp_path / "parley.toml"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(ConfigError) as raised:
        load({}, file=str(file))
    assert str(file) in str(raised.value)
    assert said in str(raised.value)


@pytest.mark.parametrize("name", ["app_secret", "verify_token", "database_url"])
def test_a_secret_is_never_shown(name: str) -> None:
    value: Any = "postgresql://u:hunter2@h/d" if name == "database_url" else "hunter2"
    loaded = load({f"PARLEY_{name.upper()}": value})
    [row] = [row for row in loaded.described() if row.name == name]
    assert row.value == "(set)"
    assert b"hunter2" not in msgspec.json.encode(loaded.described())
    with pytest.raises(ConfigError) as raised:
        load({}, overrides={name: ["hunter2"]})
    assert "hunter2" not in str(raised.value)


def test_every_setting_is_described() -> None:
    for row in load({}).described():
        assert row.meaning.endswith((".", ")."))
        assert row.environment == f"PARLEY_{row.name.upper()}"
