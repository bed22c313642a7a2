"""Rules of provenance records: ids, files, metadata. Pure functions of what was read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import shortened
from crucible_lineage.ids import has_derived_id
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage import Finding, LineageGraph
from crucible_lineage.lineage.labels import short_id
from crucible_lineage.pipeline.plan.corrections import uncorrected
from crucible_lineage.provenance.recipe import changed_keys, generated_sha256, gives_id, recipe_inputs
from crucible_lineage.provenance.record import unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord

Record = StepRecord | FilesRecord

MOST_KEYS = 5  # named in a message


@dataclass(frozen=True)
class Evidence:
    """What was read for a verification.

    `datasets` are those to verify, as Crucible returned them, and `records` their complete provenance records;
    `damaged` gives the reason why a record is not complete. `files` are those that Crucible lists for them, as far as
    their files are verified, and for their parents. `absent` are ids in records that Crucible does not have.
    """

    datasets: Mapping[str, JsonMapping]
    records: Mapping[str, Record]
    graph: LineageGraph
    files: Mapping[str, Sequence[FileRecord]]
    damaged: Mapping[str, str] = field(default_factory=dict)
    absent: frozenset[str] = frozenset()


def findings_of(evidence: Evidence) -> Iterator[Finding]:
    """Yield all faults in the evidence, by dataset."""
    for mfid in evidence.datasets:
        record = evidence.records.get(mfid)
        if record is None:
            yield from _without_record(evidence, mfid)
            continue
        yield from _of_identity(evidence, mfid, record)
        yield from _of_parents(evidence, mfid, record)
        yield from _of_inputs(evidence, mfid, record)
        if record.is_complete:
            yield from _of_files(evidence, mfid, record) if mfid in evidence.files else ()
            yield from _of_metadata(evidence, mfid, record)


def used_mfids(record: Record) -> set[str]:
    """Return the datasets that a record or its recipe names as used."""
    inputs = (record.recipe.get("inputs") or {}).values()
    return set(record.all_parents) | {entry["mfid"] for entries in inputs for entry in entries if "mfid" in entry}


def label(dataset: JsonMapping) -> str:
    """Return a dataset's name and short id for a message."""
    short = short_id(dataset["unique_id"])
    return f"{dataset['dataset_name']} ({short})" if dataset.get("dataset_name") else short


def _without_record(evidence: Evidence, mfid: str) -> Iterator[Finding]:
    """Check a dataset without a record. Without a derived id, another program registered it."""
    dataset = evidence.datasets[mfid]
    damage = evidence.damaged.get(mfid) or unreadable(dataset.get("scientific_metadata"))
    if damage:
        message = f"{label(dataset)} has a provenance record that cannot be read: {damage}; remake the dataset"
        yield Finding("record-damaged", "error", (mfid,), message, _NEW_ATTEMPT)
    elif not has_derived_id(mfid):
        return
    elif evidence.files.get(mfid) or evidence.graph.parents(mfid):
        message = (
            f"{label(dataset)} has an id that was derived from a recipe, but its provenance record is missing; "
            "rerun its pipeline to write the record again"
        )
        yield Finding("record-missing", "error", (mfid,), message, RERUN)
    else:
        message = f"{label(dataset)} is incomplete: it was created, but has no content; run its pipeline to continue"
        yield Finding("incomplete", "error", (mfid,), message, RERUN)


