"""What a dataset at one Crucible lacks of the same dataset at another, and what conflicts. Pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property, reduce
from operator import or_
from typing import Any

from crucible_lineage.client.models import FileRecord, Thumbnail
from crucible_lineage.core.slots import slots_of
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import CORRECTIONS_KEY, KEY, SLOTS_KEY, correction_mark, order_of_claims
from crucible_lineage.provenance.record import ATTACHED_NAME, read_record, unreadable
from crucible_lineage.provenance.schema import FilesRecord, StepRecord
from crucible_lineage.refs import COPIED, SAMPLE_FIELDS
from crucible_lineage.text.times import is_same_value, without_default_time

MOST_CHARACTERS = 60  # of a value in a message
Contents = dict[str, dict[str, Any]]  # parts of a dataset or sample by kind and name


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

    @cached_property
    def record(self) -> StepRecord | FilesRecord | None:
        """Its provenance record, if that is readable; long ones are not whole."""
        return read_record(self.metadata)

    def contents(self) -> Contents:
        """Return its parts by kind and name, without the record, which is compared itself."""
        given, names = without_default_time(self.entry), SAMPLE_FIELDS if self.kind == "sample" else COPIED
        record = self.record
        # Two machines that made the same result have drawn and printed on their own.
        beside = {file.name for file in (record and record.generated) or () if file.preview or file.log}
        pictures = {picture.thumbnail_name or "": picture for picture in self.pictures}
        files = {file.filename: file for file in self.files}
        return {
            "fields": {name: given[name] for name in names if given.get(name) is not None},
            "metadata": _metadata(self.metadata),
            "slots": dict(slots_of(self.metadata)),
            "equal parents": dict((record and record.equal_parents) or {}),
            "keywords": {keyword.casefold(): keyword for keyword in self.keywords},
            "parents": dict(linked(self.entry, self.kind)),
            "samples": dict(linked(self.entry, "sample")) if self.kind == "dataset" else {},
            "pictures": _without(pictures, beside),
            "files": _without(files, {ATTACHED_NAME, *beside}),
        }


def _metadata(metadata: JsonMapping) -> dict[str, Any]:
    """Return the metadata without slots and record, and with a key for each correction."""
    marks = [correction_mark(name, act) for name, act in (metadata.get(CORRECTIONS_KEY) or {}).items()]
    return reduce(or_, marks, _without(metadata, {KEY, SLOTS_KEY, CORRECTIONS_KEY}))


def _without(parts: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if name not in names}


@dataclass(frozen=True)
class MissingParts:
    """Parts that the target lacks, by kind and name. `everything`: it does not exist there, or is unfinished."""

    parts: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    everything: bool = False

    def __bool__(self) -> bool:
        return self.everything or any(self.parts.values())

    def of(self, kind: str) -> Mapping[str, Any]:
        """Return the missing parts of a kind by name."""
        return self.parts.get(kind, {})

    @property
    def in_words(self) -> str:
        """The missing parts in words."""
        if self.everything:
            return "all of it"
        return "; ".join(f"{kind}: {', '.join(sorted(parts))}" for kind, parts in self.parts.items() if parts)


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
    if source.record is not None and (target.record is None or not target.record.is_complete):
        return MissingParts(everything=True), ()
    here, there = source.contents(), target.contents()
    here["fields"] = {
        name: value for name, value in here["fields"].items() if not is_same_value(name, value, target.entry.get(name))
    }
    if target.record is not None:
        there["equal parents"] |= dict.fromkeys(target.record.parents)
    missing, differing = _missing(here, there), _differing(here, there)
    missing["files"], other_files = _files(here["files"], there["files"])
    return MissingParts(missing), (*differing, *other_files)


def _missing(here: Contents, there: Contents) -> Contents:
    """Return the parts that are only here, and the slots that a later run filled."""
    missing = {
        kind: {name: value for name, value in parts.items() if name not in there[kind]} for kind, parts in here.items()
    }
    missing["keywords"] = dict.fromkeys(missing["keywords"].values())
    for key, claim in here["slots"].items():
        if key in there["slots"] and order_of_claims(claim.since) > order_of_claims(there["slots"][key].since):
            missing["slots"][key] = claim
    return missing


def _differing(here: Contents, there: Contents) -> list[str]:
    """Return in words the fields and metadata with another value there."""
    return [
        _differs(f"{kind} {name}".removeprefix("fields "), there[kind][name], value)
        for kind in ("fields", "metadata")
        for name, value in here[kind].items()
        if name in there[kind] and not is_same_value(f"{kind}.{name}", value, there[kind][name])
    ]


def linked(entry: JsonMapping, kind: str) -> dict[str, str | None]:
    """Return {id: relationship} of its parents of a kind, `dataset` or `sample`; of a dataset, also its samples."""
    links = [link for link in entry.get("links") or () if link["resource_type"] == kind]
    if entry.get("resource_type") == kind:
        links = [link for link in links if link.get("direction") == "source"]
    return {link["unique_id"]: link.get("relationship_type") for link in links}


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


def _files(ours: Mapping[str, FileRecord], theirs: Mapping[str, FileRecord]) -> tuple[dict[str, FileRecord], list[str]]:
    """Return the missing files, and in words those that differ."""
    missing: dict[str, FileRecord] = {}
    differs = []
    for name, file in ours.items():
        copy = theirs.get(name)
        if not file.has_bytes:
            if copy is None:
                differs.append(f"the bytes of its file {name} are not in the source ({file.storage_backend})")
        elif copy is None or (not copy.storage_path and copy.sha256_hash == file.sha256_hash):
            missing[name] = file
        elif file.sha256_hash and copy.sha256_hash and file.sha256_hash != copy.sha256_hash:
            differs.append(f"its file {name} has other bytes at the target")
    return missing, differs


def _differs(name: str, theirs: object, ours: object) -> str:
    there, here = (text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 1]}…"
                   for text in map(repr, (theirs, ours)))  # fmt: skip
    return f"{name} is {there} at the target and {here} at the source"
