"""Revisions of measured data: renamed files, files that grew, and files that replace a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.datasets import visible_dataset
from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.lineage.records import provenance, returned_values
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.marks import METADATA_PREFIX, is_entry
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.corrections import corrections, record_act
from crucible_lineage.pipeline.plan.files import RawFiles, find_raw, hash_files, raw_files, register_raw
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import DESCRIPTIVE, DatasetRef
from crucible_lineage.registration.read import samples_of
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import measured_at

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.pipeline.plan.inputs import InputItem

Items = Mapping[str, Sequence["InputItem"]]


def recognize_revisions(inputs: Items, session: Session) -> dict[str, tuple[InputItem, ...]]:
    """Return the items with renamed files and revisions of files that grew recognized.

    A file with the bytes and time of a registered one is that dataset under a new name, unless a file of the old name
    still exists: then both are measurements.
    """
    claimed = {
        item.dataset.mfid: item.raw.recipe_sha256
        for items in inputs.values()
        for item in items
        if item.dataset and item.raw and item.raw.are_files_of(item.dataset)
    }
    found: dict[str, tuple[InputItem, ...]] = {}
    for name, items in inputs.items():
        recognized = []
        for item in items:
            if renamed := _renamed(item):
                raw, dataset = renamed
                former = ", ".join(file.name for file in dataset.files)
                same = f"input {name}: {raw.label} has the bytes of {former} ({dataset.mfid})"
                own = claimed.setdefault(dataset.mfid, raw.recipe_sha256)
                if own == raw.recipe_sha256 and not _is_beside(raw, dataset):
                    about = dataset.files[0].name if len(dataset.files) == 1 else ""
                    item = replace(item, about=about, notes=(f"{same} and is taken for it, under a new name",))
                else:
                    note = f"{same}, which is still there: both count as measurements; remove one if it is a copy"
                    item = replace(item, dataset=find_raw(raw, session), notes=(note,))
            recognized.append(_recognize_grown(item, name, session))
        found[name] = tuple(recognized)
    return found


def record_names(inputs: Items, session: Session) -> None:
    """Record at Crucible the new names of registered files, once."""
    for item in (item for items in inputs.values() for item in items):
        if renamed := _renamed(item):
            _record_name(*renamed, session)


def find_measured(raw: RawFiles, session: Session) -> DatasetRef | None:
    """Return the dataset of these files as `find_raw` does, and record a new name of the files."""
    found = find_raw(raw, session, renamed=not (raw.named or raw.parents))
    if found is None or raw.are_files_of(found):
        return found
    if _is_beside(raw, found):
        return find_raw(raw, session)
    _record_name(raw, found, session)
    return found


def record_revisions(items: Sequence[InputItem], session: Session) -> None:
    """Record at each dataset whose file grew the dataset that revises it."""
    for item in items:
        if item.revises is not None and item.dataset is not None:
            with suppress(ForbiddenError, NotFoundError):  # only its owner may record it, as for names
                record_act(session, item.revises, f"revised by {item.dataset.mfid}, since its file grew")


def _record_name(raw: RawFiles, dataset: DatasetRef, session: Session) -> None:
    if session.mirror.known(raw.mfid) is not None:
        return  # recorded before
    what = f"found under the name {raw.label}"
    with suppress(ForbiddenError, NotFoundError):  # only its owner may record it; the plan shows it in any case
        metadata = session.client.datasets.get(dataset.mfid, include_metadata=True).scientific_metadata
        if all(act.what != what for act in corrections(metadata)):
            record_act(session, dataset.mfid, what)
    session.mirror.trust({dataset.mfid: dataset, raw.mfid: dataset})


def _renamed(item: InputItem) -> tuple[RawFiles, DatasetRef] | None:
    """Return the files of an item and the dataset that they were found as, if that has other names."""
    raw, dataset = item.raw, item.dataset
    if raw is None or dataset is None or item.new is None or raw.named or raw.are_files_of(dataset):
        return None
    return raw, dataset


def _is_beside(raw: RawFiles, dataset: DatasetRef) -> bool:
    """Return whether a file of a former name still exists beside the new ones."""
    former = {file.name for file in dataset.files} - {file.ref.name for file in raw.files}
    folders = {file.path.parent for file in raw.files if file.ref.name not in raw.remote}
    return any((folder / name).exists() for folder in folders for name in former)


def _recognize_grown(item: InputItem, name: str, session: Session) -> InputItem:
    """Return the item with the dataset that it revises, if its file has grown since registration."""
    if item.dataset is not None or item.new is None or item.raw is None or not item.new.grows:
        return item
    file = item.raw.files[0]
    versions = sorted(_versions_of_name(item.raw, session), key=lambda version: version[1], reverse=True)
    for mfid, size, sha256 in versions:
        if size < file.ref.size and file_sha256(file.path, size) == sha256:
            note = f"input {name}: {file.ref.name} grew from {size} to {file.ref.size} bytes: a revision of {mfid}"
            return replace(item, revises=mfid, notes=(*item.notes, note))
    if not versions:
        return item
    subject = f"the {amount(len(versions), 'dataset')}" if len(versions) > 1 else "the dataset"
    note = f"input {name}: {file.ref.name} continues none of {subject} of that name: it is registered as a new one"
    return replace(item, notes=(*item.notes, note))


def _versions_of_name(raw: RawFiles, session: Session) -> list[tuple[str, int, str]]:
    """Return the measured datasets of the project with one file of that name: id, size, and SHA-256."""
    try:
        records = session.mirror.snapshot(raw.project).records
    except InputError:  # the project does not exist yet
        return []
    versions = []
    for mfid, fields in records.items():
        record = read_record(fields.get("scientific_metadata"))
        if record is None or record.as_step is not None or record.all_parents or not record.is_complete:
            continue
        if record.is_whole and [file.name for file in record.files] == [raw.files[0].ref.name]:
            versions.append((mfid, record.files[0].size, record.files[0].sha256))
    return versions


def replace_measured(session: Session, old: str, files: Sequence[Path], why: str) -> DatasetRef:
    """Register files to replace a measured dataset, with its fields, time, registered metadata, keywords and samples.

    Raises InputError if the dataset does not exist or was made from others, or if the files are registered already.
    """
    action = f"replace {old}"
    found = _read_measured(session, old, action)
    declared = inherit_fields(session, old, FileInput(file=tuple(map(str, files))))
    project = found.project_id or ""
    raw = raw_files(project, hash_files(files, session), declared.timestamp)
    same = find_raw(raw, session)
    if same is not None:
        reason = "they are its own" if same.mfid == old else f"they are those of dataset {same.mfid} ({same.name!r})"
        raise InputError(f"{action}: the files are registered already: {reason}; nothing was changed")
    new = register_raw(raw, declared, found.dataset_name or files[0].name, session, why or None, old)
    record_act(session, old, f"replaced by {new.mfid}", why)
    return new


def inherit_fields(session: Session, old: str, declared: FileInput) -> FileInput:
    """Return the declaration of files that replace a measured dataset, with the dataset's current values."""
    found = _read_measured(session, old, f"replace {old}")
    record = found.model_dump()
    metadata = found.scientific_metadata or {}
    added = (act.field.removeprefix(METADATA_PREFIX) for act in corrections(metadata) if is_entry(act.field))
    current = {**returned_values(record), **{key: metadata[key] for key in added if key in metadata}}
    keywords = [word.keyword for word in session.client.datasets.get_keywords(old)]
    keywords = [word for word in keywords if not word.startswith(pipeline_keyword(""))]
    return declared.model_copy(
        update={
            "dataset_name": found.dataset_name or declared.dataset_name,
            "public": bool(found.public),
            "timestamp": declared.measured or measured_at(record) or declared.timestamp,
            "keywords": tuple(dict.fromkeys((*keywords, *declared.keywords))),
            "metadata": {**declared.metadata, **current},
            "samples": tuple(dict.fromkeys((*samples_of(found), *declared.samples))),
            **{name: value for name in DESCRIPTIVE if name != "instrument_id" and (value := record.get(name))},
        }
    )


def _read_measured(session: Session, mfid: str, action: str) -> Dataset:
    """Read a measured dataset with its metadata. Raises InputError if it does not exist or is a result."""
    found = visible_dataset(session.client, mfid, action)
    if provenance(found.model_dump()).get("used"):
        raise InputError(
            f"{action}: it was made from other datasets; use `rerun`, or `register --supersedes` for a result made "
            "manually"
        )
    return found
