"""Files that no step made: measured, or made by hand. Found again by id or by their bytes, or registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.ids import new_mfid
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.attachment import recipe_sha256
from crucible_lineage.provenance.recipe import derived_mfid, raw_mfid, raw_recipe
from crucible_lineage.provenance.record import is_complete, raw_record, read_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.register import (
    Elsewhere,
    LocalFile,
    NewDataset,
    find_by_recipe,
    look_up,
    register_output,
    samples_of,
)
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.pipeline.files.remote import RemoteFile

__all__ = ["RawFiles", "described", "existing_dataset", "find_raw", "hash_files", "register_raw"]


@dataclass(frozen=True)
class RawFiles:
    """Files that make up one dataset, hashed; `mfid` is None while nobody knows when they were taken.

    `remote` are those that lie elsewhere, by name; their paths are those of copies in the cache, if there are any.
    """

    project: str
    recipe: Mapping[str, Any]
    files: tuple[LocalFile, ...]
    mfid: str | None
    parents: tuple[str, ...] = ()
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)


def hash_files(
    project: str,
    paths: Sequence[Path],
    moment: datetime | None,
    session: Session,
    parents: Sequence[str] = (),
    remote: Sequence[RemoteFile] = (),
) -> RawFiles:
    """The files as one dataset. With `parents` it is a result made by hand, and sorts beside the youngest of them."""
    local = [LocalFile.of(path, session.store.checksums(path)) for path in paths]
    copies = [_cached_copy(file, session) for file in remote]
    files = tuple(sorted((*local, *copies), key=lambda file: file.ref.name))
    if not files:
        raise InputError("none of the declared files is there; a dataset has at least one")
    names = [file.ref.name for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two of the files are called {twice!r}; a dataset's files have different names")
    recipe = raw_recipe(project, [file.ref for file in files], sorted(set(parents)))
    mfid = derived_mfid(recipe) if parents else raw_mfid(recipe, moment) if moment else None
    return RawFiles(project, recipe, files, mfid, tuple(sorted(set(parents))), {file.name: file for file in remote})


def find_raw(raw: RawFiles, session: Session) -> DatasetRef | None:
    """The dataset of these files, if it is registered. Changes nothing."""
    if raw.mfid is None:
        return _same_bytes(raw, session)
    if known := session.store.known(raw.mfid):
        return known
    dataset, _ = look_up(session.client, raw.mfid)
    if dataset is None:
        dataset = find_by_recipe(session.client, raw.mfid)
    if dataset is not None:
        session.store.remember_as({raw.mfid: dataset, dataset.mfid: dataset})
    return dataset


def register_raw(
    raw: RawFiles, declared: FileInput, name: str, session: Session, note: str | None = None
) -> DatasetRef:
    """The dataset of these files, registered; `note` says what a person did to make them.

    One process at a time per data folder, so that files of unknown time are not registered twice.
    """
    with session.turn(raw.mfid or f"raw-{recipe_sha256({'recipe': raw.recipe})[:32]}"):
        found = _same_bytes(raw, session) if raw.mfid is None else None
        return found or _register(raw, declared, name, session, note)


def _register(raw: RawFiles, declared: FileInput, name: str, session: Session, note: str | None) -> DatasetRef:
    mfid = raw.mfid or _begun(raw, session) or new_mfid()
    fields = {
        "project_id": raw.project,
        "dataset_name": declared.dataset_name or name,
        **({"timestamp": declared.timestamp.astimezone(UTC).isoformat()} if declared.timestamp else {}),
        "public": declared.public,
        **described(declared),
    }
    refs = [file.ref for file in raw.files]
    files = tuple(_to_register(file, raw, declared, session) for file in raw.files)
    origin = {"remote_files": {name: file.to_json() for name, file in raw.remote.items()}} if raw.remote else {}
    dataset = register_output(
        session.client,
        NewDataset(
            mfid=mfid,
            fields=fields,
            record=raw_record(raw.recipe, refs, session.agent, raw.parents, note),
            metadata={**declared.metadata, **origin},
            files=files,
            keywords=declared.keywords,
            parents=raw.parents,
            samples=declared.samples,
            ingest=declared.ingest,
            ingestor=declared.ingestor,
        ),
        session.machine,
    )
    for file in raw.files:
        if file.ref.name not in raw.remote:
            session.cache.add(file.path, file.ref.sha256)
    session.store.remember_as({mfid: dataset, dataset.mfid: dataset})
    return dataset


def existing_dataset(mfid: str, session: Session) -> DatasetRef:
    """A dataset by its id: one of ours if it has a record, else with the files that Crucible lists."""
    if known := session.store.known(mfid):
        return known
    dataset, record = look_up(session.client, mfid)
    if dataset is None:
        if record is not None:
            raise InputError(f"input dataset {mfid} is incomplete; finish it first (run what makes it once more)")
        dataset = _foreign(mfid, session)
    session.store.remember([dataset])
    return dataset


def described(declared: Any) -> dict[str, Any]:
    """The descriptive fields that a declaration sets."""
    names = ("measurement", "data_type", "session_name", "instrument_name", "instrument_id")
    return {name: value for name in names if (value := getattr(declared, name)) is not None}


def _cached_copy(file: RemoteFile, session: Session) -> LocalFile:
    """A file that lies elsewhere, with its checksums; the copy in the cache may have gone since they were noted."""
    from crucible_lineage.pipeline.files.remote import remote_checksums  # most pipelines need it not

    checksums = remote_checksums(file, session)
    ref = FileRef(file.name, checksums.sha256, checksums.size)
    return LocalFile(session.cache.path(checksums.sha256), ref, checksums)


def _to_register(file: LocalFile, raw: RawFiles, declared: FileInput, session: Session) -> LocalFile:
    """The file with its bytes at hand, or with the address that stands for them in the dataset."""
    remote = raw.remote.get(file.ref.name)
    if remote is None:
        return file
    if not declared.copied:
        return replace(file, elsewhere=Elsewhere(remote.url.partition("://")[0], remote.address))
    from crucible_lineage.pipeline.files.remote import remote_checksums  # most pipelines need it not

    return replace(file, checksums=remote_checksums(remote, session, present=True))


def _foreign(mfid: str, session: Session) -> DatasetRef:
    """A dataset that somebody else registered. InputError if there is none, or a file's hash is not known."""
    try:
        found = session.client.datasets.get(mfid, include_links=True)
    except NotFoundError as error:
        raise InputError(f"input dataset {mfid}: there is none here that this key may see") from error
    files = []
    for file in session.client.datasets.list_files(mfid):
        if file.sha256_hash is None:
            raise InputError(f"input dataset {mfid}: Crucible knows no SHA-256 of its file {file.filename}")
        files.append(FileRef(file.filename, file.sha256_hash, file.size or 0))
    if not files:
        raise InputError(f"input dataset {mfid} ({found.dataset_name!r}) has no files")
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return DatasetRef(mfid, found.dataset_name or mfid, ordered, samples_of(found))


