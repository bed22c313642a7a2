"""`register`: files that no step made. Corrections: `set`, `rename`, `link`, `unlink`, `sample`, `replace`, `delete`.

Each correction records its author.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import ValidationError

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_result,
    read_pair,
)
from crucible_lineage.cli.working import showing_work
from crucible_lineage.core.slots import CURRENT, SUPERSEDED
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError, no_file
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import first_lines, plain
from crucible_lineage.lineage.model import DOUBTFUL
from crucible_lineage.pipeline.declare.load import project_in
from crucible_lineage.pipeline.inputs.corrections import (
    add_sample,
    all_changes,
    apply_changes,
    changes_of,
    link_datasets,
    link_sample,
    read_table,
    read_value,
    rename_sample,
    unlink_datasets,
)
from crucible_lineage.pipeline.inputs.existing import existing_dataset, hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.inputs.revisions import find_measured
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.registration.reliance import take_over
from crucible_lineage.registration.trust import lies_elsewhere
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.queries.graph.state import DatasetEntry

MOST_SHOWN = 20
WHY = click.option("--why", default="", help="Why, in your own words; recorded with author and time.")
DRY_RUN = click.option("--dry-run", is_flag=True, help="Show what would change. Changes nothing.")


@click.command("register")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@crucible_options
@click.option("--project", help="Its project; by default, that of this folder's pipelines.")
@click.option("--parent", "parents", multiple=True, metavar="MFID", help="A parent; repeatable.")
@click.option("--supersedes", metavar="MFID", help="With --parent: the result that it replaces.")
@click.option("--note", help="What was done, by whom or with what, in your own words.")
@click.option("--name", help="The dataset's name; by default, that of the first file.")
@click.option("--measurement", help="The technique, as in 'Raman Spectroscopy'.")
@click.option("--timestamp", help="When it was measured: ISO 8601 with a time zone.")
@click.option("--keyword", "keywords", multiple=True, help="Repeatable.")
@click.option("--mfid", help="Measured files only: the MFID of their existing or new dataset.")
@click.option("--salt", help="Any text: gives new files another id if theirs is taken.")
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
) -> None:
    """Register FILES as one dataset. Registering them again has no effect.

    With --parent they are a result made manually: a child of those datasets, with the note in its record. With
    --supersedes they replace a result, until a run makes a different one. Files that the project already has are
    not registered again; --mfid, or the key crucible_mfid in a file, names their dataset.
    """
    if supersedes is not None and not parents:
        raise InputError("--supersedes needs --parent: name what the files were made from, at least what they replace")
    _require_files(files)
    project = _declared_project(project, f"register {files[0]}")
    declared = _declared(files, measurement, timestamp, keywords)
    with open_session() as session, showing_work() as work:
        parent_datasets = [existing_dataset(dataset_id(session, parent, [project]), session) for parent in parents]
        supersedes = supersedes and dataset_id(session, supersedes, [project])
        count = amount(len(files), "file")
        work(f"reading {count}", 0)
        raw = hash_files(project, files, declared.timestamp, session, parent_datasets, salt=salt, mfid=mfid)
        found = find_measured(raw, session)
        old = _superseded(session, supersedes, project, found.mfid if found else None) if supersedes else None
        work(f"registering {count}", 0)
        if found is None:
            session.ensure_project(project)
        if old is not None and measurement is None:
            declared = declared.model_copy(update={"measurement": old.summary.measurement or None})
        dataset = found or register_raw(raw, declared, name or files[0].name, session, note, supersedes)
        if old is not None and not old.superseded_by:
            take_over(session.client, session.mirror, dataset.mfid, old.summary.status)
    before = "" if raw.are_files_of(dataset) else f" as {', '.join(file.name for file in dataset.data_files)}"
    done = f"already registered{before}" if found else "registered"
    parent_ids = [parent.mfid for parent in raw.parents]
    document = {**dataset.to_json(), "registered": found is None, "parents": parent_ids}
    print_result(document, [f"{dataset.mfid}  {dataset.name}  {done}"])


def _require_files(files: Sequence[Path]) -> None:
    for path in files:
        if not path.is_file():
            raise no_file(path)


def _declared_project(project: str | None, attempt: str) -> str:
    """Return the project, by default that of this folder's pipelines. InputError if there is none."""
    if (project := project or project_in(Path.cwd())) is None:
        raise InputError(f"{attempt}: no pipeline in this folder names a project; give --project")
    return project


