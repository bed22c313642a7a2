"""What makes a data folder an embedded Crucible: where things lie, its local key, what it says without a server."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# A project's revision. Left of the last colon: another text once anything was lost (deleted, asked to be deleted,
# replaced, unlinked, moved away, no longer shared), or another database is behind the address. Right of it: how many
# datasets and samples ever came to the project, which gets smaller when a backup is brought back.
REVISION = (
    """SELECT (SELECT value FROM setting WHERE name = 'instance_id') || ':' || token || ':' || made FROM revision"""
)

# Of the datasets with the keyword of statements: another text once there is another one, one less, or one was changed.
_STATEMENT_IDS = (
    "SELECT dataset_id FROM attached_keyword JOIN keyword ON keyword.id = keyword_id WHERE folded = 'statement'"
)
STATEMENTS = (
    "SELECT count(*) || ':' || coalesce(max(modified), '') || ':' || (SELECT count(*) || ':' || coalesce(max(id), 0)"  # noqa: S608  texts of ours
    f" FROM deletion_request WHERE status IN ('pending', 'approved') AND resource_id IN ({_STATEMENT_IDS}))"
    f" FROM resource WHERE id IN ({_STATEMENT_IDS})"
)


@dataclass(frozen=True)
class DataFolder:
    """The places inside a data folder."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "crucible.db"

    @property
    def local_key(self) -> Path:
        """The key of the local user, in plain text and readable by that user alone; the database holds its hash."""
        return self.root / "api_key"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def contents(self) -> Path:
        return self.root / "contents"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def workers(self) -> Path:
        return self.root / "workers"


def instance_id(data_dir: Path | str) -> str | None:
    """The random identity that a data folder's database got when it was made, None where there is none to read."""
    found = _read(data_dir, "SELECT value FROM setting WHERE name = 'instance_id'")
    return None if found is None else str(found[0])


def project_revision(data_dir: Path | str, project_id: str) -> str | None:
    """Read a project's `Crucible-Revision` without a server; None where there is no such project."""
    found = _read(data_dir, f"{REVISION} JOIN project ON project.id = project_id WHERE slug = ?", project_id)
    return None if found is None else str(found[0])


def project_changes(data_dir: Path | str, project_id: str, since: str | None, word: str) -> dict[str, str] | None:
    """{MFID: when} of the datasets of a project with that keyword that were modified since; None as above."""
    query = (
        "SELECT json_group_object(mfid, modified) FROM resource WHERE type = 'dataset' AND modified >= ?"
        " AND project_id = (SELECT id FROM project WHERE slug = ?) AND id IN (SELECT dataset_id FROM attached_keyword"
        " JOIN keyword ON keyword.id = keyword_id WHERE folded = ?)"
    )
    found = _read(data_dir, query, since or "", project_id, word.casefold())
    return None if found is None else dict(json.loads(found[0]))


def statements_token(data_dir: Path | str) -> str | None:
    """Read the value of `Crucible-Statements` for the local user without a server; None without a database."""
    found = _read(data_dir, STATEMENTS)
    return None if found is None else str(found[0])


def present_datasets(data_dir: Path | str, mfids: Iterable[str]) -> frozenset[str] | None:
    """Those of these MFIDs that some dataset has, in whichever project; None where there is no database to read."""
    query = (
        "SELECT json_group_array(mfid) FROM resource WHERE type = 'dataset'"
        " AND mfid IN (SELECT value FROM json_each(?))"
    )
    found = _read(data_dir, query, json.dumps(list(mfids)))
    return None if found is None else frozenset(json.loads(found[0]))


def _read(data_dir: Path | str, query: str, *values: str) -> tuple[Any, ...] | None:
    """The first row of an answer, None where there is no database or none that can be read: starting says which."""
    path = DataFolder(Path(data_dir).expanduser().resolve()).database
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            row: tuple[Any, ...] | None = db.execute(query, values).fetchone()
            return row
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def open_folder(data_dir: Path | str) -> DataFolder:
    """The data folder, made and furnished if it is new. Safe when several processes do it at once."""
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    from filelock import FileLock  # who only asks what is there does not wait for it

    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.lock, mode=0o600):
        for place in (folder.contents, folder.uploads, folder.workers):
            place.mkdir(mode=0o700, exist_ok=True)
        if not folder.local_key.exists():
            _write_once(folder.local_key, "local-" + secrets.token_urlsafe(32))
    return folder


def _write_once(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, for its owner's eyes only."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
