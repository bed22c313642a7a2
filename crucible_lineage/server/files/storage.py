"""The bytes on disk: verified contents under their SHA-256, and unfinished uploads.

Everything is written to a draft, checked and flushed before it gets its final name, so that a record never points to
partial bytes. Names on disk come from checksums and random ids, never from user input.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import errno
import hashlib
import os
import re
import secrets
import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO
from weakref import WeakValueDictionary

import google_crc32c
from pydantic import AfterValidator, Field

from crucible_lineage.ids import is_mfid, new_mfid
from crucible_lineage.server.catalogue.access import READABLE, VIEWER, Caller, not_found, require, roles
from crucible_lineage.server.catalogue.metadata import renew_metadata
from crucible_lineage.server.catalogue.records import etag
from crucible_lineage.server.catalogue.resources import touch
from crucible_lineage.server.database import Database, now
from crucible_lineage.server.http import Count, Form, refuse
from crucible_lineage.server.instance import DataFolder
from crucible_lineage.server.seals import require_rows

BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")


STORE = "gcs"  # what Crucible's clients call files that the service itself stores
BUCKET = "crucible-local"
MAX_FILES = 50_000  # chosen: per dataset; their list takes 20 MB
SESSION_LIFETIME = timedelta(days=7)
REPLACED_CONTENT_LIFETIME = timedelta(days=7)  # the contract's minimum

FILES = "SELECT file.*, resource.mfid AS dataset_mfid FROM file JOIN resource ON resource.id = file.dataset_id"


class TooLongError(Exception):
    """The client sent more bytes than it announced."""


@dataclass(frozen=True)
class Draft:
    """A received draft: its path, its length and its checksums."""

    draft: Path
    size: int
    sha256: str
    crc32c: str


class ContentStore:
    """The folders `contents` and `uploads` of a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder
        self._growing_locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    def holds(self, sha256: str, size: int) -> bool:
        """Return whether the bytes with this checksum are stored undamaged; reads and hashes them."""
        digest, path = hashlib.sha256(), self.folder.content(sha256)
        try:
            if path.stat().st_size != size:
                return False
            with path.open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
        except FileNotFoundError:
            return False
        return digest.hexdigest() == sha256

    def keep(self, draft: Path, sha256: str) -> None:
        """Make a flushed, verified draft the content with that checksum, replacing any present one."""
        target = self.folder.content(sha256)
        target.parent.mkdir(exist_ok=True)
        try:
            draft.replace(target)
        except PermissionError:  # Windows: a download has it open
            if not self.holds(sha256, draft.stat().st_size):
                raise
        flush_folder(target.parent)

    def keep_empty(self, sha256: str) -> None:
        """Store the content of zero bytes."""
        path = self.folder.content(sha256)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")

    def part(self, upload_id: str, number: int) -> Path:
        return self.folder.uploads / upload_id / f"{number}.part"

    def growing(self, upload_id: str) -> Path:
        """Return the path of a resumable upload's only file."""
        return self.folder.uploads / upload_id / "growing"

    def growing_lock(self, upload_id: str) -> asyncio.Lock:
        """Return the lock to hold while a chunk is written, so that two never mix."""
        return self._growing_locks.setdefault(upload_id, asyncio.Lock())

    def discard_upload(self, upload_id: str) -> None:
        folder = self.folder.uploads / upload_id
        try:
            folder.rmdir()  # usually its only part has become a content
        except OSError:
            shutil.rmtree(folder, ignore_errors=True)

    async def receive(self, stream: AsyncIterator[bytes], upload_id: str, size: int) -> Draft:
        """Write the stream to a flushed draft beside the upload's parts. Raises TooLongError beyond `size` bytes."""
        draft = self._draft(upload_id)
        sha256, crc32c, received = hashlib.sha256(), _crc32c(), 0
        try:
            with draft.open("xb") as file:
                async for block in stream:
                    received += len(block)
                    if received > size:
                        raise TooLongError
                    sha256.update(block)
                    crc32c.update(block)
                    file.write(block)
                _flush(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Draft(draft, received, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())

    def join(self, paths: Iterable[Path], upload_id: str) -> Draft:
        """Concatenate the files into a flushed draft beside the upload's parts; the files stay."""
        draft = self._draft(upload_id)
        sha256, crc32c, size = hashlib.sha256(), _crc32c(), 0
        try:
            with draft.open("xb") as file:
                for path in paths:
                    with path.open("rb") as source:
                        while block := source.read(BLOCK_BYTES):
                            size += len(block)
                            sha256.update(block)
                            crc32c.update(block)
                            file.write(block)
                _flush(file)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Draft(draft, size, sha256.hexdigest(), base64.b64encode(crc32c.digest()).decode())

    def _draft(self, upload_id: str) -> Path:
        folder = self.folder.uploads / upload_id
        folder.mkdir(exist_ok=True)
        return folder / f"{secrets.token_hex(8)}.draft"


def _crc32c() -> Any:
    """Return a running checksum; the library has no type annotations."""
    return google_crc32c.Checksum()  # type: ignore[no-untyped-call]


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Make renames in `path` durable. Windows and some file systems cannot flush folders."""
    if os.name == "posix":
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOTSUP):
                raise
        finally:
            os.close(descriptor)


def _plain_name(name: str) -> str:
    if name in (".", "..") or any(character in "/\\" or ord(character) < 32 for character in name):
        raise ValueError("must be a plain file name, without folders or control characters")
    if len(name.encode("utf-8", "replace")) > 255:
        raise ValueError("must not be longer than 255 bytes")
    return name


def _checksum(text: str) -> str:
    if not _SHA256.fullmatch(text):
        raise ValueError("must be 64 lowercase hexadecimal digits")
    return text


FileName = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]
Sha256 = Annotated[str, AfterValidator(_checksum)]


class NewContent(Form):
    size: Count
    sha256_hash: Sha256


class NewUpload(NewContent):
    filename: FileName


def file_of(db: sqlite3.Connection, caller: Caller, mfid: str, role: int) -> sqlite3.Row:
    """Return the file with this MFID, if the caller has at least `role` on its dataset; an error response otherwise."""
    row: sqlite3.Row | None = None
    if is_mfid(mfid):
        row = db.execute(f"{FILES} WHERE file.mfid = ?", (mfid,)).fetchone()
    if row is None or roles(db, caller, [row["dataset_id"]])[row["dataset_id"]] < VIEWER:
        raise not_found("file")
    require_rows("file", [row])
    require(db, caller, row["dataset_mfid"], role, "dataset")
    return row


def file_named(db: sqlite3.Connection, dataset_id: int, filename: str) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute(
        f"{FILES} WHERE dataset_id = ? AND filename = ?", (dataset_id, filename)
    ).fetchone()
    return row


def same_content(row: sqlite3.Row, size: int, sha256: str) -> bool:
    """Return whether the server itself stores exactly these bytes for this file."""
    return bool(row["backend"] == STORE and row["size"] == size and row["sha256"] == sha256)


def is_readable(db: sqlite3.Connection, caller: Caller, size: int, sha256: str) -> bool:
    """Return whether the server stores these bytes for a file of a dataset that the caller may read."""
    condition = f"file.sha256 = :sha256 AND file.size = :size AND file.backend = '{STORE}'"
    tables = "file JOIN resource ON resource.id = file.dataset_id"
    sql = f"SELECT 1 FROM {tables} WHERE {condition} AND {READABLE} LIMIT 1"  # noqa: S608 (constants of this package only)
    return db.execute(sql, {"sha256": sha256, "size": size, "user": caller.id}).fetchone() is not None


def refuse_other_content(row: sqlite3.Row) -> Exception:
    return refuse(
        409,
        {
            "code": "filename_exists",
            "message": f"The dataset already has a file named {row['filename']} with other content",
            "file_mfid": row["mfid"],
            "etag": etag(row),
        },
    )


def register(db: sqlite3.Connection, dataset_id: int, filename: str, size: int, sha256: str) -> sqlite3.Row:
    """Return the record of a file whose bytes are in the store: a new one, or an identical existing one."""
    existing = file_named(db, dataset_id, filename)
    if existing is not None:
        if same_content(existing, size, sha256):
            return existing
        raise refuse_other_content(existing)
    return insert_file(db, dataset_id, filename, backend=STORE, size=size, sha256=sha256)


def insert_file(db: sqlite3.Connection, dataset_id: int, filename: str, **values: object) -> sqlite3.Row:
    """Create a file record; a file in the server's own store can be downloaded at once."""
    (file_count,) = db.execute("SELECT COUNT(*) FROM file WHERE dataset_id = ?", (dataset_id,)).fetchone()
    if file_count >= MAX_FILES:
        raise refuse(422, f"The dataset has {MAX_FILES} files; it cannot have more. Pack them, or use several datasets")
    mfid = new_mfid()
    dataset_mfid = db.execute("SELECT mfid FROM resource WHERE id = ?", (dataset_id,)).fetchone()[0]
    path = f"{BUCKET}/{dataset_mfid}/_files/{mfid}" if values["backend"] == STORE else values.get("storage_path")
    number = db.execute(
        "INSERT INTO file (mfid, dataset_id, filename, size, sha256, backend, storage_path, access_note)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (mfid, dataset_id, filename, values.get("size"), values.get("sha256"), values["backend"], path,
         values.get("access_note")),
    ).lastrowid  # fmt: skip
    update_size(db, dataset_id)
    row: sqlite3.Row = db.execute(f"{FILES} WHERE file.id = ?", (number,)).fetchone()
    return row


