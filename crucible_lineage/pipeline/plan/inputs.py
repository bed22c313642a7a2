"""The inputs of a pipeline as datasets: looked up, selected, or registered from measured files if they are new."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.plan.raw import RawFiles, described, existing_dataset, find_raw, hash_files, register_raw
from crucible_lineage.pipeline.spec.inputs import (
    MATCHED,
    DatasetInput,
    EachInput,
    FileInput,
    ResultInput,
    SelectInput,
)
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec
from crucible_lineage.provenance.attachment import whole_record
from crucible_lineage.provenance.record import is_complete, read_record
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import known_dataset
from crucible_lineage.session import Session

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client.models import Dataset
    from crucible_lineage.pipeline.files.remote import RemoteFile

__all__ = ["InputItem", "Inputs", "ResultsOf", "known_inputs", "register_inputs"]


@dataclass(frozen=True)
class InputItem:
    """One dataset of an input. `dataset` is None for files that are not registered yet, and if it is `blocked`.

    `fields` are what `match` compares; `new` and `raw` are what registers it.
    """

    label: str
    dataset: DatasetRef | None
    fields: Mapping[str, Any] = field(default_factory=dict)
    new: FileInput | None = None
    raw: RawFiles | None = None
    blocked: str = ""

    @property
    def mfid(self) -> str | None:
        """Its id, as far as it is known before it is registered."""
        return self.dataset.mfid if self.dataset else self.raw.mfid if self.raw else None


Inputs = Mapping[str, tuple[InputItem, ...]]
ResultsOf = Callable[[ResultInput], Iterator[InputItem]]  # what a step of another pipeline made


def known_inputs(spec: PipelineSpec, session: Session, results_of: ResultsOf) -> dict[str, tuple[InputItem, ...]]:
    """The datasets of each input, those included that are still to be registered. Changes nothing."""
    return {name: tuple(_known(spec, name, session, results_of)) for name in spec.inputs}


def register_inputs(inputs: Inputs, session: Session) -> dict[str, tuple[InputItem, ...]]:
    """The datasets of each input; files that were not known are registered."""
    return {name: tuple(_registered(item, session) for item in items) for name, items in inputs.items()}


def _registered(item: InputItem, session: Session) -> InputItem:
    if item.dataset is not None or item.raw is None or item.new is None:
        return item
    return replace(item, dataset=register_raw(item.raw, item.new, item.label, session))


def _known(spec: PipelineSpec, name: str, session: Session, results_of: ResultsOf) -> Iterator[InputItem]:
    declared = spec.inputs[name]
    matched = bool(declared.match) or any(name == other.partner for other in spec.inputs.values())
    if isinstance(declared, SelectInput):
        yield from _selected(spec.project, declared, session)
        return
    if isinstance(declared, ResultInput):
        yield from results_of(declared)
        return
    for entry in declared.each if isinstance(declared, EachInput) else (declared,):
        if isinstance(entry, DatasetInput):
            yield from (_existing(mfid, session, with_fields=matched) for mfid in entry.dataset)
        else:
            label = name if declared.each is False else ""
            yield from (_of_files(spec.project, single, label, session) for single in _each_file(entry, session))


def _existing(mfid: str, session: Session, *, with_fields: bool) -> InputItem:
    dataset = existing_dataset(mfid, session)
    fields = _fields(session.client.datasets.get(mfid, include_metadata=True)) if with_fields else {}
    return InputItem(mfid, dataset, fields)


def _each_file(declared: FileInput, session: Session) -> Iterator[FileInput]:
    """The datasets: one of all files, or, with `each`, one a file, wherever it lies."""
    yield from declared.of_each()
    if declared.each:
        for file in _elsewhere(declared, session):
            yield declared.model_copy(update={"file": file.address, "each": False})


def _elsewhere(declared: FileInput, session: Session) -> list[RemoteFile]:
    """The files of a declaration that do not lie on this disk."""
    if not declared.remote:
        return []
    # Most pipelines have none, and a run in which all is fresh is to start fast.
    from crucible_lineage.pipeline.files.remote import find_remote

    return [file for address in declared.remote for file in find_remote(address, declared.block, session)]


def _of_files(project: str, declared: FileInput, label: str, session: Session) -> InputItem:
    moment = declared.timestamp or declared.known_since
    raw = hash_files(project, declared.paths, moment, session, remote=_elsewhere(declared, session))
    fields = {**described(declared), "dataset_name": declared.dataset_name, "metadata": declared.metadata}
    return InputItem(label or raw.files[0].ref.name, find_raw(raw, session), fields, declared, raw)


def _selected(project: str, declared: SelectInput, session: Session) -> Iterator[InputItem]:
    """What matches, oldest first; not what is incomplete, and not what another one of them supersedes."""
    filters = {"project_id": project, **declared.select}
    found = session.client.datasets.list(limit=None, include_metadata=True, include_links=True, **filters)
    records = {dataset.unique_id: read_record(dataset.scientific_metadata) for dataset in found}
    superseded = {record.get("supersedes") for record in records.values() if is_complete(record) and record}
    whole = {mfid for mfid, record in records.items() if record is None or is_complete(record)} - superseded
    if not whole and not declared.each and not declared.match:
        raise InputError(f"no complete dataset matches the selection {filters}")
    for dataset in sorted(found, key=lambda dataset: dataset.unique_id):
        if dataset.unique_id in whole:
            yield _selected_item(dataset, records[dataset.unique_id], session)


def _selected_item(dataset: Dataset, record: Mapping[str, Any] | None, session: Session) -> InputItem:
    mfid, fields = dataset.unique_id, _fields(dataset)
    if record is not None:
        return InputItem(mfid, known_dataset(dataset, whole_record(session.client, mfid, record)), fields)
    try:
        return InputItem(mfid, existing_dataset(mfid, session), fields)
    except InputError as error:  # one dataset that cannot be used does not stop the others
        return InputItem(mfid, None, fields, blocked=str(error))


def _fields(dataset: Dataset) -> dict[str, Any]:
    record = {name: getattr(dataset, name, None) for name in MATCHED}
    return {**record, "metadata": dataset.scientific_metadata or {}}
