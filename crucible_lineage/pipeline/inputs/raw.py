"""Files that no step made: measured, or made by hand. Found again by id or by their bytes, or registered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import IdTakenError, InputError
from crucible_lineage.ids import has_derived_id, is_mfid, new_mfid, time_bits
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.recipe import derived_mfid, gives_id, raw_mfid, raw_recipe, recipe_sha256, without_salt
from crucible_lineage.provenance.record import raw_record, read_record
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.new_dataset import Elsewhere, LocalFile, NewDataset
from crucible_lineage.registration.read import find_by_recipe, read, read_own, samples_of, taken_of
from crucible_lineage.registration.trust import lies_elsewhere, require_own_files
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.pipeline.files.remote import RemoteFile
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord

__all__ = ["RawFiles", "described", "existing_dataset", "find_raw", "hash_files", "register_raw"]

MOST_NAMED = 3  # files that a message lists


@dataclass(frozen=True)
class RawFiles:
    """Files that make up one dataset, hashed; `mfid` is None while nobody knows when they were taken.

    `remote` are those that lie elsewhere, by name; their paths are those of copies in the cache, if there are any.
    `named` says that the id was given, and follows from nothing.
    """

    project: str
    recipe: Mapping[str, Any]
    files: tuple[LocalFile, ...]
    mfid: str | None
    parents: tuple[DatasetRef, ...] = ()
    remote: Mapping[str, RemoteFile] = field(default_factory=dict)
    named: bool = False

    @property
    def recipe_sha256(self) -> str:
        """SHA-256 of the recipe."""
        return recipe_sha256(self.recipe)

    @property
    def told(self) -> str:
        """The files, as a message names them."""
        names = [file.ref.name for file in self.files]
        return ", ".join(names[:MOST_NAMED]) + (f" and {len(names) - MOST_NAMED} more" if names[MOST_NAMED:] else "")


def hash_files(
    project: str,
    paths: Sequence[Path],
    moment: datetime | None,
    session: Session,
    parents: Sequence[DatasetRef] = (),
    remote: Sequence[RemoteFile] = (),
    salt: str | None = None,
    mfid: str | None = None,
) -> RawFiles:
    """The files as one dataset. With `parents` it is a result made by hand, and sorts beside the youngest of them.

    A `salt` gives it another id, `mfid` this one.
    """
    local = [LocalFile.of(path, session.store.checksums(path)) for path in paths]
    copies = [_cached_copy(file, session) for file in remote]
    files = tuple(sorted((*local, *copies), key=lambda file: file.ref.name))
    if not files:
        raise InputError("none of the declared files is there; a dataset has at least one")
    names = [file.ref.name for file in files]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"two of the files are called {twice!r}; a dataset's files have different names")
    by_id = {parent.mfid: parent for parent in parents}
    made_of = tuple(by_id[mfid] for mfid in sorted(by_id))
    recipe = raw_recipe(project, [file.ref for file in files], made_of, salt)
    raw = RawFiles(project, recipe, files, mfid, made_of, {file.name: file for file in remote}, named=mfid is not None)
    if mfid is not None:
        _require_possible_id(raw, mfid)
        return raw
    derived = derived_mfid(recipe) if parents else raw_mfid(recipe, moment) if moment else None
    return replace(raw, mfid=derived)


def find_raw(raw: RawFiles, session: Session) -> DatasetRef | None:
    """The dataset of these files, if it is registered: under its id, or with the same bytes. Changes nothing.

    IdTakenError if its id is taken by something else, and no other dataset of the project holds the files.
    """
    if raw.mfid is None:
        return _same_bytes(raw, session)
    if (known := session.store.known(raw.mfid)) and (not raw.named or _is_of(known, raw)):
        return known
    dataset, is_begun, taken = None, False, None
    elsewhere = None if raw.parents or raw.named else session.client.ahead(partial(_same_bytes, raw, session))
    try:
        dataset, is_begun = _under_its_id(raw, raw.mfid, session)
    except IdTakenError as error:
        taken = error
    if dataset is None and not is_begun and elsewhere is not None:
        dataset = elsewhere()
    if dataset is not None:
        session.store.remember_as({raw.mfid: dataset, dataset.mfid: dataset})
    elif taken is not None:
        raise taken
    return dataset


def register_raw(
    raw: RawFiles,
    declared: FileInput,
    name: str,
    session: Session,
    note: str | None = None,
    supersedes: str | None = None,
) -> DatasetRef:
    """The dataset of these files, registered; `note` says what a person did to make them, in whose stead if it is so.

    One process at a time per data folder, so that files of unknown time are not registered twice.
    """
    with session.turn(raw.mfid or f"raw-{raw.recipe_sha256[:32]}"):
        found = _same_bytes(raw, session) if raw.mfid is None else None
        if found is None and not (raw.parents or raw.named):
            raw, found = _as_their_files_say(raw, session)
        return found or _register(raw, declared, name, session, note, supersedes)


def _as_their_files_say(raw: RawFiles, session: Session) -> tuple[RawFiles, DatasetRef | None]:
    """The files under the id that one of them names, and the dataset if it is there; as they were if none names one."""
    from crucible_lineage.pipeline.files.named_mfid import MFID_KEY, mfid_in

    names = {found: file.path for file in raw.files if file.path.exists() and (found := mfid_in(file.path))}
    if not names:
        return raw, None
    if len(names) > 1:
        said = ", ".join(f"{path.name} says {mfid}" for mfid, path in names.items())
        raise InputError(f"register {raw.told}: their {MFID_KEY} differs ({said}); register them one by one")
    ((mfid, _),) = names.items()
    named = replace(raw, mfid=mfid, named=True)
    _require_possible_id(named, mfid)
    dataset = find_raw(named, session)
    if raw.mfid is not None and dataset is not None:
        session.store.remember_as({raw.mfid: dataset})
    return named, dataset


def _register(
    raw: RawFiles, declared: FileInput, name: str, session: Session, note: str | None, supersedes: str | None
) -> DatasetRef:
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
    # A plan registers nothing, and has to start fast.
    from crucible_lineage.registration.ingestion import note_ingestions
    from crucible_lineage.registration.register import Stages, register_output

    dataset = register_output(
        session.client,
        NewDataset(
            mfid=mfid,
            fields=fields,
            record=raw_record(raw.recipe, refs, session.agent, raw.parents, note, supersedes),
            metadata={**declared.metadata, **origin},
            files=files,
            keywords=declared.keywords,
            parents=tuple(parent.mfid for parent in raw.parents),
            samples=declared.samples,
            ingest=declared.is_ingested,
            waits_for_ingestion=declared.ingestion.wait,
            ingestion_timeout_s=declared.ingestion.timeout,
            ingestor=declared.ingestor,
        ),
        session.machine,
        stages=Stages(ingesting=partial(note_ingestions, session.store)),
    )
    for file in raw.files:
        if file.ref.name not in raw.remote:
            session.cache.add(file.path, file.ref.sha256)
    session.store.remember_as({mfid: dataset, dataset.mfid: dataset})
    if dataset.mfid == mfid:
        session.store.note_keeps_ids()
    return dataset


def _under_its_id(raw: RawFiles, mfid: str, session: Session) -> tuple[DatasetRef | None, bool]:
    """The dataset of these files under their id, if it is complete; and whether one is begun there."""
    client, sha256 = session.client, raw.recipe_sha256

    def otherwise() -> DatasetRef | None:
        return find_by_recipe(client, mfid, raw.project, lambda one: recipe_sha256(one) == sha256)

    renamed = None if session.store.keeps_ids() else client.ahead(otherwise)
    found = read_own(client, mfid, raw.project, sha256, f"looking for {raw.told}")
    if found is None:
        return renamed and renamed(), False
    if found.ref is not None:
        return found.ref, False
    if raw.named and found.record is None and session.client.files.list(mfid):  # of another program
        return _require_of(_foreign(found.dataset, session), raw), False
    return None, True


def _require_of(dataset: DatasetRef, raw: RawFiles) -> DatasetRef:
    if not _is_of(dataset, raw):
        raise IdTakenError(
            f"looking for {raw.told}: dataset {dataset.mfid} ({dataset.name!r}) holds other files; nothing was "
            "changed. Register them without that id, or correct it",
            mfid=dataset.mfid,
        )
    return dataset


def _is_of(dataset: DatasetRef, raw: RawFiles) -> bool:
    """True if the dataset holds just these files."""
    ours = {(file.ref.name, file.ref.sha256) for file in raw.files}
    return {(file.name, file.sha256) for file in dataset.files} == ours


def _require_possible_id(raw: RawFiles, mfid: str) -> None:
    """InputError if the id can only be that of something else."""
    if raw.parents:
        raise InputError(f"register {raw.told} as {mfid}: the id of a result follows from its recipe; leave --mfid out")
    if not is_mfid(mfid):
        raise InputError(f"{mfid!r} is no MFID (26 symbols, 0 to 9 and lowercase letters without i, l, o, u)")
    if not gives_id(raw.recipe, mfid):
        raise InputError(
            f"register {raw.told} as {mfid}: that id follows from a recipe, and not from that of these files in "
            f"project {raw.project}; nothing was changed"
        )


def existing_dataset(mfid: str, session: Session) -> DatasetRef:
    """A dataset by its id: one of ours if it has a record, else with the files that Crucible lists."""
    if known := session.known(mfid):
        return known
    found = read(session.client, mfid)
    if found is None:
        raise InputError(f"input dataset {mfid}: there is none here that this key may see")
    if found.is_begun:
        raise InputError(f"input dataset {mfid} is incomplete; finish it first (run what makes it once more)")
    if found.record is not None:
        require_own_files(session.client, found.dataset, found.record)
    dataset = found.ref or _foreign(found.dataset, session)
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


def _foreign(found: Dataset, session: Session) -> DatasetRef:
    """A dataset that somebody else registered, read with its links. InputError if a file's hash is not known."""
    mfid, files = found.unique_id, []
    for file in session.client.datasets.list_files(mfid):
        if file.sha256_hash is None:
            raise InputError(f"input dataset {mfid}: Crucible knows no SHA-256 of its file {file.filename}")
        files.append(FileRef(file.filename, file.sha256_hash, file.size or 0))
    if not files:
        raise InputError(f"input dataset {mfid} ({found.dataset_name!r}) has no files")
    ordered = tuple(sorted(files, key=lambda file: file.name))
    return DatasetRef(mfid, found.dataset_name or mfid, ordered, samples_of(found), taken=taken_of(found))


