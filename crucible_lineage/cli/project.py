"""`project`: the projects of a Crucible, their members, the rights in their data, and whose statements count."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from crucible_lineage.ask.answer import in_columns
from crucible_lineage.cli.options import (
    announced_session,
    chosen_project,
    crucible_options,
    json_option,
    open_session,
    print_result,
)
from crucible_lineage.errors import InputError, refused_as_input
from crucible_lineage.ids import PROJECT_ID_RULE, is_mfid, is_orcid, is_project_id
from crucible_lineage.lineage.records import stated_rights
from crucible_lineage.statements.statements import TRUST, About

if TYPE_CHECKING:
    from crucible_lineage.client.models import Person

ROLES = ("viewer", "contributor", "editor", "admin")


@click.group("project")
def project_command() -> None:
    """List projects, create one, add members, and state the rights in its data and whose statements count."""


@project_command.command("list")
@crucible_options
@json_option
def list_projects_command() -> None:
    """List the projects that this key can see, with its role in each."""
    with announced_session() as session:
        found = session.client.projects.list()
    names = ("unique_id", "project_id", "title", "role")
    rows = [(one.project_id, one.title or "", one.role or "", _name(one.lead)) for one in found]
    lines = in_columns(("PROJECT", "TITLE", "ROLE", "LEAD"), rows) if rows else ["no projects"]
    print_result({"projects": [{name: getattr(one, name) for name in names} for one in found]}, lines)


@project_command.command("create")
@click.argument("project")
@click.option("--title", help="Subject of the project.")
@click.option("--organization", help="The owning organization; by default, the project's ID.")
@click.option("--lead", metavar="USER", help="ORCID, username or email of its lead; by default, the owner of the key.")
@crucible_options
@json_option
def create_project_command(project: str, title: str | None, organization: str | None, lead: str | None) -> None:
    """Create PROJECT, an ID of 3 to 25 letters, digits, `-` and `_`."""
    if not is_project_id(project):
        raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}")
    with announced_session() as session, refused_as_input():
        created = session.client.projects.create(
            project_id=project, organization=organization or project, title=title, project_lead=lead
        )
    line = f"{created.project_id}  {created.unique_id}  created, lead {_name(created.lead)}"
    print_result({"mfid": created.unique_id, "project_id": created.project_id}, [line])


@project_command.command("members")
@click.argument("project")
@click.option("--add", "user", metavar="USER", help="Add this user: ORCID, username or email.")
@click.option("--role", type=click.Choice(ROLES), default="contributor", show_default=True, help="With --add.")
@crucible_options
@json_option
def members_command(project: str, user: str | None, role: str) -> None:
    """List the members of PROJECT, or add one."""
    with announced_session() as session, refused_as_input():
        if user is not None:
            session.client.projects.add_member(project, user, role)
        found = session.client.projects.members(project)
    listed = [{"unique_id": one.unique_id, "username": one.username, "role": one.role} for one in found]
    rows = [(_name(one), one.role or "") for one in found]
    lines = in_columns(("USER", "ROLE"), rows) if rows else ["no members besides its lead"]
    print_result({"project_id": project, "members": listed}, lines)


@project_command.command("invite")
@click.argument("name")
@click.option("--project", metavar="P", help="Project to join; optional if there is only one.")
@crucible_options
@json_option
def invite_command(name: str, project: str | None) -> None:
    """Make an account NAME at an embedded Crucible that you serve, a key for it, and a contributor of a project."""
    with open_session() as session:
        with refused_as_input():
            target = session.client.projects.get(chosen_project(session, project)).project_id
            made = session.client.account.create(name)
        session.client.projects.add_member(target, made.unique_id)
    found = {"project_id": target, **made.model_dump(include={"unique_id", "username", "api_key"})}
    hint = (
        "hand it over, it is not shown again (CRUCIBLE_API_KEY, with CRUCIBLE_API_URL the address that `serve` prints)"
    )
    print_result(found, [f"{name} ({made.unique_id}) is a contributor of {target}", f"key: {made.api_key}", hint])


@project_command.command("rights")
@click.argument("project")
@click.option("--license", "license_name", metavar="LICENSE", help="SPDX name or URL of the licence of its data.")
@click.option(
    "--creator", "creators", metavar="NAME (ORCID)", multiple=True, help="Who made its data; may be given repeatedly."
)
@click.option("--holder", metavar="TEXT", help="Who holds rights in its data.")
@crucible_options
@json_option
def rights_command(project: str, license_name: str | None, creators: tuple[str, ...], holder: str | None) -> None:
    """Show or state the creators, rights holder and licence of the data of PROJECT.

    Datasets with `license`, `creators` or `rights` in their own metadata are excepted.
    """
    stated: dict[str, object] = {"license": license_name, "creators": list(creators) or None, "rights": holder}
    stated = {key: value for key, value in stated.items() if value is not None}
    with announced_session() as session:
        with refused_as_input():
            found = session.client.projects.get(project)
        if stated:
            session.client.metadata.merge(found.unique_id, stated)
        rights = stated_rights(session.client.metadata.get(found.unique_id))
    people = [{"name": one.name, "orcid": one.orcid} for one in rights.creators]
    fields = {"license": rights.license, "creators": people, "rights": rights.holder}
    lines = list(rights.lines()) or ["nothing is stated about the rights in its data"]
    print_result({"project_id": found.project_id, **fields}, lines)


@project_command.command("trust")
@click.argument("whose", nargs=-1, required=True)
@click.option("--project", metavar="P", help="Project in which they count; optional if there is only one.")
@click.option("--why", default="", help="Why, in your own words.")
@click.option("--code", is_flag=True, help="Instead, let what WHOSE or their members recorded run on this machine.")
@crucible_options
@json_option
def trust_command(whose: tuple[str, ...], project: str | None, why: str, code: bool) -> None:
    """Let the statements of others count in a project: WHOSE are ids of projects or of accounts.

    Otherwise statements count for the datasets of their own project only.
    """
    from crucible_lineage.statements.consent import trust_code
    from crucible_lineage.statements.stating import state

    with open_session() as session:
        target = "" if code else chosen_project(session, project)
        for one in whose:
            if not (is_mfid(one) or is_orcid(one)) and session.client.projects.find(one) is None:
                raise InputError(
                    f"this key sees no project {one!r} (list them: crucible-lineage project list), and the ID of an "
                    "account is an ORCID or MFID"
                )
        if code:
            path = trust_code(session, whose)
            print_result(
                {"file": str(path)}, [f"recorded code of {', '.join(whose)} runs here; to end it, edit {path}"]
            )
            return
        outcome = state(session, target, TRUST, About(project=target), why=why, body={"whose": sorted(set(whose))})
    print_result(outcome.to_json(), [f"{target}: statements of {', '.join(whose)} count"])


def _name(person: Person | None) -> str:
    return (person.username or person.unique_id) if person else ""
