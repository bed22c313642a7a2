"""Projects and instruments: found by their MFID or by the short name that people use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeVar, Unpack

from crucible_lineage.client.filters import InstrumentFilters, ProjectFilters, sent_filters
from crucible_lineage.client.http.connection import Connection, pages
from crucible_lineage.client.http.wire import parse, parse_all, quoted, segment, to_send
from crucible_lineage.client.models import (
    Account,
    Instrument,
    InstrumentCreate,
    Member,
    Project,
    ProjectCreate,
    ReceivedModel,
)
from crucible_lineage.client.official import OfficialNames
from crucible_lineage.errors import InputError, NotFoundError, ServerError
from crucible_lineage.ids import is_mfid

__all__ = ["InstrumentCalls", "ProjectCalls"]

LEADS = ("project_lead", "project_lead_orcid", "project_lead_email", "project_lead_username")

Record = TypeVar("Record", bound=ReceivedModel)


class ProjectCalls(OfficialNames):
    """`client.projects`: whom data belongs to, by their MFID or their `project_id`."""

    subject = "projects"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, project: str) -> Project:
        """The project with this MFID or `project_id`."""
        if is_mfid(project):
            what = f"read project {project}"
            return parse(Project, self._connection.get(f"/projects/{project}", what, mfid=project), what)
        found = self.find(project)
        if found is None:
            raise NotFoundError(_nobody("project", project), status=404)
        return found

    def find(self, project_id: str) -> Project | None:
        """The project of that name, whatever its letters' case; None if this key sees none."""
        return _named(self._connection, "/projects", {"project_id": project_id}, Project)

    def list(self, *, limit: int | None = None, **filters: Unpack[ProjectFilters]) -> list[Project]:
        """Projects that this key sees, all or `limit` of them."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[ProjectFilters]) -> Iterator[Project]:
        """The same, page by page as they are taken."""
        params = sent_filters(filters, ProjectFilters)
        return pages(self._connection, "/projects", Project, "list projects", params, limit)

    def search(self, q: str, *, limit: int = 20) -> Sequence[Project]:
        """Projects whose title or name is like `q` (3 letters or more); best first, at most 50."""
        what = f"search projects for {q!r}"
        return parse_all(Project, self._connection.get("/projects/search", what, params={"q": q, "limit": limit}), what)

    def create(self, project: ProjectCreate | Mapping[str, object] | None = None, **fields: object) -> Project:
        """Create a project, from a record or from its fields; without a lead, the owner of the key leads it.

        ConflictError if its `project_id` is taken; a lost answer may have the same effect, so look what stands there.
        """
        new = to_send(ProjectCreate, fields if project is None else project)
        what = f"create project {new.project_id}"
        leads = {name: getattr(new, name) for name in LEADS if getattr(new, name) is not None}
        if empty := [name for name, lead in leads.items() if not lead.strip()]:
            raise InputError(f"{what}: {empty[0]} is empty; name a user, or leave it out to lead the project yourself")
        if not leads:
            account = parse(Account, self._connection.get("/account", what), what)
            new = new.model_copy(update={"project_lead": account.user_unique_id})
        return parse(Project, self._connection.call("POST", "/projects", what, body=new.body(), repeatable=True), what)

    def update(self, project: str, **fields: object) -> Project:
        """The project with `fields` (title, status, organization, project_id) changed."""
        what = f"change project {project}"
        return parse(Project, self._connection.call("PATCH", f"/projects/{quoted(project)}", what, body=fields), what)

    def members(self, project: str) -> Sequence[Member]:
        """List the members of a project, its lead left out. ForbiddenError for those who are none."""
        what = f"list the members of project {project}"
        return list(pages(self._connection, f"/projects/{quoted(project)}/users", Member, what, {}, None))

    def add_member(self, project: str, user: str, role: str = "contributor") -> None:
        """Make a user (ORCID, username or email) a member of a project. ConflictError for one who is."""
        what = f"add {user} to project {project}"
        path = f"/projects/{quoted(project)}/users/{quoted(user)}"
        self._connection.call("POST", path, what, params={"role": role})


class InstrumentCalls(OfficialNames):
    """`client.instruments`: what measures, by its MFID or its `instrument_id`."""

    subject = "instruments"

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def get(self, instrument: str) -> Instrument:
        """The instrument with this MFID or `instrument_id`."""
        if is_mfid(instrument):
            what = f"read instrument {instrument}"
            return parse(Instrument, self._connection.get(f"/instruments/{instrument}", what, mfid=instrument), what)
        found = self.find(instrument)
        if found is None:
            raise NotFoundError(_nobody("instrument", instrument), status=404)
        return found

    def find(self, instrument_id: str) -> Instrument | None:
        """The instrument of that name, whatever its letters' case and its status; None if there is none."""
        return _named(self._connection, "/instruments", {"instrument_id": instrument_id}, Instrument)

    def list(self, *, limit: int | None = None, **filters: Unpack[InstrumentFilters]) -> list[Instrument]:
        """Instruments, all or `limit` of them; only active ones unless `status` says otherwise."""
        return list(self.iter(limit=limit, **filters))

    def iter(self, *, limit: int | None = None, **filters: Unpack[InstrumentFilters]) -> Iterator[Instrument]:
        """The same, page by page as they are taken."""
        params = sent_filters(filters, InstrumentFilters)
        return pages(self._connection, "/instruments", Instrument, "list instruments", params, limit)

    def search(self, q: str, *, limit: int = 20) -> Sequence[Instrument]:
        """Instruments whose name, type or manufacturer is like `q` (3 letters or more); best first, at most 50."""
        what = f"search instruments for {q!r}"
        answer = self._connection.get("/instruments/search", what, params={"q": q, "limit": limit})
        return parse_all(Instrument, answer, what)

    def create(self, instrument: InstrumentCreate | Mapping[str, object] | None = None, **fields: object) -> Instrument:
        """The instrument with this `instrument_id`: the one that exists, else a new one."""
        new = to_send(InstrumentCreate, fields if instrument is None else instrument)
        existing = self.find(new.instrument_id)
        if existing is not None:
            return existing
        what = f"create instrument {new.instrument_id}"
        return parse(Instrument, self._connection.call("POST", "/instruments", what, body=new.body()), what)

    def update(self, mfid: str, **fields: object) -> Instrument:
        """The instrument with `fields` changed."""
        what = f"change instrument {mfid}"
        path = f"/instruments/{segment(mfid, 'instrument')}"
        return parse(Instrument, self._connection.call("PATCH", path, what, mfid=mfid, body=fields), what)


def _named(connection: Connection, path: str, selector: dict[str, str], model: type[Record]) -> Record | None:
    """The one record of that name. Asking for two shows whether the name is ambiguous."""
    ((field, name),) = selector.items()
    if not name:
        raise InputError(f"the {field} is empty")
    what = f"look up {field} {name}"
    found = parse_all(model, connection.get(path, what, params={**selector, "limit": 2}), what)
    if len(found) > 1:
        raise ServerError(f"could not {what}: Crucible has more than one of that name")
    return found[0] if found else None


def _nobody(kind: str, name: str) -> str:
    return f"{kind} {name!r} does not exist, or is not visible to this key\ncheck the spelling"
