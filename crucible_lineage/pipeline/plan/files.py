"""Files to register as one dataset, hashed; and existing datasets, found by id or by their files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.errors import ForbiddenError, IdTakenError, InputError, RecipeConflictError, shortened
from crucible_lineage.ids import has_derived_id, is_timed, require_mfid, time_bits
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.fetch import remote_checksums
from crucible_lineage.provenance.recipe import derived_mfid, gives_id, raw_mfid, raw_recipe, recipe_sha256, without_salt
from crucible_lineage.provenance.record import files_record, read_record
from crucible_lineage.refs import CONTEXT, DatasetRef, FileRef, context_of, inherited_context, name_fault, utf8_name
from crucible_lineage.registration.ingestion import note_ingestions
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.read import (
    lies_elsewhere,
    read,
    read_own,
    require_own_files,
    samples_of,
    taken_of,
)
from crucible_lineage.session import Session
from crucible_lineage.text.times import measured_at

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.pipeline.plan.fetch import RemoteFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

MOST_NAMED = 3  # files that a message lists


@dataclass(frozen=True)
class RawFiles:
    """Hashed files that form one dataset; `remote` ones, by name, may lack a copy; `named`: the id was given."""

    project: str
    recipe: Mapping[str, object]
    files: tuple[LocalFile, ...]
    mfid: str
    parents: tuple[DatasetRef, ...] = ()
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)
    named: bool = False

    @property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe."""
        return recipe_sha256(self.recipe)

    @property
    def is_timed(self) -> bool:
        """Whether their time of measurement is known."""
        return is_timed(self.mfid)

    @property
    def label(self) -> str:
        """The names of the files, shortened for messages."""
        return shortened([file.ref.name for file in self.files], MOST_NAMED)

    def are_files_of(self, dataset: DatasetRef) -> bool:
        """Return whether a dataset consists of exactly these files."""
        ours = {(file.ref.name, file.ref.sha256) for file in self.files}
        return {(file.name, file.sha256) for file in dataset.files} == ours

    def are_in(self, dataset: DatasetRef, *, renamed: bool) -> bool:
        """Return whether the dataset under their id has them; with `renamed`, also under other names."""
        return self.are_files_of(dataset) or (renamed and not self.named and self.have_bytes_of(dataset))

    def have_bytes_of(self, dataset: DatasetRef) -> bool:
        """Return whether a dataset has the same bytes, and no name for others: steps choose files by name."""
        theirs = {file.name: file.sha256 for file in dataset.files}
        ours = {file.ref.name: file.ref.sha256 for file in self.files}
        return sorted(ours.values()) == sorted(theirs.values()) and all(
            ours[name] == theirs[name] for name in ours.keys() & theirs.keys()
        )


def hash_files(paths: Sequence[Path], session: Session, remote: Iterable[RemoteFile] = ()) -> list[LocalFile]:
    """Hash files. Raises InputError for missing ones."""
    files = [LocalFile.of(path, session.store.checksums(path)) for path in paths]
    for file in remote:  # its copy in the cache may have been removed
        checksums = remote_checksums(file, session)
        ref = FileRef(file.name, checksums.sha256, checksums.size)
        files.append(LocalFile(session.cache.path(checksums.sha256), ref, checksums))
    return files


def raw_files(
    project: str,
    files: Iterable[LocalFile],
    moment: datetime | None = None,
    parents: Sequence[DatasetRef] = (),
    remote: Iterable[RemoteFile] = (),
    salt: str | None = None,
    mfid: str | None = None,
) -> RawFiles:
    """Return hashed files as one dataset, made by hand if with `parents`. Raises InputError for unusable ones."""
    files = tuple(sorted(files, key=lambda file: file.ref.name))
    if not files:
        raise InputError("none of the declared files exists; a dataset has at least one")
    names = [file.ref.name for file in files]
    if len(set(names)) < len(names):
        duplicate = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two of the files are called {duplicate!r}; a dataset's files have different names")
    for name in names:
        if fault := name_fault(name):
            raise InputError(f"the name of file {name!r} {fault}; rename it")
    by_id = {parent.mfid: parent for parent in parents}
    made_of = tuple(by_id[mfid] for mfid in sorted(by_id))
    recipe = raw_recipe(project, [file.ref for file in files], made_of, salt)
    derived = derived_mfid(recipe) if parents else raw_mfid(recipe, moment)
    by_name = {file.name: file for file in remote}
    raw = RawFiles(project, recipe, files, mfid or derived, made_of, by_name, named=mfid is not None)
    if mfid is not None:
        if parents:
            raise InputError(f"register {raw.label} as {mfid}: a result's id follows from its recipe; leave --mfid out")
        require_mfid(mfid)
        if not gives_id(recipe, mfid):
            raise InputError(
                f"register {raw.label} as {mfid}: that id follows from a recipe, and not from that of these files in "
                f"project {project}; nothing was changed"
            )
    return raw


