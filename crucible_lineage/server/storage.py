"""The bytes on disk: verified contents under their SHA-256, unfinished uploads, signed links to both; rows of files.

Everything is written to a draft, checked and flushed before it gets its final name, so that a record never points to
partial bytes. Names on disk come from checksums and random ids, never from user input.
"""

from __future__ import annotations

import base64
import contextlib
import errno
import hashlib
import hmac
import os
import secrets
import shutil
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import google_crc32c

from crucible_lineage.ids import new_mfid
from crucible_lineage.server.database import Database, DataFolder, Transaction, now
from crucible_lineage.server.http import Refusal
from crucible_lineage.server.records import etag
from crucible_lineage.server.resources import VIEWER, Caller, change, not_found, require, role_on

BLOCK_BYTES = 1 << 20
UNUSED_LIFETIME = timedelta(days=7)  # of sessions and of replaced contents: the contract's minimum
LIFETIME_S = 3600  # as Crucible documents for its download links

FILES = "SELECT file.*, resource.mfid AS dataset_mfid FROM file JOIN resource ON resource.id = file.dataset_id"


class Digest:
    """Length and checksums of the bytes that it was given."""

    def __init__(self) -> None:
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._crc32c: Any = google_crc32c.Checksum()  # type: ignore[no-untyped-call]

    def update(self, block: bytes) -> None:
        self.size += len(block)
        self._sha256.update(block)
        self._crc32c.update(block)

    @property
    def sha256(self) -> str:
        return self._sha256.hexdigest()

    @property
    def crc32c(self) -> str:
        return base64.b64encode(self._crc32c.digest()).decode()


class Draft(Digest):
    """A new file, and what was written to it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.file = path.open("xb")

    def write(self, block: bytes) -> None:
        self.update(block)
        self.file.write(block)


class ContentStore:
    """The folders `contents` and `uploads` of a data folder."""

    def __init__(self, folder: DataFolder) -> None:
        self.folder = folder

    def holds(self, sha256: str, size: int) -> bool:
        """Return whether the bytes with this checksum are stored undamaged; reads and hashes them."""
        path = self.folder.content(sha256)
        try:
            return path.stat().st_size == size and digest_of(path).sha256 == sha256
        except FileNotFoundError:
            return False

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

    def part(self, upload_id: str, number: int) -> Path:
        """Return the path of a verified part, from 1, or of the only file of a resumable upload, which grows."""
        return self.folder.uploads / upload_id / f"{number}.part"

    def discard_upload(self, upload_id: str) -> None:
        shutil.rmtree(self.folder.uploads / upload_id, ignore_errors=True)

    @contextlib.contextmanager
    def draft(self, upload_id: str) -> Iterator[Draft]:
        """Open a draft beside the upload's parts; flushed at the end, removed after an error."""
        folder = self.folder.uploads / upload_id
        folder.mkdir(exist_ok=True)
        draft = Draft(folder / f"{secrets.token_hex(8)}.draft")
        try:
            with draft.file:
                yield draft
                draft.file.flush()
                os.fsync(draft.file.fileno())
        except BaseException:
            draft.path.unlink(missing_ok=True)
            raise


def digest_of(path: Path) -> Digest:
    digest = Digest()
    for block in blocks(path):
        digest.update(block)
    return digest


def blocks(path: Path) -> Iterator[bytes]:
    """Yield the bytes of a file."""
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            yield block


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


