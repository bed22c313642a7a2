"""Registration: what makes a dataset appear in Crucible exactly once, complete or visibly unfinished.

Every call can be repeated, by anyone, after a crash at any point. The order is what makes it safe: the record says
`incomplete` before the first byte is sent and `complete` after the last; only a complete record counts as done.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.attached import ATTACHED_NAME, compact_record, recipe_sha256, whole_record
from crucible_lineage.checksums import FileChecksums, scan_file
from crucible_lineage.datasets import DatasetRef, FileRef
from crucible_lineage.errors import ConflictError, FileConflictError, NotFoundError, RecipeConflictError, RefusedError
from crucible_lineage.provenance import COMPLETE, KEY, dataset_of_record, is_complete, read_record, unreadable

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient
    from crucible_lineage.models import Dataset

__all__ = ["LocalFile", "NewDataset", "find_by_recipe", "known_dataset", "look_up", "register_output", "samples_of"]


@dataclass(frozen=True)
class LocalFile:
    """A file on disk, what it is called in the dataset, and its checksums, so that it is not read for them again."""

    path: Path
    ref: FileRef
    checksums: FileChecksums

    @classmethod
    def of(cls, path: Path, checksums: FileChecksums, *, preview: bool = False) -> LocalFile:
        """The file under its own name."""
        return cls(path, FileRef(path.name, checksums.sha256, checksums.size, preview), checksums)


@dataclass(frozen=True)
class NewDataset:
    """A dataset to be registered: what it is, how it came to be, where it belongs.

    `fields` are those of Crucible's dataset record (project_id, dataset_name, measurement ...), `record` is the
    provenance record, `metadata` the scientific metadata beside it.
    """

    mfid: str
    fields: Mapping[str, Any]
    record: Mapping[str, Any]
    metadata: Mapping[str, Any]
    files: tuple[LocalFile, ...]
    keywords: tuple[str, ...] = ()
    parents: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    ingest: bool = True
    ingestor: str | None = None
    ingestion_timeout_s: float = 60.0

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.fields["dataset_name"])


def look_up(client: CrucibleClient, mfid: str) -> tuple[DatasetRef | None, Mapping[str, Any] | None]:
    """The dataset if it is complete, and its record if it has one: (None, None) if there is none. One call."""
    try:
        dataset = client.datasets.get(mfid, include_metadata=True, include_links=True)
    except NotFoundError:
        return None, None
    record = read_record(dataset.scientific_metadata)
    if record is None or not is_complete(record):
        return None, record
    record = whole_record(client, mfid, record)
    return known_dataset(dataset, record), record


def find_by_recipe(client: CrucibleClient, mfid: str) -> DatasetRef | None:
    """The complete dataset whose recipe gives this id, at a service that gave it another one; None if there is none."""
    for dataset in client.datasets.list(
        keyword=recipe_keyword(mfid), include_metadata=True, include_links=True, limit=None
    ):
        record = read_record(dataset.scientific_metadata)
        if record is not None and is_complete(record):
            return known_dataset(dataset, whole_record(client, dataset.unique_id, record))
    return None


def known_dataset(dataset: Dataset, record: Mapping[str, Any]) -> DatasetRef:
    """The dataset that Crucible and its complete record describe; `dataset` was read with its links."""
    found = dataset_of_record(dataset.unique_id, dataset.dataset_name or dataset.unique_id, record)
    return replace(found, samples=samples_of(dataset))


def samples_of(dataset: Dataset) -> tuple[str, ...]:
    """The samples that a dataset, read with its links, is associated with."""
    return tuple(sorted(link.unique_id for link in dataset.links or () if link.resource_type == "sample"))


def register_output(client: CrucibleClient, new: NewDataset) -> DatasetRef:
    """The dataset, registered: record, metadata, keywords, links, files, ingestion, and then marked complete.

    RecipeConflictError if the id is taken by another recipe; every other error leaves an incomplete record that a
    repetition finishes.
    """
    mfid, found = _create(client, new)
    if found is not None and is_complete(found):
        return dataset_of_record(mfid, new.name, whole_record(client, mfid, found))
    record, attached = compact_record(new.record)
    adopted = found is not None
    if mfid != new.mfid:  # first of all, so that whoever comes next finds it
        client.datasets.add_keyword(mfid, recipe_keyword(new.mfid))
    client.metadata.merge(mfid, {**new.metadata, KEY: record})
    for keyword in new.keywords:
        client.datasets.add_keyword(mfid, keyword)
    for parent in dict.fromkeys(new.parents):
        client.datasets.link_parent_child(parent, mfid, relationship_type="is_derived_from")
    for sample in dict.fromkeys(new.samples):
        client.datasets.add_sample(mfid, sample)
    uploaded = [_upload(client, mfid, file) for file in new.files]
    if attached is not None:
        _attach(client, mfid, attached)
    _add_preview(client, mfid, new, adopted=adopted)
    if new.ingest:
        _ingest(client, mfid, new, uploaded, adopted=adopted)
    # The whole record once more: a server that merges only the top level keeps it too.
    client.metadata.merge(mfid, {KEY: {**record, "status": COMPLETE}})
    return DatasetRef(mfid, new.name, tuple(file.ref for file in new.files), tuple(sorted(set(new.samples))))


def _create(client: CrucibleClient, new: NewDataset) -> tuple[str, Mapping[str, Any] | None]:
    """The id under which the dataset is to be finished, and the record that stands there (None if it is new)."""
    try:
        return client.datasets.create({**new.fields, "unique_id": new.mfid}).dsid, None
    except (ConflictError, RefusedError) as refusal:
        try:
            return new.mfid, _adopt(client, new)
        except NotFoundError:
            raise refusal from None  # it was refused for another reason than being there already


def _adopt(client: CrucibleClient, new: NewDataset) -> Mapping[str, Any]:
    """The record under our id, after a refused creation. NotFoundError if there is no such dataset."""
    dataset = client.datasets.get(new.mfid, include_metadata=True)
    record = read_record(dataset.scientific_metadata)
    reason = unreadable(dataset.scientific_metadata)
    if record is not None and recipe_sha256(record) != recipe_sha256(new.record):
        reason = "its recipe is another one"
    if reason:
        raise RecipeConflictError(
            f"registering {new.name!r}: the id {new.mfid} is taken by dataset {dataset.dataset_name!r}, and {reason}; "
            f"nothing was written. Its record was edited or copied: see `crucible-lineage verify {new.mfid}`",
            mfid=new.mfid,
        )
    return record or {}  # no record: created, and the one who did it went away before the next call


def recipe_keyword(mfid: str) -> str:
    """Where a server assigns ids of its own, this keyword finds the record again."""
    return f"recipe:{mfid}"


def _upload(client: CrucibleClient, mfid: str, file: LocalFile) -> str:
    """The MFID of the uploaded file. An unfinished attempt's other content under this name is replaced.

    That is safe, since only what belongs to a complete record was ever given to anyone; FileConflictError if somebody
    completed the record meanwhile, with other bytes from the same recipe.
    """
    upload = partial(client.files.upload, mfid, file.path, filename=file.ref.name, checksums=file.checksums)
    try:
        return upload().file.mfid
    except FileConflictError:
        if look_up(client, mfid)[0] is not None:
            raise
        return upload(replace=True).file.mfid


def _attach(client: CrucibleClient, mfid: str, content: bytes) -> None:
    """The part of a long record that does not fit into metadata is a file of the dataset."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ATTACHED_NAME
        path.write_bytes(content)
        _upload(client, mfid, LocalFile.of(path, scan_file(path)))


def _add_preview(client: CrucibleClient, mfid: str, new: NewDataset, *, adopted: bool) -> None:
    preview = next((file for file in new.files if file.ref.preview), None)
    if preview is None:
        return
    present = {picture.thumbnail_name for picture in client.datasets.get_thumbnails(mfid)} if adopted else set()
    if preview.ref.name not in present:
        client.datasets.add_thumbnail(mfid, preview.path, name=preview.ref.name)


def _ingest(client: CrucibleClient, mfid: str, new: NewDataset, uploaded: list[str], *, adopted: bool) -> None:
    """Ingestion of each data file, asked for once and waited for; that it fails does not make the data less whole."""
    asked = {entry.file_mfid: entry for entry in client.ingestions.list(dataset_mfid=mfid)} if adopted else {}
    requests = []
    for file, file_mfid in zip(new.files, uploaded, strict=True):
        if not file.ref.preview:
            requests.append(asked.get(file_mfid) or client.ingestions.request(file_mfid, new.ingestor))
    for request in requests:
        client.ingestions.wait(request.id, timeout_s=new.ingestion_timeout_s)
