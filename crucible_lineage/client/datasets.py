"""Datasets: creating, finding, changing, linking and deleting them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar, get_args
from urllib.parse import quote

from pydantic import BaseModel

from crucible_lineage.client.connection import PAGE, pages
from crucible_lineage.client.contents import AddedFile, ContentCalls, without_secrets
from crucible_lineage.client.filters import InstrumentCalls, ListedCalls, NumberedCalls
from crucible_lineage.client.models import (
    Dataset,
    DatasetCreate,
    DeletedRecord,
    DeletionRequest,
    IngestionRequest,
    ReceivedModel,
    ResultRequest,
)
from crucible_lineage.client.wire import parse_all, segment, to_send
from crucible_lineage.errors import ConflictError, InputError, nearest
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.refs import ProjectChanges, Relationship
from crucible_lineage.text.masking import masked

# Fields of dataset models that only answers have.
ANSWER_ONLY = frozenset(
    (
        *("capabilities", "creation_time", "deletion_request", "id", "instrument", "links", "modification_time"),
        *("project", "project_relation", "resource_type"),
    )
)
ELEVATED = {"Crucible-Privilege-Mode": "elevated"}

Record = TypeVar("Record", bound=ReceivedModel)
WholeDataset = tuple[JsonMapping, JsonMapping, Sequence[Mapping[str, object]]]
"""The fields of a dataset, its metadata, keywords and parents, and its files with their contents."""


@dataclass(frozen=True)
class CreatedDataset:
    """A new dataset with its metadata and files."""

    record: Dataset
    scientific_metadata: JsonObject | None = None
    files: tuple[AddedFile, ...] = ()

    @property
    def dsid(self) -> str:
        """The dataset's MFID."""
        return self.record.unique_id

    def __getitem__(self, key: str) -> Any:
        """Return an item of the official client: `dsid`, `created_record`, `scientific_metadata_record`, `files`."""
        by_key = {
            "dsid": self.dsid,
            "created_record": self.record,
            "scientific_metadata_record": self.scientific_metadata
            and {"unique_id": self.dsid, "scientific_metadata": self.scientific_metadata},
            "files": self.files,
        }
        if key not in by_key:
            raise KeyError(f"{key!r}; {nearest(key, by_key)}")
        return by_key[key]


class LinkedCalls(ListedCalls[Record]):
    """The part of `client.datasets` and of `client.samples` that deals with parents and children."""

    _kind: str

    def link_parent_child(
        self,
        parent_id: str = "",
        child_id: str = "",
        relationship_type: str | None = None,
        *,
        parent_dataset_id: str = "",
        child_dataset_id: str = "",
        parent_mfid: str = "",
        child_mfid: str = "",
    ) -> None:
        """Make one dataset or sample a child of another; a given relationship replaces the stored one.

        The keywords are other names of the two ids, as on Crucible's own page and in its client. Raises RefusedError
        if the link would close a cycle, or if the service does not know the relationship.
        """
        parent_id, child_id = parent_id or parent_dataset_id or parent_mfid, child_id or child_dataset_id or child_mfid
        if relationship_type not in (None, *get_args(Relationship)):
            hint = nearest(str(relationship_type), get_args(Relationship))
            raise InputError(f"there is no relationship {relationship_type!r}; {hint}")
        action = f"link {child_id} as a child of {parent_id}"
        params = {"relationship_type": relationship_type} if relationship_type else None
        path = self._link_path(parent_id, child_id)
        self._connection.call("POST", path, action, mfid=child_id, params=params, repeatable=True)

    def unlink(self, parent_id: str, child_id: str) -> None:
        """Remove the link."""
        action = f"unlink {child_id} from its parent {parent_id}"
        self._connection.call("DELETE", self._link_path(parent_id, child_id), action, mfid=child_id)

    def list_parents(
        self, mfid: str, *, relationship_type: str | None = None, limit: int | None = None
    ) -> Sequence[Record]:
        """Return the datasets or samples that this one was made from."""
        return self._related(mfid, "parents", relationship_type, limit)

    def list_children(
        self, mfid: str, *, relationship_type: str | None = None, limit: int | None = None
    ) -> Sequence[Record]:
        """Return the datasets or samples that were made from this one."""
        return self._related(mfid, "children", relationship_type, limit)

    def _related(self, mfid: str, side: str, relationship_type: str | None, limit: int | None) -> list[Record]:
        path, action = f"{self._collection}/{segment(mfid, self._kind)}/{side}", f"list the {side} of {mfid}"
        params = {"relationship_type": relationship_type}
        return list(pages(self._connection, path, self._model, action, params, limit))

    def _link_path(self, parent_id: str, child_id: str) -> str:
        parent, child = segment(parent_id, self._kind), segment(child_id, self._kind)
        return f"{self._collection}/{parent}/children/{child}"


