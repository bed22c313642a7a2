"""`register`: files that no step made; `set`: corrections, recorded with their author; `delete`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import ValidationError

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import Project, argument, option, read_pair
from crucible_lineage.cli.asking import act
from crucible_lineage.core.datasets import visible_dataset
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import InputError, no_file
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import first_lines
from crucible_lineage.lineage.model import CURRENT, DOUBTFUL, SUPERSEDED
from crucible_lineage.machine.process import Tell
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.declare.load import project_in
from crucible_lineage.pipeline.plan.corrections import LINKS, read_table, read_value, set_values
from crucible_lineage.pipeline.plan.files import RawFiles, existing_dataset, hash_files, raw_files, register_raw
from crucible_lineage.pipeline.plan.revisions import find_measured, replace_measured
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.read import lies_elsewhere
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import make_current_now
from crucible_lineage.standing.standings import Standing, standing_of
from crucible_lineage.text.amounts import amount

MOST_SHOWN = 20
Why = Annotated[str, option("Why, in your own words; recorded with author and time.")]


@act("register")
def register_command(
    session: Session, files: Annotated[Sequence[Path], argument()], *,
    project: Annotated[str | None, option("Its project; by default, that of this folder's pipelines.")] = None,
    parents: Annotated[Sequence[str], option("A parent; repeatable.", "--parent", metavar="MFID")] = (),
    supersedes: Annotated[
        str | None, option("With --parent: the result that it replaces.", metavar="MFID", needs="parents")
    ] = None,
    replaces: Annotated[
        str | None, option("The measured dataset that they replace: measured or exported again.", metavar="MFID")
    ] = None,
    note: Annotated[str | None, option("What was done, by whom or with what, in your own words.")] = None,
    name: Annotated[str | None, option("The dataset's name; by default, that of the first file.")] = None,
    measurement: Annotated[str | None, option("The technique, as in 'Raman Spectroscopy'.")] = None,
    timestamp: Annotated[str | None, option("When it was measured: ISO 8601 with a time zone.")] = None,
    keywords: Annotated[Sequence[str], option("Repeatable.", "--keyword")] = (),
    mfid: Annotated[str | None, option("Measured files only: the MFID of their existing or new dataset.")] = None,
    salt: Annotated[str | None, option("Any text: gives new files another id if theirs is taken.")] = None,
    tell: Tell,
) -> Done:  # fmt: skip
    """Register FILES as one dataset. Registering them again has no effect.

    With --parent they are a result made manually: a child of those datasets, with the note in its record. With
    --supersedes they replace a result, until a run makes a different one. With --replaces they replace measured data,
    which are superseded: they get its fields, metadata, keywords and samples. Files that the project already has are
    not registered again; --mfid names their dataset.
    """
    if missing := [path for path in files if not path.is_file()]:
        raise no_file(missing[0])
    if replaces is not None:
        if any((parents, name, measurement, timestamp, keywords, mfid, salt, project)):
            raise InputError("--replaces: everything but --note is that of the replaced dataset; `set` changes it")
        return _replace(session, find_mfid(session, replaces), files, note or "")
    project = project or project_in(Path.cwd())
    if project is None:
        raise InputError(f"register {files[0]}: no pipeline in this folder names a project; give --project")
    declared = _declared(files, measurement, timestamp, keywords)
    parent_datasets = [existing_dataset(find_mfid(session, parent, [project]), session) for parent in parents]
    supersedes = supersedes and find_mfid(session, supersedes, [project])
    count = amount(len(files), "file")
    tell(f"reading {count}", 0)
    raw = raw_files(project, hash_files(files, session), declared.timestamp, parent_datasets, salt=salt, mfid=mfid)
    found = find_measured(raw, session)
    old = _superseded(session, supersedes, project, found.mfid if found else None) if supersedes else None
    tell(f"registering {count}", 0)
    if old is not None and measurement is None:
        declared = declared.model_copy(update={"measurement": old.summary.measurement or None})
    dataset = found
    if dataset is None:
        session.ensure_project(project)
        dataset = register_raw(raw, declared, name or files[0].name, session, note, supersedes)
    if old is not None and not old.superseded_by:
        slots = old.summary.status.slots.items()
        claims = {key: SlotClaim(claim.since, "", claim.declared_in) for key, claim in slots}
        make_current_now(session.mirror, session.client, project, dataset.mfid, claims)
    return _registered(raw, found, dataset)


def _registered(raw: RawFiles, found: DatasetRef | None, dataset: DatasetRef) -> Done:
    """Report the dataset of files; `found` if it existed before."""
    before = "" if raw.are_files_of(dataset) else f" as {', '.join(file.name for file in dataset.data_files)}"
    done = "registered" if found is None else f"already registered{before}"
    document = {**dataset.to_json(), "registered": found is None, "parents": [parent.mfid for parent in raw.parents]}
    return Done(document, [f"{dataset.mfid}  {dataset.name}  {done}"])


def _replace(session: Session, old: str, files: Sequence[Path], note: str) -> Done:
    """Register files in place of a measured dataset."""
    new = replace_measured(session, old, files, note)
    document = {**new.to_json(), "registered": True, "parents": [], "replaces": old}
    return Done(document, [f"{new.mfid}  {new.name}  replaces {old}"])


def _superseded(session: Session, mfid: str, project: str, by: str | None) -> Standing:
    """Return the result to supersede. InputError unless it is a current result of the project and fills a slot.

    It may be superseded already by `by`, the dataset that these files were registered as before.
    """
    attempt = f"register what supersedes {mfid}"
    found = visible_dataset(session.client, mfid, attempt)
    entry = standing_of(session, found)
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
    files: Sequence[Path], measurement: str | None, timestamp: str | None, keywords: Sequence[str]
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


@act("set")
def set_command(
    session: Session, dataset: Annotated[str | None, argument("[DATASET]")] = None,
    values: Annotated[Sequence[str], argument("[FIELD=VALUE]...")] = (), *,
    step: Annotated[str | None, option("Instead of a dataset: all current results of this step.", metavar="S")] = None,
    project: Project = None,
    table: Annotated[
        Path | None, option(
            "Read a CSV file instead: a column `mfid`, and one for each field; empty cells change nothing.", "--from"
        )
    ] = None,
    why: Why = "", dry_run: Annotated[bool, option("Show what would change. Changes nothing.")] = False,
) -> Done:  # fmt: skip
    """Set fields and metadata of DATASET, and the datasets, samples and keywords that it is linked to.

    \b
    dataset_name, measurement, timestamp, instrument_name, ...   fields
    metadata.NAME=VALUE                                          an entry of its metadata; values are read as in YAML
    parent+=MFID, parent-=MFID                                   a dataset that it was made from
    sample=NAME, sample+=NAME, sample-=NAME                      what it was measured on: a name, new or not, or an MFID
    keyword+=WORD                                                one more keyword

    Results that used the old value become stale.
    """
    if step is not None and dataset is not None:  # the first value
        values, dataset = (dataset, *values), None
    if sum(path is not None for path in (dataset, step, table)) != 1 or (table is not None and values):
        raise InputError("set: name a dataset and what to set (set MFID metadata.power_mW=5), or a table with --from")
    if table is not None:
        requests = read_table(table)
    else:
        named = [dataset or ""] if step is None else _results(session, find_project(session, project), step)
        assigned = _assigned(values)
        requests = [(f"set {name}", name, assigned) for name in named]
    changes = set_values(session, requests, lambda text: find_mfid(session, text), why, dry_run=dry_run)
    done = "would be changed" if dry_run else "changed"
    end = f"{amount(len(changes), 'value')} {done}" if changes else "nothing to change"
    lines = [*first_lines(map(str, changes), MOST_SHOWN, "and {} more"), end]
    return Done({"changed": not dry_run, "changes": changes}, lines)


def _results(session: Session, project: str, step: str) -> list[str]:
    """Return the current results of a step. Raises InputError if there are none."""
    listed = list_datasets(session, project, step=step, every=True)
    found = [entry.mfid for entry in listed.entries if entry.state in (CURRENT, DOUBTFUL)]
    if not found:
        raise InputError(f"set --step {step}: none of its results is current; `list --all` shows them")
    return found


def _assigned(values: Sequence[str]) -> JsonObject:
    """Return the values to set by field; a link that is given repeatedly has several."""
    if not values:
        raise InputError("set: name what to set, as in metadata.power_mW=5")
    found: JsonObject = {}
    for text in values:
        name, value = read_pair("set", text, "FIELD=VALUE, as in metadata.power_mW=5", may_be_empty=True)
        if name in LINKS:
            found.setdefault(name, []).append(value)
        elif name in found:
            raise InputError(f"set {name}: it is given twice")
        else:
            found[name] = read_value(name, value)
    return found


@act("delete")
def delete_command(
    session: Session, dataset: Annotated[str, argument()], *, why: Why = "",
    yes: Annotated[bool, option("Even if other datasets were made from it.")] = False,
) -> Done:  # fmt: skip
    """Request the deletion of DATASET: hidden at once, and deleted after review by an administrator.

    Refused, with a list, if other datasets were made from it, unless --yes is given.
    """
    from crucible_lineage.ask.impact import request_deletion  # other corrections need no graph

    return request_deletion(session, find_mfid(session, dataset), why, even_if_used=yes)
