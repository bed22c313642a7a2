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


def test_measured_files_are_registered_once(scan: Path, data: Path, command: Any) -> None:
    options = (scan, "--data", data, "--project", "lab", "--timestamp", "2024-05-01T12:00:00Z")
    first, second = register(command, *options), register(command, *options)
    assert (first["registered"], second["registered"]) == (True, False)
    assert first["mfid"] == second["mfid"]


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--parent", "0tr5k2ndm5zvd000nr21qakeh4"], "does not exist, or is not visible"),
        (["--timestamp", "2024-05-01T12:00:00"], "the time zone is missing"),
    ],
)
def test_wrong_input_is_refused_and_changes_nothing(
    scan: Path, data: Path, command: Any, options: list[str], words: str
) -> None:
    ran = command("register", scan, "--data", data, "--project", "lab", *options)
    assert ran.returncode == 2
    assert words in ran.stderr
    assert "nothing was changed" in ran.stderr


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("register", "FOLDER", "--project", "lab"), "is a folder; name its files, as in"),
        (("lineage", "--project", "lab", "-o", "FOLDER"), "the format follows from the file's ending"),
    ],
    ids=lambda value: value if isinstance(value, str) else value[0],
)
def test_a_misplaced_argument_is_answered_with_the_right_one(
    lab: Any, data: Path, command: Any, words: tuple[str, ...], expected: str
) -> None:
    arguments = [{"FOLDER": str(lab.folder), "FILE": str(lab.folder / "first.txt")}.get(word, word) for word in words]
    refused = command(*arguments, "--data", data)
    assert refused.returncode == 2
    assert expected in refused.stderr