class DatasetCalls(ContentCalls, LinkedCalls[Dataset]):
    """`client.datasets`. Calls about the contents of a dataset (keywords, files, pictures) are in `ContentCalls`."""

    _collection, _kind, _model = "/datasets", "dataset", Dataset

    def create(
        self,
        dataset: DatasetCreate | Mapping[str, object] | BaseModel,
        *,
        scientific_metadata: Mapping[str, object] | None = None,
        keywords: Iterable[str] = (),
        files: Iterable[str | Path] = (),
        files_to_upload: Iterable[str | Path] = (),
        ingestor: str | None = None,
        wait: bool = False,
        wait_for_ingestion_response: bool = False,
        linked: JsonMapping | None = None,
    ) -> CreatedDataset:
        """Create a dataset with metadata, keywords and files, and request their ingestion (with `wait`, wait for it).

        `files_to_upload` and `wait_for_ingestion_response` are the official client's names for `files` and `wait`. If a
        later part fails, the earlier ones remain. Raises ConflictError if the given MFID exists. After a lost answer
        this may be the created dataset, so check it. `linked` are keywords and parents, which the embedded Crucible
        adds in the same call.
        """
        paths = [Path(path) for path in (*files, *files_to_upload)]
        if missing := [str(path) for path in paths if not path.is_file()]:
            raise InputError(f"there is no file {', '.join(missing)}; nothing was created")
        all_metadata = dict(scientific_metadata or {})
        if not isinstance(dataset, DatasetCreate | Mapping):
            if not isinstance(dataset, BaseModel):
                raise InputError(
                    f"cannot create a dataset from {type(dataset).__name__}: pass a DatasetCreate, a mapping of its "
                    "fields, or the official client's Dataset; nothing was created"
                )
            model = dataset.model_dump(exclude_none=True)
            all_metadata = model.pop("scientific_metadata", {}) | all_metadata
            dataset = {name: value for name, value in model.items() if name not in ANSWER_ONLY}
        new = to_send(DatasetCreate, dataset)
        dsid = new.unique_id
        action, body = f"create dataset {dsid}", masked({**new.body(), **(linked or {})})
        try:
            record = self._connection.record(Dataset, "POST", "/datasets", action, body=body, repeatable=True)
        except ConflictError:
            if "unique_id" in new.model_fields_set:
                raise
            record = self.get(dsid)  # the MFID was chosen here, so the answer to an earlier try was lost
        metadata = self._metadata.merge(dsid, all_metadata) if all_metadata else None
        for keyword in keywords:
            self.add_keyword(dsid, keyword)
        added = tuple(self.add_file_to_dataset(dsid, path, ingestor=ingestor) for path in paths)
        if wait or wait_for_ingestion_response:
            wait_for = self._ingestions.wait
            added = tuple(replace(file, ingestion=file.ingestion and wait_for(file.ingestion.id)) for file in added)
        return CreatedDataset(record, metadata, added)

    def create_whole(self, datasets: Iterable[WholeDataset]) -> dict[str, dict[str, IngestionRequest]]:
        """Create datasets by one call with all that they have, or none, as only the embedded Crucible can.

        Parents come before their children. Return the requests to ingest files, by dataset and name.
        """
        first, *more = map(_whole_body, datasets)
        action, body = f"create dataset {first['unique_id']}", {**first, **({"more": more} if more else {})}
        made = self._connection.call("POST", "/datasets", action, body=body, repeatable=True)
        names = {str(file["mfid"]): str(file["filename"]) for file in made.get("files", ())}
        asked: dict[str, dict[str, IngestionRequest]] = {new["unique_id"]: {} for new in (first, *more)}
        for request in parse_all(IngestionRequest, made.get("ingestion_requests", []), action):
            asked[str(request.dataset_mfid)][names[str(request.file_mfid)]] = request
        return asked

    def get(
        self, dsid: str, *, include_metadata: bool = False, include_links: bool = False, include_owner: bool = False
    ) -> Dataset:
        """Return the dataset; `scientific_metadata`, `links` and `owner` are None unless they are included.

        Raises NotFoundError if no dataset has that MFID, or this key may not read it.
        """
        includes = {"metadata": include_metadata, "links": include_links, "owner": include_owner}
        params = {f"include_{name}": included or None for name, included in includes.items()}
        path = f"/datasets/{segment(dsid)}"
        return self._connection.record(Dataset, "GET", path, f"read dataset {dsid}", params=params)

    def changes(self, project_id: str, since: str | None, keyword: str) -> ProjectChanges:
        """Return the datasets of a project with a keyword that were modified since then, and the project's revision.

        One call, if they fit on a page. `since` is an ISO 8601 time; None requests all. An empty `project_id` requests
        the datasets of all projects, without a revision.
        """
        filters: JsonObject = {"keyword": keyword, **({"project_id": project_id} if project_id else {})}
        if since:
            filters["modification_time_gte"] = since
        headers: dict[str, str] = {}
        action, params = "list changed datasets", {**self._filters(filters), "limit": PAGE}
        page = self._connection.call("GET", "/datasets", action, params=params, on_headers=headers.update)
        datasets = parse_all(Dataset, page.get("items") or [], action)
        if len(datasets) == PAGE:
            datasets = list(self.iter(**filters))
        modified = {dataset.unique_id: dataset.modification_time or "" for dataset in datasets}
        return ProjectChanges(headers.get("crucible-revision", ""), modified, headers.get("crucible-statements"))

    def search(self, q: str, *, limit: int = 20, project_id: str | None = None) -> Sequence[Dataset]:
        """Return datasets whose name resembles `q` (3 letters or more), best first, at most 50."""
        params = {"q": q, "limit": limit, "project_id": project_id}
        return self._connection.records(Dataset, "/datasets/search", f"search datasets for {q!r}", params=params)

    def update(self, dsid: str, **fields: object) -> Dataset:
        """Change fields of the dataset, and return it.

        `public`, project and instrument are changed by their own routes. An `instrument_name` that exactly one
        registered instrument has selects that instrument.
        """
        public = fields.pop("public", None)
        if name := fields.get("instrument_name"):
            matches = InstrumentCalls(self._connection).list(instrument_name=str(name))
            if len(matches) == 1 and not fields.keys() & {"instrument_mfid", "instrument_id"}:
                fields = {**fields, "instrument_mfid": matches[0].unique_id}
                del fields["instrument_name"]
        instrument = _one_of(fields, "instrument_mfid", "instrument_id")
        project = _one_of(fields, "project_mfid", "project_id")
        record = None
        if fields:
            path, action = f"/datasets/{segment(dsid)}", f"change dataset {dsid}"
            record = self._connection.record(Dataset, "PATCH", path, action, body=masked(fields))
        if project is not None:
            self.assign_project(dsid, project)
        if instrument is not None:
            self.assign_instrument(dsid, instrument)
        if public is not None:
            (self.set_public if public else self.set_private)(dsid)
        rerouted = (public, instrument, project) != (None, None, None)
        return self.get(dsid) if record is None or rerouted else record

    def delete(self, dsid: str, reason: str | None = None) -> DeletionRequest:
        """Request deletion of the dataset; it is hidden from lists at once, and deleted after a review."""
        return DeletionCalls(self._connection).request(dsid, reason)

    def add_sample(self, dataset_id: str, sample_id: str) -> None:
        """Associate the dataset with a sample."""
        action = f"link dataset {dataset_id} to sample {sample_id}"
        path = f"/datasets/{segment(dataset_id)}/samples/{segment(sample_id, 'sample')}"
        self._connection.call("POST", path, action, repeatable=True)

    def remove_sample(self, dsid: str, sample_mfid: str) -> None:
        """Remove the dataset's association with a sample."""
        action = f"unlink dataset {dsid} from sample {sample_mfid}"
        path = f"/datasets/{segment(dsid)}/samples/{segment(sample_mfid, 'sample')}"
        self._connection.call("DELETE", path, action)

    def assign_instrument(self, dsid: str, instrument: str) -> None:
        """Set the dataset's instrument, by MFID or `instrument_id`."""
        action = f"assign instrument {instrument} to dataset {dsid}"
        path = f"/datasets/{segment(dsid)}/instrument"
        self._connection.call("PUT", path, action, body=_selector("instrument", instrument))

    def assign_project(self, dsid: str, project: str) -> None:
        """Move the dataset to a project, by MFID or `project_id`."""
        action = f"move dataset {dsid} to project {project}"
        path = f"/resources/{segment(dsid)}/project"
        body = _selector("project", project)
        self._connection.call("POST", path, action, params={"confirm": True}, body=body, repeatable=True)

    def set_public(self, dsid: str) -> None:
        """Let everybody read the dataset."""
        path = f"/resources/{segment(dsid)}/access/public"
        self._connection.call("PUT", path, f"make dataset {dsid} public")

    def set_private(self, dsid: str) -> None:
        """Let only users with a right of their own read the dataset."""
        path = f"/resources/{segment(dsid)}/access/public"
        self._connection.call("DELETE", path, f"make dataset {dsid} private")

    def _filters(self, filters: Mapping[str, object]) -> JsonObject:
        """Convert filters to query parameters; looks up the MFID of an instrument, which the service needs."""
        params = super()._filters(filters)
        if slug := params.pop("instrument_id", None):
            params["instrument_mfid"] = InstrumentCalls(self._connection).get(slug).unique_id
        return params


