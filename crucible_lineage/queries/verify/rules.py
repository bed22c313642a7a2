"""Checks of provenance records against what Crucible holds: ids, files, links. Pure: what was read goes in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.client.models import FileRecord
from crucible_lineage.ids import has_derived_id
from crucible_lineage.lineage import Finding, LineageGraph, check
from crucible_lineage.lineage.checks import link_command
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.lineage.model import DERIVED, PART
from crucible_lineage.pipeline.inputs.corrections import uncorrected
from crucible_lineage.provenance.digest import changed_keys, generated_sha256
from crucible_lineage.provenance.recipe import VERSION, gives_id, recipe_inputs
from crucible_lineage.provenance.record import unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord

Document = Mapping[str, Any]  # a dataset as Crucible gave it
Record = StepRecord | FilesRecord

MOST_KEYS = 5  # more do not help whoever reads the message


@dataclass(frozen=True)
class Evidence:
    """What was read for a verification.

    `datasets` are those that are verified, as Crucible gave them, and `records` their provenance records, whole;
    `damaged` says of a record why it cannot be made whole. `files` holds what Crucible lists for them and for what they
    were made from. `absent` are ids that records name and Crucible does not have, `hidden` those that this key cannot
    see. `assigned` maps an id that a server chose to the id that the recipe has.
    """

    datasets: Mapping[str, Document]
    records: Mapping[str, Record]
    graph: LineageGraph
    files: Mapping[str, Sequence[FileRecord]]
    damaged: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    assigned: Mapping[str, str] = field(default_factory=dict)


def findings_of(evidence: Evidence) -> Iterator[Finding]:
    """All faults that the evidence shows, dataset by dataset, then those of the graph."""
    for mfid in evidence.datasets:
        record = evidence.records.get(mfid)
        if record is None:
            yield from _without_record(evidence, mfid)
            continue
        yield from _of_identity(evidence, mfid, record)
        yield from _of_parents(evidence, mfid, record)
        yield from _of_inputs(evidence, mfid, record)
        if record.is_complete:
            yield from _of_files(evidence, mfid, record)
            yield from _of_metadata(evidence, mfid, record)
    yield from _of_graph(evidence)


def used_mfids(record: Record) -> set[str]:
    """The datasets that a record or its recipe names as used."""
    inputs = (record.recipe.get("inputs") or {}).values()
    return set(record.all_parents) | {entry["mfid"] for entries in inputs for entry in entries if "mfid" in entry}


def label(dataset: Document) -> str:
    """A dataset in a message: its name and short id."""
    short = short_id(dataset["unique_id"])
    return f"{dataset['dataset_name']} ({short})" if dataset.get("dataset_name") else short


def _without_record(evidence: Evidence, mfid: str) -> Iterator[Finding]:
    """A dataset that somebody else registered has no record, and no derived id either."""
    dataset = evidence.datasets[mfid]
    damage = evidence.damaged.get(mfid) or unreadable(dataset.get("scientific_metadata"))
    if damage:
        message = f"{label(dataset)} has a provenance record that cannot be read: {damage}; make the dataset again"
        yield Finding("record-damaged", "error", (mfid,), message, _MAKE_ANEW)
    elif not has_derived_id(mfid):
        return
    elif evidence.files.get(mfid) or evidence.graph.parents(mfid):
        message = (
            f"{label(dataset)} has an id that was derived from a recipe, but its provenance record is gone; "
            "running what made it writes the record again"
        )
        yield Finding("record-missing", "error", (mfid,), message, _MAKE_AGAIN)
    else:
        message = f"{label(dataset)} is incomplete: it was created, and nothing more; run what makes it to go on"
        yield Finding("incomplete", "error", (mfid,), message, _MAKE_AGAIN)


def _of_identity(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The id follows from the recipe, the rest of the record says what the recipe says, and it is complete."""
    dataset, recipe = evidence.datasets[mfid], record.recipe
    if not gives_id(recipe, mfid, evidence.assigned.get(mfid)):
        message = (
            f"{label(dataset)} records a recipe that its id was not made from: a parameter, a parent, the code or a "
            "file in it was edited; make the dataset again"
        )
        yield Finding("changed-recipe", "error", (mfid,), message, _anew(record))
    if differing := [part for part, same in _told_twice(record) if not same]:
        message = (
            f"{label(dataset)}: its record contradicts itself in {', '.join(differing)}: one of the two was edited; "
            "make the dataset again"
        )
        yield Finding("changed-record", "error", (mfid,), message, _anew(record))
    if (dataset.get("project_id") or "").casefold() != recipe["project"].casefold():
        place = dataset.get("project_id") or "no project"
        message = f"{label(dataset)} was made in project {recipe['project']} according to its record, but is in {place}"
        yield Finding("wrong-project", "warning", (mfid,), message, f"crucible get {mfid}")
    if not record.is_complete:
        message = (
            f"{label(dataset)} is incomplete: its registration is under way, or was begun and not finished; "
            "run what makes it to go on"
        )
        way_out = f"crucible-lineage rerun {mfid}" if record.as_step else _MAKE_AGAIN
        yield Finding("incomplete", "error", (mfid,), message, way_out)


def _told_twice(record: Record) -> Iterator[tuple[str, bool]]:
    """Yield what the record says twice, most of it in its recipe, and whether it agrees."""
    recipe = record.recipe
    if record.result:
        generated = (file.document() for file in record.generated or ())
        yield "the list of its files", generated_sha256(generated) == record.result.generated_sha256
    yield "what was used", _sources(_used_inputs(record), recipe) == _sources(recipe_inputs(recipe), recipe)
    if not isinstance(record, StepRecord):
        yield "its files", {file.name: file.sha256 for file in record.files} == (recipe.get("files") or {})
        return
    said = [record.step, record.activity.step, record.output]
    yield "the step", said == [recipe["step"]] * 2 + [recipe["output"]]
    yield "the code", record.activity.code.fingerprint == recipe["code"]
    yield "the attempt", record.attempt == recipe.get("attempt", 0)


