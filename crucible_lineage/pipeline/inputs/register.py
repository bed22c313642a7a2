"""Registration of files as a dataset, unless it exists already."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC
from functools import partial

from crucible_lineage.ids import new_mfid
from crucible_lineage.pipeline.inputs.existing import RawFiles, begun_with, same_bytes
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.record import raw_record
from crucible_lineage.refs import DatasetRef, utf8_name
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.session import Session


def register_raw(
    raw: RawFiles,
    declared: FileInput,
    name: str,
    session: Session,
    note: str | None = None,
    supersedes: str | None = None,
) -> DatasetRef:
    """Register files, unless they are registered already; return their dataset.

    `note` describes how a person made them, `supersedes` is the dataset that they replace. Only one process per data
    folder registers them at a time, so that files of unknown time are not registered twice.
    """
    with session.turn(raw.mfid or f"raw-{raw.recipe_sha256[:32]}"):
        found = same_bytes(raw, session) if raw.mfid is None else None
        return found or _register(raw, declared, name, session, note, supersedes)


def _register(
    raw: RawFiles, declared: FileInput, name: str, session: Session, note: str | None, supersedes: str | None
) -> DatasetRef:
    new = new_raw(raw, declared, name, session, note, supersedes, mfid=raw.mfid or begun_with(raw, session))
    # Imported late: plans register nothing and should start fast.
    from crucible_lineage.registration.ingestion import note_ingestions
    from crucible_lineage.registration.register import RegistrationHooks, register_output

    stages = RegistrationHooks(ingesting=partial(note_ingestions, session.store))
    dataset = register_output(session.client, new, session.machine, stages=stages)
    for file in raw.files:
        if file.ref.name not in raw.remote:
            session.cache.add(file.path, file.ref.sha256)
    session.mirror.trust({new.mfid: dataset, dataset.mfid: dataset})
    return dataset


def new_raw(
    raw: RawFiles,
    declared: FileInput,
    name: str,
    session: Session,
    note: str | None = None,
    supersedes: str | None = None,
    mfid: str | None = None,
) -> NewDataset:
    """Return the dataset to register for these files; under a new id if they have none."""
    fields = {
        "project_id": raw.project,
        "dataset_name": declared.dataset_name or utf8_name(name),
        **({"timestamp": declared.timestamp.astimezone(UTC).isoformat()} if declared.timestamp else {}),
        "public": declared.public,
        **declared.descriptive,
    }
    refs = [file.ref for file in raw.files]
    files = tuple(_to_register(file, raw, session) for file in raw.files)
    origin = {"remote_files": {name: file.to_json() for name, file in raw.remote.items()}} if raw.remote else {}
    return NewDataset(
        mfid=mfid or raw.mfid or new_mfid(),
        fields=fields,
        record=raw_record(raw.recipe, refs, session.agent, raw.parents, note, supersedes),
        metadata={**declared.metadata, **origin, **_true_names(raw)},
        files=files,
        keywords=declared.keywords,
        parents=tuple(parent.mfid for parent in raw.parents),
        samples=declared.samples,
        ingest=declared.is_ingested,
        waits_for_ingestion=declared.ingestion.wait,
        ingestion_timeout_s=declared.ingestion.timeout,
        ingestor=declared.ingestor,
    )


def _to_register(file: LocalFile, raw: RawFiles, session: Session) -> LocalFile:
    """Return a file with its bytes at hand."""
    remote = raw.remote.get(file.ref.name)
    if remote is None:
        return file
    from crucible_lineage.pipeline.files.remote import remote_checksums  # few pipelines need it

    return replace(file, checksums=remote_checksums(remote, session, present=True))


def _true_names(raw: RawFiles) -> dict[str, object]:
    """Return the bytes, in hexadecimal, of file names that are not UTF-8, by their substitute names."""
    escaped = {file.ref.name: os.fsencode(file.path.name).hex() for file in raw.files
               if file.ref.name != file.path.name and file.ref.name == utf8_name(file.path.name)}  # fmt: skip
    return {"file_name_bytes": escaped} if escaped else {}
