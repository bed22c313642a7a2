"""Checks of provenance records against what Crucible holds: ids, files, links. Pure: what was read goes in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.attached import ATTACHED_NAME
from crucible_lineage.ids import derive_mfid, is_mfid, mfid_bytes
from crucible_lineage.lineage import Finding, LineageGraph, check
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.lineage.model import DERIVED, PART
from crucible_lineage.models import FileRecord
from crucible_lineage.provenance import KEY, unreadable
from crucible_lineage.recipe import derived_mfid

__all__ = ["Evidence", "file_findings", "findings_of", "has_derived_id", "used_mfids"]

Record = Mapping[str, Any]


@dataclass(frozen=True)
class Evidence:
    """What was read for a verification.

    `datasets` are those that are verified, as Crucible gave them, and `records` their provenance records, whole.
    `files` holds what Crucible lists for them and for what they were made from. `absent` are ids that records name and
    Crucible does not have, `hidden` those that this key may not read. `assigned` maps ids that a server chose to the
    ids that the recipe has. `damaged` says of a record why it cannot be made whole.
    """

    datasets: Mapping[str, Record]
    records: Mapping[str, Record]
    graph: LineageGraph
    files: Mapping[str, Sequence[FileRecord]]
    absent: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    assigned: Mapping[str, str] = field(default_factory=dict)
    damaged: Mapping[str, str] = field(default_factory=dict)


def findings_of(evidence: Evidence) -> list[Finding]:
    """All faults that the evidence shows, dataset by dataset, then those of the graph."""
    found: list[Finding] = []
    for mfid, dataset in evidence.datasets.items():
        record = evidence.records.get(mfid)
        if record is None:
            found += _without_record(evidence, mfid, dataset)
            continue
        found += _of_identity(evidence, mfid, record)
        found += _of_parents(evidence, mfid, record)
        found += file_findings(_name(dataset, mfid), mfid, record, evidence.files.get(mfid, ()))
        found += _of_inputs(evidence, mfid, record)
    return found + list(_of_graph(evidence))


def has_derived_id(mfid: str) -> bool:
    """True if the id was derived from a recipe, and not made from the clock."""
    return is_mfid(mfid) and mfid_bytes(mfid)[6] >> 4 == 8


def used_mfids(record: Record) -> set[str]:
    """The datasets that a record or its recipe names as used."""
    return {entry["mfid"] for entry in record.get("used", ())} | {mfid for _, mfid, _ in _recipe_inputs(record)}


def _without_record(evidence: Evidence, mfid: str, dataset: Record) -> Iterator[Finding]:
    """A dataset that somebody else registered has no record, and no derived id either."""
    name = _name(dataset, mfid)
    if mfid in evidence.damaged:
        message = f"{name} has a provenance record that is incomplete in itself: {evidence.damaged[mfid]}"
        yield Finding("record-damaged", "error", (mfid,), message, _again(None))
    elif KEY in (dataset.get("scientific_metadata") or {}):
        reason = unreadable(dataset["scientific_metadata"])
        message = f"{name} has a provenance record that cannot be read: {reason}"
        yield Finding("record-damaged", "error", (mfid,), message, _again(None))
    elif not has_derived_id(mfid):
        return
    elif evidence.files.get(mfid) or evidence.graph.parents(mfid):
        message = f"{name} has an id derived from a recipe, but its provenance record is gone"
        yield Finding("record-missing", "error", (mfid,), message, _again(None))
    else:
        message = f"{name} is incomplete: its registration was begun and not finished (no record, no files)"
        yield Finding("incomplete", "error", (mfid,), message, _again(None))


def _of_identity(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The id follows from the recipe, and the rest of the record says what the recipe says."""
    name = _name(evidence.datasets[mfid], mfid)
    if not _id_follows(mfid, record["recipe"], evidence.assigned.get(mfid)):
        message = (
            f"{name} records a recipe that its id was not made from: parameters, parents, code or files in it were "
            "edited"
        )
        yield Finding("changed-recipe", "error", (mfid,), message, _again(record))
    for part, told, recipe in _told_twice(record):
        if told != recipe:
            message = f"{name} says of its {part} {_short(told)} in its record, but {_short(recipe)} in its recipe"
            yield Finding("changed-record", "error", (mfid,), message, _again(record))
    project = evidence.datasets[mfid].get("project_id")
    if project and project != record["recipe"]["project"]:
        message = f"{name} was made in project {record['recipe']['project']} and lies in {project}"
        yield Finding("wrong-project", "warning", (mfid,), message, f"crucible get {mfid}")
    if record["status"] != "complete":
        message = f"{name} is incomplete: its registration was begun and not finished, or is under way"
        yield Finding("incomplete", "error", (mfid,), message, _again(record))


def _id_follows(mfid: str, recipe: Record, assigned: str | None) -> bool:
    """True too where the clock made the id: of measured files nobody knows the time of, or by a server of its own."""
    try:
        if recipe.get("inputs"):
            return derived_mfid(recipe) in (mfid, assigned)
        return not has_derived_id(mfid) or derive_mfid(recipe, mfid) == mfid
    except (KeyError, TypeError, ValueError):
        return False


