"""Report changes at Crucible since the last look: new datasets and finished ingestions.

Crucible sends no events, so it is polled. Each event is reported once. It is noted after it was reported, and has an
id by which a receiver recognizes it if the note is lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from crucible_lineage.client.models import Dataset, IngestionRequest
from crucible_lineage.errors import ForbiddenError, NotFoundError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.records import is_support
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.session import Session
from crucible_lineage.statements import statement_in
from crucible_lineage.times import utc
from crucible_lineage.watch.folder import OVERLAP, Marks

DATASET_CREATED, INGESTION_COMPLETED = "crucible.dataset.created", "crucible.ingestion.completed"
INGESTION_FAILED = "crucible.ingestion.failed"
MOST_CHARACTERS = 500  # of an ingestor's error
PATIENCE = timedelta(days=1)  # longest wait for an incomplete dataset
_NAMESPACE = uuid.UUID("5d0cbd4b-6ab1-5ce2-9b4e-3c1f8e0a7c55")
_ATTRIBUTES = (
    "dataset_name", "project_id", "measurement", "data_type", "data_format", "session_name", "instrument_name",
    "instrument_id",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetEvent:
    """An event about a dataset. A trigger's `match` compares `attributes`; `id` is the event's own.

    The attributes are fields of the dataset's record, and `kind`: derived if a step made it, else raw.
    """

    event: str
    mfid: str
    name: str
    id: uuid.UUID
    attributes: dict[str, str] = field(default_factory=dict)


class Watcher:
    """Polls a project, or all that the key can see, and remembers its position."""

    def __init__(self, session: Session, project: str | None = None) -> None:
        self.session = session
        self.project = project
        self.marks = Marks(session)
        self._project_exists = False
        self._datasets = f"watch datasets {project or '*'}"
        self._ingestions = f"watch ingestions {project or '*'}"

    def begin(self, since: datetime | None = None) -> None:
        """Start watching. Existing datasets are not reported, unless created at or after `since`.

        An earlier watch is continued.
        """
        client = self.session.client
        if since is not None or not self.marks.get(self._datasets):
            newest = client.datasets.list(limit=1, sort="created", **self._scope()) if self._has_project() else []
            start = since or (_created(newest[0]) if newest else datetime.fromtimestamp(0, UTC))
            reported = [] if since else [found.unique_id for found in self._created_since(start - OVERLAP)]
            self.marks.set(self._datasets, {"since": start.isoformat(), "told": reported})
        if not self.marks.get(self._ingestions):
            requests = list(self._requests(0))
            up_to = max((request.id for request in requests), default=0)
            open_ = [request.id for request in requests if request.is_open]
            self.marks.set(self._ingestions, {"up_to": up_to, "open": open_})

    def look(self) -> Iterator[list[DatasetEvent]]:
        """Yield the events in two lists. A list counts as reported when the next one is requested."""
        yield from self._new_datasets()
        yield from self._ended_ingestions()

    def _new_datasets(self) -> Iterator[list[DatasetEvent]]:
        mark = self.marks.get(self._datasets)
        since, reported = utc(mark["since"]), set(mark["told"])
        found = list(self._created_since(since - OVERLAP))
        unfinished = [dataset for dataset in found if not _is_complete(dataset) and dataset.unique_id not in reported]
        new = [dataset for dataset in found if dataset not in unfinished and dataset.unique_id not in reported]
        data = [dataset for dataset in new if not _is_no_data(dataset)]
        yield [self._event(DATASET_CREATED, one) for one in sorted(data, key=lambda one: one.creation_time or "")]
        newest = max((_created(dataset) for dataset in found), default=since)
        unfinished_times = (_created(dataset) for dataset in unfinished)
        until = max(since, min([newest, *(moment for moment in unfinished_times if newest - moment < PATIENCE)]))
        reported |= {dataset.unique_id for dataset in new}
        recent = {dataset.unique_id for dataset in found if _created(dataset) >= until - OVERLAP}
        self.marks.set(self._datasets, {"since": until.isoformat(), "told": sorted(reported & recent)})

    def _ended_ingestions(self) -> Iterator[list[DatasetEvent]]:
        mark = self.marks.get(self._ingestions)
        requests = {request.id: request for request in self._requests(mark["up_to"])}
        for number in mark["open"]:
            try:
                requests.setdefault(number, self.session.client.ingestions.get(number))
            except (NotFoundError, ForbiddenError):  # its dataset was deleted, or is now hidden from this key
                continue
        ended = [
            one for one in requests.values() if not one.is_open and one.status != "not_requested" and one.dataset_mfid
        ]
        yield [event for request in sorted(ended, key=lambda r: r.id) if (event := self._of_ingestion(request))]
        up_to = max([mark["up_to"], *requests])
        open_ = [request.id for request in requests.values() if request.is_open]
        self.marks.set(self._ingestions, {"up_to": up_to, "open": open_})

    def _of_ingestion(self, request: IngestionRequest) -> DatasetEvent | None:
        try:
            dataset = self.session.client.datasets.get(str(request.dataset_mfid), include_metadata=True)
        except (NotFoundError, ForbiddenError):
            return None
        if self.project is not None and lies_elsewhere(dataset, self.project):
            return None
        more = {"file_mfid": request.file_mfid, "ingestion_class": request.ingestion_class, "status": request.status}
        more["error"] = (request.error_message or "")[:MOST_CHARACTERS]
        event = INGESTION_COMPLETED if request.status == "complete" else INGESTION_FAILED
        return self._event(event, dataset, str(request.id), more)

    def _created_since(self, moment: datetime) -> Iterator[Dataset]:
        if not self._has_project():
            return iter(())
        return self.session.client.datasets.iter(creation_time_gte=moment, include_metadata=True, **self._scope())

    def _has_project(self) -> bool:
        """Return False while the project does not exist, which may be watched anyway."""
        if self.project is not None and not self._project_exists:
            self._project_exists = self.session.client.projects.find(self.project) is not None
        return self.project is None or self._project_exists

    def _requests(self, up_to: int) -> Iterator[IngestionRequest]:
        """Yield requests with a higher number. If the list is in descending order, it is read down to that number."""
        last: int | None = None
        for request in self.session.client.ingestions.iter():
            if last is not None and request.id < last and request.id <= up_to:
                return
            last = request.id
            if request.id > up_to:
                yield request

    def _event(self, event: str, dataset: Dataset, key: str = "", more: JsonObject | None = None) -> DatasetEvent:
        record = read_record(dataset.scientific_metadata)
        kind = "derived" if record and record.is_derived else "raw"
        values = {**{name: getattr(dataset, name, None) for name in _ATTRIBUTES}, "kind": kind, **(more or {})}
        return DatasetEvent(
            event=event,
            mfid=dataset.unique_id,
            name=dataset.dataset_name or dataset.unique_id,
            id=uuid.uuid5(_NAMESPACE, f"{self.session.store.instance} {event} {dataset.unique_id} {key}"),
            attributes={"mfid": dataset.unique_id, **{name: str(value) for name, value in values.items() if value}},
        )

    def _scope(self) -> JsonObject:
        return {"project_id": self.project} if self.project else {}


def _is_complete(dataset: Dataset) -> bool:
    record = read_record(dataset.scientific_metadata)
    return record is None or record.is_complete


def _is_no_data(dataset: Dataset) -> bool:
    """Return whether it is no data: a statement, or the source or environment of results."""
    record = dataset.model_dump()
    return is_support(record) or statement_in(record) is not None


def _created(dataset: Dataset) -> datetime:
    return utc(dataset.creation_time or "1970-01-01")
