"""Measured data that were measured or exported again: registered in place of a dataset, which is superseded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import pipeline_keyword
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.lineage.records import provenance, returned_values
from crucible_lineage.pipeline.inputs.corrections import corrections, note_act
from crucible_lineage.pipeline.inputs.existing import find_raw
from crucible_lineage.pipeline.inputs.raw import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.spec.inputs import OF_METADATA, FileInput
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import samples_of
from crucible_lineage.session import Session
from crucible_lineage.times import taken

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset

__all__ = ["inherited", "replace_measured"]

FIELDS = ("measurement", "data_type", "session_name", "instrument_name")


def replace_measured(
    session: Session, old: str, files: Sequence[Path], why: str = "", timestamp: datetime | None = None
) -> DatasetRef:
    """Register files to replace a measured dataset, with its fields, registered metadata, keywords and samples.

    The time of measurement is the old one unless another is given. Raises InputError if there is no such dataset, if
    it was made of others, or if the files are its own.
    """
    what = f"replace {old}"
    found = _measured(session, old, what)
    declared = inherited(session, old, FileInput(file=tuple(map(str, files)), timestamp=timestamp))
    project = found.project_id or ""
    raw = hash_files(project, files, declared.timestamp, session)
    there = find_raw(raw, session)
    if there is not None:
        same = "they are its own" if there.mfid == old else f"they are those of dataset {there.mfid} ({there.name!r})"
        raise InputError(f"{what}: the files are registered already: {same}; nothing was changed")
    new = register_raw(raw, declared, found.dataset_name or files[0].name, session, why or None, old)
    note_act(session, old, f"replaced by {new.mfid}", why)
    return new


def inherited(session: Session, old: str, declared: FileInput) -> FileInput:
    """Return the declaration of files that replace a measured dataset, with what Crucible says of that dataset now."""
    found = _measured(session, old, f"replace {old}")
    record = found.model_dump()
    metadata = found.scientific_metadata or {}
    added = (one.field.removeprefix(OF_METADATA) for one in corrections(metadata) if one.field.startswith(OF_METADATA))
    there = {**returned_values(record), **{key: metadata[key] for key in added if key in metadata}}
    keywords = [word.keyword for word in session.client.datasets.get_keywords(old)]
    keywords = [word for word in keywords if not word.startswith(pipeline_keyword(""))]
    return declared.model_copy(
        update={
            "dataset_name": found.dataset_name or declared.dataset_name,
            "timestamp": declared.timestamp or taken(record),
            "keywords": tuple(dict.fromkeys((*keywords, *declared.keywords))),
            "metadata": {**declared.metadata, **there},
            "samples": tuple(dict.fromkeys((*samples_of(found), *declared.samples))),
            **{name: value for name in FIELDS if (value := record.get(name))},
        }
    )


def _measured(session: Session, mfid: str, what: str) -> Dataset:
    """The dataset, read with its metadata. InputError if there is none, or if it was made of others."""
    try:
        found = session.client.datasets.get(mfid, include_metadata=True, include_links=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"{what}: no such dataset here is visible to this key") from error
    if provenance(found.model_dump()).get("used"):
        raise InputError(
            f"{what}: it was made of other datasets; `rerun` makes it again, `register --supersedes` by hand"
        )
    return found