def replace_content(db: sqlite3.Connection, file_id: int, size: int, sha256: str) -> sqlite3.Row:
    """Point the file's record to other bytes, drop what the old ones said, and keep those for a week."""
    release(db, file_id)
    db.execute("UPDATE parsed SET document = '{}' WHERE file_id = ?", (file_id,))
    db.execute("DELETE FROM thumbnail WHERE file_id = ?", (file_id,))
    db.execute(
        "UPDATE file SET size = ?, sha256 = ?, version = version + 1,"
        " storage_path = ? || (SELECT mfid FROM resource WHERE id = dataset_id)"
        " || '/_files/' || mfid || '.' || (version + 1) WHERE id = ?",
        (size, sha256, BUCKET + "/", file_id),
    )
    row: sqlite3.Row = db.execute(f"{FILES} WHERE file.id = ?", (file_id,)).fetchone()
    update_size(db, row["dataset_id"])
    renew_metadata(db, row["dataset_id"])
    return row


def release(db: sqlite3.Connection, file_id: int) -> None:
    """Note that this file no longer needs its content."""
    db.execute(
        "INSERT OR REPLACE INTO released_content SELECT sha256, ? FROM file WHERE id = ? AND sha256 IS NOT NULL",
        (now(), file_id),
    )


def update_size(db: sqlite3.Connection, dataset_id: int) -> None:
    """Set the dataset's size to the total of its files."""
    db.execute(
        "UPDATE dataset SET size = (SELECT SUM(size) FROM file WHERE dataset_id = :id) WHERE id = :id",
        {"id": dataset_id},
    )
    touch(db, dataset_id)


