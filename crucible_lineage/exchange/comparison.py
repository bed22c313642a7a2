"""What a dataset at one Crucible lacks of the same dataset at another, and what conflicts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from crucible_lineage.client.models import FileRecord, Thumbnail
from crucible_lineage.core.slots import SlotClaim, slots_of
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import CORRECTIONS_KEY, KEY, SLOTS_KEY, correction_mark, order_of_claims
from crucible_lineage.provenance.record import ATTACHED_NAME, read_record, unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.refs import COPIED, SAMPLE_FIELDS
from crucible_lineage.text.times import is_same_value, without_default_time

MOST_CHARACTERS = 60  # of a value in a message


@dataclass(frozen=True)
class DatasetParts:
    """A dataset or sample at a Crucible without the bytes of its files. `entry` has its metadata and links."""

    entry: JsonMapping
    keywords: tuple[str, ...] = ()
    files: tuple[FileRecord, ...] = ()
    pictures: tuple[Thumbnail, ...] = ()

    @property
    def mfid(self) -> str:
        """Its id."""
        return str(self.entry["unique_id"])

    @property
    def kind(self) -> str:
        """`dataset` or `sample`."""
        return str(self.entry["resource_type"])

    @property
    def name(self) -> str:
        """Its name, or else its id."""
        return str(self.entry.get(f"{self.kind}_name") or self.mfid)

    @property
    def metadata(self) -> JsonMapping:
        """Its scientific metadata; empty if it has none."""
        return self.entry.get("scientific_metadata") or {}

    @property
    def record(self) -> StepRecord | FilesRecord | None:
        """Its provenance record, if that is readable; long ones are not whole."""
        return read_record(self.metadata)


@dataclass(frozen=True)
class MissingParts:
    """Parts that a dataset or sample lacks at the target. `everything`: it does not exist there, or is unfinished."""

    everything: bool = False
    fields: JsonMapping = field(default_factory=dict)
    metadata: JsonMapping = field(default_factory=dict)
    slots: Mapping[str, SlotClaim] = field(default_factory=dict)
    equal_parents: Mapping[str, str] = field(default_factory=dict)
    keywords: tuple[str, ...] = ()
    parents: Mapping[str, str | None] = field(default_factory=dict)
    samples: tuple[str, ...] = ()
    pictures: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return self != MissingParts()

    @property
    def in_words(self) -> str:
        """The missing parts in words."""
        if self.everything:
            return "all of it"
        parts = ((name.replace("_", " "), value) for name, value in vars(self).items() if value)
        return "; ".join(f"{name}: {', '.join(sorted(value))}" for name, value in parts)


Comparison = tuple[MissingParts, tuple[str, ...]]
"""What the target lacks, and the conflicts in words."""


def compare(source: DatasetParts, target: DatasetParts | None) -> Comparison:
    """Return what `target` lacks of a finished dataset or sample, and what conflicts there."""
    if reason := unreadable(source.metadata):
        return MissingParts(), (f"its provenance record cannot be read here: {reason}",)
    if target is None:
        return MissingParts(everything=True), ()
    if reason := _mismatch(source, target):
        return MissingParts(), (reason,)
    ours, theirs = source.record, target.record
    if ours is not None and (theirs is None or not theirs.is_complete):
        return MissingParts(everything=True), ()
    # Two machines that made the same result have drawn and printed on their own.
    beside = {file.name for file in (ours and ours.generated) or () if file.preview or file.log}
    fields, other_fields = _fields(source, target)
    metadata, other_values = _metadata(source.metadata, target.metadata)
    files, other_files = _files(source, target, beside)
    filled = slots_of(target.metadata)
    slots = {
        key: claim
        for key, claim in slots_of(source.metadata).items()
        if key not in filled or order_of_claims(claim.since) > order_of_claims(filled[key].since)
    }
    equal = (ours and theirs and ours.equal_parents) or {}
    existing = {*(theirs.equal_parents or {}), *theirs.parents} if theirs else set()
    there = {picture.thumbnail_name or "" for picture in target.pictures}
    keywords = {keyword.casefold() for keyword in target.keywords}
    missing = MissingParts(
        fields=fields,
        metadata=metadata,
        slots=slots,
        equal_parents={mfid: other for mfid, other in equal.items() if mfid not in existing},
        keywords=tuple(keyword for keyword in source.keywords if keyword.casefold() not in keywords),
        parents=_missing_links(source, target, source.kind),
        samples=() if source.kind == "sample" else tuple(sorted(_missing_links(source, target, "sample"))),
        pictures=frozenset({picture.thumbnail_name or "" for picture in source.pictures} - there - beside),
        files=files,
    )
    return missing, (*other_fields, *other_values, *other_files)


def linked(entry: JsonMapping, kind: str) -> dict[str, str | None]:
    """Return {id: relationship} of its parents of a kind, `dataset` or `sample`; of a dataset, also its samples."""
    links = [link for link in entry.get("links") or () if link["resource_type"] == kind]
    if entry.get("resource_type") == kind:
        links = [link for link in links if link.get("direction") == "source"]
    return {link["unique_id"]: link.get("relationship_type") for link in links}


def _missing_links(source: DatasetParts, target: DatasetParts, kind: str) -> dict[str, str | None]:
    theirs = linked(target.entry, kind)
    return {mfid: relationship for mfid, relationship in linked(source.entry, kind).items() if mfid not in theirs}


def _mismatch(source: DatasetParts, target: DatasetParts) -> str:
    """Return why the target's dataset is another one, or withdrawn; empty if it is the same."""
    if is_withdrawn(target.entry):
        return f"its deletion is requested at the target (request {target.entry['deletion_request'].get('id')})"
    project, own_project = (str(side.entry.get("project_id") or "") for side in (target, source))
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


