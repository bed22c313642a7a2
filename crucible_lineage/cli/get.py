"""`get`: download the files of datasets into folders, and check their bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import click

from crucible_lineage.ask.answer import Done, next_command
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.question import Project, argument, option
from crucible_lineage.ask.view import existing, own_files
from crucible_lineage.cli.asking import act
from crucible_lineage.client.files import is_selected, local_path
from crucible_lineage.client.models import FileRecord
from crucible_lineage.errors import FAILURE, InputError, LineageError
from crucible_lineage.lineage.labels import plain
from crucible_lineage.lineage.model import INCOMPLETE, SUPERSEDED
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.machine.process import Tell, in_threads
from crucible_lineage.pipeline.plan.fetch import LOST, way_out
from crucible_lineage.refs import file_stem
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standing_of


@act("get")
def get_command(
    session: Session, datasets: Annotated[Sequence[str], argument("[DATASET]...")] = (), *,
    step: Annotated[str | None, option("All current results of this step.", metavar="S")] = None,
    run: Annotated[str | None, option("All that this run made or used.", metavar="ID")] = None,
    project: Project = None,
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
    selected, several = _select(session, datasets, step, run, project), len(datasets) != 1
    folders = {
        entry.mfid: output / f"{file_stem(entry.summary.name)}-{entry.mfid}" if several else output
        for entry in selected
    }
    found = fetch_many(session, folders, patterns, tell)
    lines, notes, each = [], [], []
    for entry, fetched in zip(selected, found, strict=True):
        lines += [*(f"{path}  already there" for path in fetched.present), *map(str, fetched.files)]
        notes += [f"error: {name}: {reason}" for name, reason in fetched.absent.items()]
        if entry.state in (SUPERSEDED, INCOMPLETE):
            notes.append(f"the dataset is {entry.state}; for details: {next_command('show', entry.mfid)}")
        files = [*fetched.present, *fetched.files]
        each.append({"mfid": entry.mfid, "state": entry.state, "files": files, "absent": fetched.absent})
    code = FAILURE if any(fetched.absent for fetched in found) else 0
    return Done({"datasets": each} if several else each[0], lines, code, notes)


def _select(
    session: Session, datasets: Sequence[str], step: str | None, run: str | None, project: str | None
) -> Sequence[Standing]:
    """Return the selected datasets. Raises InputError if there are none."""
    if not datasets:
        listed = list_datasets(session, find_project(session, project), step=step, run=run, every=run is not None)
        if not listed.entries:
            raise InputError(f"get the files of step {step!r}: none of its results is current; `list --all` shows them")
        return listed.entries
    mfids = dict.fromkeys(find_mfid(session, dataset, [project] if project else ()) for dataset in datasets)
    entries = [standing_of(session, existing(session, mfid)) for mfid in mfids]
    for named, entry in zip(datasets, entries, strict=False):
        if named == entry.summary.name:  # others may have it, too
            click.echo(plain(f"{named} is {entry.mfid}, {entry.state}"), err=True)
    return entries


@dataclass(frozen=True)
class FilesFetched:
    """The fetched files of a dataset, those that were present already, and the reasons for missing ones."""

    files: tuple[Path, ...]
    present: tuple[Path, ...]
    absent: Mapping[str, str]


def fetch_many(
    session: Session, folders: Mapping[str, Path], patterns: Sequence[str] = (), tell: Tell | None = None
) -> list[FilesFetched]:
    """Fetch the matching files of datasets into their folders, and check the bytes. Interrupted downloads continue.

    Raises InputError, before anything is fetched, if a file with other bytes has that name already, or no file matches
    in any dataset. Unavailable files are returned with the reason. `tell` gets the progress.
    """
    listed = dict(zip(folders, in_threads(lambda mfid: list(own_files(session, mfid)), list(folders)), strict=True))
    selected = {
        mfid: {
            local_path(folders[mfid], file): file
            for file in files
            if is_selected(file.filename, patterns or None, None)
        }
        for mfid, files in listed.items()
    }
    if patterns and not any(selected.values()):
        names = ", ".join(sorted({file.filename for files in listed.values() for file in files})[:10]) or "none"
        raise InputError(f"get the files {', '.join(patterns)}: no file matches; there are: {names}")
    for mfid, files in selected.items():
        _require_free(mfid, folders[mfid], files)
    pending = [file for files in selected.values() for path, file in files.items() if not path.exists()]
    numbers, size = itertools.count(1), sum(file.size or 0 for file in pending)

    def begin(name: str) -> None:
        if tell:
            tell(f"fetching {name} ({next(numbers)} of {len(pending)})", size)

    return in_threads(lambda mfid: _fetch_all(session, mfid, selected[mfid], folders[mfid], begin), list(folders))


def _require_free(mfid: str, folder: Path, files: Mapping[Path, FileRecord]) -> None:
    """Raise InputError if a file with other bytes lies where one of these is to be."""
    existing = [
        path
        for path, file in files.items()
        if path.exists() and not (path.is_file() and file_sha256(path) == file.sha256_hash)
    ]
    if existing:
        raise InputError(
            f"get the files of {mfid} into {folder}: {', '.join(path.name for path in existing)} already "
            f"{'exists' if len(existing) == 1 else 'exist'} with other content; nothing was fetched; name another "
            "folder, or move the existing files"
        )


def _fetch_all(
    session: Session, mfid: str, files: Mapping[Path, FileRecord], folder: Path, begin: Callable[[str], None]
) -> FilesFetched:
    present = tuple(path for path in files if path.exists())
    absent: dict[str, str] = {}
    fetched = []
    for path, file in files.items():
        if path in present:
            continue
        begin(file.filename)
        try:
            fetched.append(session.client.files.download(file, folder))
        except LineageError as error:
            absent[file.filename] = f"{error}; {way_out(mfid)}" if isinstance(error, LOST) else str(error)
    return FilesFetched(tuple(fetched), present, absent)
