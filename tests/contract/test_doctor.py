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
from tests.contract.variants import VARIANTS
from tests.golden.stored import compare, normal, with_numbers

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text(encoding="utf-8"))


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command against a service."""
    monkeypatch.setattr("crucible_lineage.cli.doctor.LARGE", LARGE // 20)
    monkeypatch.setattr("crucible_lineage.cli.doctor.TICK_S", 0.01)
    monkeypatch.setattr("crucible_lineage.cli.doctor.LATEST_S", 0.05)
    monkeypatch.setenv("CRUCIBLE_LINEAGE_RETRIES", "1")

    def ask(door: Any, *arguments: str) -> Result:
        where = ["--data", str(tmp_path / "data"), "--url", door.url, "--api-key", door.api_key]
        return CliRunner().invoke(main, [*arguments, *where])

    return ask


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_a_variant_lacks_is_said_and_nothing_stays(
    variant: str, behind: Any, asked: Callable[..., Result], tmp_path: Path
) -> None:
    door = behind(variant)
    ran = asked(door, "doctor", "--project", "lab")
    shown = normal(f"exit code {ran.exit_code}\n{ran.output}", with_numbers({}, ran.output), tmp_path)
    compare(f"../contract/doctor/{variant}.txt", shown)
    with CrucibleClient(door.behind, door.api_key) as client:
        assert client.datasets.list() == []
        assert all(deletion.resource_id in ran.output for deletion in client.deletions.list())


def test_as_json_it_says_the_same(behind: Any, asked: Callable[..., Result]) -> None:
    output = json.loads(asked(behind("no_graphs"), "doctor", "--project", "lab", "--json").stdout)
    Draft202012Validator({**SCHEMA, "$ref": "#/$defs/doctor"}).validate(output)
    assert [row["name"] for row in output["service"] if row["passed"] is False] == ["graphs"]
    assert (output["ok"], [row["needed"] for row in output["service"]]) == (False, list(NEEDS.values()))
