"""The files of datasets, fetched into folders, their bytes checked."""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import file_sha256
from crucible_lineage.client.transfer.download import local_path
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.errors import InputError, LineageError
from crucible_lineage.lineage.records import text
from crucible_lineage.pipeline.files.fetch import LOST, fetch_reference, is_reference, note_if_lost, remade
from crucible_lineage.provenance.record import ATTACHED_NAME
from crucible_lineage.session import Session
from crucible_lineage.traffic import Tell

if TYPE_CHECKING:
    from crucible_lineage.client.models import FileRecord


@dataclass(frozen=True)
class FilesFetched:
    """Files of a dataset that are in a folder now, and why others are not.

    `made_again` are those that Crucible has lost or damaged, with its error: they were made again with the same bytes.
    """

    mfid: str
    files: tuple[Path, ...]
    present: tuple[Path, ...]
    absent: Mapping[str, str]
    made_again: Mapping[str, str] = field(default_factory=dict)


def own_files(session: Session, mfid: str) -> Iterator[FileRecord]:
    """Its own files; a long provenance record, which lies in a file beside them, is none."""
    return (file for file in session.client.files.list(mfid) if file.filename != ATTACHED_NAME)


def is_wanted(name: str, patterns: Sequence[str]) -> bool:
    """True if the file's name, or the last part of it, fits one of the patterns (`*.csv`); if there is none, always."""
    last = name.rpartition("/")[2]
    return not patterns or any(fnmatchcase(name, pattern) or fnmatchcase(last, pattern) for pattern in patterns)


def fetch_many(
    session: Session, folders: Mapping[str, Path], patterns: Sequence[str] = (), tell: Tell | None = None
) -> list[FilesFetched]:
    """The files of datasets whose names fit are in their folders, bytes checked; what was interrupted is continued.

    InputError, before anything is fetched, if a file of that name with other bytes is there already, or no name fits.
    Files that cannot be had are told with the reason. `tell` hears how far it is. Of several datasets, one without
    a file that fits is no fault, as long as another one has some.
    """
    listed = dict(zip(folders, in_threads(lambda mfid: list(own_files(session, mfid)), list(folders)), strict=True))
    wanted = {
        mfid: {local_path(folders[mfid], file): file for file in files if is_wanted(file.filename, patterns)}
        for mfid, files in listed.items()
    }
    if patterns and not any(wanted.values()):
        there = ", ".join(sorted({file.filename for files in listed.values() for file in files})[:10]) or "none"
        raise InputError(f"get the files {', '.join(patterns)}: no file matches; there are: {there}")
    _require_room(wanted, folders)
    to_come = [file for files in wanted.values() for path, file in files.items() if not path.exists()]
    told = _Told(tell, len(to_come), sum(file.size or 0 for file in to_come))
    return list(in_threads(lambda mfid: _fetched_all(session, mfid, wanted[mfid], folders[mfid], told), list(folders)))


class _Told:
    """Counts the files that are fetched, in any thread, for whoever wants to hear of it."""

    def __init__(self, tell: Tell | None, files: int, size: int) -> None:
        self._tell, self._files, self._size = tell, files, size
        self._number = itertools.count(1)

    def begin(self, name: str) -> None:
        """Announce the next file."""
        if self._tell:
            self._tell(f"fetching {name} ({next(self._number)} of {self._files})", self._size)


def _require_room(wanted: Mapping[str, Mapping[Path, FileRecord]], folders: Mapping[str, Path]) -> None:
    for mfid, files in wanted.items():
        if taken := [path for path, file in files.items() if path.exists() and not _is_there(path, file)]:
            names = ", ".join(path.name for path in taken)
            raise InputError(
                f"get the files of {mfid} into {folders[mfid]}: {names} already "
                f"{'exists' if len(taken) == 1 else 'exist'} with other content; nothing was fetched; name another "
                "folder, or move the existing files"
            )


def _fetched_all(
    session: Session, mfid: str, files: Mapping[Path, FileRecord], folder: Path, told: _Told
) -> FilesFetched:
    present = tuple(path for path in files if path.exists())
    absent: dict[str, str] = {}
    again: dict[str, str] = {}
    fetched = []
    for path, file in files.items():
        if path in present:
            continue
        told.begin(file.filename)
        try:
            fetched.append(_fetched(session, mfid, file, path, folder))
        except LineageError as error:
            note_if_lost(session, mfid, file.filename, error)
            try:
                fetched.append(_made_again(session, mfid, file, path, error))
                again[file.filename] = str(error)
            except LineageError as lost:
                absent[file.filename] = str(lost)
    return FilesFetched(mfid, tuple(fetched), present, absent, again)


def _made_again(session: Session, mfid: str, file: FileRecord, path: Path, error: LineageError) -> Path:
    """A file that Crucible has lost, made again. Raises why it cannot be had."""
    if not isinstance(error, LOST) or not file.sha256_hash:
        raise error
    made = remade(session, mfid, file.sha256_hash, error)
    path.parent.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copyfile(made, path))


def _is_there(path: Path, file: FileRecord) -> bool:
    return path.is_file() and bool(file.sha256_hash) and file_sha256(path) == text(file.sha256_hash)


def _fetched(session: Session, mfid: str, file: FileRecord, path: Path, folder: Path) -> Path:
    if not is_reference(file):
        return session.client.files.download(file, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as stream:
            fetch_reference(mfid, file, stream.write, session)
        return part.replace(path)
    finally:
        part.unlink(missing_ok=True)