def _fields(source: DatasetParts, target: DatasetParts) -> tuple[JsonObject, list[str]]:
    """Return the fields that are empty at the target, and those with another value in words."""
    added: JsonObject = {}
    differs = []
    given, given_there = without_default_time(source.entry), without_default_time(target.entry)
    for name in SAMPLE_FIELDS if source.kind == "sample" else COPIED:
        ours, theirs = given.get(name), given_there.get(name)
        if ours is None or is_same_value(name, source.entry.get(name), target.entry.get(name)):
            continue
        if theirs is None:
            added[name] = ours
        else:
            differs.append(_differs(name, ours, theirs))
    return added, differs


def _metadata(source: JsonMapping, target: JsonMapping) -> tuple[JsonObject, list[str]]:
    """Return the entries that the target lacks, and those with another value in words."""
    added: JsonObject = {}
    differs = []
    for key, ours in source.items():
        if key in (KEY, SLOTS_KEY):
            continue
        theirs = target.get(key)
        if key == CORRECTIONS_KEY:
            for name in ours.keys() - (theirs or {}).keys():
                added |= correction_mark(name, ours[name])
        elif key not in target:
            added[key] = ours
        elif not is_same_value(f"metadata.{key}", ours, theirs):
            differs.append(_differs(f"metadata {key}", ours, theirs))
    return added, differs


def _files(source: DatasetParts, target: DatasetParts, beside: Collection[str]) -> tuple[frozenset[str], list[str]]:
    """Return the names of missing files, and in words those that differ; those `beside` the data may differ."""
    theirs = {file.filename: file for file in target.files}
    missing: set[str] = set()
    differs = []
    for file in source.files:
        name, copy = file.filename, theirs.get(file.filename)
        if name == ATTACHED_NAME or name in beside:  # the record itself was compared
            continue
        if not file.has_bytes:
            if copy is None:
                differs.append(f"the bytes of its file {name} are not in the source ({file.storage_backend})")
        elif copy is None or (not copy.storage_path and copy.sha256_hash == file.sha256_hash):
            missing.add(name)
        elif file.sha256_hash and copy.sha256_hash and file.sha256_hash != copy.sha256_hash:
            differs.append(f"its file {name} has other bytes at the target")
    return frozenset(missing), differs


def _differs(name: str, ours: object, theirs: object) -> str:
    there, here = (text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
                   for text in map(repr, (theirs, ours)))  # fmt: skip
    return f"{name} is {there} at the target and {here} at the source"
