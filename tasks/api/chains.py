"""The whole chain in one task: a result that something else has made becomes a child of its parents, exactly once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.inputs.existing import existing_dataset, hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.tasks.api.calls import api_task, words
from crucible_lineage.tasks.api.files import checked_files
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = ["register_child"]


@api_task("register {files} of {parents}")
def register_child(
    parents: str | Sequence[str],
    files: str | Path | Sequence[str | Path],
    *,
    dataset_name: str | None = None,
    project_id: str | None = None,
    measurement: str | None = None,
    data_type: str | None = None,
    session_name: str | None = None,
    instrument_name: str | None = None,
    instrument_id: str | None = None,
    timestamp: datetime | None = None,
    public: bool = False,
    scientific_metadata: Mapping[str, Any] | None = None,
    keywords: str | Sequence[str] = (),
    samples: str | Sequence[str] | None = None,
    ingestor: str | None = None,
    note: str | None = None,
    crucible: Crucible | None = None,
) -> str:
    """The MFID of a dataset with these files that is a child of its parents, complete: record, metadata, keywords,
    files, ingestion, links, samples (by default those of the parents), and a provenance record that says so.

    The MFID follows from parents and bytes, so the same result is one dataset whoever registers it, and however often.
    `note` says how it was made. By default it lies in the project of its first parent. InputError, before anything is
    made, if a parent or a file is not there.
    """
    paths, above = checked_files(files), words(parents)
    if not above or not paths:
        raise InputError("a child has at least one parent and one file; nothing was registered")
    session = session_for(crucible)
    found = [existing_dataset(mfid, session) for mfid in dict.fromkeys(above)]
    project = project_id or session.client.datasets.get(above[0]).project_id
    if project is None:
        raise InputError(f"dataset {above[0]} lies in no project; give project_id")
    inherited = dict.fromkeys(sample for parent in found for sample in parent.samples)
    declared = FileInput(
        file=str(paths[0]),
        dataset_name=dataset_name,
        measurement=measurement,
        data_type=data_type,
        session_name=session_name,
        instrument_name=instrument_name,
        instrument_id=instrument_id,
        timestamp=timestamp,
        public=public,
        metadata=dict(scientific_metadata or {}),
        keywords=words(keywords),
        samples=tuple(inherited) if samples is None else words(samples),
        ingestor=ingestor,
    )
    raw = hash_files(project, paths, None, session, parents=found)
    name = dataset_name or f"{found[0].name} ({paths[0].stem})"
    return register_raw(raw, declared, name, session, note=note).mfid