def existing_dataset(mfid: str, session: Session) -> DatasetRef:
    """Return a dataset by id: with the files of its record, or without a record those that Crucible lists."""
    if known := session.known(mfid):
        return known
    found = None
    with suppress(ForbiddenError):
        found = read(session.client, mfid)
    if found is None:
        raise InputError(f"input dataset {mfid} does not exist, or is not visible to this key")
    if found.is_begun:
        raise InputError(f"input dataset {mfid} is incomplete; finish it first (run the pipeline that makes it)")
    if found.record is not None:
        require_own_files(session.client, found.dataset, found.record)
    dataset = found.ref or _foreign_dataset(found.dataset, session)
    session.mirror.trust({dataset.mfid: dataset})
    return dataset


def find_raw(raw: RawFiles, session: Session, *, renamed: bool = False) -> DatasetRef | None:
    """Return the dataset of these files, if it is registered: under its id, or with the same bytes. Change nothing.

    With `renamed`, also one with the same bytes and time under other names. Raises IdTakenError if the id is in use for
    something else and no other dataset of the project has the files.
    """
    if (known := session.mirror.known(raw.mfid)) and raw.are_in(known, renamed=renamed):
        return known
    dataset, is_begun, conflict = None, False, None
    try:
        dataset, is_begun = _find_under_id(raw, session)
    except IdTakenError as error:
        conflict = error
    if dataset is None and not is_begun and not (raw.parents or raw.named):
        dataset = _same_bytes(raw, session, renamed=renamed)
    if dataset is not None and raw.are_files_of(dataset):
        session.mirror.trust({raw.mfid: dataset, dataset.mfid: dataset})
    elif dataset is None and conflict is not None:
        raise conflict
    return dataset


def _same_bytes(raw: RawFiles, session: Session, *, renamed: bool) -> DatasetRef | None:
    """Return the project's dataset with these files, by hash; with `renamed`, else one with other names.

    Those with the same time of measurement come first, then the oldest. Excluded are datasets of another recipe (with
    `renamed`, of other bytes), and the same bytes with another time of measurement, which are other data.
    """
    found, fallback = [], None
    files = session.client.files.list(sha256_hash=raw.files[0].ref.sha256)
    for mfid in sorted({file.dataset_mfid for file in files if file.dataset_mfid}):
        dataset = session.client.datasets.get(mfid, include_metadata=True)
        record = read_record(dataset.scientific_metadata)
        if lies_elsewhere(dataset, raw.project) or (record is not None and not record.is_complete):
            continue  # registering the files completes it
        if _may_be(raw, mfid, record) or (renamed and _may_be_renamed(raw, dataset, record)):
            found.append((not _has_same_time(dataset, raw), mfid))
    for _, mfid in sorted(found):
        with suppress(IdTakenError):  # its files differ from its record
            ref = existing_dataset(mfid, session)
            if raw.are_files_of(ref):
                return ref
            if renamed and fallback is None and raw.have_bytes_of(ref):
                fallback = ref
    return fallback


def _find_under_id(raw: RawFiles, session: Session) -> tuple[DatasetRef | None, bool]:
    """Return the complete dataset of these files under their id, and whether an incomplete one is there."""
    client, mfid, sha256 = session.client, raw.mfid, raw.recipe_sha256
    try:
        found = read_own(client, mfid, raw.project, sha256, f"looking for {raw.label}")
    except RecipeConflictError as conflict:
        if not raw.named:
            raise
        raise RecipeConflictError(
            f"looking for {raw.label}: dataset {mfid}, whose id was given, was registered with "
            "other files or another time; nothing was changed. Changed files are another dataset: register it "
            "without --mfid, or with a new one",
            mfid=mfid,
        ) from conflict
    if found is None:
        return None, False
    if found.ref is not None:
        return found.ref, False
    if raw.named and found.record is None and session.client.files.list(mfid):  # registered by another program
        dataset = _foreign_dataset(found.dataset, session)
        if not raw.are_files_of(dataset):
            message = f"looking for {raw.label}: dataset {mfid} ({dataset.name!r}) has other files; nothing was changed"
            raise IdTakenError(f"{message}. Register them without that id, or correct it", mfid=mfid)
        return dataset, False
    return None, True


