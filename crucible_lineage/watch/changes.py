"""Changes at Crucible since the last look: new datasets and finished ingestions.

Crucible sends no events, so it is asked. Each thing is told once: what was told is noted only after it was told, and
bears an id of its own by which a receiver knows it, should the note be lost.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from crucible_lineage.client.models import Dataset, IngestionRequest
from crucible_lineage.errors import ForbiddenError, NotFoundError
from crucible_lineage.lineage.records import is_support
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.session import Session
from crucible_lineage.statements import HOLD, REVOKE, SIGN, Statement, statement_in
from crucible_lineage.times import utc
from crucible_lineage.watch.folder import Marks

DATASET_CREATED, INGESTION_COMPLETED = "crucible.dataset.created", "crucible.ingestion.completed"
INGESTION_FAILED = "crucible.ingestion.failed"
HOLD_PLACED, HOLD_LIFTED = "crucible.hold.placed", "crucible.hold.lifted"
RESULT_SIGNED = "crucible.result.signed"
MOST_CHARACTERS = 500  # of what an ingestor says of its failure
OVERLAP = timedelta(minutes=2)  # a record with an earlier time may become visible after one with a later time
PATIENCE = timedelta(days=1)  # how long an incomplete dataset is waited for
_NAMESPACE = uuid.UUID("5d0cbd4b-6ab1-5ce2-9b4e-3c1f8e0a7c55")
_ATTRIBUTES = (
    "dataset_name", "project_id", "measurement", "data_type", "data_format", "session_name", "instrument_name",
    "instrument_id",
)  # fmt: skip


@dataclass(frozen=True)
class DatasetEvent:
    """Something that happened to a dataset. A trigger's `match` compares `attributes`; `id` is the event's own.

    The attributes are fields of the dataset's record, and `kind`: derived if a step made it, else raw.
    """

    event: str
    mfid: str
    name: str
    id: uuid.UUID
    attributes: dict[str, str] = field(default_factory=dict)


class Watcher:
    """Looks at a project, or at all that the key may see, and remembers how far it has looked."""

    def __init__(self, session: Session, project: str | None = None) -> None:
        self.session = session
        self.project = project
        self.marks = Marks(session)
        self._found = False
        self._datasets = f"watch datasets {project or '*'}"
        self._ingestions = f"watch ingestions {project or '*'}"

    def begin(self, since: datetime | None = None) -> None:
        """Begin to watch: what is there now is no news, unless it was created `since` then.

        Where it was watched before, it goes on.
        """
        client = self.session.client
        if since is not None or not self.marks.get(self._datasets):
            newest = client.datasets.list(limit=1, sort="created", **self._scope()) if self._is_there() else []
            start = since or (_created(newest[0]) if newest else datetime.fromtimestamp(0, UTC))
            told = [] if since else [found.unique_id for found in self._created_since(start - OVERLAP)]
            self.marks.set(self._datasets, {"since": start.isoformat(), "told": told})
        if not self.marks.get(self._ingestions):
            requests = list(self._requests(0))
            up_to = max((request.id for request in requests), default=0)
            open_ = [request.id for request in requests if request.is_open]
            self.marks.set(self._ingestions, {"up_to": up_to, "open": open_})

    def look(self) -> Iterator[list[DatasetEvent]]:
        """The news in two portions; a portion counts as told when the next one is asked for."""
        yield from self._new_datasets()
        yield from self._ended_ingestions()

    def _new_datasets(self) -> Iterator[list[DatasetEvent]]:
        mark = self.marks.get(self._datasets)
        since, told = utc(mark["since"]), set(mark["told"])
        found = list(self._created_since(since - OVERLAP))
        unfinished = [dataset for dataset in found if not _is_whole(dataset) and dataset.unique_id not in told]
        new = [dataset for dataset in found if dataset not in unfinished and dataset.unique_id not in told]
        yield [one for dataset in sorted(new, key=lambda d: d.creation_time or "") for one in self._of_dataset(dataset)]
        newest = max((_created(dataset) for dataset in found), default=since)
        begun = (_created(dataset) for dataset in unfinished)
        until = max(since, min([newest, *(moment for moment in begun if newest - moment < PATIENCE)]))
        told |= {dataset.unique_id for dataset in new}
        recent = {dataset.unique_id for dataset in found if _created(dataset) >= until - OVERLAP}
        self.marks.set(self._datasets, {"since": until.isoformat(), "told": sorted(told & recent)})

    def _of_dataset(self, dataset: Dataset) -> Iterator[DatasetEvent]:
        """Yield the events of a new dataset; of a statement, the holds placed or lifted."""
        record = dataset.model_dump()
        stated = statement_in(record)
        if is_support(record):
            return
        if stated is None:
            yield self._news(DATASET_CREATED, dataset)
        elif stated.verb == HOLD:
            yield from self._of_statement(HOLD_PLACED, stated, stated)
        elif stated.verb == SIGN:
            yield from self._of_statement(RESULT_SIGNED, stated, stated)
        elif stated.verb == REVOKE:
            self.session.mirror.sync_statements()
            for revoked in self.session.mirror.statements(stated.revokes).values():
                if revoked.verb == HOLD:
                    yield from self._of_statement(HOLD_LIFTED, revoked, stated)

    def _of_statement(self, event: str, hold: Statement, said: Statement) -> Iterator[DatasetEvent]:
        """News of each dataset that a statement names, or of the statement itself where it is about a condition."""
        about = {key: value for key, value in hold.about.document().items() if key != "datasets"}
        told = {"project_id": hold.project, "why": said.why, "by": said.who or said.by, "statement": said.mfid, **about}
        for mfid in hold.about.datasets or (hold.mfid,):
            key = f"{self.session.store.instance} {event} {mfid} {hold.mfid} {said.mfid}"
            attributes = {"mfid": mfid, **{name: value for name, value in told.items() if value}}
            yield DatasetEvent(event, mfid, str(hold.about), uuid.uuid5(_NAMESPACE, key), attributes)

    def _ended_ingestions(self) -> Iterator[list[DatasetEvent]]:
        mark = self.marks.get(self._ingestions)
        requests = {request.id: request for request in self._requests(mark["up_to"])}
        for number in mark["open"]:
            try:
                requests.setdefault(number, self.session.client.ingestions.get(number))
            except (NotFoundError, ForbiddenError):  # its dataset was deleted, or is no longer ours to see
                continue
        ended = [
            one for one in requests.values() if not one.is_open and one.status != "not_requested" and one.dataset_mfid
        ]
        yield [news for request in sorted(ended, key=lambda r: r.id) if (news := self._of_ingestion(request))]
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
        return self._news(event, dataset, str(request.id), more)

    def _created_since(self, moment: datetime) -> Iterator[Dataset]:
        if not self._is_there():
            return iter(())
        return self.session.client.datasets.iter(creation_time_gte=moment, include_metadata=True, **self._scope())

    def _is_there(self) -> bool:
        """False while nobody has made the project, which may be watched all the same."""
        if self.project is not None and not self._found:
            self._found = self.session.client.projects.find(self.project) is not None
        return self.project is None or self._found

    def _requests(self, up_to: int) -> Iterator[IngestionRequest]:
        """Requests with a higher number. The list is read to where it goes down to that number, if it goes down."""
        last: int | None = None
        for request in self.session.client.ingestions.iter():
            if last is not None and request.id < last and request.id <= up_to:
                return
            last = request.id
            if request.id > up_to:
                yield request

    def _news(self, event: str, dataset: Dataset, what: str = "", more: dict[str, Any] | None = None) -> DatasetEvent:
        record = read_record(dataset.scientific_metadata)
        kind = "derived" if record and record.is_derived else "raw"
        values = {**{name: getattr(dataset, name, None) for name in _ATTRIBUTES}, "kind": kind, **(more or {})}
        return DatasetEvent(
            event=event,
            mfid=dataset.unique_id,
            name=dataset.dataset_name or dataset.unique_id,
            id=uuid.uuid5(_NAMESPACE, f"{self.session.store.instance} {event} {dataset.unique_id} {what}"),
            attributes={"mfid": dataset.unique_id, **{name: str(value) for name, value in values.items() if value}},
        )

    def _scope(self) -> dict[str, Any]:
        return {"project_id": self.project} if self.project else {}


def _is_whole(dataset: Dataset) -> bool:
    record = read_record(dataset.scientific_metadata)
    return record is None or record.is_complete


def _created(dataset: Dataset) -> datetime:
    return utc(dataset.creation_time or "1970-01-01")
