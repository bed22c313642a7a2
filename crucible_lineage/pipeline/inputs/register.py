"""Files that no step made become a dataset: registered, unless it is there already."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC
from functools import partial
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.ids import new_mfid
from crucible_lineage.pipeline.inputs.existing import RawFiles, begun_with, find_raw, require_possible_id, same_bytes
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.record import raw_record
from crucible_lineage.refs import DatasetRef, utf8_name
from crucible_lineage.registration.new_dataset import ExternalLocation, LocalFile, NewDataset
from crucible_lineage.session import Session


def register_raw(
    raw: RawFiles,
    declared: FileInput,
    name: str,
    session: Session,
    note: str | None = None,
    supersedes: str | None = None,
) -> DatasetRef:
    """The dataset of these files, registered; `note` says what a person did to make them, in whose place if it is so.

    One process at a time per data folder, so that files of unknown time are not registered twice.
    """
    with session.turn(raw.mfid or f"raw-{raw.recipe_sha256[:32]}"):
        found = same_bytes(raw, session) if raw.mfid is None else None
        if found is None and not (raw.parents or raw.named):
            raw, found = _as_their_files_say(raw, session)
        return found or _register(raw, declared, name, session, note, supersedes)


def _as_their_files_say(raw: RawFiles, session: Session) -> tuple[RawFiles, DatasetRef | None]:
    """The files under the id that one of them names, and the dataset if it is there; as they were if none names one."""
    from crucible_lineage.pipeline.files.fetch import MFID_KEY, mfid_in

    names = {found: file.path for file in raw.files if file.path.exists() and (found := mfid_in(file.path))}
    if not names:
        return raw, None
    if len(names) > 1:
        said = ", ".join(f"{path.name} says {mfid}" for mfid, path in names.items())
        raise InputError(f"register {raw.told}: their {MFID_KEY} differs ({said}); register them one by one")
    ((mfid, _),) = names.items()
    named = replace(raw, mfid=mfid, named=True)
    require_possible_id(named, mfid)
    dataset = find_raw(named, session)
    if raw.mfid is not None and dataset is not None:
        session.mirror.trust({raw.mfid: dataset})
    return named, dataset


def _register(
    raw: RawFiles, declared: FileInput, name: str, session: Session, note: str | None, supersedes: str | None
) -> DatasetRef:
    new = new_raw(raw, declared, name, session, note, supersedes, mfid=raw.mfid or begun_with(raw, session))
    # A plan registers nothing, and has to start fast.
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
    """The dataset of these files as it is to be registered; without an id of their own, under a new one."""
    fields = {
        "project_id": raw.project,
        "dataset_name": declared.dataset_name or utf8_name(name),
        **({"timestamp": declared.timestamp.astimezone(UTC).isoformat()} if declared.timestamp else {}),
        "public": declared.public,
        **described(declared),
    }
    refs = [file.ref for file in raw.files]
    files = tuple(_to_register(file, raw, declared, session) for file in raw.files)
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


def _to_register(file: LocalFile, raw: RawFiles, declared: FileInput, session: Session) -> LocalFile:
    """The file with its bytes at hand, or with the address that stands for them in the dataset."""
    remote = raw.remote.get(file.ref.name)
    if remote is None:
        return file
    if not declared.copied:
        return replace(file, elsewhere=ExternalLocation(remote.url.partition("://")[0], remote.address))
    from crucible_lineage.pipeline.files.remote import remote_checksums  # most pipelines need it not

    return replace(file, checksums=remote_checksums(remote, session, present=True))


def _true_names(raw: RawFiles) -> dict[str, Any]:
    """Return the bytes, in hexadecimal, of names that are no UTF-8, by the name that stands for them."""
    escaped = {file.ref.name: os.fsencode(file.path.name).hex() for file in raw.files
               if file.ref.name != file.path.name and file.ref.name == utf8_name(file.path.name)}  # fmt: skip
    return {"file_name_bytes": escaped} if escaped else {}


def described(declared: Any) -> dict[str, Any]:
    """The descriptive fields that a declaration sets."""
    names = ("measurement", "data_type", "session_name", "instrument_name", "instrument_id")
    return {name: value for name in names if (value := getattr(declared, name)) is not None}