def _whole_body(dataset: WholeDataset) -> JsonObject:
    """Return what is sent of a dataset that is created with all that it has."""
    fields, linked, files = dataset
    body = masked({**to_send(DatasetCreate, fields).body(), **linked, "scientific_metadata": {}})
    return {**body, "scientific_metadata": without_secrets(linked["scientific_metadata"]), "files": files}


def _one_of(fields: JsonObject, *names: str) -> Any:
    """Remove the field among `names` from `fields` and return its value; None if there is none."""
    values = {name: fields.pop(name) for name in names if name in fields}
    if len(values) > 1:
        raise InputError(f"{' and '.join(values)} are given; pass one of them")
    return next(iter(values.values()), None)


def _selector(kind: str, name: str) -> dict[str, str]:
    return {f"{kind}_mfid" if is_mfid(name) else f"{kind}_id": name}


class DeletionCalls(NumberedCalls[DeletionRequest]):
    """`client.deletions`. `elevated` uses an administrator's rights; for other users the call is refused."""

    _collection, _model = "/deletion_requests", DeletionRequest

    def request(self, mfid: str, reason: str | None = None) -> DeletionRequest:
        """Request deletion of a resource; it is hidden from lists at once, and deleted after a review."""
        action = f"request deletion of {mfid}"
        path = f"/resources/{segment(mfid, 'resource')}/delete"
        return self._connection.record(DeletionRequest, "POST", path, action, params={"reason": reason})

    def delete(self, mfid: str, *, force: bool = False, elevated: bool = False) -> None:
        """Delete the resource permanently. Needs an approved request, or `force` from an administrator."""
        params, headers = {"force": True} if force else None, ELEVATED if elevated else None
        path = f"/resources/{segment(mfid, 'resource')}"
        self._connection.call("DELETE", path, f"delete {mfid}", params=params, headers=headers)

    def deleted(self, *, limit: int | None = None, resource_id: str | None = None) -> Iterator[DeletedRecord]:
        """Yield the audit entries of deleted resources, newest first."""
        params = {"resource_id": resource_id}
        return pages(self._connection, "/deletion_audit", DeletedRecord, "list deleted resources", params, limit)


class RequestCalls(NumberedCalls[ResultRequest]):
    """`client.requests`: requests for results, which an embedded Crucible keeps until a worker answers them."""

    _collection, _model = "/requests", ResultRequest

    def ask(self, mfid: str, kind: str, parameters: JsonObject | None = None) -> ResultRequest:
        """Request a result of a dataset, as `mosaic_stitch`; the parameters are those of steps, as STEP.NAME."""
        path = f"/datasets/{segment(mfid)}/{quote(kind, safe='')}"
        params = {"parameters": json.dumps(parameters)} if parameters else None
        return self._connection.record(ResultRequest, "POST", path, f"request {kind} of {mfid}", params=params)

    def answer(self, request_id: int, status: str, results: Sequence[str] = (), reason: str = "") -> ResultRequest:
        """State how a request ended: complete, with the ids of its results, or failed, with the reason."""
        body = {"status": status, "results": list(results), "reason": reason or None}
        action = f"answer request {request_id}"
        return self._connection.record(
            ResultRequest, "PATCH", f"/requests/{int(request_id)}", action, body=body, repeatable=True
        )
