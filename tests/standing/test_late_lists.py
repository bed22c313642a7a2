"""What this machine has stated and corrected counts at once, although the service's lists show it some time later."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from crucible_lineage.cli import main
from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.datasets import DatasetCalls
from crucible_lineage.refs import ProjectChanges
from tests.web.conftest import served

Ask = Callable[..., Any]


class Lateness:
    """Lists, counts and changes without the datasets that were new, or as they were, when it began."""

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.known: dict[str, Any] | None = None
        listed, count, changes = DatasetCalls.iter, DatasetCalls.count, DatasetCalls.changes

        def late_list(calls: DatasetCalls, **filters: Any) -> Iterator[Any]:
            for dataset in listed(calls, **filters):
                if self.known is None:
                    yield dataset
                elif dataset.unique_id in self.known:
                    yield self.known[dataset.unique_id] if filters.get("include_metadata") else dataset

        def late_count(calls: DatasetCalls, **filters: Any) -> int:
            return count(calls, **filters) if self.known is None else len(list(late_list(calls, **filters)))

        def late_changes(calls: DatasetCalls, project: str, since: str | None, keyword: str) -> ProjectChanges:
            found = changes(calls, project, since, keyword)
            known = {mfid: when for mfid, when in found.modified.items() if self.known is None or mfid in self.known}
            return ProjectChanges("", known)  # as of a service without revisions

        patched.setattr(DatasetCalls, "iter", late_list)
        patched.setattr(DatasetCalls, "count", late_count)
        patched.setattr(DatasetCalls, "changes", late_changes)

    def begin(self, client: CrucibleClient) -> None:
        listed = client.datasets.iter(project_id="lab", include_metadata=True, include_links=True)
        self.known = {dataset.unique_id: dataset for dataset in listed}


@pytest.fixture
def away(begin: Any, tmp_path: Path) -> Iterator[tuple[list[str], CrucibleClient]]:
    with (
        served(begin, tmp_path / "service", "--port", 0) as (printed, key),
        CrucibleClient(printed["url"], key) as client,
    ):
        client.projects.create(project_id="lab", organization="a lab", project_lead="local")
        yield ["--data", str(tmp_path / "data"), "--url", printed["url"], "--api-key", key], client


@pytest.fixture
def ask(lab: Any, away: Any) -> Ask:
    def command(*words: object, code: int = 0) -> Any:
        sys.modules.pop(lab.module, None)
        found = CliRunner().invoke(main, [*map(str, words), "--json", *away[0]])
        assert found.exit_code == code, (words, found.output)
        return json.loads(found.stdout)

    return command


def test_own_acts_count_while_lists_are_late(lab: Any, away: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    _, client = away
    late = Lateness(monkeypatch)
    raw = ask("run", lab.pipeline)["inputs"]["first"][0]
    late.begin(client)
    ask("hold", raw, "--why", "saturated")
    stopped = ask("run", lab.pipeline, "--force", "scaled", code=4)
    assert stopped["executed"] == []
    assert "lists are late: statements of others up to 20" in str(stopped["input_notes"])
    ask("set", raw, "measurement=spectra")
    every = {dataset["mfid"]: dataset for dataset in ask("list", "--project", "lab", "--all")["datasets"]}
    assert (every[raw]["state"], every[raw]["measurement"]) == ("doubtful", "spectra")
    ask("lift", raw)
    assert ask("run", lab.pipeline, "--force", "scaled")["executed"] == ["scaled"]
    late.known = None
    assert ask("run", lab.pipeline)["input_notes"] == []


MANY = """
    pipeline: many
    project: lab
    inputs:
      raw: {file: first.txt, each: true, ingest: false, measurement: counts, instrument_name: Raman 1,
            timestamp: "2026-05-02T12:00:00Z"}
      axis: {calibration: axis, for: raw}
    steps:
      both: {uses: "LABMODULE:add", inputs: {left: raw, right: axis}, output: {ingest: false}}
"""
SELECTS = """
    pipeline: selects
    project: lab
    inputs:
      raw: {select: {measurement: counts}, each: true}
    steps:
      scaled: {uses: "LABMODULE:scale", inputs: {counts: raw}, output: {ingest: false}}
"""


def test_certificates_and_selections_follow_own_acts_while_lists_are_late(
    lab: Any, away: Any, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Lateness(monkeypatch)

    def certify(number: int) -> str:
        axis = ask("register", lab.file(f"axis{number}.txt", f"{number}"), "--project", "lab", "--measurement", "axis")
        of = ("--for", "instrument=Raman 1", "--from", "2026-01-01", "--why", "measured", "--replace")
        ask("certify", axis["mfid"], *of)
        return str(axis["mfid"])

    first = certify(1)
    many, selects = lab.declare(MANY), lab.declare(SELECTS, "selects.yaml")
    raw = ask("run", many)["inputs"]["raw"][0]
    assert ask("run", selects)["executed"] == [f"scaled[{raw}]"]
    late.begin(away[1])
    second = certify(2)
    made = ask("run", many)
    assert second != first
    assert (made["executed"], made["inputs"]["axis"]) == (["both[first.txt]"], [second])
    ask("hold", raw, "--why", "saturated")
    assert {node["id"]: node["state"] for node in ask("lineage", selects)["nodes"]}[raw] == "doubtful"
    assert ask("run", selects, code=4)["outcomes"] == {f"scaled[{raw}]": "reused"}
    ask("lift", raw)
    ask("set", raw, "measurement=spectra")
    assert ask("plan", selects)["steps"] == []
