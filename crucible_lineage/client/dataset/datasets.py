"""Datasets: made, found, changed, linked."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Unpack

from crucible_lineage.client.aliases import also_called
from crucible_lineage.client.dataset.contents import DSID, AddedFile, ContentCalls
from crucible_lineage.client.dataset.deletions import DeletionCalls
from crucible_lineage.client.dataset.files import FileCalls
from crucible_lineage.client.dataset.links import LinkCalls
from crucible_lineage.client.dataset.metadata import MetadataCalls
from crucible_lineage.client.filters import DatasetFilters, sent_filters
from crucible_lineage.client.http.connection import Session
from crucible_lineage.client.http.paging import count_of, pages
from crucible_lineage.client.http.wire import parse, parse_all, segment, to_send
from crucible_lineage.client.ingestions import IngestionCalls
from crucible_lineage.client.models import (
    Dataset,
    DatasetCreate,
    DeletionRequest,
    FacetValue,
)
from crucible_lineage.client.projects import InstrumentCalls
from crucible_lineage.errors import ConflictError, InputError
from crucible_lineage.ids import is_mfid

__all__ = ["CreatedDataset", "DatasetCalls"]

KINSHIP = {
    "parent_id": "parent_mfid",
    "child_id": "child_mfid",
    "parent_dataset_id": "parent_mfid",
    "child_dataset_id": "child_mfid",
}


@dataclass(frozen=True)
class CreatedDataset:
    """A new dataset with what was put into it."""

    record: Dataset
    scientific_metadata: dict[str, Any] | None = None
    files: tuple[AddedFile, ...] = ()

    @property
    def dsid(self) -> str:
        """The dataset's MFID."""
        return self.record.unique_id


