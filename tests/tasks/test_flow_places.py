"""Results of hand-written flows have slots: the newest run of the flow decides which of them are current.

Where tasks run on Dask, with CRUCIBLE_NIGHTLY=1; in processes each time, and in test_dropin.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.client import CrucibleClient
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.registration.read import read
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.standing.standings import Standing
from tests.nights import NIGHTLY, by_night
from tests.serving import start_server

PROGRAM = Path(__file__).parent / "placed_flow.py"
SELECTING = """
pipeline: selecting
project: lab
inputs: {smoothed: {select: {keyword: "pipeline:process"}}}
steps: {counted: {run: [sh, -c, "cat {inputs.smoothed} > {out}/all.txt"], inputs: {smoothed: smoothed}}}
"""


class Lab:
    """A service, and machines that run flows with it, each with a separate data folder."""

    def __init__(self, folder: Path, url: str, key: str, prefect: Any) -> None:
        self.folder = folder
        self.service = {"CRUCIBLE_API_URL": url, "CRUCIBLE_API_KEY": key}
        self.prefect = prefect
        self.settings = Settings(folder / "looking", url, key)

    def run(self, flow: str, *calls: dict[str, Any], machine: str = "one", runner: str = "threads") -> Any:
        """Return what each run returned."""
        data = {"CRUCIBLE_LINEAGE_DATA": str(self.folder / machine)}
        ran = self.prefect.python(PROGRAM, flow, json.dumps(calls), runner, **self.service, **data)
        assert ran.returncode == 0, ran.stderr[-4000:]
        assert "is not re" not in ran.stderr, ran.stderr[-4000:]
        return json.loads(ran.stdout.splitlines()[-1])

    def entries(self, flow: str) -> list[Standing]:
        """Return all results of a flow."""
        with Session(self.settings) as session:
            return list(list_datasets(session, "lab", pipeline=flow, every=True).entries)

    def states(self, flow: str, step: str, parameter: str) -> dict[Any, str]:
        """Return {value of a parameter: state} of the results of a task or step."""
        with Session(self.settings) as session:
            found = {}
            for entry in self.entries(flow):
                registered = read(session.client, entry.mfid)
                assert registered is not None
                assert registered.step_record is not None
                if entry.summary.step == step:
                    value = registered.step_record.recipe["params"].get(parameter, entry.mfid)
                    found[value] = entry.state
            return found


@pytest.fixture
def lab(tmp_path: Path, prefect: Any) -> Iterator[Lab]:
    with start_server(tmp_path / "service") as server:
        with CrucibleClient(server.url, server.api_key) as client:
            client.projects.create({"project_id": "lab", "organization": "MF", "project_lead": "local"})
        yield Lab(tmp_path, server.url, server.api_key, prefect)


@pytest.fixture
def scan(tmp_path: Path) -> Callable[..., Path]:
    """Write a table of counts."""

    def write(*counts: int, name: str = "scan.csv", folder: str = "day1") -> Path:
        path = tmp_path / folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text("counts\n" + "".join(f"{count}\n" for count in counts))
        return path

    return write


@by_night("the same slots on one machine by day")
def test_back_and_forth_between_parameters_and_machines(lab: Lab, scan: Callable[..., Path]) -> None:
    path = str(scan(1, 5, 2))
    lab.run("process", {"path": path, "widths": [2]}, {"path": path, "widths": [3]})
    assert lab.states("process", "smooth", "width") == {2: "superseded", 3: "current"}
    (old,) = [entry for entry in lab.entries("process") if entry.state == "superseded"]
    assert set(old.superseded_by) <= {entry.mfid for entry in lab.entries("process") if entry.state == "current"}
    lab.run("process", {"path": path, "widths": [2]}, machine="two")
    assert lab.states("process", "smooth", "width") == {2: "current", 3: "superseded"}
    lab.run("process", {"path": path, "widths": [3, 2]})
    assert lab.states("process", "smooth", "width") == {2: "current", 3: "current"}, "one run holds them side by side"
    before = moments(lab)
    lab.run("process", {"path": path, "widths": [2, 3]}, machine="two")
    assert moments(lab) == before, "a run that changes nothing writes nothing"
    lab.run("process", {"path": path, "widths": [3, 4], "fails": True})
    assert lab.states("process", "smooth", "width") == {2: "superseded", 3: "current", 4: "current"}


@pytest.mark.parametrize("runner", ["processes", *(["dask"] if NIGHTLY else [])])
def test_places_are_the_same_wherever_the_tasks_run(lab: Lab, scan: Callable[..., Path], runner: str) -> None:
    path = str(scan(1, 5, 2))
    calls = [{"path": path, "widths": widths} for widths in ([2], [3], [2])]
    lab.run("process", *calls[:1])
    lab.run("process", *calls[1:], machine="two", runner=runner)
    assert lab.states("process", "smooth", "width") == {2: "current", 3: "superseded"}
    before = moments(lab)
    assert [standing.summary.step for standing in lab.entries("process")].count("smooth") == 2, (
        "the code is the same everywhere"
    )
    lab.run("process", calls[0])
    assert moments(lab) == before, "threads fill the same slots"


def moments(lab: Lab) -> dict[str, Any]:
    with Session(lab.settings) as session:
        found = session.client.datasets.list(project_id="lab", limit=None, include_metadata=True)
        return {dataset.unique_id: (dataset.modification_time, dataset.scientific_metadata) for dataset in found}


def test_files_tell_what_results_are_about(lab: Lab, scan: Callable[..., Path], tmp_path: Path) -> None:
    first, other = str(scan(1, 5, 2)), str(scan(1, 5, 3, folder="day2"))
    lab.run("process", {"path": first, "widths": [2]}, {"path": other, "widths": [2]})
    assert [entry.state for entry in lab.entries("process")] == ["current"] * 4, "another file is another slot"
    scan(7, 7, 7)
    lab.run("process", {"path": first, "widths": [2]})
    assert sorted(entry.state for entry in lab.entries("process")) == ["current"] * 4 + ["superseded"] * 2
    scan(1, 5, 2)
    lab.run("process", {"path": first, "widths": [2]})
    changed = [entry for entry in lab.entries("process") if entry.state == "superseded"]
    assert len(changed) == 2
    assert all(entry.since for entry in changed)
    lab.run("collect", {"folder": str(tmp_path / "day1")})
    scan(9, name="more.csv")
    lab.run("collect", {"folder": str(tmp_path / "day1")}, {"folder": str(tmp_path / "day2")})
    merged = [entry.state for entry in lab.entries("collect") if entry.summary.step == "merge"]
    assert sorted(merged) == ["current", "current", "superseded"], "a file added to the folder, and another folder"


def test_steps_in_a_flow_and_a_selection_take_what_holds(lab: Lab, scan: Callable[..., Path], tmp_path: Path) -> None:
    path = str(scan(1, 5, 2))
    two, three, again = lab.run("steps", *({"path": path, "factor": factor} for factor in (2, 3, 2)))
    assert two == again
    assert lab.states("steps", "scale", "factor") == {2: "current", 3: "superseded"}
    assert lab.states("steps", "total", "") == {two: "current", three: "superseded"}
    lab.run("process", {"path": path, "widths": [2]}, {"path": path, "widths": [3]}, {"path": path, "widths": [2]})
    declared = tmp_path / "selecting.yaml"
    declared.write_text(SELECTING)
    with Session(lab.settings) as session:
        done = plan_and_run(
            bind_file(declared, session.store), session, lambda: LocalEngine(session, 1), lambda event: None
        )
        assert done.ok, done.errors
        result = read(session.client, done.datasets["counted"]["out"])
        assert result is not None
        assert result.step_record is not None
        taken = set(result.step_record.parents)
    assert taken == {entry.mfid for entry in lab.entries("process") if entry.state == "current"}
