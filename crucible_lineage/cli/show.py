"""`show`: one dataset with its contents, origin, parents and children; `get`: download the files of datasets."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import size_text, time_text
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    chosen_project,
    crucible_options,
    json_option,
    next_command,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.lineage.labels import first_lines, plain, value_text
from crucible_lineage.refs import file_stem
from crucible_lineage.times import time_shown

if TYPE_CHECKING:
    from crucible_lineage.ask.files import FilesFetched
    from crucible_lineage.ask.view import DatasetView, ProducingRun
    from crucible_lineage.session import Session

MOST_RELATIVES = 20  # listed parents or children
MOST_METADATA = 30  # listed entries that no step returned


@click.command("show")
@click.argument("dataset")
@crucible_options
@click.option("--log", "as_log", is_flag=True, help="Print the log of the step that made it.")
@click.option("--project", metavar="P", help="The project to search for a part of its id or its name.")
@json_option
def show_command(dataset: str, as_log: bool, project: str | None) -> None:
    """Show the DATASET, named by its MFID, a unique beginning of it, or its name: its state, returned values, files,
    author and time, parents and children; or with --log the output of its step.
    """
    from crucible_lineage.ask.names import find_mfid
    from crucible_lineage.ask.view import log_of_dataset, show_dataset

    with open_session() as session:
        mfid = find_mfid(session, dataset, [project] if project else ())
        if as_log:
            _print_log(mfid, log_of_dataset(session, mfid))
            return
        found = show_dataset(session, mfid)
    print_result(found.to_json(), _lines(found))
    doubt = found.entry.doubt
    if any(one.is_unvouched for one in found.statements) or (doubt is not None and doubt.is_unvouched):
        sys.exit(FAILURE)


def _print_log(mfid: str, printed: str | None) -> None:
    if wants_json():
        print_json({"mfid": mfid, "log": printed})
    elif printed is None:
        click.echo(f"{mfid} has no log: no step made it, or its step printed nothing", err=True)
    else:
        click.echo(printed, nl=not printed.endswith("\n"))


def _lines(found: DatasetView) -> Iterator[str]:
    """Yield the lines for a dataset: status, origin, measurement, contents and relatives."""
    mfid = found.entry.summary.mfid
    yield from _status(found)
    yield from map(plain, _origin(found))
    yield from _measured(found)
    yield from _contents(found)
    yield from _relatives("parents", found.parents, found)
    yield from _relatives("children", found.children, found)
    yield f"its files: {next_command('get', mfid, '-o', 'FOLDER')}"


def _status(found: DatasetView) -> Iterator[str]:
    from crucible_lineage.ask.deleted import request_text  # imports pydantic, which --help does not need

    entry, mfid = found.entry, found.entry.summary.mfid
    yield plain(entry.summary.name)
    yield f"{mfid}  {entry.state}"
    yield from map(plain, found.remarks)
    if found.deletion:
        requested = time_shown(str(found.deletion.get("request_time") or ""))
        state = request_text(found.deletion.get("status"))
        reason = found.deletion.get("reason")
        yield plain(f"{state} (request {found.deletion.get('id')} of {requested}){f': {reason}' if reason else ''}")
    for other in entry.superseded_by:
        since = f"  since {time_shown(entry.since)}" if entry.since else ""
        yield plain(f"superseded by {_named(other, found.names)}{since}")


def _measured(found: DatasetView) -> Iterator[str]:
    kind = " · ".join(filter(None, (found.entry.summary.measurement, found.facts.get("data_type"))))
    timestamp = time_shown(found.facts.get("timestamp", ""))
    when = f"measured {timestamp}" if timestamp else "measured at an unknown time"
    if parts := [kind, found.facts.get("instrument_name"), when, *found.samples.values()]:
        yield plain("  ".join(filter(None, parts)))


def _contents(found: DatasetView) -> Iterator[str]:
    if found.made.params:
        yield "parameters"
        yield from _values(found.made.params)
    if found.results:
        yield "results" if found.entry.summary.step else "metadata"
        yield from _values(found.results)
    if found.metadata:
        yield "more metadata"
        yield from first_lines(_values(found.metadata), MOST_METADATA, "  and {} more (--json)")
    if found.files:
        yield "files"
        yield from (_file(file) for file in found.files)


def _relatives(relation: str, mfids: Sequence[str], found: DatasetView) -> Iterator[str]:
    if mfids:
        yield relation
    for relative in mfids[:MOST_RELATIVES]:
        yield plain(f"  {_named(relative, found.names)}")
        if relation == "parents" and (equal := found.equal.get(relative)):
            yield f"    equal bytes now: {', '.join(equal)}"
    if len(mfids) > MOST_RELATIVES:
        yield f"  and {len(mfids) - MOST_RELATIVES} more; see {next_command('lineage', found.entry.summary.mfid)}"


def _origin(found: DatasetView) -> Iterator[str]:
    """Yield what made the dataset, who, when and in which run; for measured data, who registered them."""
    summary, origin = found.entry.summary, found.made
    by = f" by {origin.who}" if origin.who else ""
    if step := "/".join(filter(None, (summary.pipeline, summary.step))):
        yield f"made by {step}{f' ({origin.function})' if origin.function else ''}{_when(origin)}{by}"
    elif origin.note or found.parents:
        yield f"made manually{by}{f': {origin.note}' if origin.note else ''}"
    else:
        registered = time_shown(found.facts.get("creation_time", ""))
        yield f"registered {registered}{by}"
    if origin.run:
        yield f"run {origin.run}{f' ({origin.engine})' if origin.engine else ''}"


def _when(made: ProducingRun) -> str:
    began = f" on {time_shown(made.started)}" if made.started else ""
    return began + (f", in {time_text(made.seconds)}" if made.seconds is not None else "")


def _file(file: JsonMapping) -> str:
    size = "" if file["size"] is None else size_text(file["size"])
    return plain(f"  {file['name']}  {size}  sha256 {file['sha256']}")


def _values(values: Mapping[str, object]) -> Iterator[str]:
    yield from (f"  {plain(name)}: {value_text(value)}" for name, value in values.items())


def _named(mfid: str, names: Mapping[str, str]) -> str:
    return f"{mfid}  {names[mfid]}" if names.get(mfid, mfid) != mfid else mfid


@click.command("get")
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@crucible_options
@click.option("--step", metavar="S", help="All current results of this step.")
@click.option("--run", metavar="ID", help="All that this run made or used.")
@click.option("--project", metavar="P", help="The project to search; by default, the folder's, or the only one.")
@click.option("--file", "patterns", multiple=True, metavar="GLOB", help="Only matching files, as '*.csv'; repeatable.")
@click.option(
    "-o", "--output", type=click.Path(file_okay=False, path_type=Path), required=True, help="The folder for its files."
)
@json_option
def get_command(
    datasets: tuple[str, ...],
    step: str | None,
    run: str | None,
    project: str | None,
    patterns: tuple[str, ...],
    output: Path,
) -> None:
    """Get the files of a DATASET (its MFID, a unique beginning of it, or its name), each checked by its hash.

    Files of several datasets go into folders NAME-MFID. Nothing is overwritten; interrupted downloads continue.
    Exit code 1 if a file is not available.
    """
    if bool(datasets) == bool(step or run):
        raise InputError("name datasets, or select results with --step or --run")
    from crucible_lineage.ask.files import fetch_many

    with open_session() as session:
        selected = _select(session, datasets, step, run, project)
        several = len(datasets) != 1
        folders = {
            mfid: output / f"{file_stem(name)}-{mfid}" if several else output for mfid, (name, _) in selected.items()
        }
        with showing_work() as work:
            found = fetch_many(session, folders, patterns, work)
    if wants_json():
        print_json(_as_json(found, selected, several))
    else:
        for fetched in found:
            _print(fetched, selected[fetched.mfid][1])
    if any(fetched.absent for fetched in found):
        sys.exit(FAILURE)


def _select(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> dict[str, tuple[str, str]]:
    """Return {MFID: (name, state)} of the selected datasets. InputError if there are none."""
    from crucible_lineage.ask.listing import list_datasets
    from crucible_lineage.ask.names import find_mfid
    from crucible_lineage.ask.view import existing
    from crucible_lineage.standing.standings import standing_of

    if not datasets:
        listed = list_datasets(session, chosen_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results is current; `list --all` shows them")
        return {entry.mfid: (entry.summary.name, entry.state) for entry in listed.entries}
    mfids = dict.fromkeys(find_mfid(session, one, [project] if project else ()) for one in datasets)
    entries = [standing_of(session, existing(session, mfid)) for mfid in mfids]
    return {entry.mfid: (entry.summary.name, entry.state) for entry in entries}


def _as_json(found: Sequence[FilesFetched], selected: dict[str, tuple[str, str]], several: bool) -> dict[str, object]:
    each: list[JsonObject] = [
        {
            "mfid": fetched.mfid,
            "state": selected[fetched.mfid][1],
            "files": [str(path) for path in (*fetched.present, *fetched.files)],
            "absent": dict(fetched.absent),
        }
        for fetched in found
    ]
    return {"datasets": each} if several else each[0]


def _print(found: FilesFetched, state: str) -> None:
    for path in found.present:
        click.echo(plain(f"{path}  already there"))
    for path in found.files:
        click.echo(plain(str(path)))
    for name, reason in found.absent.items():
        click.echo(plain(f"error: {name}: {reason}"), err=True)
    if state in ("superseded", "incomplete"):
        click.echo(f"the dataset is {state}; for details: {next_command('show', found.mfid)}", err=True)
