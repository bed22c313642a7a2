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
from crucible_lineage.client import CrucibleClient
from crucible_lineage.queries.doctor import LARGE
from crucible_lineage.server import start_server
from crucible_lineage.service import (
    ASSUMPTIONS,
    CLOCK_IDS,
    COLONS,
    DERIVED_IDS,
    FILES_BY_HASH,
    FREE_METADATA,
    GRAPHS,
    TAKEN_IDS,
)

SCHEMA = json.loads((Path(__file__).parents[2] / "docs" / "commands.schema.json").read_text(encoding="utf-8"))
ALWAYS = {"filled-in fields"}  # the embedded Crucible recognizes the format of a file


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Run a command against a service."""
    monkeypatch.setattr("crucible_lineage.queries.doctor.LARGE", LARGE // 20)

    def ask(door: Any, *arguments: str) -> Result:
        where = ["--data", str(tmp_path / "data"), "--url", door.url, "--api-key", door.api_key]
        return CliRunner().invoke(main, [*arguments, *where])

    return ask


@pytest.mark.parametrize(
    ("variant", "otherwise"),
    [
        ("plain", set()),
        ("own_ids", {CLOCK_IDS, DERIVED_IDS}),
        ("version_7", {DERIVED_IDS}),
        ("plain_keywords", {COLONS}),
        ("no_graphs", {GRAPHS}),
        ("no_files", {FILES_BY_HASH}),
        ("upserts", {TAKEN_IDS}),
        ("strict_metadata", {FREE_METADATA, "first metadata", "merged metadata"}),
    ],
)
def test_each_variant_is_found_and_kept_and_nothing_stays(
    variant: str, otherwise: set[str], behind: Any, asked: Callable[..., Result]
) -> None:
    door = behind(variant)
    ran = asked(door, "doctor", "--project", "lab", "--seconds", "1.5", "--json")
    output = json.loads(ran.stdout)
    Draft202012Validator({**SCHEMA, "$ref": "#/$defs/doctor"}).validate(output)
    found = {row["name"]: row for row in output["service"]}
    assert found.keys() == ASSUMPTIONS.keys()
    missing = {name for name, row in found.items() if row["holds"] is False}
    assert missing - ALWAYS == otherwise
    assert all((row["fallback"] is None) == (not missing & {name} or row["missing"]) for name, row in found.items())
    assert (ran.exit_code, output["ok"]) == ((1, False) if variant == "strict_metadata" else (0, True))
    with CrucibleClient(door.behind, door.api_key) as client:
        assert client.datasets.list() == []
        asked_for = {one.resource_id for one in client.deletions.list()}
    assert {one["mfid"] for one in output["made"]} == asked_for
    status = json.loads(asked(door, "status", "--service", "--json").stdout)
    assert status["service"] == output["service"]


def test_the_table_shows_what_happened_and_the_substitute(behind: Any, asked: Callable[..., Result]) -> None:
    door = behind("plain_keywords")
    unknown = asked(door, "status", "--service").stdout
    assert "nothing is known about this Crucible yet" in unknown
    assert "crucible-lineage doctor --project SCRATCH" in unknown
    printed = asked(door, "doctor", "--project", "lab", "--seconds", "1").stdout
    assert "only letters, digits, blanks, - and _" in printed
    assert "instead: keywords are written with `_` in place of `:`" in printed
    assert "made for this test; deletion requested:\n  0" in printed
    again = asked(door, "status", "--service").stdout
    assert again.splitlines()[1:] == printed[: printed.index("made for this")].splitlines()[1:]


def test_without_the_project_nothing_is_tried(behind: Any, asked: Callable[..., Result]) -> None:
    door = behind("plain")
    ran = asked(door, "doctor", "--project", "nonesuch")
    assert ran.exit_code == 2
    assert "project 'nonesuch' does not exist, or is not visible to this key" in ran.output
    assert not [call for call in door.seen if call.startswith(("POST", "PATCH", "PUT"))]


def test_an_ingestion_that_writes_back_is_seen(tmp_path: Path, asked: Callable[..., Result]) -> None:
    from crucible_lineage.server import MetadataWriteBack

    with start_server(tmp_path / "elsewhere", ingestion=MetadataWriteBack(0.02, 0.6)) as server:
        with CrucibleClient(server.url, server.api_key) as client:
            client.projects.create(project_id="lab", organization="a lab", project_lead="local")
        ran = asked(server, "doctor", "--project", "lab", "--seconds", "6", "--json")
    found = {row["name"]: row for row in json.loads(ran.stdout)["service"]}
    assert found["written-back metadata"]["holds"] is False
    assert "undone after" in found["written-back metadata"]["seen"]
    assert "measurement" in found["filled-in fields"]["seen"]
