"""Upload sessions: starting them, their state, turning their bytes into a file; and signed links to bytes."""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import time
from urllib.parse import quote, urlencode

from crucible_lineage.server.catalogue.records import file_record
from crucible_lineage.server.database import Database, now
from crucible_lineage.server.files.storage import (
    FILES,
    ContentStore,
    Draft,
    NewContent,
    file_named,
    refuse_other_content,
    register,
    replace_content,
    same_content,
)
from crucible_lineage.server.http import Json, refuse

PART_BYTES = 64 << 20  # as the official client slices; with any other size it reads the file twice


LIFETIME_S = 3600  # as Crucible documents for its download links


def existing(db: sqlite3.Connection, dataset_id: int, filename: str, body: NewContent) -> sqlite3.Row | None:
    """Return the dataset's file of this name; None if there is none, 409 if it has other bytes."""
    row = file_named(db, dataset_id, filename)
    if row is not None and not same_content(row, body.size, body.sha256_hash):
        raise refuse_other_content(row)
    return row


def begin(
    db: sqlite3.Connection,
    user_id: int,
    kind: str,
    dataset_id: int,
    filename: str,
    body: NewContent,
    *,
    idempotency_key: str | None = None,
    replaces_id: int | None = None,
) -> sqlite3.Row:
    """Return an upload session for these bytes, new or existing.

    The same idempotency key returns the same session. So does the same announcement by the same user, which lets an
    interrupted upload continue, even in another process.
    """
    announced = (dataset_id, kind, filename, body.size, body.sha256_hash, user_id, replaces_id)
    open_session: sqlite3.Row | None = db.execute(
        "SELECT * FROM upload WHERE dataset_id = ? AND kind = ? AND filename = ? AND size = ? AND sha256 = ?"
        " AND user_id = ? AND replaces_id IS ? AND state = 'uploading' ORDER BY created DESC LIMIT 1",
        announced,
    ).fetchone()
    if open_session is not None:
        return open_session
    if idempotency_key is not None:
        previous = db.execute(
            "SELECT * FROM upload WHERE dataset_id = ? AND idempotency_key = ?", (dataset_id, idempotency_key)
        ).fetchone()
        if previous is not None and previous["state"] == "uploading":
            raise refuse(409, "This Idempotency-Key was used for another upload")
        idempotency_key = None if previous is not None else idempotency_key
    upload_id = secrets.token_hex(16)
    db.execute(
        "INSERT INTO upload (id, kind, dataset_id, replaces_id, filename, size, sha256, part_size, idempotency_key,"
        " user_id, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (upload_id, kind, dataset_id, replaces_id, filename, body.size, body.sha256_hash, PART_BYTES, idempotency_key,
         user_id, now()),
    )  # fmt: skip
    row: sqlite3.Row = db.execute("SELECT * FROM upload WHERE id = ?", (upload_id,)).fetchone()
    return row


def part_count(row: sqlite3.Row) -> int:
    return -(-int(row["size"]) // int(row["part_size"]))


def part_length(row: sqlite3.Row, number: int) -> int:
    """Return the length of part `number`; all parts but the last have the same length."""
    return min(int(row["part_size"]), int(row["size"]) - (number - 1) * int(row["part_size"]))


def state_of(db: sqlite3.Connection, row: sqlite3.Row) -> Json:
    """Return the state of the session as its owner sees it."""
    parts = db.execute("SELECT number FROM upload_part WHERE upload_id = ? ORDER BY number", (row["id"],))
    return {
        "upload_id": row["id"],
        "state": row["state"],
        "part_size": row["part_size"],
        "part_count": part_count(row),
        "parts": [{"part_number": number} for (number,) in parts],
        "existing_file": None,
        "next_part_number_marker": None,
    }


def finish(database: Database, storage: ContentStore, upload: sqlite3.Row, received: Draft | None) -> Json:
    """Turn the upload into a file and return its record, atomically.

    `received` holds the verified bytes, or is None if the store has them already. They get their final name inside the
    transaction that creates the record, so a record never lacks its bytes.
    """
    try:
        with database.write() as db:
            current = db.execute("SELECT * FROM upload WHERE id = ?", (upload["id"],)).fetchone()
            if current is None or current["state"] == "aborted":
                raise refuse(409, "The upload was aborted")
            if current["state"] == "completed":
                return completed(db, current)
            if upload["replaces_id"] is not None:
                row = replace_content(db, upload["replaces_id"], upload["size"], upload["sha256"])
            else:
                row = register(db, upload["dataset_id"], upload["filename"], upload["size"], upload["sha256"])
            db.execute("UPDATE upload SET state = 'completed', file_mfid = ? WHERE id = ?", (row["mfid"], upload["id"]))
            if received is not None:
                storage.keep(received.draft, upload["sha256"])
            record = file_record(row)
    finally:
        if received is not None and received.draft.suffix == ".draft":  # not a part, which a later attempt can use
            received.draft.unlink(missing_ok=True)
    storage.discard_upload(upload["id"])
    return record


def completed(db: sqlite3.Connection, upload: sqlite3.Row) -> Json:
    """Return the record of the file that a completed upload became."""
    row = db.execute(f"{FILES} WHERE file.mfid = ?", (upload["file_mfid"],)).fetchone()
    if row is None:
        raise refuse(404, "The uploaded file has been deleted since")
    return file_record(row)


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
        claimed = dict(values)
        signature = claimed.pop("signature", "")
        expires = claimed.get("expires", "")
        if not hmac.compare_digest(signature.encode(), self._signature(path, claimed).encode()):
            return False
        return expires.isdigit() and int(expires) > time.time()

    def _signature(self, path: str, values: dict[str, str]) -> str:
        message = "\n".join([path, *(f"{name}={values[name]!r}" for name in sorted(values))])
        return hmac.new(self._secret, message.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()