class DatasetCalls(ContentCalls):
    """`client.datasets`. What concerns a dataset's contents (keywords, files, pictures) is in `ContentCalls`."""

    def __init__(self, session: Session, files: FileCalls, metadata: MetadataCalls, ingestions: IngestionCalls) -> None:
        super().__init__(session, files, metadata, ingestions)
        self._links = LinkCalls(session, "/datasets", "dataset", Dataset)
        self._instruments = InstrumentCalls(session)

    def create(
        self,
        dataset: DatasetCreate | Mapping[str, Any],
        *,
        scientific_metadata: Mapping[str, Any] | None = None,
        keywords: Iterable[str] = (),
        files: Iterable[str | Path] = (),
        files_to_upload: Iterable[str | Path] = (),
        ingestor: str | None = None,
        wait: bool = False,
    ) -> CreatedDataset:
        """The new dataset, with metadata, keywords and files, whose ingestion is requested (and with `wait` over).

        Nothing here is undone if a later part fails. ConflictError if the MFID that was given is taken; a lost answer
        may have the same effect, so look what stands there.
        """
        paths = [Path(path) for path in (*files, *files_to_upload)]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise InputError(f"there is no file {', '.join(missing)}; nothing was created")
        record = self._created(dataset)
        mfid = record.unique_id
        metadata = self._metadata.merge(mfid, scientific_metadata) if scientific_metadata else None
        for keyword in keywords:
            self.add_keyword(mfid, keyword)
        added = tuple(self.add_file_to_dataset(mfid, path, ingestor=ingestor) for path in paths)
        if wait:
            added = tuple(self._ingested(file) for file in added)
        return CreatedDataset(record, metadata, added)

    @also_called(**DSID)
    def get(self, mfid: str, *, include_metadata: bool = False, include_links: bool = False) -> Dataset:
        """The dataset; `scientific_metadata` and `links` are None unless they are asked for."""
        what = f"read dataset {mfid}"
        params = {"include_metadata": include_metadata or None, "include_links": include_links or None}
        answer = self._session.get(f"/datasets/{segment(mfid)}", what, mfid=mfid, params=params)
        return parse(Dataset, answer, what)

    def list(self, *, limit: int | None = None, **filters: Unpack[DatasetFilters]) -> list[Dataset]:
        """Datasets that fit all filters, newest first unless sorted otherwise, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[DatasetFilters]) -> Iterator[Dataset]:
        """The same, page by page as they are taken."""
        return pages(self._session, "/datasets", Dataset, "list datasets", self._filters(filters), limit)

    def count(self, **filters: Unpack[DatasetFilters]) -> int:
        """How many datasets fit all filters."""
        return count_of(self._session, "/datasets", "count datasets", self._filters(filters))

    def search(self, q: str, *, limit: int = 20, project_id: str | None = None) -> Sequence[Dataset]:
        """Datasets whose name is like `q` (3 letters or more); best first, at most 50."""
        what = f"search datasets for {q!r}"
        params = {"q": q, "limit": limit, "project_id": project_id}
        return parse_all(Dataset, self._session.get("/datasets/search", what, params=params), what)

    def facets(self, field: str, *, limit: int = 100, **filters: Unpack[DatasetFilters]) -> Sequence[FacetValue]:
        """The values of a field (session, measurement, data_format, owner, instrument, project) with their counts."""
        what = f"count datasets by {field}"
        params = {"field": field, "limit": limit, **self._filters(filters)}
        return parse_all(FacetValue, self._session.get("/datasets/facets", what, params=params), what)

    @also_called(**DSID)
    def update(self, mfid: str, **fields: Any) -> Dataset:
        """The dataset with `fields` changed. `public`, project and instrument go by the routes made for them."""
        if "owner" in fields or "owner_orcid" in fields:
            raise InputError("the owner of a dataset is not changed by update; its owner hands it over in Crucible")
        if "instrument_name" in fields:
            raise InputError("the instrument's name follows from the instrument; give instrument_id or instrument_mfid")
        public = fields.pop("public", None)
        instrument = _one_of(fields, "instrument_mfid", "instrument_id")
        project = _one_of(fields, "project_mfid", "project_id")
        record = self._patched(mfid, fields) if fields else None
        if project is not None:
            self.assign_project(mfid, project)
        if instrument is not None:
            self.assign_instrument(mfid, instrument)
        if public is not None:
            (self.set_public if public else self.set_private)(mfid)
        rerouted = (public, instrument, project) != (None, None, None)
        return self.get(mfid) if record is None or rerouted else record

    @also_called(**DSID)
    def delete(self, mfid: str, reason: str | None = None) -> DeletionRequest:
        """The request to delete the dataset; it is hidden from lists at once, and deleted after a review."""
        return DeletionCalls(self._session).request(mfid, reason)

    @also_called(**KINSHIP)
    def link_parent_child(self, parent_mfid: str, child_mfid: str, relationship_type: str | None = None) -> None:
        """The child hangs below the parent; a relationship that is given replaces a stored one."""
        self._links.link(parent_mfid, child_mfid, relationship_type)

    @also_called(**KINSHIP)
    def unlink(self, parent_mfid: str, child_mfid: str) -> None:
        """The link is gone."""
        self._links.unlink(parent_mfid, child_mfid)

    @also_called(**DSID)
    def list_parents(
        self, mfid: str, *, relationship_type: str | None = None, limit: int | None = None
    ) -> Sequence[Dataset]:
        """The datasets that this one was made from."""
        return self._links.related(mfid, "parents", {"relationship_type": relationship_type}, limit)

    @also_called(**DSID)
    def list_children(
        self, mfid: str, *, relationship_type: str | None = None, limit: int | None = None
    ) -> Sequence[Dataset]:
        """The datasets that were made from this one."""
        return self._links.related(mfid, "children", {"relationship_type": relationship_type}, limit)

    @also_called(sample_id="sample_mfid", **DSID)
    def add_sample(self, mfid: str, sample_mfid: str) -> None:
        """The dataset is about the sample."""
        what = f"link dataset {mfid} to sample {sample_mfid}"
        path = f"/datasets/{segment(mfid)}/samples/{segment(sample_mfid, 'sample')}"
        self._session.call("POST", path, what, mfid=mfid, repeatable=True)

    @also_called(sample_id="sample_mfid", **DSID)
    def remove_sample(self, mfid: str, sample_mfid: str) -> None:
        """The dataset is no longer about the sample."""
        what = f"unlink dataset {mfid} from sample {sample_mfid}"
        path = f"/datasets/{segment(mfid)}/samples/{segment(sample_mfid, 'sample')}"
        self._session.call("DELETE", path, what, mfid=mfid)

    @also_called(**DSID)
    def assign_instrument(self, mfid: str, instrument: str) -> None:
        """The dataset was taken with the instrument of this MFID or `instrument_id`."""
        what = f"assign instrument {instrument} to dataset {mfid}"
        path = f"/datasets/{segment(mfid)}/instrument"
        self._session.call("PUT", path, what, mfid=mfid, body=_selector("instrument", instrument))

    @also_called(**DSID)
    def assign_project(self, mfid: str, project: str) -> None:
        """The dataset belongs to the project of this MFID or `project_id`."""
        what = f"move dataset {mfid} to project {project}"
        path = f"/resources/{segment(mfid)}/project"
        body = _selector("project", project)
        self._session.call("POST", path, what, mfid=mfid, params={"confirm": True}, body=body, repeatable=True)

    @also_called(**DSID)
    def set_public(self, mfid: str) -> None:
        """Everybody may read the dataset."""
        path = f"/resources/{segment(mfid)}/access/public"
        self._session.call("PUT", path, f"make dataset {mfid} public", mfid=mfid)

    @also_called(**DSID)
    def set_private(self, mfid: str) -> None:
        """Only those with a right of their own may read the dataset."""
        path = f"/resources/{segment(mfid)}/access/public"
        self._session.call("DELETE", path, f"make dataset {mfid} private", mfid=mfid)

    def _created(self, dataset: DatasetCreate | Mapping[str, Any]) -> Dataset:
        """The record. An MFID that was made here and is taken all the same comes from our own lost answer."""
        new = to_send(DatasetCreate, dataset)
        given = dataset.model_fields_set if isinstance(dataset, DatasetCreate) else dataset.keys()
        what = f"create dataset {new.unique_id}"
        try:
            answer = self._session.call("POST", "/datasets", what, mfid=new.unique_id, body=new.body(), repeatable=True)
        except ConflictError:
            if "unique_id" in given:
                raise
            return self.get(new.unique_id)
        return parse(Dataset, answer, what)

    def _ingested(self, added: AddedFile) -> AddedFile:
        if added.ingestion is None:
            return added
        return AddedFile(added.file, added.existed, self._ingestions.wait(added.ingestion.id))

    def _patched(self, mfid: str, fields: Mapping[str, Any]) -> Dataset:
        what = f"change dataset {mfid}"
        answer = self._session.call("PATCH", f"/datasets/{segment(mfid)}", what, mfid=mfid, body=fields)
        return parse(Dataset, answer, what)

    def _filters(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """As query parameters; the service takes an instrument's MFID only, so its name is looked up."""
        params = sent_filters(given, DatasetFilters)
        if slug := params.pop("instrument_id", None):
            params["instrument_mfid"] = self._instruments.get(slug).unique_id
        return params


def _one_of(fields: dict[str, Any], *names: str) -> Any:
    """The value of the one field among `names` that is there, taken out of `fields`."""
    found = {name: fields.pop(name) for name in names if name in fields}
    if len(found) > 1:
        raise InputError(f"{' and '.join(found)} are given; give one of them")
    return next(iter(found.values()), None)


def _selector(kind: str, name: str) -> dict[str, str]:
    return {f"{kind}_mfid" if is_mfid(name) else f"{kind}_id": name}
