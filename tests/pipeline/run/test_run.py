"""A run makes missing results once, registers them with their provenance, and stops only below a failure."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.errors import InputError
from crucible_lineage.provenance.record import read_record
from crucible_lineage.session import Session
from tests.runs import forget, run, states


def supersedes(mfid: str, session: Session) -> str | None:
    record = read_record(session.client.datasets.get(mfid, include_metadata=True).scientific_metadata)
    assert record is not None
    return record.supersedes


def test_a_run_registers_each_result_as_a_child_of_its_inputs_and_records_how_it_was_made(
    lab: Any, session: Session
) -> None:
    result = run(session, lab.pipeline)
    assert result.executed == ["scaled", "total"]
    total = result.datasets["total"]["out"]
    parents = {dataset.unique_id for dataset in session.client.datasets.list_parents(total)}
    assert parents == {result.datasets["scaled"]["out"], *result.inputs["second"]}
    found = session.client.datasets.get(total, include_metadata=True)
    assert found.scientific_metadata is not None
    assert found.scientific_metadata["total"] == 28.0
    assert (found.measurement, found.data_type) == ("counting", "sum")
    assert {file.filename for file in session.client.datasets.list_files(total)} == {"total.txt", "note.txt"}
    mfid = result.datasets["scaled"]["out"]
    record = read_record(session.client.datasets.get(mfid, include_metadata=True).scientific_metadata)
    assert record is not None
    assert record.is_complete
    assert record.recipe["params"] == {"factor": 3.0}
    assert record.used[0].mfid == result.inputs["first"][0]
    assert record.activity.function == f"{lab.module}:scale"
    assert "def scale(" in record.activity.code.source
    assert record.agent.unique_id
    assert record.software.packages["crucible-lineage"]
    assert record.registrar.startswith(f"{session.machine}-"), "the next run from there would finish it at once"


def test_a_second_run_makes_nothing_and_requests_nothing(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    assert run(session, lab.pipeline).executed == [], "reads once what ingestion has changed after the first run"
    with Session(session.settings) as later:
        second = run(later, lab.pipeline)
        assert second.executed == []
        assert second.datasets == first.datasets
        assert "client" not in later._opened, "an up-to-date run must not start the embedded Crucible"


def test_a_changed_parameter_makes_new_children_which_name_the_old_ones_that_they_supersede(
    lab: Any, session: Session
) -> None:
    first = run(session, lab.pipeline)
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 4"))
    second = run(session, lab.pipeline)
    assert second.executed == ["scaled", "total"]
    assert set(second.datasets["total"].values()).isdisjoint(first.datasets["total"].values())
    for step in ("scaled", "total"):
        assert supersedes(second.datasets[step]["out"], session) == first.datasets[step]["out"]
        assert supersedes(first.datasets[step]["out"], session) is None


def test_a_changed_input_file_is_a_new_dataset(lab: Any, session: Session) -> None:
    first = run(session, lab.pipeline)
    lab.file("second.txt", "11\n")
    assert states(session, lab.pipeline) == {"scaled": "fresh", "total": "stale"}
    second = run(session, lab.pipeline)
    assert second.executed == ["total"]
    assert second.inputs["second"] != first.inputs["second"]


def test_a_step_may_have_several_outputs(lab: Any, session: Session) -> None:
    lab.declare(
        """
        pipeline: splitting
        project: lab
        inputs:
          first: {file: first.txt, timestamp: "2024-05-01T12:00:00Z"}
        steps:
          parts: {uses: "LABMODULE:split", inputs: {counts: first}}
          joined: {uses: "LABMODULE:add", inputs: {left: parts.low, right: parts.high}}
        """
    )
    result = run(session, lab.pipeline)
    assert result.ok, result.errors
    assert set(result.datasets["parts"]) == {"low", "high"}
    parents = {dataset.unique_id for dataset in session.client.datasets.list_parents(result.datasets["joined"]["out"])}
    assert parents == set(result.datasets["parts"].values())


def test_files_of_a_result_may_have_the_same_bytes(lab: Any, session: Session) -> None:
    code = "import os\nfrom pathlib import Path\n\n\ndef same(counts: Path, *, left: Path, right: Path):\n"
    code += "    for number, path in enumerate((left / 'a', left / 'b', right / 'c')):\n"
    code += "        path.write_text('1')\n        os.utime(path, (number, number))\n"
    step = "from crucible_lineage import step\n"
    lab.file(f"{lab.module}_same.py", step + code.replace("def same", "@step(outputs=('left', 'right'))\ndef same"))
    head = lab.pipeline.read_text().partition("  second:")[0]
    path = lab.declare(f"{head}steps:\n  same: {{uses: {lab.module}_same:same, inputs: {{counts: first}}}}\n")
    result = run(session, path)
    assert result.errors == {}
    stored = [file for mfid in result.datasets["same"].values() for file in session.client.datasets.list_files(mfid)]
    assert sorted(file.filename for file in stored) == ["a", "b", "c"]


def test_a_parent_with_several_files_needs_a_choice(lab: Any, session: Session) -> None:
    chosen = lab.pipeline.read_text() + f"  again:\n    uses: {lab.module}:scale\n    inputs: {{counts: total}}\n"
    lab.declare(chosen)
    assert "has several files: note.txt, total.txt; choose one" in run(session, lab.pipeline).errors["again"]
    lab.declare(chosen.replace("counts: total}", "counts: {from: total, files: total.txt}}"))
    assert run(session, lab.pipeline).executed == ["again"]


def test_files_without_a_time_are_adopted_by_their_bytes(lab: Any, session: Session) -> None:
    lab.declare(lab.pipeline.read_text().replace(', timestamp: "2024-05-01T12:00:00Z"', ""))
    first = run(session, lab.pipeline)
    forget(session.mirror)
    second = run(session, lab.pipeline)
    assert second.inputs == first.inputs
    assert second.executed == []


def test_a_missing_dataset_is_reported_before_anything_is_changed(lab: Any, session: Session) -> None:
    lab.declare(
        """
        pipeline: more
        project: lab
        inputs:
          counts: {dataset: 0tr5k2ndm5zvd000nr21qakeh4}
        steps:
          again: {uses: "LABMODULE:scale", inputs: {counts: counts}}
        """
    )
    with pytest.raises(InputError, match="0tr5k2ndm5zvd000nr21qakeh4"):
        run(session, lab.pipeline)
    assert session.client.projects.find("lab") is None


def test_a_result_is_associated_with_the_samples_of_its_parents(lab: Any, session: Session) -> None:
    session.ensure_project("lab")
    wafer = session.client.samples.create(sample_name="wafer 7", project_id="lab").unique_id
    lab.declare(lab.pipeline.read_text().replace("file: first.txt,", f"file: first.txt, samples: [{wafer}],"))
    result = run(session, lab.pipeline)
    on_wafer = {dataset.unique_id for dataset in session.client.datasets.list(sample_mfid=wafer, limit=None)}
    assert on_wafer == {*result.inputs["first"], result.datasets["scaled"]["out"], result.datasets["total"]["out"]}
    forget(session.mirror)
    lab.declare(lab.pipeline.read_text().replace("factor: 3", "factor: 5"))
    again = run(session, lab.pipeline)
    on_wafer = {dataset.unique_id for dataset in session.client.datasets.list(sample_mfid=wafer, limit=None)}
    assert again.datasets["total"]["out"] in on_wafer, "also when the parents were found at Crucible"


def test_a_step_that_does_not_change_its_own_result_returns_that_result(lab: Any, session: Session) -> None:
    lab.file(
        f"{lab.module}_same.py",
        "from pathlib import Path\n\n\ndef same(counts: Path, *, out: Path):\n"
        "    (out / 'x.txt').write_text(counts.read_text())\n",
    )
    steps = f"  once: {{uses: {lab.module}_same:same, inputs: {{counts: first}}}}\n"
    steps += f"  twice: {{uses: {lab.module}_same:same, inputs: {{counts: once}}}}\n"
    steps += f"  thrice: {{uses: {lab.module}_same:same, inputs: {{counts: twice}}}}\n"
    lab.declare(lab.pipeline.read_text() + steps)
    result = run(session, lab.pipeline)
    assert result.ok, result.errors
    assert result.datasets["thrice"] == result.datasets["twice"], "of a file of the same name with the same bytes"
    assert run(session, lab.pipeline).executed == []