def _same_bytes(raw: RawFiles, session: Session) -> DatasetRef | None:
    """The dataset of this project that holds just these files, found by their hash; the oldest if there are several."""
    for mfid, record in _holders(raw, session):
        if record is not None and not is_complete(record):
            continue  # whoever registers the files finishes it
        dataset = existing_dataset(mfid, session)
        if {(file.name, file.sha256) for file in dataset.files} == {(f.ref.name, f.ref.sha256) for f in raw.files}:
            return dataset
    return None


def _begun(raw: RawFiles, session: Session) -> str | None:
    """The dataset under which these files were being registered when that was cut short, if their bytes had arrived."""
    return next(
        (mfid for mfid, record in _holders(raw, session) if record is not None and not is_complete(record)), None
    )


def _holders(raw: RawFiles, session: Session) -> Iterator[tuple[str, Mapping[str, Any] | None]]:
    """The datasets of this project that hold the first of the files, the oldest first, with their records.

    Those that have a record with another recipe are not among them.
    """
    holders = session.client.files.list(sha256_hash=raw.files[0].ref.sha256)
    for mfid in sorted({file.dataset_mfid for file in holders if file.dataset_mfid}):
        found = session.client.datasets.get(mfid, include_metadata=True)
        record = read_record(found.scientific_metadata)
        same_recipe = record is not None and recipe_sha256(record) == recipe_sha256({"recipe": raw.recipe})
        if found.project_id == raw.project and (record is None or same_recipe):
            yield mfid, record
