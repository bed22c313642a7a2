"""Renamed files, and files that replace a measured dataset."""

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
from crucible_lineage.marks import METADATA_PREFIX, is_entry
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.corrections import corrections, record_act
from crucible_lineage.pipeline.plan.files import RawFiles, find_raw, hash_files, register_raw
from crucible_lineage.refs import DESCRIPTIVE, DatasetRef
from crucible_lineage.registration.read import samples_of
from crucible_lineage.session import Session
from crucible_lineage.text.times import measured_at

if TYPE_CHECKING:
    from crucible_lineage.pipeline.plan.inputs import InputItem

Items = Mapping[str, Sequence["InputItem"]]


def recognize_renamed(inputs: Items, session: Session) -> dict[str, tuple[InputItem, ...]]:
    """Return the items with renamed files recognized.

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
            recognized.append(item)
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


def replace_measured(session: Session, old: str, files: Sequence[Path], why: str) -> DatasetRef:
    """Register files to replace a measured dataset, with its current fields, time, metadata, keywords and samples.

    Raises InputError if the dataset does not exist or was made from others, or if the files are registered already.
    """
    action = f"replace {old}"
    found = visible_dataset(session.client, old, action)
    record, metadata = found.model_dump(), found.scientific_metadata or {}
    if provenance(record).get("used"):
        raise InputError(
            f"{action}: it was made from other datasets; use `rerun`, or `register --supersedes` for a result made "
            "manually"
        )
    added = (act.field.removeprefix(METADATA_PREFIX) for act in corrections(metadata) if is_entry(act.field))
    keywords = [word.keyword for word in session.client.datasets.get_keywords(old)]
    current = {
        "dataset_name": found.dataset_name,
        "public": bool(found.public),
        "timestamp": measured_at(record),
        "keywords": tuple(word for word in dict.fromkeys(keywords) if not word.startswith(pipeline_keyword(""))),
        "metadata": {**returned_values(record), **{key: metadata[key] for key in added if key in metadata}},
        "samples": samples_of(found),
        **{name: value for name in DESCRIPTIVE if name != "instrument_id" and (value := record.get(name))},
    }
    declared = FileInput(file=tuple(map(str, files))).model_copy(update=current)
    project = found.project_id or ""
    raw = hash_files(project, files, declared.timestamp, session)
    same = find_raw(raw, session)
    if same is not None:
        reason = "they are its own" if same.mfid == old else f"they are those of dataset {same.mfid} ({same.name!r})"
        raise InputError(f"{action}: the files are registered already: {reason}; nothing was changed")
    new = register_raw(raw, declared, found.dataset_name or files[0].name, session, why or None, old)
    record_act(session, old, f"replaced by {new.mfid}", why)
    return new
