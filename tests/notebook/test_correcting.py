"""Corrections in Python are those of the commands: recorded with author, time and reason, and visible at once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import crucible_lineage as cl
from crucible_lineage.cli import main
from crucible_lineage.errors import InputError


@pytest.fixture
def catalogue(data: Path, tmp_path: Path) -> Any:
    for name in ("a.txt", "b.txt", "c.txt"):
        (tmp_path / name).write_text(name)
    for name in ("a.txt", "b.txt"):
        ran = CliRunner().invoke(main, ["register", str(tmp_path / name), "--project", "lab", "--data", str(data)])
        assert ran.exit_code == 0, ran.output
    with cl.connect(data, project="lab") as opened:
        yield opened


def corrections_of(catalogue: Any, name: str) -> list[tuple[str, str, str]]:
    return [
        (correction.what or correction.field, correction.why, correction.by)
        for correction in catalogue.dataset(name).corrections
    ]


def test_values_and_links_are_set(catalogue: Any) -> None:
    (change,) = catalogue.set("a.txt", {"metadata.power_mW": 5}, why="typed wrong")
    assert (change.field, change.was, change.now) == ("metadata.power_mW", None, 5)
    assert corrections_of(catalogue, "a.txt") == [("metadata.power_mW", "typed wrong", "local")]
    first = catalogue.dataset("a.txt")
    assert len(catalogue.set("b.txt", {"dataset_name": "bee", "parent+": first}, dry_run=True)) == 2
    catalogue.set("b.txt", {"dataset_name": "bee", "parent+": [first], "sample": "wafer"}, why="noted later")
    assert [parent.name for parent in catalogue.dataset("bee").parents] == ["a.txt"]
    changed = [field for field, _, _ in corrections_of(catalogue, "bee")]
    assert changed == ["parent", "sample", "dataset_name"]
    catalogue.set("bee", {"parent-": "a.txt"})
    assert not catalogue.dataset("bee").parents
    with pytest.raises(InputError, match="nonsense"):
        catalogue.set("bee", {"nonsense": 1})


def test_a_hold_needs_a_reason_and_a_blank_flag_is_none_everywhere(catalogue: Any, data: Path) -> None:
    held, other = catalogue.dataset("a.txt"), catalogue.dataset("b.txt")
    with pytest.raises(InputError, match="give the reason"):
        held.hold(" ")
    refused = CliRunner().invoke(main, ["hold", other.mfid, "--why", "", "--data", str(data)])
    assert (refused.exit_code, "give the reason" in refused.stderr) == (2, True)
    held.hold("saturated", flag=" ")
    placed = CliRunner().invoke(main, ["hold", other.mfid, "--why", "dim", "--flag", " weak ", "--data", str(data)])
    assert placed.exit_code == 0, placed.output
    assert [(statement.statement.verb, statement.statement.flag) for statement in held.statements] == [("hold", "")]
    assert [(statement.statement.verb, statement.statement.flag) for statement in other.statements] == [
        ("flag", "weak")
    ]
    listed = CliRunner().invoke(main, ["list", "--project", "lab", "--data", str(data)]).stdout.splitlines()[-1]
    assert listed == "1 dataset; not listed: 1 doubtful (--all)"
    assert repr(catalogue.find()) == "<1 dataset; not listed: 1 doubtful>"
