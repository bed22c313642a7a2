"""Commands report that a dataset was deleted, when and why, and what was made from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


class Deleted:
    """The laboratory's pipeline after a run: `first` is deleted, and the deletion of `second` is requested."""

    def __init__(self, data: Path, made: dict[str, Any]) -> None:
        self.data = data
        self.first, self.second = made["inputs"]["first"][0], made["inputs"]["second"][0]
        self.scaled, self.total = made["datasets"]["scaled"]["out"], made["datasets"]["total"]["out"]

    def ask(self, *arguments: str) -> Any:
        return CliRunner().invoke(main, [*arguments, "--data", str(self.data)])

    def lines(self, *arguments: str) -> list[str]:
        ran = self.ask(*arguments)
        assert ran.exit_code == 0, ran.output
        return list(ran.stdout.splitlines())


@pytest.fixture
def deleted(lab: Any, data: Path) -> Deleted:
    ran = CliRunner().invoke(main, ["run", str(lab.pipeline), "--data", str(data), "--json"])
    found = Deleted(data, json.loads(ran.stdout))
    with Session(Settings(data)) as session:
        deletions = session.client.deletions
        deletions.request(found.first, "the lamp was off")
        deletions.delete(found.first)
        deletions.request(found.second, "a twin")
    return found


def test_show_prints_when_and_why(deleted: Deleted) -> None:
    ran = deleted.ask("show", deleted.first)
    assert ran.exit_code == 2
    assert f"dataset {deleted.first} (first) was deleted on 20" in ran.stderr
    assert ": the lamp was off" in ran.stderr
    assert any(
        line.startswith("was asked to be deleted (request ") and line.endswith(": a twin")
        for line in deleted.lines("show", deleted.second)
    )


@pytest.mark.parametrize("command", ["lineage", "get"])
def test_other_commands_report_the_deletion(deleted: Deleted, command: str, tmp_path: Path) -> None:
    ran = deleted.ask(command, deleted.first, *(["-o", str(tmp_path / "out")] if command == "get" else []))
    assert ran.exit_code == 2
    assert "was deleted on 20" in ran.stderr, ran.stderr


def test_impact_reports_the_deletion_and_the_results_made_from_it(deleted: Deleted) -> None:
    headline, *redo = deleted.lines("impact", deleted.first)[1:]
    assert "was deleted on 20" in headline
    assert [line.split()[0] for line in redo if not line.startswith(" ")][:2] == [deleted.scaled, deleted.total]
    found = json.loads(deleted.ask("impact", deleted.first, "--json").stdout)
    assert (found["deletion"]["mfid"], found["deletion"]["state"]) == (deleted.first, "was deleted")
    assert [one["mfid"] for one in found["redo"]] == [deleted.scaled, deleted.total]
