"""Fetch the files of datasets into folders, and check their bytes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from crucible_lineage.client.files import local_path
from crucible_lineage.client.models import FileRecord
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.machine.process import Tell
from crucible_lineage.pipeline.plan.fetch import LOST, way_out
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.session import Session


@dataclass(frozen=True)
class FilesFetched:
    """The fetched files of a dataset, those that were present already, and the reasons for missing ones."""

    mfid: str
    files: tuple[Path, ...]
    present: tuple[Path, ...]
    absent: Mapping[str, str]


def own_files(session: Session, mfid: str) -> Iterator[FileRecord]:
    """Return the files of a dataset, without the file of a long provenance record."""
    return (file for file in session.client.files.list(mfid) if file.filename != ATTACHED_NAME)


def is_selected(name: str, patterns: Sequence[str]) -> bool:
    """Return whether the file's name, or its last part, matches one of the patterns (`*.csv`), or there are none."""
    last = name.rpartition("/")[2]
    return not patterns or any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in patterns)


def fetch_many(
    session: Session, folders: Mapping[str, Path], patterns: Sequence[str] = (), tell: Tell | None = None
) -> list[FilesFetched]:
    """Fetch the matching files of datasets into their folders, and check the bytes. Interrupted downloads continue.

    Raises InputError, before anything is fetched, if a file with other bytes has that name already, or no file matches
    in any dataset. Unavailable files are returned with the reason. `tell` gets the progress.
    """
    listed = dict(zip(folders, in_threads(lambda mfid: list(own_files(session, mfid)), list(folders)), strict=True))
    selected = {
        mfid: {local_path(folders[mfid], file): file for file in files if is_selected(file.filename, patterns)}
        for mfid, files in listed.items()
    }
    if patterns and not any(selected.values()):
        names = ", ".join(sorted({file.filename for files in listed.values() for file in files})[:10]) or "none"
        raise InputError(f"get the files {', '.join(patterns)}: no file matches; there are: {names}")
    for mfid, files in selected.items():
        existing = [
            path
            for path, file in files.items()
            if path.exists() and not (path.is_file() and file_sha256(path) == file.sha256_hash)
        ]
        if existing:
            blocking = ", ".join(path.name for path in existing)
            raise InputError(
                f"get the files of {mfid} into {folders[mfid]}: {blocking} already "
                f"{'exists' if len(existing) == 1 else 'exist'} with other content; nothing was fetched; name another "
                "folder, or move the existing files"
            )
    pending = [file for files in selected.values() for path, file in files.items() if not path.exists()]
    numbers, size = itertools.count(1), sum(file.size or 0 for file in pending)

    def begin(name: str) -> None:
        if tell:
            tell(f"fetching {name} ({next(numbers)} of {len(pending)})", size)

    return list(in_threads(lambda mfid: _fetch_all(session, mfid, selected[mfid], folders[mfid], begin), list(folders)))


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
    return FilesFetched(mfid, tuple(fetched), present, absent)
