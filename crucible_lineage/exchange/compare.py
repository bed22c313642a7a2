"""Comparison of datasets at two Crucibles: what the target lacks, and what conflicts there. Pure.

Nothing at the target is overwritten: different values are a conflict, which a person resolves. If two machines
registered the same result on their own (equal recipes give equal ids), the target keeps its own, completed with missing
parts. Slots never conflict: the newest run decides.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.exchange.model import Conflict, CopyComparison, HeldDataset, MissingParts, linked
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import KEY, SLOTS_KEY, order_of_claims
from crucible_lineage.provenance.record import ATTACHED_NAME, unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.times import is_same_value, without_default_time

FIELDS = (
    "dataset_name", "measurement", "data_type", "data_format", "session_name", "timestamp", "instrument_name",
)  # fmt: skip
SAMPLE_FIELDS = ("sample_name", "sample_type", "description", "timestamp")
Record = StepRecord | FilesRecord
Renamed = Callable[[str], str]  # from an id at the source to the one at the target
MOST_CHARACTERS = 60  # of a value in a message


def compare(source: HeldDataset, target: HeldDataset | None, renamed: Renamed = str) -> CopyComparison:
    """Return what `target` lacks of `source`. `renamed` gives the id of a dataset at the target."""
    if reason := unreadable(source.metadata):
        return _refused(source, f"its provenance record cannot be read here: {reason}")
    if target is None:
        return CopyComparison(MissingParts(everything=True))
    if reason := _mismatch(source, target):
        return _refused(source, reason)
    ours, theirs = source.record, target.record
    if ours is not None and (theirs is None or not theirs.is_complete):
        return CopyComparison(MissingParts(everything=True))
    twice = ours is not None and theirs is not None and not is_brought(ours, theirs)
    files, faults, other_files = _files(source, target, twice=twice)
    fields, other_fields = _fields(source.dataset, target.dataset)
    metadata, other_values = _added(_plain(source.metadata), _plain(target.metadata))
    differs = [*other_fields, *other_values, *other_files]
    if not twice:
        faults += differs
    samples = {renamed(one) for one in linked(source.dataset, "sample")} - linked(target.dataset, "sample").keys()
    missing_parts = MissingParts(
        fields=fields,
        metadata=metadata,
        slots=_later(slots_of(source.metadata), slots_of(target.metadata)),
        equal_parents=_equal_parents(ours, theirs, renamed),
        keywords=_keywords(source, target),
        parents=missing_parents(source.dataset, target.dataset, renamed),
        samples=tuple(sorted(samples)),
        pictures=frozenset(_names(source) - _names(target) - (_beside(ours) if twice else set())),
        files=files,
    )
    conflicts = tuple(Conflict(source.mfid, source.name, fault) for fault in faults)
    return CopyComparison(missing_parts, conflicts, tuple(differs) if twice else ())


def is_brought(ours: Record, theirs: Record) -> bool:
    """Return whether one was copied from the other; False if two machines registered the result on their own."""
    return ours.registrar in (theirs.completed or {}) or theirs.registrar in (ours.completed or {})


def missing_parents(source: JsonMapping, target: JsonMapping, renamed: Renamed) -> dict[str, str | None]:
    """Return {id: relationship} of the parents, of its own kind, that a dataset or sample has only at the source."""
    kind = source["resource_type"]
    theirs = linked(target, kind)
    ours = {renamed(parent): relationship for parent, relationship in linked(source, kind).items()}
    return {parent: relationship for parent, relationship in ours.items() if parent not in theirs}


def compare_sample(source: JsonMapping, target: JsonMapping | None, renamed: Renamed = str) -> CopyComparison:
    """Return what a sample at the target lacks."""
    if target is None:
        return CopyComparison(MissingParts(everything=True))
    fields, differs = _fields(source, target, SAMPLE_FIELDS)
    ours, theirs = (one.get("scientific_metadata") or {} for one in (source, target))
    metadata, more = _added(ours, theirs)
    parents = missing_parents(source, target, renamed)
    mfid, name = str(source["unique_id"]), f"sample {source.get('sample_name') or ''}".strip()
    conflicts = tuple(Conflict(mfid, name, reason) for reason in (*differs, *more))
    return CopyComparison(MissingParts(fields=fields, metadata=metadata, parents=parents), conflicts)


def _refused(source: HeldDataset, reason: str) -> CopyComparison:
    return CopyComparison(conflicts=(Conflict(source.mfid, source.name, reason),))


def _mismatch(source: HeldDataset, target: HeldDataset) -> str:
    """Return why the target's dataset is another one, or withdrawn; empty if it is the same."""
    if is_withdrawn(target.dataset):
        return f"its deletion is requested at the target (request {target.dataset['deletion_request'].get('id')})"
    project, own_project = (str(one.dataset.get("project_id") or "") for one in (target, source))
    if project.casefold() != own_project.casefold():
        return f"its id is taken at the target by a dataset of project {project or 'none'!r}"
    if reason := unreadable(target.metadata):
        return f"the target's provenance record cannot be read: {reason}"
    ours, theirs = source.record, target.record
    if ours is None and theirs is not None:
        return "the target has a provenance record, the source has none"
    if ours is not None and theirs is not None and ours.recipe_sha256 != theirs.recipe_sha256:
        return "the target has another recipe: a record was edited or copied; `crucible-lineage verify` shows which"
    if ours is not None and theirs is None and (target.files or target.metadata):
        return "the target has files or metadata, but no provenance record"
    return ""