def _told_twice(record: Record) -> Iterator[tuple[str, Any, Any]]:
    """(part, as the record says it, as the recipe says it) of what both say."""
    recipe = record["recipe"]
    inputs = list(_recipe_inputs(record))
    yield (
        "parents",
        sorted((entry["role"], entry["mfid"]) for entry in record["used"]),
        sorted((role, mfid) for role, mfid, _ in inputs),
    )
    if recipe["kind"] == "files":
        yield "files", {file["name"]: file["sha256"] for file in record["generated"]}, dict(recipe["files"])
        return
    hashes = [{file["name"]: file["sha256"] for file in entry.get("files") or ()} for entry in record["used"]]
    yield (
        "used files",
        sorted(map(sorted, map(dict.items, hashes))),
        sorted(sorted(files.items()) for *_, files in inputs),
    )
    yield "step", record["step"], recipe["step"]
    yield "output", record["output"], recipe["output"]
    yield "attempt", record["attempt"], recipe.get("attempt", 0)


def _of_parents(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """What was used is there, and linked as what the dataset was derived from."""
    name = _name(evidence.datasets[mfid], mfid)
    for parent in sorted(used_mfids(record)):
        edge = evidence.graph.edges.get((parent, mfid))
        if parent in evidence.absent:
            message = f"{name} was made from {parent}, which is not there"
            yield Finding("missing-dataset", "error", (parent, mfid), message, f"crucible get {parent}")
        elif edge is not None and edge.relationship != DERIVED:
            message = (
                f"{name} was made from {short_id(parent)}, but the link between them says "
                f"{edge.relationship or 'nothing'}"
            )
            yield Finding("mismatch", "error", (parent, mfid), message, _link(parent, mfid))


def file_findings(name: str, mfid: str, record: Record, listed: Sequence[FileRecord]) -> Iterator[Finding]:
    """The files that Crucible lists are those that the record says were generated."""
    if record["status"] != "complete":
        return
    expected = {file["name"]: file for file in record["generated"]}
    present = {file.filename: file for file in listed}
    for filename, file in expected.items():
        if filename not in present:
            message = f"{name} has no file {filename} any more"
            yield Finding("file-missing", "error", (mfid,), message, _again(record))
        elif (found := present[filename].sha256_hash) and found != file["sha256"]:
            message = f"{name} has another file {filename} than was registered: {found[:12]}, not {file['sha256'][:12]}"
            yield Finding("file-changed", "error", (mfid,), message, _again(record))
    for filename, stored in present.items():
        if filename not in expected and not (filename == ATTACHED_NAME and _was_long(record)):
            message = f"{name} has a file {filename} that was not registered with it"
            yield Finding("file-added", "error", (mfid,), message, f"crucible get {stored.mfid}")


def _of_inputs(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The files that were used are still what their datasets hold."""
    name = _name(evidence.datasets[mfid], mfid)
    for _, parent, used in _recipe_inputs(record):
        if parent not in evidence.files:
            continue
        held = {file.filename: file.sha256_hash for file in evidence.files[parent]}
        for filename, sha256 in used.items():
            if held.get(filename) not in (None, sha256) or filename not in held:
                state = "is another one now" if filename in held else "is gone"
                message = f"{name} was made from the file {filename} of {short_id(parent)}, which {state}"
                yield Finding("input-changed", "warning", (parent, mfid), message, f"crucible-lineage verify {parent}")


def _of_graph(evidence: Evidence) -> Iterator[Finding]:
    """The graph's faults that concern our datasets, without what was said of them already.

    Left out is what the graph only supposes (orphans by their names), and links of datasets that others registered.
    """
    unknown = evidence.absent | evidence.hidden
    for finding in check(evidence.graph):
        ours = finding.ids[-1] in evidence.records
        match finding.check:
            case "cycle" | "self-link":
                yield finding
            case "duplicate-recipe" | "older-than-parent" if ours:
                yield finding
            case "mismatch" if ours and finding.ids[0] not in unknown:
                edge = evidence.graph.edges.get((finding.ids[0], finding.ids[1]))
                if edge is None or edge.relationship != PART:  # part of a collection: no word on how it was made
                    yield finding


def _recipe_inputs(record: Record) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """(role, MFID, {file name: SHA-256}) of each parent in the recipe."""
    for role, entries in (record["recipe"].get("inputs") or {}).items():
        for entry in entries:
            yield role, entry["mfid"], entry["files"]


def _was_long(record: Record) -> bool:
    return bool(record.get("was_attached"))


def _name(dataset: Record, mfid: str) -> str:
    name = dataset.get("dataset_name")
    return f"{name} ({short_id(mfid)})" if name else short_id(mfid)


def _again(record: Record | None) -> str:
    """The command that makes a dataset what it was: its pipeline, run without what this machine remembers."""
    pipeline = (record or {}).get("pipeline") or {}
    return f"crucible-lineage run {pipeline.get('name', 'PIPELINE')}.yaml --refresh"


def _link(parent: str, child: str) -> str:
    return f"crucible link {parent} {child} --relationship-type is_derived_from"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 120 else f"{text[:117]}..."
