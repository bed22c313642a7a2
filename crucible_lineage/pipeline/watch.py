"""Watch Crucible for new datasets and ended ingestions, and a folder for files, each exactly once.

Crucible sends no events, so it is polled. An event is noted after it was reported, and has an id by which a receiver
recognizes it if the note is lost. The folder is polled, so that it may be on a network share. A file is registered when
it has stopped growing, and keeps a mark; its id comes from its bytes and its modification time, so that two watchers,
or one without its marks, register the same dataset.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from crucible_lineage.client.models import Dataset, IngestionRequest
from crucible_lineage.errors import (
    ForbiddenError,
    InputError,
    LineageError,
    NotFoundError,
    RecipeConflictError,
    RefusedError,
)
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.records import is_support
from crucible_lineage.machine.checksums import FileStamp, stamp
from crucible_lineage.machine.disk import is_being_written
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.plan.files import hash_files, raw_files, register_raw
from crucible_lineage.pipeline.plan.revisions import find_measured
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import MATCHED, DatasetRef, utf8_name
from crucible_lineage.registration.read import lies_elsewhere
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import statement_in
from crucible_lineage.text.times import utc

DATASET_CREATED, INGESTION_COMPLETED = "crucible.dataset.created", "crucible.ingestion.completed"
INGESTION_FAILED = "crucible.ingestion.failed"
REQUESTED = "crucible.request.created"
MOST_CHARACTERS = 500  # of an ingestor's error
PATIENCE = timedelta(days=1)  # longest wait for an incomplete dataset
OVERLAP = timedelta(minutes=2)  # a record with an earlier time may become visible after one with a later time
# Faults of a file or its declaration, which waiting does not resolve. Everything else is tried again.
FAULTS = (InputError, RefusedError, RecipeConflictError)
UNCHANGED = "it will be tried again when it has changed, or at the next start"
_NAMESPACE = uuid.UUID("5d0cbd4b-6ab1-5ce2-9b4e-3c1f8e0a7c55")


@dataclass(frozen=True)
class DatasetEvent:
    """An event about a dataset; `attributes`, which triggers compare, are fields of its record, and raw or derived."""

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
        self._project_exists = False
        self._datasets = f"watch datasets {project or '*'}"
        self._ingestions = f"watch ingestions {project or '*'}"

    def begin(self, since: datetime | None = None) -> None:
        """Start, or continue, watching. Reports no existing datasets but those created at or after `since`."""
        client = self.session.client
        if since is not None or not self.session.store.mark(self._datasets):
            newest = client.datasets.list(limit=1, sort="created", **self._scope()) if self._has_project() else []
            start = since or (_created(newest[0]) if newest else datetime.fromtimestamp(0, UTC))
            reported = [] if since else [found.unique_id for found in self._created_since(start - OVERLAP)]
            self.session.store.set_mark(self._datasets, {"since": start.isoformat(), "reported": reported})
        if not self.session.store.mark(self._ingestions):
            requests = list(self._requests(0))
            up_to = max((request.id for request in requests), default=0)
            open_ = [request.id for request in requests if request.is_open]
            self.session.store.set_mark(self._ingestions, {"up_to": up_to, "open": open_})

    def poll(self) -> Iterator[list[DatasetEvent]]:
        """Yield the events in lists. A list counts as reported when the next one is requested."""
        yield from self._new_datasets()
        yield from self._ended_ingestions()
        yield from self._new_requests()

    def _new_datasets(self) -> Iterator[list[DatasetEvent]]:
        mark = self.session.store.mark(self._datasets)
        since, reported = utc(mark["since"]), set(mark["reported"])
        found = list(self._created_since(since - OVERLAP))
        unfinished = [dataset for dataset in found if not _is_complete(dataset) and dataset.unique_id not in reported]
        new = [dataset for dataset in found if dataset not in unfinished and dataset.unique_id not in reported]
        data = [
            dataset
            for dataset in sorted(new, key=lambda dataset: dataset.creation_time or "")
            if not is_support(record := dataset.model_dump()) and statement_in(record) is None
        ]
        yield [self._event(DATASET_CREATED, dataset) for dataset in data]
        newest = max((_created(dataset) for dataset in found), default=since)
        unfinished_times = (_created(dataset) for dataset in unfinished)
        until = max(since, min([newest, *(moment for moment in unfinished_times if newest - moment < PATIENCE)]))
        reported |= {dataset.unique_id for dataset in new}
        recent = {dataset.unique_id for dataset in found if _created(dataset) >= until - OVERLAP}
        self.session.store.set_mark(self._datasets, {"since": until.isoformat(), "reported": sorted(reported & recent)})

    def _ended_ingestions(self) -> Iterator[list[DatasetEvent]]:
        mark = self.session.store.mark(self._ingestions)
        requests = {request.id: request for request in self._requests(mark["up_to"])}
        for number in mark["open"]:
            try:
                requests.setdefault(number, self.session.client.ingestions.get(number))
            except (NotFoundError, ForbiddenError):  # its dataset was deleted, or is now hidden from this key
                continue
        ended = [
            request
            for request in requests.values()
            if not request.is_open and request.status != "not_requested" and request.dataset_mfid
        ]
        yield [event for request in sorted(ended, key=lambda r: r.id) if (event := self._of_ingestion(request))]
        up_to = max([mark["up_to"], *requests])
        open_ = [request.id for request in requests.values() if request.is_open]
        self.session.store.set_mark(self._ingestions, {"up_to": up_to, "open": open_})

    def _new_requests(self) -> Iterator[list[DatasetEvent]]:
        """Yield the new requests for results, if this Crucible keeps any."""
        name = f"watch requests {self.project or '*'}"
        up_to, client = self.session.store.mark(name).get("up_to", 0), self.session.client
        try:
            new = [found for found in client.requests.iter(status="requested") if found.id > up_to]
        except NotFoundError:
            return
        events = []
        for found in new:
            dataset = client.datasets.get(found.dataset_mfid, include_metadata=True)
            if self.project is None or not lies_elsewhere(dataset, self.project):
                message = {"dsid": found.dataset_mfid, "parameters": found.parameters, "number": found.id}
                more = {"request_kind": found.kind, "request": json.dumps(message)}
                events.append(self._event(REQUESTED, dataset, str(found.id), more))
        yield events
        self.session.store.set_mark(name, {"up_to": max([up_to, *(found.id for found in new)])})

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
        values = {**{name: dataset[name] for name in ("project_id", *MATCHED)}, "kind": kind, **(more or {})}
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


def _created(dataset: Dataset) -> datetime:
    return utc(dataset.creation_time or "1970-01-01")


@dataclass(frozen=True)
class Arrival:
    """A file that arrived, with its dataset or an error."""

    path: Path
    dataset: DatasetRef | None = None
    error: str = ""


@dataclass
class Folder:
    """A folder whose files become datasets of a project, described as in `declared` (whose `file` is ignored).

    A file has arrived when its size and modification time have not changed for `settle_s` seconds and no process is
    known to write to it. A file that changes afterwards is another dataset: datasets are never overwritten.
    """

    folder: Path
    pattern: str
    project: str
    declared: FileInput
    session: Session
    settle_s: float = 10.0
    clock: Callable[[], float] = time.monotonic
    _done: dict[Path, list[int]] = field(default_factory=dict)  # size and modification time of finished files
    _seen: dict[Path, tuple[FileStamp, float]] = field(default_factory=dict)  # last stamps, and when first seen

    @property
    def waiting(self) -> int:
        """The number of files that may still be growing."""
        return len(self._seen)

    def poll(self) -> Iterator[Arrival]:
        """Register and yield each file that has arrived since the last look."""
        present = {path: current for path in sorted(self.folder.glob(self.pattern)) if (current := _stamp(path))}
        for path in self._seen.keys() - present.keys():
            del self._seen[path]
        for path, current in present.items():
            if self._done.get(path) != list(current[:2]):  # another watcher may have registered it
                self._done[path] = self.session.store.mark(self._name(path)).get("stamp", [])
            if self._done[path] == list(current[:2]):
                self._seen.pop(path, None)
            elif self._has_settled(path, current):
                yield self._arrived(path, current)

    def _has_settled(self, path: Path, current: FileStamp) -> bool:
        before = self._seen.get(path)
        if before is None or before[0] != current:
            self._seen[path] = current, self.clock()
            return self.settle_s == 0 and not is_being_written(path)
        return self.clock() - before[1] >= self.settle_s and not is_being_written(path)

    def _arrived(self, path: Path, current: FileStamp) -> Arrival:
        self.session.ensure_project(self.project)  # a missing project is not the file's fault
        try:
            dataset = self._register(path, current)
        except FAULTS as error:  # it gets no mark, so that the next start tries it again
            arrival = Arrival(path, error=f"{error}; {UNCHANGED}")
        except (LineageError, OSError) as error:
            return Arrival(path, error=f"{error}; it will be tried again")
        else:
            self.session.store.set_mark(self._name(path), {"stamp": list(current[:2]), "mfid": dataset.mfid})
            arrival = Arrival(path, dataset)
        self._done[path] = list(current[:2])
        self._seen.pop(path, None)
        return arrival

    def _register(self, path: Path, current: FileStamp) -> DatasetRef:
        """Return the dataset of the file: one with the same bytes, or a new one that sorts by the time of writing.

        Refuses an empty file, and a link out of the folder, which might publish anything.
        """
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise InputError(f"it is a link out of {self.folder}, which is not followed; copy the file")
        if not current[0]:
            raise InputError("it is empty")
        written = datetime.fromtimestamp(current[1] / 1e9, UTC)
        declared = self.declared.model_copy(update={"file": (str(path),)})
        files = hash_files([path], self.session)
        if same := find_measured(raw_files(self.project, files), self.session):
            return same
        raw = raw_files(self.project, files, written)
        if (known := find_measured(raw, self.session)) is not None:
            return known
        return register_raw(raw, declared, path.name, self.session)

    def _name(self, path: Path) -> str:
        return f"arrived {self.project} {utf8_name(str(path))}"


def _stamp(path: Path) -> FileStamp | None:
    """Return the stamp of a file; None if it is not a file, or was just removed."""
    try:
        return stamp(path) if path.is_file() else None
    except OSError:
        return None
