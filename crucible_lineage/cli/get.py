"""`get`: download the files of datasets."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.ask.answer import next_command
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.options import (
    chosen_project,
    crucible_options,
    json_option,
    open_session,
    print_json,
    wants_json,
)
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import plain
from crucible_lineage.refs import file_stem

if TYPE_CHECKING:
    from crucible_lineage.ask.files import FilesFetched
    from crucible_lineage.session import Session


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
    for named, entry in zip(datasets, entries, strict=False):
        if named == entry.summary.name:  # others may have it, too
            click.echo(plain(f"{named} is {entry.mfid}, {entry.state}"), err=True)
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
