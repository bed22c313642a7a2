"""Lists, single datasets, lineages, impact and differences agree about which results are current."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from prov.model import ProvDocument

from crucible_lineage.cli import main
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from tests.runs import run


class Changed:
    """A project in which the pipeline ran with one factor, then with another."""

    def __init__(self, data: Path, session: Session, runs: list[RunResult]) -> None:
        self.data = data
        self.session = session
        self.runs = runs
        self.first, self.second = (runs[0].inputs[name][0] for name in ("first", "second"))
        self.old_scaled, self.scaled = (run_result.datasets["scaled"]["out"] for run_result in runs)
        self.old_total, self.total = (run_result.datasets["total"]["out"] for run_result in runs)

    def ask(self, *words: object, code: int = 0) -> Result:
        ran = CliRunner().invoke(main, [*map(str, words), "--data", str(self.data)])
        assert ran.exit_code == code, ran.output
        return ran

    def ask_json(self, *words: object) -> Any:
        return json.loads(self.ask(*words, "--json").stdout)


def run_pipeline(pipeline: Path, data: Path, **overrides: Any) -> RunResult:
    with Session(Settings(data)) as session:
        return run(session, pipeline, **overrides)


@pytest.fixture(scope="module")
def twice() -> list[tuple[Path, list[RunResult]]]:
    """Return a list for the data folder in which the pipeline ran twice, filled by the first test that needs it."""
    return []


@pytest.fixture
def changed(lab: Any, twice: Any, tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Iterator[Changed]:
    """Copy the project for each test."""
    if not twice:
        origin = tmp_path_factory.mktemp("twice") / "data"
        runs = [run_pipeline(lab.pipeline, origin), run_pipeline(lab.pipeline, origin, **{"scaled.factor": 4})]
        twice.append((origin, runs))
    folder = tmp_path / "data"
    shutil.copytree(twice[0][0], folder)
    with Session(Settings(folder)) as session:
        yield Changed(folder, session, twice[0][1])


def test_files_are_fetched_checked_and_never_overwritten(changed: Changed, tmp_path: Path) -> None:
    folder = tmp_path / "fetched"
    assert changed.ask("get", changed.total, "-o", folder).stderr == ""
    assert (folder / "total.txt").read_text() == "34.0"
    assert changed.ask("get", changed.total, "-o", folder).stdout.count("already there") == 2
    (folder / "note.txt").unlink()
    (folder / "total.txt").write_text("mine")
    refused = changed.ask("get", changed.total, "-o", folder, code=2)
    assert "total.txt already exists with other content; nothing was fetched" in refused.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["total.txt"]
    assert "the dataset is superseded" in changed.ask("get", changed.old_total, "-o", tmp_path / "old").stderr


def test_damaged_bytes_are_not_fetched(changed: Changed, tmp_path: Path) -> None:
    (file,) = changed.session.client.files.list(changed.first)
    digest = file.sha256_hash or ""
    stored = changed.data / "crucible" / "contents" / digest[:2] / digest[2:]
    stored.chmod(0o644)
    stored.write_text("forged")
    ran = changed.ask("get", changed.first, "-o", tmp_path / "x", code=1)
    assert "first.txt" in ran.stderr
    assert f"crucible-lineage reproduce {changed.first} --restore" in ran.stderr
    assert [*(tmp_path / "x").glob("*")] == []


def test_the_tree_counts_superseded_results_and_shows_them_on_request(changed: Changed) -> None:
    tree = changed.ask("lineage", changed.first).stdout
    assert changed.old_total not in tree
    assert "2 superseded results not shown" in tree
    every = changed.ask("lineage", changed.first, "--superseded").stdout
    assert f"{changed.old_total} first (total) counting · add [superseded]" in every
    of_old = changed.ask("lineage", changed.old_total).stdout
    assert f"[superseded by {changed.total}] <--" in of_old
    assert changed.scaled not in of_old


def test_exports_have_the_state_and_the_successor(changed: Changed) -> None:
    exported = json.loads(changed.ask("lineage", changed.first, "--format", "json").stdout)
    nodes = {node["id"]: node for node in exported["nodes"]}
    assert (nodes[changed.old_total]["state"], nodes[changed.old_total]["superseded_by"]) == (
        "superseded",
        [changed.total],
    )
    assert nodes[changed.total]["state"] == "current"
    again = LineageGraph.from_api(exported)
    assert again.nodes[changed.old_total].superseded_by == (changed.total,)
    written = changed.ask("lineage", changed.first, "--format", "prov-json").stdout
    prov = ProvDocument.deserialize(content=written, format="json").get_provn()
    assert f"wasInvalidatedBy(mfid:{changed.old_total}, -, -, " in prov
    assert f"wasInvalidatedBy(mfid:{changed.total}" not in prov
    revision = f"wasDerivedFrom(mfid:{changed.total}, mfid:{changed.old_total}, -, -, -, [prov:type='prov:Revision'])"
    assert revision in prov


def test_differences_start_with_returned_values(changed: Changed) -> None:
    lines = changed.ask("diff", changed.old_total, changed.total).stdout.splitlines()
    expected = ["  total: 28.0 -> 34.0 (+6)", "  factor: 3.0 -> 4.0 (+1)", "  params.factor: 3.0 -> 4.0"]
    assert [line for line in lines if line in expected] == expected
    difference = changed.ask_json("diff", changed.old_total, changed.total)
    assert difference["results"][0] == {
        "old_mfid": changed.old_total,
        "new_mfid": changed.total,
        "field": "total",
        "old": 28.0,
        "new": 34.0,
        "change": 6.0,
    }
    runs = [run_result.run_id for run_result in changed.runs]
    assert changed.ask_json("diff", *runs, "--project", "lab")["results"] == difference["results"]


@pytest.fixture
def by_hand(changed: Changed, tmp_path: Path) -> str:
    """Register a total that was added up by hand, in place of the current one."""
    path = tmp_path / "total.txt"
    path.write_text("35")
    options = ("--project", "lab", "--parent", changed.scaled, "--supersedes", changed.total, "--note", "in my head")
    made = changed.ask_json("register", path, *options)["mfid"]
    again = changed.ask_json("register", path, *options)
    assert (again["mfid"], again["registered"]) == (made, False)
    return str(made)


def test_only_a_different_result_supersedes_a_manual_one(changed: Changed, by_hand: str, lab: Any) -> None:
    for _ in range(2):
        assert run_pipeline(lab.pipeline, changed.data, **{"scaled.factor": 4}).executed == []
        assert changed.ask_json("show", by_hand)["state"] == "current"
    run_pipeline(lab.pipeline, changed.data)
    assert changed.ask_json("show", by_hand)["superseded_by"] == [changed.old_total]


def test_only_a_current_result_can_be_superseded_manually(changed: Changed, tmp_path: Path) -> None:
    path = tmp_path / "total.txt"
    path.write_text("35")
    before = changed.session.client.datasets.count(project_id="lab")

    def refused(mfid: str, *more: str, project: str = "lab") -> str:
        options = ("--project", project, "--supersedes", mfid, *more)
        return changed.ask("register", path, *options, code=2).stderr

    parent = ("--parent", changed.scaled)
    assert "--supersedes needs --parent" in refused(changed.total)
    for project in ("lab", "LAB"):
        assert f"already superseded by {changed.total}" in refused(changed.old_total, *parent, project=project)
    assert "it is raw, not a result" in refused(changed.first, *parent)
    assert "belongs to project lab" in refused(changed.total, *parent, project="elsewhere")
    assert changed.session.client.datasets.count(project_id="lab") == before