def _superseded(session: Session, mfid: str, project: str, by: str | None) -> DatasetEntry:
    """Return the result to supersede. InputError unless it is a current result of the project and fills a slot.

    It may be superseded already by `by`, the dataset that these files were registered as before.
    """
    from crucible_lineage.queries.graph.state import entry_of  # not needed for measured files

    attempt = f"register what supersedes {mfid}"
    try:
        found = session.client.datasets.get(mfid, include_metadata=True, include_links=True)
    except (ForbiddenError, NotFoundError) as error:
        raise InputError(f"{attempt}: the dataset does not exist, or is not visible to this key") from error
    entry = entry_of(session, found)
    if lies_elsewhere(found, project):
        raise InputError(f"{attempt}: it belongs to project {found.project_id}, not to {project}")
    if mfid == by:
        raise InputError(f"{attempt}: that dataset itself has these files and parents")
    if entry.superseded_by not in ((), (by,)):
        successors = ", ".join(entry.superseded_by)
        raise InputError(f"{attempt}: already superseded by {successors}")
    if not entry.summary.status.slots:
        raise InputError(f"{attempt}: it is {entry.state}, not a result of a pipeline's step")
    if entry.state not in (CURRENT, SUPERSEDED, DOUBTFUL):
        raise InputError(f"{attempt}: it is {entry.state}; only a current result can be superseded")
    return entry


def _declared(
    files: tuple[Path, ...], measurement: str | None, timestamp: str | None, keywords: tuple[str, ...]
) -> FileInput:
    try:
        measured_at = datetime.fromisoformat(timestamp) if timestamp else None
    except ValueError:
        raise InputError(f"--timestamp {timestamp}: not a time; write it as in 2024-05-10T12:00:00Z") from None
    try:
        return FileInput(
            file=tuple(map(str, files)), measurement=measurement, timestamp=measured_at, keywords=tuple(keywords)
        )
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
        raise InputError(f"--timestamp {timestamp}: {reason.removeprefix('Value error, ')}") from None


@click.command("set")
@click.argument("dataset", required=False)
@click.argument("values", nargs=-1, metavar="[FIELD=VALUE]...")
@crucible_options
@click.option(
    "--from",
    "table",
    type=click.Path(path_type=Path),
    help="Read a CSV file instead: a column `mfid`, and one for each field; empty cells change nothing.",
)
@WHY
@DRY_RUN
@json_option
def set_command(dataset: str | None, values: tuple[str, ...], table: Path | None, why: str, dry_run: bool) -> None:
    """Set fields (timestamp, instrument_name, ...) and metadata (metadata.NAME) of DATASET. Values are read as in YAML.

    Results that used the old value become stale.
    """
    if (dataset is None) == (table is None):
        raise InputError("set: name a dataset and what to set (set MFID metadata.power_mW=5), or a table with --from")
    with open_session() as session:
        assignments = read_table(table) if table else [(f"set {dataset}", dataset or "", _assigned(values))]
        changes = all_changes(session, assignments, lambda text: dataset_id(session, text))
        if not dry_run:
            apply_changes(session, changes, why)
    done = "would be changed" if dry_run else "changed"
    end = f"{amount(len(changes), 'value')} {done}" if changes else "nothing to change"
    document = {"changed": not dry_run, "changes": [change.to_json() for change in changes]}
    print_result(document, [*first_lines(map(str, changes), MOST_SHOWN, "and {} more"), end])


@click.command("rename")
@click.argument("dataset")
@click.argument("name")
@crucible_options
@WHY
def rename_command(dataset: str, name: str, why: str) -> None:
    """Give DATASET the name NAME."""
    with open_session() as session:
        changes = changes_of(session, dataset_id(session, dataset), {"dataset_name": name})
        apply_changes(session, changes, why)
    click.echo(plain(str(changes[0])) if changes else "nothing to change")


