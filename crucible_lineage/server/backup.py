"""Backup of an embedded Crucible while it runs, and bringing one back.

    BACKUP/crucible.db     a consistent copy of the database, checked
    BACKUP/contents/..     the files that it names, each under its SHA-256
    BACKUP/api_key         the local key, for its owner's eyes only

Files come first and the database last, under its name in one step: whatever interrupts a backup leaves the one before
it whole, and the next one goes on. Bringing one back sets what is there aside; nothing is thrown away.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from crucible_lineage.server.database import connect, open_database
from crucible_lineage.server.files.storage import STORE
from crucible_lineage.server.instance import DataFolder
from crucible_lineage.server.seals import damage

BLOCK_BYTES = 1 << 20
PAGES_AT_A_TIME = 1000  # of the database, between which others write


class BackupError(Exception):
    """A backup or a folder cannot be used; says what is so and what to do."""


@dataclass(frozen=True)
class Backup:
    """What a backup holds; `damaged` are the SHA-256 of files whose good bytes are nowhere."""

    folder: Path
    datasets: int
    files: int
    bytes: int
    damaged: tuple[str, ...]


@dataclass(frozen=True)
class RestoreReport:
    """What came back. `younger` are (MFID, name) of the datasets that only the folder set aside has, `changed` of
    those that it has in a later state; None where it could not be read."""

    backup: Backup
    set_aside: Path | None
    younger: tuple[tuple[str, str], ...] | None
    changed: tuple[tuple[str, str], ...] | None


def back_up(data_dir: Path, target: Path) -> Backup:
    """Copy an embedded Crucible into `target`, a new folder or an earlier backup, while others may work with it.

    Raises BackupError if there is none, its database is damaged, or `target` is something else.
    """
    source, kept = DataFolder(data_dir), DataFolder(target)
    if not source.database.exists():
        raise BackupError(f"there is no embedded Crucible in {data_dir}")
    if target.exists() and any(target.iterdir()) and not kept.contents.is_dir():
        raise BackupError(f"{target} is neither empty nor an earlier backup; name another folder")
    target.mkdir(mode=0o700, parents=True, exist_ok=True)
    kept.contents.mkdir(mode=0o700, exist_ok=True)
    draft = kept.root / "crucible.db.new"
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(connect(source.database)) as here, closing(connect(draft)) as copy:
        here.backup(copy, pages=PAGES_AT_A_TIME)
        copy.execute("PRAGMA journal_mode = DELETE")
    _require_whole(draft, f"the database in {data_dir}")
    found = _gathered(draft, kept, [source])
    if not kept.local_key.exists() and source.local_key.exists():
        shutil.copy2(source.local_key, kept.local_key)
    draft.replace(kept.database)
    _flush_folder(kept.root)
    return found


def restore(source: Path, data_dir: Path) -> RestoreReport:
    """Put a backup in the place of an embedded Crucible, which is set aside beside it.

    Every client notices: what it knew of a project, it asks again. Raises BackupError if the backup is damaged or
    none, or while a server works in `data_dir`.
    """
    kept, folder = DataFolder(source), DataFolder(data_dir)
    if not kept.database.exists():
        raise BackupError(f"there is no backup in {source}: it has no crucible.db")
    _require_whole(kept.database, f"the backup in {source}")
    _require_idle(folder)
    draft = DataFolder(folder.root.with_name(f"{folder.root.name}.new"))
    shutil.rmtree(draft.root, ignore_errors=True)
    draft.root.mkdir(mode=0o700, parents=True)
    draft.contents.mkdir(mode=0o700)
    shutil.copy2(kept.database, draft.database)
    found = _gathered(kept.database, draft, [kept, folder])
    key = kept.local_key if kept.local_key.exists() else folder.local_key
    if key.exists():
        shutil.copy2(key, draft.local_key)
    with closing(open_database(draft.database)) as database, database.write() as db:
        db.execute("UPDATE revision SET token = lower(hex(randomblob(8)))")
    younger, changed = _beyond(folder, draft)
    aside = _set_aside(folder)
    draft.root.replace(folder.root)
    _flush_folder(folder.root.parent)
    return RestoreReport(found, aside, younger, changed)


def _require_whole(path: Path, what: str) -> None:
    try:
        with closing(connect(path)) as db:
            found = list(damage(db))
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        found = [str(error)]
    if found:
        raise BackupError(f"{what} is damaged: {'; '.join(found)}; use an earlier copy")


def _require_idle(folder: DataFolder) -> None:
    """Raise BackupError while a server, in whatever process, works in the folder: each holds a lock there."""
    for path in sorted(folder.workers.glob("*.lock")) if folder.workers.is_dir() else ():
        try:
            with FileLock(path, timeout=0):
                continue
        except Timeout:
            raise BackupError(
                f"a server works in {folder.root}: stop `serve`, or wait until no command "
                "runs there (the server that commands share ends some seconds after the last one)"
            ) from None


def _gathered(database: Path, target: DataFolder, sources: list[DataFolder]) -> Backup:
    """Copy each file that the database names, unless it is there, from the first source with the right bytes."""
    damaged, files, size = [], 0, 0
    with closing(connect(database)) as db:
        (datasets,) = db.execute("SELECT COUNT(*) FROM dataset").fetchone()
        named = db.execute(
            "SELECT DISTINCT sha256, size FROM file WHERE backend = ? AND sha256 IS NOT NULL", (STORE,)
        ).fetchall()
    for row in named:
        path = _content(target, row["sha256"])
        if not path.exists() or path.stat().st_size != row["size"]:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            if not any(_copied(_content(one, row["sha256"]), path, row["sha256"]) for one in sources):
                damaged.append(row["sha256"])
                continue
        files += 1
        size += row["size"]
    return Backup(target.root, datasets, files, size, tuple(damaged))


def _copied(source: Path, target: Path, sha256: str) -> bool:
    draft, digest = target.with_suffix(".new"), hashlib.sha256()
    try:
        with source.open("rb") as given, draft.open("wb") as taken:
            while block := given.read(BLOCK_BYTES):
                digest.update(block)
                taken.write(block)
            taken.flush()
            os.fsync(taken.fileno())
    except FileNotFoundError:
        draft.unlink(missing_ok=True)
        return False
    if digest.hexdigest() == sha256:
        draft.replace(target)
        return True
    draft.unlink()
    return False


def _beyond(
    folder: DataFolder, draft: DataFolder
) -> tuple[tuple[tuple[str, str], ...] | None, tuple[tuple[str, str], ...] | None]:
    """Datasets that the folder has and the draft has not, and those that it has in a later state."""
    if not folder.database.exists():
        return (), ()
    try:
        there, back = dict(_states(folder.database)), dict(_states(draft.database))
    except (sqlite3.DatabaseError, UnicodeDecodeError):
        return None, None
    younger = tuple((mfid, name) for mfid, (name, _) in there.items() if mfid not in back)
    changed = tuple((mfid, name) for mfid, (name, at) in there.items() if mfid in back and at > back[mfid][1])
    return younger, changed


def _states(database: Path) -> Iterator[tuple[str, tuple[str, str]]]:
    with closing(connect(database)) as db:
        for row in db.execute(
            "SELECT mfid, dataset_name, modified FROM resource JOIN dataset USING (id) ORDER BY mfid"
        ):
            yield row["mfid"], (row["dataset_name"] or "", row["modified"])


def _set_aside(folder: DataFolder) -> Path | None:
    if not folder.root.exists():
        return None
    moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%S")
    aside = folder.root.with_name(f"{folder.root.name}.before-{moment}")
    folder.root.replace(aside)
    return aside


def _content(folder: DataFolder, sha256: str) -> Path:
    return folder.contents / sha256[:2] / sha256[2:]


def _flush_folder(path: Path) -> None:
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            with suppress(OSError):  # a file system that flushes no folders
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