def sweep(database: Database, storage: ContentStore) -> None:
    """Delete sessions that nobody finished and contents that no file needs, each after a week."""
    oldest_session = (datetime.now(UTC) - SESSION_LIFETIME).isoformat(timespec="microseconds")
    oldest_content = (datetime.now(UTC) - REPLACED_CONTENT_LIFETIME).isoformat(timespec="microseconds")
    with database.write() as db:
        sessions = [row[0] for row in db.execute("SELECT id FROM upload WHERE created < ?", (oldest_session,))]
        db.execute("DELETE FROM upload WHERE created < ?", (oldest_session,))
        released = db.execute("SELECT sha256 FROM released_content WHERE released < ?", (oldest_content,)).fetchall()
        for (sha256,) in released:  # inside the transaction: an upload of the same bytes waits, then keeps its own copy
            if not db.execute("SELECT 1 FROM file WHERE sha256 = ? AND backend = ?", (sha256, STORE)).fetchone():
                with contextlib.suppress(OSError):  # still open for a download on Windows: next time
                    storage.folder.content(sha256).unlink(missing_ok=True)
                    db.execute("DELETE FROM released_content WHERE sha256 = ?", (sha256,))
            else:
                db.execute("DELETE FROM released_content WHERE sha256 = ?", (sha256,))
        open_sessions = {row[0] for row in db.execute("SELECT id FROM upload WHERE state = 'uploading'")}
    for upload_id in sessions:
        storage.discard_upload(upload_id)
    for folder in storage.folder.uploads.iterdir():
        if folder.name not in open_sessions and folder.stat().st_mtime < time.time() - 86_400:
            storage.discard_upload(folder.name)
