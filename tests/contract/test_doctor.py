"""`doctor` finds how a service differs, remembers it for runs, and leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator

from crucible_lineage.cli import main
from crucible_lineage.cli.doctor import LARGE, NEEDS
from crucible_lineage.client import CrucibleClient

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command against a service."""
    monkeypatch.setattr("crucible_lineage.cli.doctor.LARGE", LARGE // 20)
    monkeypatch.setattr("crucible_lineage.cli.doctor.TICK_S", 0.01)

    def ask(door: Any, *arguments: str) -> Result:
        where = ["--data", str(tmp_path / "data"), "--url", door.url, "--api-key", door.api_key]
        return CliRunner().invoke(main, [*arguments, *where])

    return ask


@pytest.mark.parametrize(
    ("variant", "missing"),
    [
        ("plain", set()),
        ("own_ids", {"own ids"}),
        ("version_7", {"own ids"}),
        ("plain_keywords", {"keywords"}),
        ("no_graphs", {"graphs"}),
        ("upserts", {"taken ids"}),
        ("strict_metadata", {"first metadata", "merged metadata", "free metadata"}),
    ],
)
def test_each_variant_is_found_and_nothing_stays(
    variant: str, missing: set[str], behind: Any, asked: Callable[..., Result]
) -> None:
    door = behind(variant)
    ran = asked(door, "doctor", "--project", "lab", "--json")
    output = json.loads(ran.stdout)
    Draft202012Validator({**SCHEMA, "$ref": "#/$defs/doctor"}).validate(output)
    found = {row["name"]: row for row in output["service"]}
    assert found.keys() == NEEDS.keys()
    assert {name for name, row in found.items() if row["passed"] is False} == missing
    assert (ran.exit_code, output["ok"]) == ((1, False) if missing else (0, True))
    with CrucibleClient(door.behind, door.api_key) as client:
        assert client.datasets.list() == []
        asked_for = {deletion.resource_id for deletion in client.deletions.list()}
    assert {one["mfid"] for one in output["made"]} == asked_for


def test_the_table_shows_what_happened_and_what_is_needed(behind: Any, asked: Callable[..., Result]) -> None:
    printed = asked(behind("plain_keywords"), "doctor", "--project", "lab").stdout
    assert "only letters, digits, blanks, - and _" in printed
    assert "needed: keywords may have `:` and 40 characters" in printed
    assert "else runs are refused: neither results nor statements are found in lists" in printed
    assert "made for this test; deletion requested:\n  0" in printed
