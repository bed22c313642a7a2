"""Projects and instruments, found by their MFID or by the short name that people use."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from crucible_lineage.client.connection import Connection, pages
from crucible_lineage.client.filters import INSTRUMENT_FILTERS, PROJECT_FILTERS, ListedCalls
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

__all__ = ["InstrumentCalls", "ProjectCalls"]

LEADS = ("project_lead", "project_lead_orcid", "project_lead_email", "project_lead_username")

Record = TypeVar("Record", bound=ReceivedModel)


class ProjectCalls(ListedCalls[Project]):
    """`client.projects`: the projects that data belong to, by their MFID or their `project_id`."""

    _collection, _model, _allowed = "/projects", Project, PROJECT_FILTERS

    def get(self, project: str) -> Project:
        """Return the project with this MFID or `project_id`."""
        return _referred(self._connection, "project", project, Project)

    def find(self, project_id: str) -> Project | None:
        """Return the project of that name, in upper or lower case; None if this key sees none."""
        return _named(self._connection, "project", project_id, Project)

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


class InstrumentCalls(ListedCalls[Instrument]):
    """`client.instruments`: the instruments, by their MFID or their `instrument_id`; lists have active ones only."""

    _collection, _model, _allowed = "/instruments", Instrument, INSTRUMENT_FILTERS

    def get(self, instrument: str) -> Instrument:
        """Return the instrument with this MFID or `instrument_id`."""
        return _referred(self._connection, "instrument", instrument, Instrument)

    def find(self, instrument_id: str) -> Instrument | None:
        """Return the instrument of that name, in upper or lower case and of any status; None if there is none."""
        return _named(self._connection, "instrument", instrument_id, Instrument)

    def create(self, instrument: InstrumentCreate | Mapping[str, object] | None = None, **fields: object) -> Instrument:
        """Return the instrument with this `instrument_id`, created if it does not exist."""
        record = to_send(InstrumentCreate, fields if instrument is None else instrument)
        existing = self.find(record.instrument_id)
        if existing is not None:
            return existing
        action = f"create instrument {record.instrument_id}"
        return self._connection.record(Instrument, "POST", "/instruments", action, body=record.body())


def _referred(connection: Connection, kind: str, reference: str, model: type[Record]) -> Record:
    """Return the project or instrument with this MFID or short name."""
    if is_mfid(reference):
        return connection.record(model, "GET", f"/{kind}s/{reference}", f"read {kind} {reference}")
    record = _named(connection, kind, reference, model)
    if record is None:
        raise NotFoundError(
            f"{kind} {reference!r} does not exist, or is not visible to this key\ncheck the spelling", status=404
        )
    return record


def _named(connection: Connection, kind: str, name: str, model: type[Record]) -> Record | None:
    """Return the only record of that name. A limit of two shows whether the name is ambiguous."""
    field = f"{kind}_id"
    if not name:
        raise InputError(f"the {field} is empty")
    action = f"look up {field} {name}"
    matches = connection.records(model, f"/{kind}s", action, params={field: name, "limit": 2})
    if len(matches) > 1:
        raise ServerError(f"could not {action}: Crucible has more than one with that name")
    return matches[0] if matches else None
