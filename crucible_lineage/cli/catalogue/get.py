"""`get`: the files of datasets, in folders here."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from crucible_lineage.cli.ending import FAILURE
from crucible_lineage.cli.options import crucible_options, json_option, next_command, open_session, print_json
from crucible_lineage.cli.working import showing_work
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.refs import file_stem

if TYPE_CHECKING:
    from crucible_lineage.queries.catalogue.files import FilesFetched
    from crucible_lineage.session import Session

__all__ = ["get_command"]


@click.command("get")
@click.argument("datasets", nargs=-1, metavar="[DATASET]...")
@crucible_options
@click.option("--step", metavar="S", help="All current results of this step.")
@click.option("--run", metavar="ID", help="All that this run made or relied on.")
@click.option("--project", metavar="P", help="Where to look; by default, the folder's, or the only one.")
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
    as_json: bool,
) -> None:
    """Get the files of a DATASET (its MFID, a unique beginning of it, or its name), each checked by its hash.

    Those of several go into a folder each, named NAME-MFID. Nothing is overwritten; what was cut short goes on. Exit
    code 1 if a file cannot be had.
    """
    if bool(datasets) == bool(step or run):
        raise InputError("say whose files: those of datasets, or of all results of a --step or a --run")
    from crucible_lineage.queries.catalogue.files import fetch_many

    with open_session() as session:
        meant = _meant(session, datasets, step, run, project)
        several = len(datasets) != 1
        folders = {
            mfid: output / f"{file_stem(name)}-{mfid}" if several else output for mfid, (name, _) in meant.items()
        }
        with showing_work(silent=as_json) as work:
            found = fetch_many(session, folders, patterns, work)
    if as_json:
        print_json(_as_json(found, meant, several))
    else:
        for one in found:
            _print(one, meant[one.mfid][1])
    if any(one.absent for one in found):
        sys.exit(FAILURE)


def _meant(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> dict[str, tuple[str, str]]:
    """Return {MFID: (name, state)} of the datasets that are meant. InputError if there are none."""
    from crucible_lineage.queries.catalogue.listing import list_datasets
    from crucible_lineage.queries.catalogue.reference import find_mfid, find_project
    from crucible_lineage.queries.catalogue.shown import existing
    from crucible_lineage.queries.graph.standing import entry_of

    if not datasets:
        listed = list_datasets(session, find_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results holds now; `list --all` shows them")
        return {entry.mfid: (entry.summary.name, entry.state) for entry in listed.entries}
    mfids = dict.fromkeys(find_mfid(session, one, [project] if project else ()) for one in datasets)
    entries = [entry_of(session, existing(session, mfid)) for mfid in mfids]
    return {entry.mfid: (entry.summary.name, entry.state) for entry in entries}


def _as_json(found: Sequence[FilesFetched], meant: dict[str, tuple[str, str]], several: bool) -> dict[str, object]:
    each: list[dict[str, Any]] = [
        {
            "mfid": one.mfid,
            "state": meant[one.mfid][1],
            "files": [str(path) for path in (*one.present, *one.files)],
            "absent": dict(one.absent),
            "made_again": dict(one.made_again),
        }
        for one in found
    ]
    return {"datasets": each} if several else each[0]


def _print(found: FilesFetched, state: str) -> None:
    for path in found.present:
        click.echo(f"{path}  there already")
    for path in found.files:
        click.echo(path)
    for name, reason in found.made_again.items():
        click.echo(f"made again, with the recorded bytes: {plain(name)}: {plain(reason)}", err=True)
    for name, reason in found.absent.items():
        click.echo(f"error: {plain(name)}: {plain(reason)}", err=True)
    if state in ("superseded", "incomplete"):
        click.echo(f"the dataset is {state}; tell more: {next_command('show', found.mfid)}", err=True)