def _of_parents(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that what was used is there, and linked as what the dataset was derived from."""
    name = label(evidence.datasets[mfid])
    for parent in sorted(used_mfids(record)):
        edge = evidence.graph.edges.get((parent, mfid))
        if parent in evidence.absent:
            message = f"{name} was made from {parent}, which no longer exists"
            yield Finding("missing-dataset", "error", (parent, mfid), message, f"crucible get {parent}")
        elif edge is not None and edge.relationship != DERIVED:
            said = edge.relationship or "nothing"
            message = f"{name} was made from {short_id(parent)}, but the link between them is {said}"
            command = link_command(parent, mfid)
            yield Finding("mismatch", "error", (parent, mfid), message, command)


def _of_files(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The files that Crucible lists are those that the record says were generated."""
    name = label(evidence.datasets[mfid])
    expected = expected_files(record)
    present = {file.filename: file for file in evidence.files.get(mfid, ())}
    for filename, sha256 in expected.items():
        if filename not in present:
            message = f"{name} has lost its file {filename}"
            yield Finding("file-missing", "error", (mfid,), message, repair_command(mfid))
        elif present[filename].sha256_hash not in (None, sha256):
            message = f"{name} holds other content under the name {filename} than was registered; make it again"
            yield Finding("file-changed", "error", (mfid,), message, _anew(record))
    for filename, file in present.items():
        if filename not in expected:
            message = f"{name} has a file {filename} that was not registered with it; take it away, or leave it be"
            yield Finding("file-added", "error", (mfid,), message, f"crucible get {file.mfid}")


def expected_files(record: Record) -> dict[str, str]:
    """The SHA-256 of each file that a dataset has according to its record."""
    attached = {record.attached.name: record.attached.sha256} if record.attached else {}
    return {file.name: file.sha256 for file in record.files} | attached


def _of_metadata(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The scientific metadata that were registered are what they were; others may have come to them."""
    dataset = evidence.datasets[mfid]
    result = record.result
    metadata = dataset["scientific_metadata"] or {}
    if result is not None and (changed := changed_keys(result.document(), uncorrected(metadata))):
        more = len(changed) - MOST_KEYS
        named = ", ".join(changed[:MOST_KEYS]) + (f" and {more} more" if more > 0 else "")
        message = (
            f"{label(dataset)}: its scientific metadata differ from the registered ones: a value among {named} was "
            "edited or removed; correct it with `crucible-lineage set`, which records who and why, restore the old "
            "value, or rerun the step"
        )
        yield Finding("metadata-changed", "error", (mfid,), message, _anew(record) or f"crucible get {mfid}")


def _of_inputs(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """The files that were used are still what their datasets hold."""
    name = label(evidence.datasets[mfid])
    for part in record.used:
        parent = part.mfid
        if parent not in evidence.files:
            continue
        held = {file.filename: file.sha256_hash for file in evidence.files[parent]}
        for filename, sha256 in {file.name: file.sha256 for file in part.files or ()}.items():
            if filename not in held or held[filename] not in (None, sha256):
                state = "is another one now" if filename in held else "is gone"
                message = f"{name} was made from the file {filename} of {short_id(parent)}, which {state}"
                yield Finding("input-changed", "error", (parent, mfid), message, f"crucible-lineage verify {parent}")


def _of_graph(evidence: Evidence) -> Iterator[Finding]:
    """The graph's faults that concern our datasets.

    Left out is what was said already, what the graph only supposes (orphans, by their names), and what concerns links
    of datasets that others registered.
    """
    unknown = evidence.absent | evidence.hidden
    for finding in check(evidence.graph):
        has_record = finding.ids[-1] in evidence.records
        match finding.check:
            case "cycle" | "self-link":
                yield finding
            case "duplicate-recipe" if has_record:
                yield finding
            case "mismatch" | "older-than-parent" if has_record and finding.ids[0] not in unknown:
                edge = evidence.graph.edges.get((finding.ids[0], finding.ids[1]))
                if edge is None or edge.relationship != PART:  # part of a collection: no word on how it was made
                    yield finding


def _used_inputs(record: Record) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield what was used, in the form that inputs have in a recipe."""
    older = (record.recipe.get("version") or 1) < VERSION
    for part in record.used:
        source = part.mfid if older else part.origin or part.mfid
        yield part.role, source, {file.name: file.sha256 for file in part.files or ()}


def _sources(inputs: Iterable[tuple[str, str, Mapping[str, str]]], recipe: Document) -> list[Any]:
    """Inputs in an order that does not matter; where a person made the dataset, each origin just once."""
    found = [(role, source, sorted(files.items())) for role, source, files in inputs]
    if recipe["kind"] == "files":
        return sorted({(role, source) for role, source, _ in found})
    return sorted(found)


_MAKE_AGAIN = "crucible-lineage run PIPELINE --refresh"
_MAKE_ANEW = "crucible-lineage run PIPELINE --force STEP"


def repair_command(mfid: str) -> str:
    """Return the command that sends good bytes of a dataset's files to Crucible again."""
    return f"crucible-lineage verify {mfid} --repair"


def _anew(record: Record) -> str:
    """The command that makes a new attempt beside a dataset that is not what it was; none makes measured files anew."""
    return _MAKE_ANEW if record.as_step else ""
