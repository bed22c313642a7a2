"""`register`: files that no step made are registered once, with parents and a note."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.txt"
    path.write_text("1\n2\n")
    return path


def register(command: Any, *arguments: object) -> dict[str, Any]:
    ran = command("register", *arguments, "--json")
    assert ran.returncode == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_manual_result_is_a_child_with_a_note(scan: Path, data: Path, command: Any, tmp_path: Path) -> None:
    parent = register(command, scan, "--data", data, "--project", "lab")["mfid"]
    drawn = tmp_path / "drawn.txt"
    drawn.write_text("a line by eye")
    options = ("--data", data, "--project", "lab", "--parent", parent, "--note", "fitted by eye in a drawing program")
    made = register(command, drawn, *options)
    assert register(command, drawn, *options)["mfid"] == made["mfid"]
    from crucible_lineage.session import Session
    from crucible_lineage.settings import Settings

    with Session(Settings(data)) as session:
        assert [dataset.unique_id for dataset in session.client.datasets.list_parents(made["mfid"])] == [parent]
        found = session.client.datasets.get(made["mfid"], include_metadata=True)
        record = (found.scientific_metadata or {})["crucible_lineage"]
    assert record["activity"]["note"] == "fitted by eye in a drawing program"
    assert (record["status"], record["used"][0]["mfid"]) == ("complete", parent)
