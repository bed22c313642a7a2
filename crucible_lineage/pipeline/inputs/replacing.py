"""Measured data that were measured or exported again: registered in the stead of a dataset, which is superseded."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.lineage.records import provenance, returned_values
from crucible_lineage.pipeline.inputs.corrections import note_act
from crucible_lineage.pipeline.inputs.existing import find_raw
from crucible_lineage.pipeline.inputs.raw import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import samples_of
from crucible_lineage.session import Session
from crucible_lineage.times import taken

__all__ = ["replace_measured"]

FIELDS = ("measurement", "data_type", "session_name", "instrument_name")


def replace_measured(
    session: Session, old: str, files: Sequence[Path], why: str = "", timestamp: datetime | None = None
) -> DatasetRef:
    """Register files in the stead of a measured dataset, with its fields, registered metadata, keywords and samples.

    The time of measurement is the old one unless another is given. InputError if there is no such dataset, if it was
    made of others, or if the files are its own.
    """
    what = f"replace {old}"
    try:
        found = session.client.datasets.get(old, include_metadata=True, include_links=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"{what}: there is no such dataset here that this key may see") from error
    record = found.model_dump()
    if provenance(record).get("used"):
        raise InputError(
            f"{what}: it was made of other datasets; `rerun` makes it again, `register --supersedes` by hand"
        )
    declared = FileInput(
        file=tuple(map(str, files)),
        dataset_name=found.dataset_name,
        timestamp=timestamp or taken(record),
        keywords=tuple(word.keyword for word in session.client.datasets.get_keywords(old)),
        metadata=returned_values(record),
        samples=samples_of(found),
        **{name: value for name in FIELDS if (value := record.get(name))},
    )
    project = found.project_id or ""
    raw = hash_files(project, files, declared.timestamp, session)
    there = find_raw(raw, session)
    if there is not None:
        same = "they are its own" if there.mfid == old else f"they are those of dataset {there.mfid} ({there.name!r})"
        raise InputError(f"{what}: the files are registered already: {same}; nothing was changed")
    new = register_raw(raw, declared, found.dataset_name or files[0].name, session, why or None, old)
    note_act(session, old, f"replaced by {new.mfid}", why)
    return new
