"""`project`: the projects of a Crucible, their members, the rights in their data, and whose statements count."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import click

from crucible_lineage.ask.answer import Done, in_columns
from crucible_lineage.ask.names import find_project
from crucible_lineage.ask.question import BEFORE, argument, option
from crucible_lineage.cli.asking import act
from crucible_lineage.errors import InputError, refused_as_input
from crucible_lineage.ids import PROJECT_ID_RULE, is_mfid, is_orcid, is_project_id
from crucible_lineage.lineage.records import stated_rights
from crucible_lineage.statements.consent import trust_code
from crucible_lineage.statements.statements import TRUST, About
from crucible_lineage.statements.stating import account_ids, state

if TYPE_CHECKING:
    from crucible_lineage.client.models import Person
    from crucible_lineage.session import Session

ROLES = ("viewer", "contributor", "editor", "admin")


@click.group("project")
def project_command() -> None:
    """List projects, create one, add members, and state the rights in its data and whose statements count."""


@act("list", project_command, announced=BEFORE)
def list_projects_command(session: Session) -> Done:
    """List the projects that this key can see, with its role in each."""
    found = session.client.projects.list()
    names = {"unique_id", "project_id", "title", "role"}
    rows = [(project.project_id, project.title or "", project.role or "", _name(project.lead)) for project in found]
    lines = in_columns(("PROJECT", "TITLE", "ROLE", "LEAD"), rows) if rows else ["no projects"]
    return Done({"projects": [project.model_dump(include=names) for project in found]}, lines)


@act("create", project_command, announced=BEFORE)
def create_project_command(
    session: Session, project: Annotated[str, argument()], *,
    title: Annotated[str | None, option("Subject of the project.")] = None,
    lead: Annotated[
        str | None, option("ORCID, username or email of its lead; by default, the owner of the key.", metavar="USER")
    ] = None,
) -> Done:  # fmt: skip
    """Create PROJECT, an ID of 3 to 25 letters, digits, `-` and `_`."""
    if not is_project_id(project):
        raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}")
    with refused_as_input():
        created = session.client.projects.create(
            project_id=project, organization=project, title=title, project_lead=lead
        )
    line = f"{created.project_id}  {created.unique_id}  created, lead {_name(created.lead)}"
    return Done({"mfid": created.unique_id, "project_id": created.project_id}, [line])


@act("members", project_command, announced=BEFORE)
def members_command(
    session: Session, project: Annotated[str, argument()], *,
    user: Annotated[
        str | None, option("Add this user: ORCID, username or email.", "--add", metavar="USER")
    ] = None,
    role: Annotated[str, option("With --add.", choices=ROLES)] = "contributor",
) -> Done:  # fmt: skip
    """List the lead and the members of PROJECT, or add a member."""
    with refused_as_input():
        if user is not None:
            session.client.projects.add_member(project, user, role)
        lead, found = session.client.projects.get(project).lead, session.client.projects.members(project)
    people = [*([(lead, "lead")] if lead else ()), *((member, member.role or "") for member in found)]
    listed = [{"unique_id": each.unique_id, "username": each.username, "role": role} for each, role in people]
    lines = in_columns(("USER", "ROLE"), [(_name(person), role) for person, role in people])
    return Done({"project_id": project, "members": listed}, lines)


@act("invite", project_command)
def invite_command(
    session: Session, name: Annotated[str, argument()], *,
    project: Annotated[str | None, option("Project to join; optional if there is only one.", metavar="P")] = None,
) -> Done:  # fmt: skip
    """Make an account NAME at an embedded Crucible that you serve, a key for it, and a contributor of a project."""
    with refused_as_input():
        target = session.client.projects.get(find_project(session, project)).project_id
        made = session.client.account.create(name)
    session.client.projects.add_member(target, made.unique_id)
    found = {"project_id": target, **made.model_dump(include={"unique_id", "username", "api_key"})}
    hint = (
        "hand it over, it is not shown again (CRUCIBLE_API_KEY, with CRUCIBLE_API_URL the address that `serve` prints)"
    )
    return Done(found, [f"{name} ({made.unique_id}) is a contributor of {target}", f"key: {made.api_key}", hint])


@act("rights", project_command, announced=BEFORE)
def rights_command(
    session: Session, project: Annotated[str, argument()], *,
    license_name: Annotated[
        str | None, option("SPDX name or URL of the licence of its data.", "--license", metavar="LICENSE")
    ] = None,
    creators: Annotated[
        Sequence[str], option("Who made its data; may be given repeatedly.", "--creator", metavar="NAME (ORCID)")
    ] = (),
    holder: Annotated[str | None, option("Who holds rights in its data.", metavar="TEXT")] = None,
) -> Done:  # fmt: skip
    """Show or state the creators, rights holder and licence of the data of PROJECT.

    Datasets with `license`, `creators` or `rights` in their own metadata are excepted.
    """
    stated: dict[str, object] = {"license": license_name, "creators": list(creators) or None, "rights": holder}
    stated = {key: value for key, value in stated.items() if value is not None}
    with refused_as_input():
        found = session.client.projects.get(project)
    if stated:
        session.client.metadata.merge(found.unique_id, stated)
    rights = stated_rights(session.client.metadata.get(found.unique_id))
    people = [{"name": creator.name, "orcid": creator.orcid} for creator in rights.creators]
    fields = {"license": rights.license, "creators": people, "rights": rights.holder}
    lines = list(rights.lines()) or ["nothing is stated about the rights in its data"]
    return Done({"project_id": found.project_id, **fields}, lines)


@act("trust", project_command)
def trust_command(
    session: Session, whose: Annotated[Sequence[str], argument()], *,
    project: Annotated[
        str | None, option("Project in which they count; optional if there is only one.", metavar="P")
    ] = None,
    why: Annotated[str, option("Why, in your own words.")] = "",
    code: Annotated[
        bool, option("Instead, let what WHOSE or their members recorded run on this machine.")
    ] = False,
) -> Done:  # fmt: skip
    """Let the statements of others count in a project: WHOSE are ids of projects or of accounts.

    Otherwise statements count for the datasets of their own project only. With --code, an account may also be named as
    a member of the project.
    """
    projects = session.client.projects
    names = [name for name in whose if not (is_mfid(name) or is_orcid(name)) and projects.find(name) is None]
    if names and not code:
        raise InputError(
            f"this key sees no project {names[0]!r} (list them: crucible-lineage project list), and the ID of an "
            "account is an ORCID or MFID"
        )
    target = "" if code and not names else find_project(session, project)
    if code:
        accounts = account_ids(session, target, names) if names else {}
        path = trust_code(session, [*(name for name in whose if name not in names), *accounts])
        return Done({"file": path}, [f"recorded code of {', '.join(whose)} runs here; to end it, edit {path}"])
    outcome = state(session, target, TRUST, About(project=target), why=why, body={"whose": sorted(set(whose))})
    return Done(outcome, [f"{target}: statements of {', '.join(whose)} count"])


def _name(person: Person | None) -> str:
    return (person.username or person.unique_id) if person else ""
