"""Every difference between a project and its provenance is found, with the right check and dataset."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from crucible_lineage.ask.verify import verify_dataset
from tests.runs import forget

OTHER_MFID = "0tr5k2ndm5zvd000nr21qakeh4"


@pytest.mark.parametrize("content", [b"4", None])
def test_bytes_changed_or_missing_in_storage_are_found_when_bytes_are_read(made: Any, content: bytes | None) -> None:
    stored: Path = made.stored(made.first, "first.txt")
    stored.chmod(0o644)
    stored.unlink()
    if content is not None:
        stored.write_bytes(content)
    assert made.findings() == set(), "without --bytes only what Crucible lists is compared"
    assert made.findings(read_bytes=True) == {("file-damaged", (made.first,))}


def test_a_file_replaced_under_its_name_is_found_with_its_results(made: Any, tmp_path: Path) -> None:
    other = tmp_path / "scaled.txt"
    other.write_text("9")
    made.session.client.files.upload(made.scaled, other, replace=True)
    assert made.findings() == {("file-changed", (made.scaled,)), ("input-changed", (made.scaled, made.total))}


def edit(place: str, value: object) -> Callable[[dict[str, Any]], None]:
    """Set the value at this place of a record."""
    *above, last = place.split("/")

    def edited(record: Any) -> None:
        for key in above:
            record = record[int(key) if key.isdigit() else key]
        record[last] = value

    return edited


@pytest.mark.parametrize(
    ("place", "value", "expected"),
    [
        ("recipe/params/factor", 4.0, "changed-recipe"),
        ("recipe/inputs/counts/0/origin", OTHER_MFID, "changed-recipe"),
        ("recipe/inputs/counts/0/files/first.txt", "0" * 64, "changed-recipe"),
        ("used/0/mfid", OTHER_MFID, "changed-record"),
        ("activity/code/fingerprint", "other", "changed-record"),
        ("generated/0/sha256", "0" * 64, "file-changed"),
        ("generated/0/sha256", "0" * 64, "changed-record"),
        ("completed", {}, "incomplete"),
        ("schema", "crucible-lineage/provenance/9", "record-damaged"),
    ],
)
def test_an_edited_record_is_found(made: Any, place: str, value: object, expected: str) -> None:
    made.edit_record(made.scaled, edit(place, value))
    assert (expected, (made.scaled,)) in made.findings()


@pytest.mark.parametrize("value", [4.0, "3.0"])
def test_scientific_metadata_edited_afterwards_are_found(made: Any, value: object) -> None:
    made.api("PATCH", f"/resources/{made.scaled}/metadata", json={"factor": value})
    assert made.findings() == {("metadata-changed", (made.scaled,))}


def test_removed_scientific_metadata_are_found_and_named(made: Any) -> None:
    metadata = made.session.client.metadata.get(made.scaled)
    del metadata["factor"]
    made.session.client.metadata.replace(made.scaled, metadata)
    (finding,) = verify_dataset(made.session, made.scaled).findings
    assert (finding.check, finding.ids) == ("metadata-changed", (made.scaled,))
    assert "/factor" in finding.message
    assert finding.command == "crucible-lineage run PIPELINE --force STEP"


def test_a_file_replaced_together_with_its_entry_in_the_record_is_found(made: Any, tmp_path: Path) -> None:
    other = tmp_path / "total.txt"
    other.write_text("9")
    made.session.client.files.upload(made.total, other, replace=True)
    digest = hashlib.sha256(b"9").hexdigest()
    made.edit_record(made.total, lambda record: record["generated"][-1].update(sha256=digest, size=1))
    assert made.findings() == {("changed-record", (made.total,))}


def test_a_parent_edited_into_a_record_is_missing(made: Any) -> None:
    made.edit_record(made.scaled, edit("used/0/mfid", OTHER_MFID))
    assert ("missing-dataset", (OTHER_MFID, made.scaled)) in made.findings()


CHANGES: dict[str, tuple[Callable[[Any], object], str]] = {
    "a hash changed in the database": (
        lambda made: made.sql("UPDATE file SET sha256 = ? WHERE filename = 'total.txt'", "0" * 64),
        "file-changed total",
    ),
    "a record completed by a registration that was taken over": (
        lambda made: made.edit_record(made.scaled, edit("registrar", "other-1")),
        "incomplete scaled",
    ),
    "later scientific metadata are not a fault": (
        lambda made: made.api(
            "PATCH", f"/resources/{made.scaled}/metadata", json={"read": {"lines": 3}, "remark": "x"}
        ),
        "",
    ),
    "a deleted record of a derived dataset": (
        lambda made: made.session.client.metadata.replace(made.scaled, {"factor": 3}),
        "record-missing scaled",
    ),
    "a deleted record of a raw dataset": (
        lambda made: made.api("POST", f"/resources/{made.first}/metadata?overwrite=true", json={}),
        "record-missing first",
    ),
    "a removed link": (
        lambda made: made.session.client.datasets.unlink(made.second, made.total),
        "mismatch second total",
    ),
    "an added link": (
        lambda made: made.session.client.datasets.link_parent_child(
            made.second, made.scaled, relationship_type="is_derived_from"
        ),
        "mismatch second scaled, older-than-parent second scaled",
    ),
    "a link of another type": (
        lambda made: made.session.client.datasets.link_parent_child(
            made.first, made.scaled, relationship_type="is_part_of"
        ),
        "mismatch first scaled",
    ),
    "a deleted parent, at its child": (
        lambda made: made.api("DELETE", f"/resources/{made.first}?force=true"),
        "missing-dataset first scaled",
    ),
    "a last dataset removed from the database, where it was made": (
        lambda made: made.sql("DELETE FROM resource WHERE mfid = ?", made.total),
        "missing-dataset total",
    ),
    "a file removed from a raw dataset, with its results": (
        lambda made: made.session.client.files.delete(made.file_mfid(made.first, "first.txt")),
        "file-missing first, input-changed first scaled",
    ),
    "a renamed file": (
        lambda made: made.sql("UPDATE file SET filename = 'x' WHERE mfid = ?", made.file_mfid(made.total, "note.txt")),
        "file-missing total, file-added total",
    ),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_found_at_its_datasets_and_nothing_else(made: Any, name: str) -> None:
    change, expected = CHANGES[name]
    change(made)
    found = (finding.split() for finding in expected.split(", ") if finding)
    assert made.findings() == {(check, tuple(getattr(made, mfid) for mfid in ids)) for check, *ids in found}


def test_a_cycle_is_found_as_a_path(made: Any) -> None:
    made.sql(
        "INSERT INTO link (parent_id, child_id, relationship_type)"
        " SELECT child.id, parent.id, 'is_derived_from' FROM resource AS child, resource AS parent"
        " WHERE child.mfid = ? AND parent.mfid = ?",
        made.total,
        made.first,
    )
    cycles = [ids for check, ids in made.findings() if check == "cycle"]
    assert [set(ids) for ids in cycles] == [{made.first, made.scaled, made.total}]
    assert cycles[0][0] == cycles[0][-1]


def test_a_deleted_last_dataset_is_found_through_the_list_of_deletions(made: Any) -> None:
    forget(made.session.mirror)
    made.session.client.deletions.delete(made.total, force=True, elevated=True)
    assert made.findings() == {("missing-dataset", (made.total,))}


def test_a_deletion_is_not_a_fault(made: Any) -> None:
    deletions = made.session.client.deletions
    deletions.request(made.total, "not needed")
    assert {check for check, _ in made.findings()} == {"withdrawn-holder"}, "it exists while the request is open"
    deletions.delete(made.total, elevated=True)
    assert made.findings() == set()


def test_a_dataset_without_content_is_incomplete(made: Any) -> None:
    made.session.client.metadata.replace(made.total, {})
    for file in made.session.client.files.list(made.total):
        made.session.client.files.delete(file.mfid)
    for parent in (made.scaled, made.second):
        made.session.client.datasets.unlink(parent, made.total)
    assert made.findings() == {("incomplete", (made.total,))}


def test_a_file_added_to_a_raw_dataset_is_found(made: Any, tmp_path: Path) -> None:
    more = tmp_path / "third.txt"
    more.write_text("11")
    made.session.client.files.upload(made.first, more)
    assert made.findings() == {("file-added", (made.first,))}


def test_a_dataset_moved_to_another_project_is_found_there(made: Any) -> None:
    made.session.ensure_project("elsewhere")
    made.session.client.datasets.assign_project(made.total, "elsewhere")
    assert made.findings() == set(), "it is not deleted, but elsewhere"
    found = verify_dataset(made.session, made.total).findings
    assert [(finding.check, finding.ids) for finding in found] == [("wrong-project", (made.total,))]


def test_a_dataset_is_verified_with_its_ancestors(made: Any) -> None:
    made.edit_record(made.scaled, edit("recipe/params/factor", 4.0))
    for mfid, expected in ((made.total, {"changed-recipe"}), (made.scaled, {"changed-recipe"}), (made.second, set())):
        assert {finding.check for finding in verify_dataset(made.session, mfid).findings} == expected


def test_an_ancestor_without_a_link_is_verified(made: Any) -> None:
    made.session.client.datasets.unlink(made.scaled, made.total)
    made.session.client.datasets.unlink(made.first, made.scaled)
    made.session.client.files.delete(made.file_mfid(made.first, "first.txt"))
    found = verify_dataset(made.session, made.total)
    assert found.datasets == 4
    assert "file-missing" in {finding.check for finding in found.findings}


def test_a_public_dataset_without_a_project_is_not_in_its_recorded_one(made: Any) -> None:
    made.sql("UPDATE resource SET project_id = NULL, public = 1 WHERE mfid = ?", made.total)
    found = verify_dataset(made.session, made.total).findings
    assert [(finding.check, finding.ids) for finding in found] == [("wrong-project", (made.total,))]
    assert "no project" in found[0].message
