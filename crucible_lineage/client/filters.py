"""Lists of records with their filters, and the calls of what is also found by a name: projects and instruments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, time
from typing import Any, Generic, TypeVar

from crucible_lineage.client.connection import Calls, page_of, pages
from crucible_lineage.client.models import (
    Account,
    Instrument,
    InstrumentCreate,
    Member,
    Project,
    ProjectCreate,
    ReceivedModel,
)
from crucible_lineage.client.wire import quoted, to_send
from crucible_lineage.errors import InputError, NotFoundError, ServerError
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.text.times import utc

SYNONYMS = {"keywords": "keyword", "sample_id": "sample_mfid"}  # of Crucible's own page

Record = TypeVar("Record", bound=ReceivedModel)


class ListedCalls(Calls, Generic[Record]):
    """Calls that list the records of one collection."""

    _collection: str
    _model: type[Record]

    def list(self, *, limit: int | None = None, **filters: object) -> list[Record]:
        """Return the records that match all filters, newest first unless sorted otherwise, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: object) -> Iterator[Record]:
        """Yield what `list` returns, reading each page when it is needed."""
        action = f"list {self._collection.strip('/').replace('_', ' ')}"
        return pages(self._connection, self._collection, self._model, action, self._filters(filters), limit)

    def count(self, **filters: object) -> int:
        """Count the records that match all filters."""
        action = f"count {self._collection.strip('/')}"
        params = {**self._filters(filters), "limit": 1}
        total = page_of(self._connection, self._collection, action, params).get("total")
        if not isinstance(total, int):
            raise ServerError(f"could not {action}: Crucible's answer has no total")
        return total

    def _filters(self, filters: Mapping[str, object]) -> JsonObject:
        """Convert filters to query parameters, of which the service refuses unknown ones."""
        params: JsonObject = {}
        for name, value in filters.items():
            wire_name = SYNONYMS.get(name, name)
            if wire_name in params:
                raise InputError(f"{name} and {wire_name} mean the same filter; give one of them")
            if value is not None:
                params[wire_name] = _wire_value(wire_name, value)
        return params


class NumberedCalls(ListedCalls[Record]):
    """Calls about requests, which have numbers."""

    def get(self, request_id: int) -> Record:
        """Return the current state of the request."""
        kind = self._collection.strip("/").removesuffix("s").replace("_", " ")
        path = f"{self._collection}/{int(request_id)}"
        return self._connection.record(self._model, "GET", path, f"read {kind} {request_id}")


def _wire_value(name: str, value: object) -> Any:
    """Convert dates and times to ISO 8601 with offset: a date is its whole day, a time without zone is UTC."""
    if isinstance(value, set | frozenset):
        return list(value)
    if isinstance(value, datetime):
        return utc(value).isoformat()
    if isinstance(value, date):
        return datetime.combine(value, time.max if name.endswith("_lte") else time.min, UTC).isoformat()
    return value


LEADS = ("project_lead", "project_lead_orcid", "project_lead_email", "project_lead_username")


class NamedCalls(ListedCalls[Record]):
    """The part of `client.projects` and of `client.instruments` that finds one record."""

    _kind: str

    def get(self, reference: str) -> Record:
        """Return the record with this MFID, or with this short name: its `project_id` or `instrument_id`."""
        path, action = f"{self._collection}/{reference}", f"read {self._kind} {reference}"
        record = (
            self._connection.record(self._model, "GET", path, action) if is_mfid(reference) else self.find(reference)
        )
        if record is None:
            raise NotFoundError(
                f"{self._kind} {reference!r} does not exist, or is not visible to this key\ncheck the spelling",
                status=404,
            )
        return record

    def find(self, name: str) -> Record | None:
        """Return the record with this short name, in upper or lower case; None if this key sees none."""
        field = f"{self._kind}_id"
        if not name:
            raise InputError(f"the {field} is empty")
        action = f"look up {field} {name}"
        params = {field: name, "limit": 2}  # two show whether the name is ambiguous
        matches = self._connection.records(self._model, self._collection, action, params=params)
        if len(matches) > 1:
            raise ServerError(f"could not {action}: Crucible has more than one with that name")
        return matches[0] if matches else None


class ProjectCalls(NamedCalls[Project]):
    """`client.projects`: the projects that data belong to, by their MFID or their `project_id`."""

    _collection, _kind, _model = "/projects", "project", Project

    def create(self, project: ProjectCreate | Mapping[str, object] | None = None, **fields: object) -> Project:
        """Create a project, from a record or from its fields; without a lead, the owner of the key leads it.

        Raises ConflictError if its `project_id` exists. After a lost answer this may be the created one, so check it.
        """
        record = to_send(ProjectCreate, fields if project is None else project)
        action = f"create project {record.project_id}"
        leads = {name: getattr(record, name) for name in LEADS if getattr(record, name) is not None}
        if empty := [name for name, lead in leads.items() if not lead.strip()]:
            raise InputError(
                f"{action}: {empty[0]} is empty; name a user, or leave it out to lead the project yourself"
            )
        if not leads:
            account = self._connection.record(Account, "GET", "/account", action)
            record = record.model_copy(update={"project_lead": account.user_unique_id})
        return self._connection.record(Project, "POST", "/projects", action, body=record.body(), repeatable=True)

    def members(self, project: str) -> Sequence[Member]:
        """List the members of a project except its lead. Raises ForbiddenError for non-members."""
        action = f"list the members of project {project}"
        return list(pages(self._connection, f"/projects/{quoted(project)}/users", Member, action, {}, None))

    def add_member(self, project: str, user: str, role: str = "contributor") -> None:
        """Make a user (ORCID, username or email) a member. Raises ConflictError for a member."""
        action = f"add {user} to project {project}"
        path = f"/projects/{quoted(project)}/users/{quoted(user)}"
        self._connection.call("POST", path, action, params={"role": role})


class InstrumentCalls(NamedCalls[Instrument]):
    """`client.instruments`: the instruments, by their MFID or their `instrument_id`.

    Lists have active ones only; `find` finds those of any status.
    """

    _collection, _kind, _model = "/instruments", "instrument", Instrument

    def create(self, instrument: InstrumentCreate | Mapping[str, object] | None = None, **fields: object) -> Instrument:
        """Return the instrument with this `instrument_id`, created if it does not exist."""
        record = to_send(InstrumentCreate, fields if instrument is None else instrument)
        existing = self.find(record.instrument_id)
        if existing is not None:
            return existing
        action = f"create instrument {record.instrument_id}"
        return self._connection.record(Instrument, "POST", "/instruments", action, body=record.body())
