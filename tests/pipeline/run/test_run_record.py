"""A run recorded at Crucible lists everything that it relied on, once, and does not affect the lineage."""

from __future__ import annotations

import sys
from dataclasses import replace
from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.lineage import LineageGraph, check
from crucible_lineage.pipeline.run.recording import register_run
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.queries.verify.verify import verify_dataset, verify_project
from crucible_lineage.session import Session


@pytest.fixture
def result(lab: Any, run: Any) -> RunResult:
    """A run that has made `scaled` and `total`."""
    made = run(lab.pipeline)
    assert made.ok
    return made


def test_a_run_is_a_dataset_that_lists_its_outputs_and_is_registered_once(session: Session, result: RunResult) -> None:
    record = register_run(session, result)
    assert register_run(session, result) == record
    (found,) = session.client.datasets.list(measurement="pipeline run", include_metadata=True, include_links=True)
    outputs = {result.datasets[step]["out"] for step in ("scaled", "total")}
    assert {(link.unique_id, link.relationship_type) for link in found.links or ()} == {
        (mfid, "is_part_of") for mfid in outputs
    }
    assert set((found.scientific_metadata or {})["outputs"]) == outputs
    (file,) = session.client.files.list(record.mfid)
    text = session.client.files.download_bytes(file).decode()
    assert all(mfid in text for mfid in (*outputs, *result.inputs["first"], result.run_id))


def test_a_run_that_only_reused_results_is_distinguished_from_the_one_that_made_them(
    run: Any, session: Session, lab: Any, result: RunResult
) -> None:
    first = register_run(session, result)
    again = run(lab.pipeline)
    second = register_run(session, again)
    assert again.executed == []
    assert first.mfid != second.mfid
    parents = {dataset.unique_id for dataset in session.client.datasets.list_parents(result.datasets["total"]["out"])}
    assert {first.mfid, second.mfid} <= parents


def test_with_run_records_a_project_is_as_clean_as_before(
    run: Any, session: Session, lab: Any, result: RunResult
) -> None:
    for ran in (result, run(lab.pipeline)):
        register_run(session, ran)
    assert verify_project(session, "lab", read_bytes=True).findings == ()
    assert verify_dataset(session, result.datasets["total"]["out"]).findings == ()
    listed = session.client.datasets.list(project_id="lab", include_metadata=True, include_links=True)
    assert check(LineageGraph.from_records([dataset.model_dump() for dataset in listed])) == []


def test_links_missing_after_a_crash_are_made_by_the_next_call(session: Session, result: RunResult) -> None:
    record = register_run(session, result)
    session.client.datasets.unlink(record.mfid, result.datasets["total"]["out"])
    register_run(session, result)
    children = {dataset.unique_id for dataset in session.client.datasets.list_children(record.mfid)}
    assert children == {result.datasets[step]["out"] for step in ("scaled", "total")}


FAILING = """
import sys
print("the lamp is off")
sys.exit(3)
"""


def test_the_output_of_a_failed_command_is_stored_with_the_run(run: Any, session: Session, lab: Any) -> None:
    lab.file("fail.py", FAILING)
    inputs = lab.pipeline.read_text().partition("steps:")[0]
    steps = f'run: ["{sys.executable}", fail.py, "{{inputs.counts}}", "{{out}}"]\n    inputs: {{counts: first}}'
    ran = run(lab.declare(f"{inputs}steps:\n  broken:\n    {steps}\n".replace("  second:", "  # second:")))
    assert not ran.ok
    record = register_run(session, ran)
    assert register_run(session, ran) == record
    files = {file.filename: file for file in session.client.files.list(record.mfid)}
    assert set(files) == {f"run-{ran.run_id}.json", "broken.log"}
    assert session.client.files.download_bytes(files["broken.log"]) == b"the lamp is off\n"
    assert verify_project(session, "lab", read_bytes=True).findings == ()


def test_a_run_without_datasets_is_an_input_error(session: Session, result: RunResult) -> None:
    with pytest.raises(InputError, match="relied on no dataset"):
        register_run(session, replace(result, inputs={}, datasets={}))