def _of_identity(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the id follows from the recipe, and that the record agrees with the recipe."""
    dataset = evidence.datasets[mfid]
    if not gives_id(record.recipe, mfid):
        message = (
            f"{label(dataset)} records a recipe that does not give its id: a parameter, a parent, the code or a "
            "file in it was edited; remake the dataset"
        )
        yield Finding("changed-recipe", "error", (mfid,), message, _new_attempt(record))
    if differing := [part for part, same in _repeated_parts(record) if not same]:
        message = (
            f"{label(dataset)}: its record contradicts itself in {', '.join(differing)}: one of the two was edited; "
            "remake the dataset"
        )
        yield Finding("changed-record", "error", (mfid,), message, _new_attempt(record))


def _repeated_parts(record: Record) -> Iterator[tuple[str, bool]]:
    """Yield the parts that a record has twice, mostly in its recipe, and whether they agree."""
    recipe = record.recipe
    if record.result:
        generated = (file.document() for file in record.generated or ())
        yield "the list of its files", generated_sha256(generated) == record.result.generated_sha256
    yield "what was used", _sources(_used_inputs(record), recipe) == _sources(recipe_inputs(recipe), recipe)
    if not isinstance(record, StepRecord):
        yield "its files", {file.name: file.sha256 for file in record.files} == (recipe.get("files") or {})
        return
    recorded = [record.step, record.activity.step, record.output]
    yield "the step", recorded == [recipe["step"]] * 2 + [recipe["output"]]
    yield "the code", record.activity.code.fingerprint == recipe["code"]
    yield "the attempt", record.attempt == recipe.get("attempt", 0)


def _of_parents(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the used datasets exist."""
    for parent in sorted(used_mfids(record) & evidence.absent):
        message = f"{label(evidence.datasets[mfid])} was made from {parent}, which no longer exists"
        yield Finding("missing-dataset", "error", (parent, mfid), message, f"crucible get {parent}")


def _of_files(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that Crucible lists the files that the record names as generated."""
    name = label(evidence.datasets[mfid])
    expected = expected_files(record)
    present = {file.filename: file for file in evidence.files.get(mfid, ())}
    for filename, sha256 in expected.items():
        if filename not in present:
            message = f"{name} has lost its file {filename}"
            yield Finding("file-missing", "error", (mfid,), message, repair_command(mfid))
        elif present[filename].sha256_hash not in (None, sha256):
            message = f"{name} has a file {filename} with other content than was registered; remake the dataset"
            yield Finding("file-changed", "error", (mfid,), message, _new_attempt(record))
    for filename, file in present.items():
        if filename not in expected:
            message = f"{name} has a file {filename} that was not registered with it; remove it, or ignore this"
            yield Finding("file-added", "error", (mfid,), message, f"crucible get {file.mfid}")


def expected_files(record: Record) -> dict[str, str]:
    """Return the SHA-256 of each file that a dataset has according to its record."""
    attached = {record.attached.name: record.attached.sha256} if record.attached else {}
    return {file.name: file.sha256 for file in record.files} | attached


def _of_metadata(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the registered scientific metadata are unchanged. Further entries are allowed."""
    dataset = evidence.datasets[mfid]
    result = record.result
    metadata = dataset["scientific_metadata"] or {}
    if result is not None and (changed := changed_keys(result.document(), uncorrected(metadata))):
        named = shortened(changed, MOST_KEYS)
        message = (
            f"{label(dataset)}: its scientific metadata differ from the registered ones: a value among {named} was "
            "edited or removed; correct it with `crucible-lineage set`, which records who and why, restore the old "
            "value, or rerun the step"
        )
        yield Finding("metadata-changed", "error", (mfid,), message, _new_attempt(record) or f"crucible get {mfid}")


def _of_inputs(evidence: Evidence, mfid: str, record: Record) -> Iterator[Finding]:
    """Check that the used files are unchanged in their datasets."""
    name = label(evidence.datasets[mfid])
    for part in record.used:
        parent = part.mfid
        if parent not in evidence.files:
            continue
        hashes = {file.filename: file.sha256_hash for file in evidence.files[parent]}
        for filename, sha256 in {file.name: file.sha256 for file in part.files or ()}.items():
            if filename not in hashes or hashes[filename] not in (None, sha256):
                state = "has changed" if filename in hashes else "no longer exists"
                message = f"{name} was made from the file {filename} of {short_id(parent)}, which {state}"
                yield Finding("input-changed", "error", (parent, mfid), message, f"crucible-lineage verify {parent}")


def _used_inputs(record: Record) -> Iterator[tuple[str, str, Mapping[str, str]]]:
    """Yield the used datasets in the form of a recipe's inputs."""
    for part in record.used:
        yield part.role, part.origin or part.mfid, {file.name: file.sha256 for file in part.files or ()}


def _sources(inputs: Iterable[tuple[str, str, Mapping[str, str]]], recipe: JsonMapping) -> list[Any]:
    """Return the inputs sorted; for a dataset made manually, each origin once."""
    found = [(role, source, sorted(files.items())) for role, source, files in inputs]
    if recipe["kind"] == "files":
        return sorted({(role, source) for role, source, _ in found})
    return sorted(found)


RERUN = "crucible-lineage data clean --cache && crucible-lineage run PIPELINE"
_NEW_ATTEMPT = "crucible-lineage run PIPELINE --force STEP"


def repair_command(mfid: str) -> str:
    """Return the command that sends intact bytes of a dataset's files to Crucible again."""
    return f"crucible-lineage verify {mfid} --repair"


def _new_attempt(record: Record) -> str:
    """Return the command that makes a new attempt beside a changed dataset; empty for measured files."""
    return _NEW_ATTEMPT if record.as_step else ""
