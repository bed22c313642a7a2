"""Provenance records match their published schema, or are refused; long ones have parts in a file."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import pytest

from crucible_lineage.core.tables import summary_of
from crucible_lineage.errors import ChecksumError, InputError
from crucible_lineage.provenance.recipe import raw_recipe
from crucible_lineage.provenance.record import KEY, compact, expand, files_record, read_record
from crucible_lineage.provenance.schema import FilesRecord, new_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.read import read, whole_record
from docs.record_schema import TARGET, schema_text

WHO = {"unique_id": "0000-0002-1825-0097", "username": None, "is_service_account": False, "local_user": "lab"}
PARENTS = ["0tr5k2ndm5zvd000nr21qakeh4", "0tr5k2ndm5zvd000nr21qakeh5"]


@pytest.fixture(scope="module")
def schema() -> Any:
    published = json.loads(TARGET.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(published)
    return jsonschema.Draft202012Validator(published)


def measured(count: int, parents: list[str] | None = None) -> FilesRecord:
    """Return the record of `count` files."""
    files = [FileRef(f"frame-{number:05}.tif", f"{number:064x}", number) for number in range(count)]
    parent_datasets = [DatasetRef(mfid, "", ()) for mfid in parents or ()]
    activity = {"kind": "by hand", "note": "stitched"} if parents else None
    return files_record(raw_recipe("lab", files, parent_datasets), files, WHO, parent_datasets, activity=activity)


def test_the_published_schema_is_that_of_the_models() -> None:
    assert TARGET.read_text(encoding="utf-8") == schema_text(), "python docs/record_schema.py"


def test_records_of_runs_match_the_published_schema(made: Any, schema: Any) -> None:
    for mfid in (made.first, made.scaled, made.total):
        record = made.record(mfid)
        assert list(schema.iter_errors(new_record(record).document())) == []


def test_records_of_files_and_manual_results_match_the_published_schema(schema: Any) -> None:
    for record in (measured(2), measured(1, PARENTS), compact(measured(9, PARENTS), limit_bytes=100)[0]):
        assert list(schema.iter_errors(record.document())) == []


def test_a_record_whose_parents_are_in_the_attached_file_is_of_a_derived_dataset() -> None:
    short, _ = compact(measured(9, PARENTS), limit_bytes=100)
    assert short.used == []
    summary = summary_of({"unique_id": PARENTS[0], "scientific_metadata": {KEY: short.document()}})
    assert summary.status.derived == short.is_derived


def damaged(path: str, value: Any) -> Any:
    """Return a change of a step's record: set the field at `path` to `value`, or remove it if that is None."""

    def change(record: dict[str, Any]) -> dict[str, Any]:
        *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
        parent: Any = record
        for part in parents:
            parent = parent[part]
        if value is None:
            del parent[last]
        else:
            parent[last] = value
        return record

    return change


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("schema", "crucible-lineage/provenance/9"),
        ("used.0.mfid", "0tr5"),
        ("used", None),
        ("generated.0.sha256", "A" * 64),
        ("generated", None),
        ("recipe", None),
        ("recipe.inputs.counts.0.files", []),
        ("software.packages", {"numpy": 2}),
    ],
)
def test_an_invalid_record_is_neither_written_nor_read(made: Any, schema: Any, path: str, value: Any) -> None:
    record = damaged(path, value)(made.record(made.scaled))
    with pytest.raises(InputError, match="not a valid provenance record"):
        new_record(record)
    assert read_record({KEY: record}) is None
    if not (path in ("generated", "recipe") and value is None):  # the schema cannot say: unless there is `attached`
        assert list(schema.iter_errors(record)) != []


def test_a_field_of_a_later_version_is_read_but_not_written(made: Any, schema: Any) -> None:
    for path in ((), ("activity", "code"), ("used", 0), ("used", 0, "files", 0)):
        record = copy.deepcopy(made.record(made.scaled))
        part: Any = record
        for step in path:
            part = part[step]
        part["added_later"] = {"more": True}
        assert read_record({KEY: record}).document() == record
        assert list(schema.iter_errors(record)) == []
        with pytest.raises(InputError, match="added_later: unknown field"):
            new_record(record)


def test_a_long_record_fits_the_limit_and_is_restored_with_its_file() -> None:
    record = measured(4000, PARENTS)
    short, content = compact(record)
    assert content is not None
    assert len(json.dumps(short.document())) < 2000
    assert list(short.parents) == PARENTS, "the parents are known without the file"
    assert short.recipe_sha256 == record.recipe_sha256
    expanded = expand(short, content)
    assert {**expanded.document(), "attached": None} == {**record.document(), "attached": None}
    assert compact(record) == (short, content), "the same record gives the same bytes"


def test_too_many_parents_for_the_limit_are_counted() -> None:
    record = measured(1, [f"0tr5k2ndm5zvd000nr21{number:06}" for number in range(5000)])
    short, content = compact(record)
    assert (short.used, short.attached.used) == ([], 5000)
    assert content is not None
    assert expand(short, content).used == record.used


def test_a_changed_attached_file_is_refused() -> None:
    short, content = compact(measured(4000))
    assert content is not None
    with pytest.raises(ChecksumError, match="does not match the provenance record"):
        expand(short, content.replace(b"frame-00001", b"frame-99999"))


def test_a_record_without_its_list_of_files_is_not_used() -> None:
    short, _ = compact(measured(4000))
    with pytest.raises(InputError, match="whole"):
        _ = short.files


@pytest.fixture
def long_record(made: Any, tmp_path: Path) -> dict[str, Any]:
    """Store the record of `total` as a long one, with its parts in an uploaded file."""
    record, content = compact(new_record(made.record(made.total)), limit_bytes=100)
    short = record.document()
    assert content is not None
    path = tmp_path / short["attached"]["name"]
    path.write_bytes(content)
    made.session.client.files.upload(made.total, path)
    metadata = made.session.client.metadata.get(made.total)
    made.session.client.metadata.replace(made.total, {**metadata, KEY: short})
    return short


def test_a_long_record_is_read_completely(made: Any, long_record: dict[str, Any]) -> None:
    found = read(made.session.client, made.total)
    assert {file.name for file in found.ref.files} == {"total.txt", "note.txt"}
    assert whole_record(made.session.client, made.total, found.record) == found.record


def test_a_long_record_is_verified_with_its_file(made: Any, long_record: dict[str, Any], tmp_path: Path) -> None:
    assert made.findings(read_bytes=True) == set()
    other = tmp_path / long_record["attached"]["name"]
    other.write_bytes(other.read_bytes().replace(b"total.txt", b"other.txt"))
    made.session.client.files.upload(made.total, other, replace=True)
    assert made.findings() == {("record-damaged", (made.total,))}
    made.session.client.files.delete(made.file_mfid(made.total, other.name))
    assert made.findings() == {("record-damaged", (made.total,))}
