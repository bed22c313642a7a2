"""The inputs of a pipeline as datasets: looked up, selected, or registered from measured files if they are new."""

from __future__ import annotations

from collections.abc import Mapping

from crucible_lineage.datasets import DatasetRef
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.raw import RawFiles, existing_dataset, find_raw, hash_files, register_raw
from crucible_lineage.pipeline.spec import DatasetInput, FileInput, PipelineSpec, SelectInput
from crucible_lineage.session import Session

__all__ = ["known_inputs", "register_inputs"]


def known_inputs(spec: PipelineSpec, session: Session) -> dict[str, tuple[DatasetRef, ...] | None]:
    """The datasets of each input; None for files that are not registered yet. Changes nothing."""
    return {name: _known(spec, declared, session) for name, declared in spec.inputs.items()}


def register_inputs(
    spec: PipelineSpec, known: Mapping[str, tuple[DatasetRef, ...] | None], session: Session
) -> dict[str, tuple[DatasetRef, ...]]:
    """The datasets of each input; files that were not known are registered."""
    datasets = {}
    for name, declared in spec.inputs.items():
        found = known[name]
        if found is None:
            assert isinstance(declared, FileInput)  # only files can be new
            found = (register_raw(_hashed(spec, declared, session), declared, name, session),)
        datasets[name] = found
    return datasets


def _known(
    spec: PipelineSpec, declared: FileInput | DatasetInput | SelectInput, session: Session
) -> tuple[DatasetRef, ...] | None:
    if isinstance(declared, DatasetInput):
        return (existing_dataset(declared.dataset, session),)
    if isinstance(declared, SelectInput):
        return _selected(spec.project, declared, session)
    dataset = find_raw(_hashed(spec, declared, session), session)
    return None if dataset is None else (dataset,)


def _selected(project: str, declared: SelectInput, session: Session) -> tuple[DatasetRef, ...]:
    filters = {"project_id": project, **declared.select}
    found = session.client.datasets.list(limit=None, **filters)
    if not found:
        raise InputError(f"no dataset matches the selection {filters}")
    return tuple(existing_dataset(mfid, session) for mfid in sorted(dataset.unique_id for dataset in found))


def _hashed(spec: PipelineSpec, declared: FileInput, session: Session) -> RawFiles:
    return hash_files(spec.project, declared.paths(spec.folder), declared.timestamp or declared.known_since, session)
