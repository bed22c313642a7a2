"""`register`: files that no step made, measured or made by hand, as a dataset with its parents."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import crucible_options, dataset_id, json_option, open_session, print_json
from crucible_lineage.cli.working import showing_work
from crucible_lineage.core.slots import CURRENT, SUPERSEDED
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, no_file
from crucible_lineage.pipeline.declare.project import project_in
from crucible_lineage.pipeline.inputs.existing import existing_dataset
from crucible_lineage.pipeline.inputs.raw import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.inputs.revisions import find_measured
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.registration.standing import take_over
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.queries.graph.standing import Entry

__all__ = ["register_command"]


@click.command("register")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@crucible_options
@click.option("--project", help="Its project; by default, that of this folder's pipelines.")
@click.option("--parent", "parents", multiple=True, metavar="MFID", help="What it was made of; repeatable.")
@click.option("--supersedes", metavar="MFID", help="With --parent: the result that it replaces.")
@click.option("--note", help="What was done, by whom or with what, in your own words.")
@click.option("--name", help="The dataset's name; by default, that of the first file.")
@click.option("--measurement", help="The technique, as in 'Raman Spectroscopy'.")
@click.option("--timestamp", help="When it was measured: ISO 8601 with a time zone.")
@click.option("--keyword", "keywords", multiple=True, help="Repeatable.")
@click.option("--mfid", help="Measured files only: the MFID that they have, or are to have.")
@click.option("--salt", help="Any text: gives new files another id, where theirs is taken.")
@json_option
def register_command(
    files: tuple[Path, ...],
    project: str | None,
    parents: tuple[str, ...],
    supersedes: str | None,
    note: str | None,
    name: str | None,
    measurement: str | None,
    timestamp: str | None,
    keywords: tuple[str, ...],
    mfid: str | None,
    salt: str | None,
    as_json: bool,
) -> None:
    """Register FILES as one dataset. Doing it twice registers it once.

    With --parent they are a result made by hand: a child of those datasets, whose record has the note. With
    --supersedes they replace a result, until a run gives another one. Files of the project with the same bytes are not
    registered again; --mfid, or the key crucible_mfid in a file, names their dataset.
    """
    if supersedes is not None and not parents:
        raise InputError("--supersedes goes with --parent: name what it was made from, if only what it supersedes")
    project = _checked_project(project, files)
    declared = _declared(files, measurement, timestamp, keywords)
    with open_session() as session, showing_work(silent=as_json) as work:
        made_of = [existing_dataset(dataset_id(session, parent, [project]), session) for parent in parents]
        supersedes = supersedes and dataset_id(session, supersedes, [project])
        what = amount(len(files), "file")
        work(f"reading {what}", 0)
        raw = hash_files(project, files, declared.timestamp, session, made_of, salt=salt, mfid=mfid)
        found = find_measured(raw, session)
        old = _superseded(session, supersedes, project, found.mfid if found else None) if supersedes else None
        work(f"registering {what}", 0)
        if found is None:
            session.ensure_project(project)
        if old is not None and measurement is None:
            declared = declared.model_copy(update={"measurement": old.summary.measurement or None})
        dataset = found or register_raw(raw, declared, name or files[0].name, session, note, supersedes)
        if old is not None and not old.superseded_by:
            take_over(session.client, session.mirror, dataset.mfid, old.summary.standing)
    if as_json:
        print_json(
            {**dataset.to_json(), "registered": found is None, "parents": [parent.mfid for parent in raw.parents]}
        )
    else:
        before = "" if raw.are_those_of(dataset) else f" as {', '.join(file.name for file in dataset.data_files)}"
        click.echo(f"{dataset.mfid}  {dataset.name}  {f'there already{before}' if found else 'registered'}")


def _checked_project(project: str | None, files: Sequence[Path]) -> str:
    """Return the project, or the one that this folder's pipelines name. InputError without one, or without a file."""
    for path in files:
        if not path.is_file():
            raise no_file(path)
    if (project := project or project_in(Path.cwd())) is None:
        raise InputError(f"register {files[0]}: no pipeline in this folder names a project; give --project")
    return project


def _superseded(session: Session, mfid: str, project: str, by: str | None) -> Entry:
    """The result that is to be superseded. InputError unless it is a current one of the project, and fills a place.

    Nothing is wrong if `by`, which is there already, holds in its place.
    """
    from crucible_lineage.queries.graph.standing import entry_of  # who registers measured files needs none

    what = f"register what supersedes {mfid}"
    try:
        found = session.client.datasets.get(mfid, include_metadata=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"{what}: no such dataset here is visible to this key") from error
    entry = entry_of(session, found)
    if found.project_id != project:
        raise InputError(f"{what}: it belongs to project {found.project_id}, and not to {project}")
    if mfid == by:
        raise InputError(f"{what}: these files, made of these parents, are that dataset itself")
    if entry.superseded_by not in ((), (by,)):
        holding = ", ".join(entry.superseded_by)
        raise InputError(f"{what}: it is superseded already, by {holding}")
    if entry.state not in (CURRENT, SUPERSEDED) or not entry.summary.standing.places:
        raise InputError(f"{what}: it is {entry.state}, not a result of a pipeline's step")
    return entry


def _declared(
    files: tuple[Path, ...], measurement: str | None, timestamp: str | None, keywords: tuple[str, ...]
) -> FileInput:
    try:
        moment = datetime.fromisoformat(timestamp) if timestamp else None
    except ValueError:
        raise InputError(f"--timestamp {timestamp}: that is no time; write it as in 2024-05-10T12:00:00Z") from None
    try:
        return FileInput(
            file=tuple(map(str, files)), measurement=measurement, timestamp=moment, keywords=tuple(keywords)
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"--timestamp {timestamp}: {reason.removeprefix('Value error, ')}") from None
