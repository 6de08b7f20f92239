"""`parley config`: every setting, its value, where it comes from and what it means."""

from rich.text import Text

from gateway.cli.context import Config, Json, print_json, print_table, settings_of


def config(config: Config = None, json: Json = False) -> None:
    """List every setting with its value, default and meaning. Secrets show only whether they are set."""
    rows = settings_of(config).described()
    if json:
        print_json(rows)
    else:
        print_table(
            ["setting", "value", "from", "meaning"],
            [
                (
                    row.environment,
                    row.value,
                    row.source,
                    Text.assemble(row.meaning, (f" (default {row.default!r})", "dim")),
                )
                for row in rows
            ],
        )
