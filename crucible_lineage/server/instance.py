"""The data folder of an embedded Crucible: its paths, its local key, and what can be read without a server."""

from __future__ import annotations

import json
import os
import secrets
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

PREFIX = "/api/v3"
# A project's revision. The text left of the last colon changes when anything is lost (deleted, requested to be deleted,
# replaced, unlinked, moved away, no longer shared), or when the address gets another database. Right of it is the
# number of datasets and samples that ever entered the project, which decreases when a backup is restored.
REVISION = (
    """SELECT (SELECT value FROM setting WHERE name = 'instance_id') || ':' || token || ':' || made FROM revision"""
)

# The datasets with a keyword that contains a text without upper-case letters.
WITH_KEYWORD = "SELECT dataset_id FROM attached_keyword JOIN keyword ON keyword.id = keyword_id WHERE instr(folded, ?)"
# A text that changes when a dataset with the keyword of statements is added, removed or modified.
_STATEMENT_IDS = (
    "SELECT dataset_id FROM attached_keyword JOIN keyword ON keyword.id = keyword_id WHERE folded = 'statement'"
)
STATEMENTS = (
    "SELECT count(*) || ':' || coalesce(max(modified), '') || ':' || (SELECT count(*) || ':' || coalesce(max(id), 0)"  # noqa: S608  constant texts
    f" FROM deletion_request WHERE resource_id IN ({_STATEMENT_IDS}))"
    f" FROM resource WHERE id IN ({_STATEMENT_IDS})"
)


@dataclass(frozen=True)
class DataFolder:
    """The paths inside a data folder."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "crucible.db"

    @property
    def local_key(self) -> Path:
        """The key of the local user in plain text, readable by that user only; the database has its hash."""
        return self.root / "api_key"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def contents(self) -> Path:
        return self.root / "contents"

    def content(self, sha256: str) -> Path:
        """Return the path for the bytes with this checksum, whether they exist or not."""
        return self.contents / sha256[:2] / sha256[2:]

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def workers(self) -> Path:
        return self.root / "workers"


def instance_id(data_dir: Path | str) -> str | None:
    """Return the random identity that the database of a data folder got when created; None if it is unreadable."""
    return _read(data_dir, "SELECT value FROM setting WHERE name = 'instance_id'")


def project_revision(data_dir: Path | str, project_id: str) -> str | None:
    """Read a project's `Crucible-Revision` without a server; None if there is no such project."""
    return _read(data_dir, f"{REVISION} JOIN project ON project.id = project_id WHERE slug = ?", project_id)


def project_changes(data_dir: Path | str, project_id: str, since: str | None, keyword: str) -> dict[str, str] | None:
    """Return {MFID: when modified} of a project's datasets with a keyword, modified since then; None as above."""
    query = (
        "SELECT json_group_object(mfid, modified) FROM resource"  # noqa: S608  constant texts
        " WHERE type = 'dataset' AND NOT hidden AND modified >= ?"
        f" AND project_id = (SELECT id FROM project WHERE slug = ?) AND id IN ({WITH_KEYWORD})"
    )
    modified = _read(data_dir, query, since or "", project_id, keyword.casefold())
    return None if modified is None else dict(json.loads(modified))


def statements_token(data_dir: Path | str) -> str | None:
    """Read the local user's `Crucible-Statements` without a server; None if there is no database."""
    return _read(data_dir, STATEMENTS)


def present_datasets(data_dir: Path | str, mfids: Iterable[str]) -> frozenset[str] | None:
    """Return those of the MFIDs that are datasets of any project; None if no database can be read."""
    query = (
        "SELECT json_group_array(mfid) FROM resource WHERE type = 'dataset'"
        " AND mfid IN (SELECT value FROM json_each(?))"
    )
    present = _read(data_dir, query, json.dumps(list(mfids)))
    return None if present is None else frozenset(json.loads(present))


def _read(data_dir: Path | str, query: str, *values: str) -> str | None:
    """Return the text that a query selects; None if there is no readable database (starting a server says why)."""
    path = DataFolder(Path(data_dir).expanduser().resolve()).database
    if not path.exists():
        return None
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db:
            row = db.execute(query, values).fetchone()
            return None if row is None else str(row[0])
    except (sqlite3.Error, UnicodeDecodeError):
        return None


def open_folder(data_dir: Path | str) -> DataFolder:
    """Open a data folder, creating what it lacks. Safe when several processes do it at once."""
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    from filelock import FileLock  # imported late: reading alone does not need it

    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.lock, mode=0o600):
        for path in (folder.contents, folder.uploads, folder.workers):
            path.mkdir(mode=0o700, exist_ok=True)
        if not folder.local_key.exists():
            _write_once(folder.local_key, "local-" + secrets.token_urlsafe(32))
    return folder


def _write_once(path: Path, text: str) -> None:
    """Write a small file atomically, readable by its owner only."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