def _same_bytes(raw: RawFiles, session: Session) -> DatasetRef | None:
    """The dataset of this project that holds just these files, found by their hash; the oldest if there are several."""
    for mfid, record in _holders(raw, session):
        if record is not None and not record.is_complete:
            continue  # whoever registers the files finishes it
        with suppress(IdTakenError):  # its files are not those of its record
            dataset = existing_dataset(mfid, session)
            if _is_of(dataset, raw):
                return dataset
    return None


def _begun(raw: RawFiles, session: Session) -> str | None:
    """The dataset under which these files were being registered when that was cut short, if their bytes had arrived."""
    return next(
        (mfid for mfid, record in _holders(raw, session) if record is not None and not record.is_complete), None
    )


def _holders(raw: RawFiles, session: Session) -> Iterator[tuple[str, StepRecord | FilesRecord | None]]:
    """The datasets of this project that hold the first of the files, with their records.

    The oldest first; before it what was measured at that moment, where it is known. Not among them are those of another
    recipe, and the same bytes measured at another moment, which are other data.
    """
    holders = session.client.files.list(sha256_hash=raw.files[0].ref.sha256)
    found = []
    for mfid in sorted({file.dataset_mfid for file in holders if file.dataset_mfid}):
        dataset = session.client.datasets.get(mfid, include_metadata=True)
        record = read_record(dataset.scientific_metadata)
        if not lies_elsewhere(dataset, raw.project) and _may_be(raw, mfid, record):
            found.append((dataset, record))
    for dataset, record in sorted(found, key=lambda one: not _is_of_then(one[0], raw)):
        yield dataset.unique_id, record


def _may_be(raw: RawFiles, mfid: str, record: StepRecord | FilesRecord | None) -> bool:
    """True if a dataset of this record is one of just these data. A salt makes no other data of them."""
    if record is None:
        return True
    is_same = record.is_whole and without_salt(record.recipe) == without_salt(raw.recipe)
    if not is_same and record.recipe_sha256 not in (raw.recipe_sha256, recipe_sha256(without_salt(raw.recipe))):
        return False
    return raw.mfid is None or not has_derived_id(mfid) or time_bits(mfid) == time_bits(raw.mfid)


def _is_of_then(dataset: Dataset, raw: RawFiles) -> bool:
    """True if the dataset says that it was measured just when the files were."""
    try:
        return raw.mfid is not None and time_bits(datetime.fromisoformat(dataset.timestamp or "")) == time_bits(
            raw.mfid
        )
    except ValueError:  # it says nothing, or not with its zone
        return False