@click.command("link")
@click.argument("parent")
@click.argument("child")
@crucible_options
@WHY
def link_command(parent: str, child: str, why: str) -> None:
    """Make CHILD a dataset derived from PARENT."""
    with open_session() as session:
        source, target = dataset_id(session, parent), dataset_id(session, child)
        link_datasets(session, source, target, why)
    click.echo(f"{target} is derived from {source}")


@click.command("unlink")
@click.argument("parent")
@click.argument("child")
@crucible_options
@WHY
def unlink_command(parent: str, child: str, why: str) -> None:
    """Remove the link from PARENT to CHILD. If a record names the parent, `check` reports the missing link."""
    with open_session() as session:
        source, target = dataset_id(session, parent), dataset_id(session, child)
        unlink_datasets(session, source, target, why)
    click.echo(f"{target} is no longer linked to {source}")


@click.group("sample")
def sample_command() -> None:
    """Add a sample, rename it, or state which datasets were measured on it."""


@sample_command.command("add")
@click.argument("name")
@crucible_options
@click.option("--project", help="Its project; by default, that of this folder's pipelines.")
@click.option("--on", "datasets", multiple=True, metavar="MFID", help="A dataset measured on it; repeatable.")
@WHY
def add_sample_command(name: str, project: str | None, datasets: tuple[str, ...], why: str) -> None:
    """Add a sample called NAME to a project."""
    project = _declared_project(project, f"sample add {name}")
    with open_session() as session:
        measured = [dataset_id(session, one, [project]) for one in datasets]
        sample = add_sample(session, project, name, measured, why)
    click.echo(plain(f"{sample}  {name}"))


@sample_command.command("rename")
@click.argument("sample")
@click.argument("name")
@crucible_options
@WHY
def rename_sample_command(sample: str, name: str, why: str) -> None:
    """Give SAMPLE the name NAME. The datasets measured on it record the change."""
    with open_session() as session:
        rename_sample(session, sample, name, why)
    click.echo(plain(f"{sample}  {name}"))


@sample_command.command("link")
@click.argument("sample")
@click.argument("datasets", nargs=-1, required=True)
@crucible_options
@WHY
def link_sample_command(sample: str, datasets: tuple[str, ...], why: str) -> None:
    """State that DATASETS were measured on SAMPLE."""
    with open_session() as session:
        measured = [dataset_id(session, one) for one in datasets]
        link_sample(session, sample, measured, why)
    for mfid in measured:
        click.echo(plain(f"{mfid} was measured on {sample}"))


@click.command("replace")
@click.argument("old")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@crucible_options
@WHY
@json_option
def replace_command(old: str, files: tuple[Path, ...], why: str) -> None:
    """Register FILES in place of the measured dataset OLD: measured or exported again.

    The new dataset gets OLD's fields, metadata, keywords and samples. OLD is superseded: selections omit it.
    """
    from crucible_lineage.pipeline.inputs.revisions import replace_measured  # slow to import

    _require_files(files)
    with open_session() as session:
        mfid = dataset_id(session, old)
        new = replace_measured(session, mfid, files, why)
    print_result({**new.to_json(), "replaces": mfid}, [f"{new.mfid}  {new.name}  replaces {mfid}"])


@click.command("delete")
@click.argument("dataset")
@crucible_options
@WHY
@click.option("--yes", is_flag=True, help="Even if other datasets were made from it.")
@json_option
def delete_command(dataset: str, why: str, yes: bool) -> None:
    """Request the deletion of DATASET: hidden at once, and deleted after review by an administrator.

    Refused, with a list, if other datasets were made from it, unless --yes is given.
    """
    from crucible_lineage.queries.impact import request_deletion  # other corrections need no graph

    with open_session() as session:
        mfid = dataset_id(session, dataset)
        way_out = f"look at them ({next_command('impact', mfid)}), or add --yes"
        request = request_deletion(session, mfid, why, even_if_used=yes, way_out=way_out)
    print_result(request.to_json(), [str(request)])


def _assigned(values: tuple[str, ...]) -> JsonObject:
    if not values:
        raise InputError("set: name what to set, as in metadata.power_mW=5")
    expected = "FIELD=VALUE, as in metadata.power_mW=5"
    pairs = (read_pair("set", text, expected, may_be_empty=True) for text in values)
    return {name: read_value(name, value) for name, value in pairs}
