"""The inputs of a pipeline as datasets: looked up, selected, or registered from measured files if they are new."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from typing import Any

from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import InputError, NotFoundError
from crucible_lineage.ids import new_mfid
from crucible_lineage.pipeline.spec import DatasetInput, FileInput, PipelineSpec, SelectInput
from crucible_lineage.provenance import raw_record, read_record
from crucible_lineage.recipe import raw_mfid, raw_recipe
from crucible_lineage.registry import LocalFile, NewDataset, look_up, register_output
from crucible_lineage.session import Session

__all__ = ["RawFiles", "described", "existing_dataset", "known_inputs", "register_inputs"]


@dataclass(frozen=True)
class RawFiles:
    """Measured files that make up one raw dataset, hashed."""

    recipe: Mapping[str, Any]
    files: tuple[LocalFile, ...]
    mfid: str | None  # None while nobody knows when they were taken


def known_inputs(spec: PipelineSpec, session: Session) -> dict[str, tuple[DatasetRef, ...] | None]:
    """The datasets of each input; None for files that are not registered yet. Changes nothing."""
    return {name: _known(spec, declared, session) for name, declared in spec.inputs.items()}


def register_inputs(
    spec: PipelineSpec, known: Mapping[str, tuple[DatasetRef, ...] | None], session: Session
) -> dict[str, tuple[DatasetRef, ...]]:
    """The datasets of each input; files that were not known are registered."""
    return {
        name: known_datasets if (known_datasets := known[name]) is not None else (_register(spec, name, session),)
        for name in spec.inputs
    }


def _known(
    spec: PipelineSpec, declared: FileInput | DatasetInput | SelectInput, session: Session
) -> tuple[DatasetRef, ...] | None:
    if isinstance(declared, DatasetInput):
        return (existing_dataset(declared.dataset, session),)
    if isinstance(declared, SelectInput):
        return _selected(spec.project, declared, session)
    raw = _hashed(spec, declared, session)
    dataset = _find_raw(spec.project, raw, session)
    return None if dataset is None else (dataset,)


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


def _foreign(mfid: str, session: Session) -> DatasetRef:
    """A dataset that somebody else registered. InputError if there is none, or a file's hash is not known."""
    try:
        found = session.client.datasets.get(mfid)
    except NotFoundError as error:
        raise InputError(f"input dataset {mfid}: there is none here that this key may see") from error
    files = []
    for file in session.client.datasets.list_files(mfid):
        if file.sha256_hash is None:
            raise InputError(f"input dataset {mfid}: Crucible knows no SHA-256 of its file {file.filename}")
        files.append(FileRef(file.filename, file.sha256_hash, file.size or 0))
    if not files:
        raise InputError(f"input dataset {mfid} ({found.dataset_name!r}) has no files")
    return DatasetRef(mfid, found.dataset_name or mfid, tuple(sorted(files, key=lambda file: file.name)))


def _selected(project: str, declared: SelectInput, session: Session) -> tuple[DatasetRef, ...]:
    filters = {"project_id": project, **declared.select}
    found = session.client.datasets.list(limit=None, **filters)
    if not found:
        raise InputError(f"no dataset matches the selection {filters}")
    return tuple(existing_dataset(mfid, session) for mfid in sorted(dataset.unique_id for dataset in found))


def _hashed(spec: PipelineSpec, declared: FileInput, session: Session) -> RawFiles:
    paths = declared.paths(spec.folder)
    files = tuple(
        LocalFile(path, FileRef(path.name, session.store.sha256(path), path.stat().st_size))
        for path in sorted(paths, key=lambda path: path.name)
    )
    recipe = raw_recipe(spec.project, [file.ref for file in files])
    moment = declared.timestamp or declared.known_since
    return RawFiles(recipe, files, raw_mfid(recipe, moment) if moment else None)


def _find_raw(project: str, raw: RawFiles, session: Session) -> DatasetRef | None:
    if raw.mfid is None:
        return _same_bytes(project, raw, session)
    if known := session.store.known(raw.mfid):
        return known
    dataset, _ = look_up(session.client, raw.mfid)
    if dataset is not None:
        session.store.remember([dataset])
    return dataset


def _same_bytes(project: str, raw: RawFiles, session: Session) -> DatasetRef | None:
    """The dataset of this project that holds just these files, found by their hash; the oldest if there are several."""
    first = raw.files[0].ref
    candidates = {
        file.dataset_mfid for file in session.client.files.list(sha256_hash=first.sha256) if file.dataset_mfid
    }
    for mfid in sorted(candidates):
        found = session.client.datasets.get(mfid, include_metadata=True)
        record = read_record(found.scientific_metadata)
        same_recipe = record is not None and record["recipe"] == raw.recipe
        if found.project_id != project or (record is not None and not same_recipe):
            continue
        dataset = existing_dataset(mfid, session)
        if {(file.name, file.sha256) for file in dataset.files} == {(f.ref.name, f.ref.sha256) for f in raw.files}:
            return dataset
    return None


def _register(spec: PipelineSpec, name: str, session: Session) -> DatasetRef:
    declared = spec.inputs[name]
    assert isinstance(declared, FileInput)  # only files can be new
    raw = _hashed(spec, declared, session)
    mfid = raw.mfid or new_mfid()
    dataset = register_output(session.client, _new_dataset(spec, name, declared, raw, mfid, session.agent))
    for file in raw.files:
        session.cache.add(file.path, file.ref.sha256)
    session.store.remember([dataset])
    return dataset


def _new_dataset(
    spec: PipelineSpec, name: str, declared: FileInput, raw: RawFiles, mfid: str, agent: Mapping[str, Any]
) -> NewDataset:
    fields = {
        "project_id": spec.project,
        "dataset_name": declared.dataset_name or name,
        **({"timestamp": declared.timestamp.astimezone(UTC).isoformat()} if declared.timestamp else {}),
        "public": declared.public,
        **described(declared),
    }
    return NewDataset(
        mfid=mfid,
        fields=fields,
        record=raw_record(raw.recipe, [file.ref for file in raw.files], agent),
        metadata=declared.metadata,
        files=raw.files,
        keywords=declared.keywords,
        ingest=declared.ingest,
    )


def described(declared: Any) -> dict[str, Any]:
    """The descriptive fields that a declaration sets."""
    names = ("measurement", "data_type", "session_name", "instrument_name", "instrument_id")
    return {name: value for name in names if (value := getattr(declared, name)) is not None}