def _plain(metadata: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in metadata.items() if key not in (KEY, SLOTS_KEY)}


def _fields(
    source: Mapping[str, object], target: Mapping[str, object], names: tuple[str, ...] = FIELDS
) -> tuple[dict[str, object], list[str]]:
    """Return the fields that are empty at the target, and those with another value in words."""
    added, differs = {}, []
    given, given_there = without_default_time(source), without_default_time(target)
    for name in names:
        ours, theirs = given.get(name), given_there.get(name)
        if ours is None or is_same_value(name, source.get(name), target.get(name)):
            continue
        if theirs is None:
            added[name] = ours
        else:
            differs.append(f"{name} is {_short(theirs)} at the target and {_short(ours)} at the source")
    return added, differs


def _added(source: JsonMapping, target: JsonMapping, above: str = "") -> tuple[JsonObject, list[str]]:
    """Return the entries that the target lacks, and the differences in words."""
    added: JsonObject = {}
    differs: list[str] = []
    for key, ours in source.items():
        if key not in target:
            added[key] = ours
        elif isinstance(ours, Mapping) and isinstance(target[key], Mapping):
            inner, others = _added(ours, target[key], f"{above}{key}.")
            added |= {key: inner} if inner else {}
            differs += others
        elif not _equal(ours, target[key]):
            differs.append(
                f"metadata {above}{key} is {_short(target[key])} at the target and {_short(ours)} at the source"
            )
    return added, differs


def _equal(ours: object, theirs: object) -> bool:
    """Return whether JSON values are equal: databases may return 1e22 as a whole number."""
    if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
        return ours.keys() == theirs.keys() and all(_equal(ours[key], theirs[key]) for key in ours)
    if isinstance(ours, list) and isinstance(theirs, list):
        return len(ours) == len(theirs) and all(map(_equal, ours, theirs))
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return ours is theirs
    if isinstance(ours, int | float) and isinstance(theirs, int | float):
        return ours == theirs or (math.isnan(ours) and math.isnan(theirs))
    return bool(ours == theirs)


def _files(source: HeldDataset, target: HeldDataset, *, twice: bool) -> tuple[frozenset[str], list[str], list[str]]:
    """Return the names of missing files; in words, files with conflicting bytes, and tolerated differences.

    If the result was registered `twice`, pictures and the output that the step printed may differ.
    """
    theirs = {file.filename: file for file in target.files}
    beside = _beside(source.record) if twice else set()
    generated = {file.name for file in (source.record and source.record.generated) or ()} if twice else set()
    missing: set[str] = set()
    faults: list[str] = []
    differs: list[str] = []
    for file in source.files:
        name, copy = file.filename, theirs.get(file.filename)
        if name == ATTACHED_NAME:  # the long part of a record; the record was compared
            continue
        if copy is None and name in generated:
            (differs if name in beside else faults).append(
                f"the target, which made the result itself, lacks its file {name}"
            )
        elif copy is None or (file.has_bytes and not copy.storage_path and copy.sha256_hash == file.sha256_hash):
            missing.add(name)
        elif file.sha256_hash and copy.sha256_hash and file.sha256_hash != copy.sha256_hash:
            (differs if name in beside else faults).append(f"its file {name} has other bytes at the target")
    return frozenset(missing), faults, differs


def _beside(record: Record | None) -> set[str]:
    """Return the names of a result's files that are not data: pictures, and the output that the step printed."""
    return {file.name for file in (record and record.generated) or () if file.preview or file.log}


def _later(source: Mapping[str, SlotClaim], target: Mapping[str, SlotClaim]) -> dict[str, SlotClaim]:
    """Return the slots that it holds at the source as of a later run."""
    return {
        key: claim
        for key, claim in source.items()
        if key not in target or order_of_claims(claim.since) > order_of_claims(target[key].since)
    }


def _equal_parents(ours: Record | None, theirs: Record | None, renamed: Renamed) -> dict[str, str]:
    if ours is None or theirs is None:
        return {}
    existing = {*(theirs.equal_parents or {}), *theirs.parents}
    equal = {renamed(one): renamed(other) for one, other in (ours.equal_parents or {}).items()}
    return {one: other for one, other in equal.items() if one not in existing}


def _keywords(source: HeldDataset, target: HeldDataset) -> tuple[str, ...]:
    theirs = {keyword.casefold() for keyword in target.keywords}
    return tuple(keyword for keyword in source.keywords if keyword.casefold() not in theirs)


def _names(held: HeldDataset) -> set[str]:
    return {picture.thumbnail_name or "" for picture in held.pictures}


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
