"""The same bytes under a new name are the same data."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.corrections import corrections
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session

EACH = """
pipeline: names
project: lab
inputs:
  scans: {file: "scan-*.txt", each: true, timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: scans}}
"""
PAIR = """
pipeline: pair
project: lab
inputs:
  pair: {file: "scan-*.txt", timestamp: "2024-05-01T12:00:00Z"}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: {from: pair, files: scan-1.txt}}}
"""


def noted(session: Session, path: Any) -> str:
    return "\n".join(make_plan(bind_file(path, session.store), session).notes)


def raw_states(session: Session) -> list[tuple[str, str]]:
    found = list_datasets(session, "lab", every=True).entries
    return sorted((entry.state, entry.mfid) for entry in found if not entry.summary.step)


def test_a_renamed_file_is_the_same_data(lab: Any, run: Any, session: Session) -> None:
    for number in (1, 2):
        lab.file(f"scan-{number}.txt", f"{number} {number}")
    first = run(lab.declare(EACH))
    before = raw_states(session)
    (lab.folder / "scan-1.txt").rename(lab.folder / "scan-9.txt")
    assert "scan-9.txt has the bytes of scan-1.txt" in noted(session, lab.pipeline)
    again = run(lab.pipeline)
    assert not again.executed
    assert again.datasets["scaled[scan-9.txt]"] == first.datasets["scaled[scan-1.txt]"]
    assert any("scan-9.txt" in note for note in again.input_notes)
    assert raw_states(session) == before, "no second raw dataset"
    mfid = first.inputs["scans"][0]
    metadata = session.client.datasets.get(mfid, include_metadata=True).scientific_metadata
    assert [correction.what for correction in corrections(metadata)] == ["found under the name scan-9.txt"]
    run(lab.pipeline)
    metadata = session.client.datasets.get(mfid, include_metadata=True).scientific_metadata
    assert len(corrections(metadata)) == 1, "it is recorded once"
    (lab.folder / "scan-9.txt").rename(lab.folder / "scan-1.txt")
    assert run(lab.pipeline).datasets == first.datasets


def test_another_machine_finds_a_renamed_file_by_its_bytes(lab: Any, run: Any, session: Session) -> None:
    lab.file("scan-1.txt", "1 2")
    run(lab.declare(EACH))
    (lab.folder / "scan-1.txt").rename(lab.folder / "scan-9.txt")
    session.mirror.forget()
    assert not run(lab.pipeline).executed


def test_a_copy_beside_its_original_counts_and_is_reported(lab: Any, run: Any, session: Session) -> None:
    lab.file("scan-1.txt", "1 2")
    run(lab.declare(EACH))
    lab.file("scan-2.txt", "1 2")
    note = noted(session, lab.pipeline)
    assert "scan-2.txt has the bytes of scan-1.txt" in note
    assert "both count" in note
    assert run(lab.pipeline).executed == ["scaled[scan-2.txt]"]
    assert len(raw_states(session)) == 2


@pytest.mark.parametrize("names", [("scan-2.txt", "scan-1.txt")])
def test_files_of_one_dataset_that_exchange_names_are_other_data(
    names: tuple[str, str], lab: Any, run: Any, session: Session
) -> None:
    for number in (1, 2):
        lab.file(f"scan-{number}.txt", f"{number} {number}")
    first = run(lab.declare(PAIR))
    for number in (1, 2):
        (lab.folder / f"scan-{number}.txt").unlink()
    for name, text in zip(names, ("1 1", "2 2"), strict=True):
        lab.file(name, text)
    assert not noted(session, lab.pipeline)
    again = run(lab.pipeline)
    assert again.executed == ["scaled"]
    assert again.inputs != first.inputs
    (file,) = session.client.files.list(again.datasets["scaled"]["out"])
    assert session.client.files.download_bytes(file) == b"4.0\n4.0"


def test_the_same_bytes_of_another_time_are_other_data(lab: Any, run: Any, session: Session) -> None:
    lab.file("scan-1.txt", "1 2")
    run(lab.declare(EACH))
    (lab.folder / "scan-1.txt").rename(lab.folder / "scan-9.txt")
    lab.declare(EACH.replace("12:00", "13:00"))
    assert not noted(session, lab.pipeline)
    assert run(lab.pipeline).executed
    assert len(raw_states(session)) == 2