class Links:
    """Signs and checks links with the secret of the data folder."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def sign(self, base_url: str, path: str, lifetime_s: int = LIFETIME_S, **values: str) -> str:
        """Return a signed URL of `path` with these values, valid for `lifetime_s`."""
        values["expires"] = str(int(time.time()) + lifetime_s)
        return f"{base_url}{quote(path)}?{urlencode(values | {'signature': self._signature(path, values)})}"

    def accepts(self, path: str, values: dict[str, str]) -> bool:
        """Return whether this server signed exactly these values and they have not expired."""
        claimed = {name: value for name, value in values.items() if name != "signature"}
        is_ours = hmac.compare_digest(values.get("signature", "").encode(), self._signature(path, claimed).encode())
        return is_ours and int(claimed["expires"]) > time.time()

    def _signature(self, path: str, values: dict[str, str]) -> str:
        message = "\n".join([path, *(f"{name}={values[name]!r}" for name in sorted(values))])
        return hmac.new(self._secret, message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()


def file_of(db: Transaction, caller: Caller, mfid: str, role: int, _: object = None) -> sqlite3.Row:
    """Return the file with this MFID, if the caller has at least `role` on its dataset; an error response otherwise."""
    row = db.first(f"{FILES} WHERE file.mfid = ?", mfid)
    if row is None or role_on(db, caller, row["dataset_id"]) < VIEWER:
        raise not_found("file")
    require(db, caller, row["dataset_mfid"], role, "dataset")
    return row


def files_of(db: Transaction, dataset_id: int) -> list[sqlite3.Row]:
    return db.execute(f"{FILES} WHERE dataset_id = ? ORDER BY file.id", (dataset_id,)).fetchall()


def find_same(db: Transaction, dataset_id: int, filename: str, size: int, sha256: str) -> sqlite3.Row | None:
    """Return the dataset's file of this name; None if there is none, 409 if it has other content."""
    row = db.first(f"{FILES} WHERE dataset_id = ? AND filename = ?", dataset_id, filename)
    if row is not None and (row["size"], row["sha256"]) != (size, sha256):
        message = f"The dataset already has a file named {filename} with other content"
        raise Refusal(409, {"code": "filename_exists", "message": message, "file_mfid": row["mfid"], "etag": etag(row)})
    return row


def register(db: Transaction, dataset_id: int, filename: str, size: int, sha256: str) -> sqlite3.Row:
    """Return the record of a file whose bytes are in the store: a new one, or an identical existing one."""
    if (existing := find_same(db, dataset_id, filename, size, sha256)) is not None:
        return existing
    number = db.add("file", mfid=new_mfid(), dataset_id=dataset_id, filename=filename, size=size, sha256=sha256)
    return _written(db, number)


def replace_content(db: Transaction, file_id: int, size: int, sha256: str) -> sqlite3.Row:
    """Point the file's record to other bytes, drop what the old ones said, and keep those for a week."""
    release(db, file_id)
    db.execute("UPDATE parsed SET document = '{}' WHERE file_id = ?", (file_id,))
    db.execute("DELETE FROM thumbnail WHERE file_id = ?", (file_id,))
    changed = "UPDATE file SET size = ?, sha256 = ?, version = version + 1 WHERE id = ?"
    db.execute(changed, (size, sha256, file_id))
    return _written(db, file_id)


def _written(db: Transaction, file_id: int) -> sqlite3.Row:
    """Return the row of a new or changed file; its dataset was modified, too."""
    row = db.first(f"{FILES} WHERE file.id = ?", file_id)
    assert row is not None
    change(db, row["dataset_id"])
    return row


def release(db: Transaction, file_id: int) -> None:
    """Note that this file no longer needs its content."""
    db.execute("INSERT OR REPLACE INTO released_content SELECT sha256, ? FROM file WHERE id = ?", (now(), file_id))


def sweep(database: Database, storage: ContentStore) -> None:
    """Delete sessions that nobody finished and contents that no file needs, each after a week."""
    oldest = (datetime.now(UTC) - UNUSED_LIFETIME).isoformat(timespec="microseconds")
    with database.write() as db:
        db.execute("DELETE FROM upload WHERE created < ?", (oldest,))
        released = db.execute("SELECT sha256 FROM released_content WHERE released < ?", (oldest,)).fetchall()
        for (sha256,) in released:  # inside the transaction: an upload of the same bytes waits, then keeps its own copy
            with contextlib.suppress(OSError):  # still open for a download on Windows: next time
                if not db.first("SELECT 1 FROM file WHERE sha256 = ?", sha256):
                    storage.folder.content(sha256).unlink(missing_ok=True)
                db.execute("DELETE FROM released_content WHERE sha256 = ?", (sha256,))
        open_sessions = {row[0] for row in db.execute("SELECT id FROM upload WHERE state = 'uploading'")}
    for folder in storage.folder.uploads.iterdir():
        if folder.name not in open_sessions and folder.stat().st_mtime < time.time() - 86_400:
            storage.discard_upload(folder.name)
