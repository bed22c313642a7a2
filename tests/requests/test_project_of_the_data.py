"""`project: inherit`: one pipeline serves the data of many projects, and each result lies with its data."""

from __future__ import annotations

import json

from tests.requests.conftest import PIPELINE, Facility


def test_each_result_lies_with_its_data(facility: Facility) -> None:
    nothing = facility.command("plan", facility.pipeline, **facility.environment)
    assert nothing.returncode == 2
    assert "no project" in nothing.stderr
    mfids = {project: facility.measure(f"{project}.txt", project) for project in ("proj1", "proj2")}
    facility.measure("torn.txt", "proj2")
    planned = facility.command("plan", facility.pipeline, "--json", **facility.environment)
    assert [len(plan["steps"]) for plan in json.loads(planned.stdout)["projects"].values()] == [1, 2]
    ran = facility.command("run", facility.pipeline, **facility.environment)
    assert ran.returncode == 1, ran.stderr  # torn
    for project, mfid in mfids.items():
        (child,) = facility.children(mfid)
        assert facility.client.datasets.get(child).project_id == project
    drawn = facility.command("lineage", facility.pipeline, "-o", facility.folder / "plan.json", **facility.environment)
    assert drawn.returncode == 0, drawn.stderr
    assert len(json.loads((facility.folder / "plan.json").read_text())["nodes"]) == 6
    why = facility.command("why", "stitch", facility.pipeline, **facility.environment)
    assert why.stdout.count("project proj") == 2
    # Standing, statements and status are of each project.
    assert facility.command("hold", mfids["proj1"], "--why", "bad", **facility.environment).returncode == 0
    everywhere = json.loads(facility.command("status", "--all", "--json", **facility.environment).stdout)
    states = {pipeline["project"]: pipeline["states"] for pipeline in everywhere["pipelines"]}
    assert states == {"proj1": {"doubtful": 1}, "proj2": {"current": 1}}
    again = json.loads(facility.command("run", facility.pipeline, "--json", **facility.environment).stdout)["projects"]
    assert set(again["proj1"]["outcomes"].values()) == {"reused"}


def test_mixed_parents_and_files_are_refused(facility: Facility) -> None:
    facility.measure("a.txt")
    flat = facility.measure("flat.txt", "proj2", "flat field")
    both = PIPELINE.replace("\ninputs:", f"\ninputs:\n  flat: {{dataset: {flat}}}").replace(
        "{scan: scan}", "{scan: flat}"
    )
    facility.pipeline.write_text(both + "  other:\n    uses: mosaic_steps:stitch\n    inputs: {scan: scan}\n")
    mixed = facility.command("run", facility.pipeline, **facility.environment)
    assert mixed.returncode == 2
    assert "projects proj1 and proj2; say where results belong: `project: NAME`" in mixed.stderr
    facility.pipeline.write_text(PIPELINE.replace("\ninputs:", "\ninputs:\n  flat: {file: flat.txt}"))
    files = facility.command("check", facility.pipeline)
    assert files.returncode == 2
    assert "name the project, since input 'flat' is none" in files.stderr
    facility.pipeline.write_text(PIPELINE.replace("input: scan", "input: scam"))
    unknown = facility.command("check", facility.pipeline)
    assert unknown.returncode == 2
    assert "mosaic.yaml:4:32: there is no such input; did you mean 'scan'?" in unknown.stderr
    facility.pipeline.write_text(PIPELINE.replace(", each: true", ""))
    listed = facility.command("check", facility.pipeline)
    assert "mosaic.yaml:4:32: a request names one dataset of a selection with `each: true`" in listed.stderr