def _foreign_dataset(found: Dataset, session: Session) -> DatasetRef:
    """Return a dataset without a record, read with its links. Raises InputError if a file has no SHA-256."""
    mfid, files = found.unique_id, []
    for file in session.client.datasets.list_files(mfid):
        if file.sha256_hash is None:
            raise InputError(f"input dataset {mfid}: Crucible has no SHA-256 of its file {file.filename}")
        files.append(FileRef(file.filename, file.sha256_hash, file.size or 0))
    if not files:
        raise InputError(f"input dataset {mfid} ({found.dataset_name!r}) has no files")
    ordered = tuple(sorted(files, key=lambda file: file.name))
    name, context = found.dataset_name or mfid, context_of(dict(found))
    return DatasetRef(mfid, name, ordered, samples_of(found), taken=taken_of(found), context=context)


def _may_be(raw: RawFiles, mfid: str, record: StepRecord | FilesRecord | None) -> bool:
    """Return whether a dataset with this record has these data. A salt does not make them different."""
    if record is None:
        return True
    is_same = record.is_whole and without_salt(record.recipe) == without_salt(raw.recipe)
    if not is_same and record.recipe_sha256 not in (raw.recipe_sha256, recipe_sha256(without_salt(raw.recipe))):
        return False
    may_differ = not (raw.is_timed and has_derived_id(mfid) and is_timed(mfid))
    return may_differ or time_bits(mfid) == time_bits(raw.mfid)


def _may_be_renamed(raw: RawFiles, dataset: Dataset, record: StepRecord | FilesRecord | None) -> bool:
    """Return whether a dataset has measured files with the same time; bytes and names are compared later."""
    if record is not None and (record.as_step is not None or record.all_parents):
        return False
    same_bits = has_derived_id(dataset.unique_id) and time_bits(dataset.unique_id) == time_bits(raw.mfid)
    return not raw.is_timed or same_bits or _has_same_time(dataset, raw)


def _has_same_time(dataset: Dataset, raw: RawFiles) -> bool:
    """Return whether the dataset has the files' time of measurement."""
    moment = measured_at(dict(dataset))
    return raw.is_timed and moment is not None and time_bits(moment) == time_bits(raw.mfid)


def register_raw(
    raw: RawFiles,
    declared: FileInput,
    name: str,
    session: Session,
    note: str | None = None,
    supersedes: str | None = None,
) -> DatasetRef:
    """Register files, one process at a time, unless they are registered already; return their dataset."""
    new = new_raw(raw, declared, name, session, note, supersedes).without_secrets()
    from crucible_lineage.registration.register import RegistrationHooks, register_output

    stages = RegistrationHooks(ingesting=partial(note_ingestions, session.store))
    with session.turn(raw.mfid):
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
) -> NewDataset:
    """Return the dataset to register for these files."""
    fields = {
        "project_id": raw.project,
        "dataset_name": declared.dataset_name or utf8_name(name),
        **({"timestamp": declared.measured.astimezone(UTC).isoformat()} if declared.measured else {}),
        **declared.access,
        **declared.descriptive,
    }
    context = inherited_context(raw.parents, CONTEXT, fields)
    refs = [file.ref for file in raw.files]
    files = tuple(  # with their bytes at hand
        replace(file, checksums=remote_checksums(remote, session, present=True))
        if (remote := raw.remote.get(file.ref.name))
        else file
        for file in raw.files
    )
    escaped = {  # bytes of names that are not UTF-8, in hexadecimal, by their substitutes
        file.ref.name: os.fsencode(file.path.name).hex()
        for file in raw.files
        if file.ref.name != file.path.name and file.ref.name == utf8_name(file.path.name)
    }
    origin = {"remote_files": {name: file.to_json() for name, file in raw.remote.items()}} if raw.remote else {}
    by_hand = {"kind": "by hand", "note": note} if raw.parents or note else None
    return NewDataset(
        mfid=raw.mfid,
        fields={**fields, **{name: values[0] for name, values in context.items()}},
        record=files_record(
            *(raw.recipe, refs, session.agent, raw.parents),
            activity=by_hand,
            supersedes=supersedes,
            inherited=context,
        ),
        metadata={**declared.metadata, **origin, **({"file_name_bytes": escaped} if escaped else {})},
        files=files,
        keywords=declared.keywords,
        parents=tuple(parent.mfid for parent in raw.parents),
        samples=declared.samples,
        **declared.ingestion,
    )
