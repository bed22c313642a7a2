"""Back up an embedded Crucible while it runs, and restore it.

    BACKUP/crucible.db     a consistent copy of the database, checked
    BACKUP/contents/..     the files that it names, each under its SHA-256
    BACKUP/api_key         the local key, readable by its owner only

Files are copied first. The database is renamed into place last, in one step, so an interrupted backup leaves the
previous one intact and the next attempt continues it. A restore sets the current folder aside and deletes nothing.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.server.database import DataFolder, connect, open_database
from crucible_lineage.server.schema import require_undamaged
from crucible_lineage.server.storage import digest_of, flush_folder

PAGES_AT_A_TIME = 1000  # of the database; other processes may write in between


class BackupError(Exception):
    """A backup or folder that cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Backup:
    """The contents of a backup; `damaged` lists the SHA-256 of files of which no intact copy was found."""

    folder: Path
    datasets: int
    files: int
    bytes: int
    damaged: tuple[str, ...]


def back_up(data_dir: Path, target: Path) -> Backup:
    """Copy an embedded Crucible, which may be in use, into `target`: a new folder or an earlier backup.

    Raises BackupError if `data_dir` has no embedded Crucible, its database is damaged, or `target` is something else.
    """
    source, backup = DataFolder(data_dir), DataFolder(target)
    if not source.database.exists():
        raise BackupError(f"there is no embedded Crucible in {data_dir}")
    if target.exists() and any(target.iterdir()) and not backup.contents.is_dir():
        raise BackupError(f"{target} is neither empty nor an earlier backup; name another folder")
    return _copy(source, backup, [source], f"the database in {data_dir}")


def restore(source: Path, data_dir: Path) -> tuple[Backup, Path | None]:
    """Replace an embedded Crucible by a backup. Return it, and where the current folder was set aside.

    Clients notice and discard what they cached of each project. Raises BackupError if `source` is damaged or no
    backup, or while a server works in `data_dir`.
    """
    backup, folder = DataFolder(source), DataFolder(data_dir)
    if not backup.database.exists():
        raise BackupError(f"there is no backup in {source}: it has no crucible.db")
    if folder.database.exists():
        try:
            with closing(connect(folder.database, wait_s=1.0)) as db:
                db.execute("PRAGMA journal_mode = DELETE")  # SQLite keeps its journal while another process has it open
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise BackupError(
                    f"a server works in {folder.root}: stop `serve`, or wait until no command "
                    "runs there (the server that commands share ends some seconds after the last one)"
                ) from None
    draft = DataFolder(folder.root.with_name(f"{folder.root.name}.new"))
    shutil.rmtree(draft.root, ignore_errors=True)
    report = _copy(backup, draft, [backup, folder], f"the backup in {source}")
    with closing(open_database(draft.database)) as database, database.write() as db:
        db.execute("UPDATE revision SET token = lower(hex(randomblob(8)))")
    set_aside = None
    if folder.root.exists():
        set_aside = folder.root.with_name(f"{folder.root.name}.before-{datetime.now(UTC):%Y%m%dT%H%M%S}")
        folder.root.replace(set_aside)
    draft.root.replace(folder.root)
    flush_folder(folder.root.parent)
    return report, set_aside


def _copy(source: DataFolder, target: DataFolder, homes: list[DataFolder], subject: str) -> Backup:
    """Copy an undamaged database, the contents that it names, each from the first home that has it, and the key."""
    target.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    target.contents.mkdir(mode=0o700, exist_ok=True)
    draft = target.root / "crucible.db.new"
    draft.unlink(missing_ok=True)
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    try:
        with closing(connect(source.database)) as current, closing(connect(draft)) as copy:
            current.backup(copy, pages=PAGES_AT_A_TIME)
            copy.execute("PRAGMA journal_mode = DELETE")
            require_undamaged(copy)
    except (sqlite3.DatabaseError, UnicodeDecodeError) as error:
        raise BackupError(f"{subject} is damaged: {error}; use an earlier copy") from error
    report = _copy_contents(draft, target, homes)
    for home in homes:
        if not target.local_key.exists() and home.local_key.exists():
            shutil.copy2(home.local_key, target.local_key)
    draft.replace(target.database)
    flush_folder(target.root)
    return report


def _copy_contents(database: Path, target: DataFolder, sources: list[DataFolder]) -> Backup:
    """Copy the files that the database names and `target` lacks, each from the first source whose bytes are right."""
    damaged, files, size = [], 0, 0
    with closing(connect(database)) as db:
        (datasets,) = db.execute("SELECT COUNT(*) FROM resource WHERE type = 'dataset'").fetchone()
        named = db.execute("SELECT DISTINCT sha256, size FROM file").fetchall()
    for row in named:
        path = target.content(row["sha256"])
        if not path.exists() or path.stat().st_size != row["size"]:
            path.parent.mkdir(mode=0o700, exist_ok=True)
            draft = path.with_suffix(".new")
            for folder in sources:
                with suppress(FileNotFoundError):
                    shutil.copyfile(folder.content(row["sha256"]), draft)
                    if digest_of(draft).sha256 == row["sha256"]:
                        break
            else:
                draft.unlink(missing_ok=True)
                damaged.append(row["sha256"])
                continue
            with draft.open("rb") as file:
                os.fsync(file.fileno())
            draft.replace(path)
        files += 1
        size += row["size"]
    return Backup(target.root, datasets, files, size, tuple(damaged))
