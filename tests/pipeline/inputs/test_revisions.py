"""The same bytes under a new name are the same data; a file that grew revises its earlier dataset."""

from __future__ import annotations

from typing import Any

import pytest

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.errors import ForbiddenError, InputError
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.corrections import apply_changes, changes_of, corrections
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session
from tests.runs import forget

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
GROWING = """
pipeline: growing
project: lab
inputs:
  log: {file: run.txt, grows: true, timestamp: "2024-05-01T12:00:00Z", metadata: {stage: A}}
steps:
  scaled: {uses: "LABMODULE:scale", inputs: {counts: log}}
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
    forget(session.mirror)
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


def test_a_file_that_grew_three_times_gives_three_revisions(lab: Any, run: Any, session: Session) -> None:
    path = lab.file("run.txt", "1\n")
    first = run(lab.declare(GROWING)).inputs["log"][0]
    apply_changes(session, changes_of(session, first, {"metadata.stage": "B", "metadata.added": 7}))
    session.client.datasets.set_public(first)
    newest = first
    for number in (2, 3, 4):
        with path.open("a") as stream:
            stream.write(f"{number}\n")
        assert f"a revision of {newest}" in noted(session, lab.pipeline)
        result = run(lab.pipeline)
        assert result.executed == ["scaled"]
        newest = result.inputs["log"][0]
    states = raw_states(session)
    assert [state for state, _ in states] == ["raw", "superseded", "superseded", "superseded"]
    assert dict(states)["raw"] == newest
    revision = session.client.datasets.get(newest, include_metadata=True)
    metadata = revision.scientific_metadata or {}
    assert (metadata["stage"], metadata["added"], revision.public) == ("B", 7, True), "it has the current values"
    assert not run(lab.pipeline).executed
    current = list_datasets(session, "lab", step="scaled").entries
    assert [entry.state for entry in current] == ["current"]


def test_a_file_that_was_rewritten_is_reported_and_new(lab: Any, run: Any, session: Session) -> None:
    path = lab.file("run.txt", "1\n")
    run(lab.declare(GROWING))
    path.write_text("2\n3\n")
    assert "continues none" in noted(session, lab.pipeline)
    run(lab.pipeline)
    assert [state for state, _ in raw_states(session)] == ["raw", "raw"]


def test_several_files_as_one_dataset_do_not_grow(lab: Any) -> None:
    lab.file("scan-1.txt", "1")
    path = lab.declare(GROWING.replace("run.txt", '"scan-*.txt"'))
    with pytest.raises(InputError, match="grows"):
        bind_file(path, None)


def test_the_dataset_of_another_account_is_revised_without_a_note_in_it(
    lab: Any, run: Any, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = lab.file("run.txt", "1\n")
    first = run(lab.declare(GROWING)).inputs["log"][0]
    merge = session.client.metadata.merge

    def refuse(mfid: str, *rest: Any, **more: Any) -> Any:
        if mfid == first:
            raise ForbiddenError("only its owner may", status=403)
        return merge(mfid, *rest, **more)

    monkeypatch.setattr(session.client.metadata, "merge", refuse)
    path.write_text("1\n2\n")
    assert run(lab.pipeline).executed == ["scaled"]
    assert [state for state, _ in raw_states(session)] == ["raw", "superseded"]
