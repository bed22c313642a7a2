"""Verification has no false findings, suggests commands that work, makes few requests, and has a command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_project
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.files import existing_dataset, hash_files, raw_files, register_raw
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from tests.runs import forget


def rerun(lab: Any, made: Any) -> None:
    """Run the pipeline, after everything that was read of Crucible was removed."""
    forget(made.session.mirror)
    bound = bind_file(lab.pipeline, made.session.store)
    assert plan_and_run(bound, made.session, lambda: LocalEngine(made.session, 2), lambda event: None).ok


@pytest.fixture
def foreign(made: Any, tmp_path: Path) -> list[str]:
    """Make datasets of another program: without records, with odd names, links and files, and a collection."""
    datasets = made.session.client.datasets
    fields = {"project_id": "lab"}
    raw = datasets.create({**fields, "dataset_name": "map"}).dsid
    lone = datasets.create({**fields, "dataset_name": "map (calibrated)"}, scientific_metadata={"crucible": "x"}).dsid
    fitted = datasets.create({**fields, "dataset_name": "fit", "data_type": "analyzed"}).dsid
    collection = datasets.create({**fields, "dataset_name": "all of May"}).dsid
    picture = tmp_path / "map.txt"
    picture.write_text("1 2 3")
    made.session.client.files.upload(raw, picture)
    made.api("POST", f"/datasets/{raw}/children/{fitted}")
    datasets.link_parent_child(fitted, lone, relationship_type="is_derived_from")
    for part in (raw, made.first, made.total):
        datasets.link_parent_child(collection, part, relationship_type="is_part_of")
    more = [datasets.create({**fields, "dataset_name": f"map {number}"}).dsid for number in range(8)]
    return [raw, lone, fitted, collection, *more]


def test_datasets_of_other_programs_have_no_errors(made: Any, foreign: list[str]) -> None:
    found = verify_project(made.session, "lab", read_bytes=True)
    assert [finding.check for finding in found.findings] == ["older-than-parent", "unknown-relationship"]
    assert found.ok
    assert (found.datasets, found.records) == (len(foreign) + 4, 4)


def test_results_of_other_datasets_are_verified_against_their_files(
    made: Any, foreign: list[str], lab: Any, tmp_path: Path
) -> None:
    lab.declare(
        f"""
        pipeline: more
        project: lab
        inputs:
          map: {{dataset: {foreign[0]}}}
        steps:
          again: {{uses: "LABMODULE:scale", inputs: {{counts: map}}}}
        """
    )
    bound = bind_file(lab.pipeline, made.session.store)
    ran = plan_and_run(bound, made.session, lambda: LocalEngine(made.session, 2), lambda event: None)
    others = made.findings(read_bytes=True)
    assert {check for check, _ in others} == {"older-than-parent", "unknown-relationship"}
    changed = tmp_path / "map.txt"
    changed.write_text("3 2 1")
    made.session.client.files.upload(foreign[0], changed, replace=True)
    assert made.findings() - others == {("input-changed", (foreign[0], ran.datasets["again"]["out"]))}


def test_a_hidden_parent_is_no_error_and_not_named(made: Any, colleague: Session) -> None:
    made.session.ensure_project("secret")
    made.edit_record(made.first, lambda record: record["recipe"].update(project="secret"))
    made.session.client.datasets.assign_project(made.first, "secret")
    found = verify_project(colleague, "lab")
    (finding,) = found.findings
    assert (finding.check, finding.severity, finding.ids) == ("dangling-parent", "warning", (made.scaled,))
    assert (found.hidden, found.datasets, made.first in str(finding)) == ((made.first,), 3, False)


def test_a_deleted_parent_is_found_where_it_was_known(made: Any, colleague: Session) -> None:
    colleague.mirror.trust({made.first: existing_dataset(made.first, made.session)})
    made.api("DELETE", f"/resources/{made.first}?force=true")
    found = verify_project(colleague, "lab")
    assert [(finding.check, finding.ids) for finding in found.findings] == [
        ("missing-dataset", (made.first, made.scaled))
    ]


def test_manual_results_are_verified(made: Any, tmp_path: Path) -> None:
    drawn = tmp_path / "drawn.txt"
    drawn.write_text("a line by eye")
    parents = [existing_dataset(mfid, made.session) for mfid in (made.total, made.first)]
    raw = raw_files("lab", hash_files([drawn], made.session), parents=parents)
    mfid = register_raw(raw, FileInput(file=(str(drawn),)), "drawn", made.session, "by eye").mfid
    assert made.findings(read_bytes=True) == set()
    made.edit_record(mfid, lambda record: record["used"].pop())
    assert ("changed-record", (mfid,)) in made.findings()


def test_a_project_is_verified_with_few_requests(made: Any, foreign: list[str]) -> None:
    calls: list[str] = []
    made.session.client._api.event_hooks = {"request": [lambda request: calls.append(request.url.path)]}
    assert verify_project(made.session, "lab").datasets > 10
    assert len(calls) <= 10, calls


def test_running_again_restores_deleted_records_and_finishes_an_incomplete_one(made: Any, lab: Any) -> None:
    for mfid in (made.first, made.scaled):
        made.session.client.metadata.replace(mfid, {})
    made.edit_record(made.total, lambda record: record.update(completed={}))
    assert {check for check, _ in made.findings()} == {"record-missing", "incomplete"}
    rerun(lab, made)
    assert made.findings(read_bytes=True) == set()


def test_running_again_restores_a_deleted_dataset(made: Any, lab: Any) -> None:
    made.session.client.deletions.delete(made.total, force=True, elevated=True)
    rerun(lab, made)
    assert made.findings(read_bytes=True) == set()


def test_findings_end_with_code_1_and_are_printed_with_class_id_and_way_out(made: Any, command: Any) -> None:
    made.session.client.datasets.unlink(made.first, made.scaled)
    ran = command("verify", made.total, "--data", made.session.settings.data)
    assert ran.returncode == 1
    assert f"error: mismatch: {made.first} {made.scaled}\n" in ran.stdout
    assert (
        f"  way out: crucible link -p {made.first} -c {made.scaled} --relationship-type is_derived_from\n" in ran.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "words"), [([], "this key can see no project"), (["0tr5k2ndm5zvd000nr21qakeh4"], "it does not exist")]
)
def test_bad_input_ends_with_code_2(data: Path, command: Any, arguments: list[str], words: str) -> None:
    ran = command("verify", *arguments, "--data", data)
    assert ran.returncode == 2
    assert words in ran.stderr
