"""`parley tenant import` adds nothing at all when a line of the file cannot be used."""

import pytest
from typer.testing import CliRunner

from gateway.cli.main import app

GOOD = '{"slug":"acme","phone_number_id":"300000000000001","app_secret":"s"}'


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("nonsense", "malformed"),
        ('{"slug":"acme"}', "phone_number_id"),
        ('{"slug":"acme","phone_number_id":"1","secret":"s"}', "secret"),
        ('{"slug":"Not A Slug","phone_number_id":"1"}', "slug"),
        ('{"slug":"acme","phone_number_id":"not an id"}', "phone number id"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str, why: str, tmp_path: object) -> None:
    data = ("--data-dir", f"{tmp_path}/data")
    done = CliRunner().invoke(app, ["tenant", "import", "-", *data], input=f"{GOOD}\n{line}\n")
    assert done.exit_code == 1
    assert "line 2" in done.stderr and why in done.stderr and "nothing was added" in done.stderr
