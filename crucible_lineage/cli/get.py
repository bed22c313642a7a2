"""`get`: download the files of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import click

from crucible_lineage.ask.answer import Done, next_command
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import act
from crucible_lineage.errors import FAILURE, InputError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.machine.process import Tell
from crucible_lineage.refs import file_stem
from crucible_lineage.standing.standings import standing_of

if TYPE_CHECKING:
    from crucible_lineage.session import Session


@act("get")
def get_command(
    session: Session, datasets: Annotated[Sequence[str], argument("[DATASET]...")] = (), *,
    step: Annotated[str | None, option("All current results of this step.", metavar="S")] = None,
    run: Annotated[str | None, option("All that this run made or used.", metavar="ID")] = None,
    project: Annotated[
        str | None, option("The project to search; by default, the folder's, or the only one.", metavar="P")
    ] = None,
    patterns: Annotated[
        Sequence[str], option("Only matching files, as '*.csv'; repeatable.", "--file", metavar="GLOB")
    ] = (),
    output: Annotated[Path, option("The folder for its files.", "-o", "--output", metavar="DIR")],
    tell: Tell,
) -> Done:  # fmt: skip
    """Get the files of a DATASET (its MFID, a unique beginning of it, or its name), each checked by its hash.

    Files of several datasets go into folders NAME-MFID. Nothing is overwritten; interrupted downloads continue.
    Exit code 1 if a file is not available.
    """
    if bool(datasets) == bool(step or run):
        raise InputError("name datasets, or select results with --step or --run")
    from crucible_lineage.ask.files import fetch_many

    selected = _select(session, datasets, step, run, project)
    several = len(datasets) != 1
    folders = {
        mfid: output / f"{file_stem(name)}-{mfid}" if several else output for mfid, (name, _) in selected.items()
    }
    found = fetch_many(session, folders, patterns, tell)
    lines, notes = [], []
    for dataset in found:
        state = selected[dataset.mfid][1]
        lines += [*(f"{path}  already there" for path in dataset.present), *map(str, dataset.files)]
        notes += [f"error: {name}: {reason}" for name, reason in dataset.absent.items()]
        if state in ("superseded", "incomplete"):
            notes.append(f"the dataset is {state}; for details: {next_command('show', dataset.mfid)}")
    code = FAILURE if any(dataset.absent for dataset in found) else 0
    each = [
        {
            "mfid": dataset.mfid,
            "state": selected[dataset.mfid][1],
            "files": [*dataset.present, *dataset.files],
            "absent": dataset.absent,
        }
        for dataset in found
    ]
    return Done({"datasets": each} if several else each[0], lines, code, notes)


def _select(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> dict[str, tuple[str, str]]:
    """Return {MFID: (name, state)} of the selected datasets. InputError if there are none."""
    from crucible_lineage.ask.view import existing

    if not datasets:
        listed = list_datasets(session, find_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results is current; `list --all` shows them")
        return {entry.mfid: (entry.summary.name, entry.state) for entry in listed.entries}
    mfids = dict.fromkeys(find_mfid(session, dataset, [project] if project else ()) for dataset in datasets)
    entries = [standing_of(session, existing(session, mfid)) for mfid in mfids]
    for named, entry in zip(datasets, entries, strict=False):
        if named == entry.summary.name:  # others may have it, too
            click.echo(plain(f"{named} is {entry.mfid}, {entry.state}"), err=True)
    return {entry.mfid: (entry.summary.name, entry.state) for entry in entries}
