"""The thread that processes ingestion requests, including those that a killed process left behind."""

from __future__ import annotations

import logging
import sqlite3
import threading
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

from crucible_lineage.server.database import Connection, Database, now
from crucible_lineage.server.ingest import IngestionError, Isolation, ingestor_names
from crucible_lineage.server.readers import Found
from crucible_lineage.server.resources import change, to_json
from crucible_lineage.server.storage import ContentStore, sweep

POLL_S = 60.0  # for requests of a process that died; all others wake the worker at once
SWEEP_EVERY_POLLS = 60
TURN_S = 1.0
CLOSE_TIMEOUT_S = 10.0  # a file that takes longer is ingested again by the next worker

log = logging.getLogger("crucible_lineage.server")


class Worker:
    """A thread that ingests files, one at a time; the servers of a folder take turns."""

    def __init__(self, database: Database, storage: ContentStore) -> None:
        self._database = database
        self._storage = storage
        self._isolation = Isolation()
        self._turn = FileLock(storage.folder.root / ".ingesting.lock", timeout=TURN_S, mode=0o600)
        self._wake = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crucible-ingestion", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        self._wake.set()

    def close(self) -> None:
        """Finish the current request if that is quick, leave all others for the next worker, and close all files."""
        self._closing.set()
        self._wake.set()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._isolation.stop()
        self._thread.join(CLOSE_TIMEOUT_S)
        self._database.close()

    def _run(self) -> None:
        polls = 0
        while not self._closing.is_set():
            try:
                with suppress(Timeout), self._turn:  # else the server that has the turn sees the same requests
                    while not self._closing.is_set() and (request := next_ingestion(self._database)) is not None:
                        self._process(request)
                if polls % SWEEP_EVERY_POLLS == 0:
                    sweep(self._database, self._storage)
            except Exception:
                log.exception("Ingestion failed; it continues in %s s", POLL_S)
            polls += 1
            if not self._wake.wait(POLL_S):
                self._isolation.rest()
            self._wake.clear()
        self._isolation.rest()

    def _process(self, file: sqlite3.Row) -> None:
        status, name, remark = "failed", None, ""
        try:
            status, name, remark = "complete", *self._ingest(file)
        except FileNotFoundError:
            status, remark = "file not found", "The file's content is missing"
        except Exception as error:
            if self._isolation.stopped:
                return
            remark = str(error) if isinstance(error, IngestionError) else f"{type(error).__name__}: {error}"[:500]
        with self._database.write() as db:
            db.execute(
                "UPDATE ingestion_request SET status = ?, ingestion_class = COALESCE(?, ingestion_class),"
                " time_completed = ?, error_message = ? WHERE id = ?",
                (status, name, now(), remark or None, file["request"]),
            )

    def _ingest(self, file: sqlite3.Row) -> tuple[str | None, str]:
        """Store what is found in the file; return the ingestor that read it, and what to tell the requester."""
        content, requested = self._storage.folder.content(file["sha256"]), file["ingestion_class"]
        name, found = self._isolation.ingest(content, file["filename"], requested)
        with self._database.write() as db:
            if db.first("SELECT 1 FROM file WHERE id = ?", file["id"]):
                self._store(db, file, found)  # else it was deleted meanwhile, with the request
        return name, _remark(file["filename"], requested, name)

    def _store(self, db: Connection, file: sqlite3.Row, findings: Found) -> None:
        """Set the dataset's metadata, fields and thumbnails from the file, except where people have set them."""
        document = {key: value for key, value in findings.metadata.items() if not key.startswith(PROTECTED)}
        suffix = Path(file["filename"]).suffix.lstrip(".").lower()
        fill(db, file["dataset_id"], {"dataset_name": file["filename"], "data_format": suffix})
        previous, text = db.first("SELECT * FROM parsed WHERE file_id = ?", file["id"]), to_json(document)
        db.execute("INSERT OR REPLACE INTO parsed (file_id, document) VALUES (?, ?)", (file["id"], text))
        if text != (previous["document"] if previous else "{}"):
            change(db, file["dataset_id"])
        replace_thumbnail(db, file, findings.thumbnail)


def next_ingestion(database: Database) -> sqlite3.Row | None:
    """Return the file of the oldest open request, with `request` and the class that it names."""
    with database.read() as db:
        return db.first(
            "SELECT ingestion_request.id AS request, ingestion_class, file.* FROM ingestion_request"
            " JOIN file ON file.id = file_id WHERE status = 'requested' ORDER BY request LIMIT 1"
        )


def _remark(filename: str, requested: str | None, name: str | None) -> str:
    """Return a remark for the requester on an ingestion that succeeded, but not as requested."""
    if requested in (None, name):
        return "" if name else f"No ingestor here reads this kind of file: {filename}"
    unknown = f"There is no ingestor {requested} here (GET /ingestors lists them)"
    why = f"{requested} could not read the file" if requested in ingestor_names() else unknown
    return f"{why}; {name or 'no ingestor'} read it"


PROTECTED = "crucible_lineage"  # prefix of provenance keys, which come from the makers of the data, never from a parser


def fill(db: Connection, dataset_id: int, values: dict[str, str]) -> None:
    """Set these columns of the dataset where nobody has."""
    for name, value in values.items():
        unset = f"UPDATE resource SET {name} = ? WHERE id = ? AND COALESCE({name}, '') IN ('', 'unknown')"  # noqa: S608
        if value and db.execute(unset, (value, dataset_id)).rowcount:
            change(db, dataset_id)


def replace_thumbnail(db: Connection, file: sqlite3.Row, image: bytes | None) -> None:
    """Replace the file's only thumbnail, unless people have one under the same name."""
    db.execute("DELETE FROM thumbnail WHERE file_id = ?", (file["id"],))
    name = (file["dataset_id"], file["filename"])
    is_taken = db.first("SELECT 1 FROM thumbnail WHERE dataset_id = ? AND name = ?", *name) is not None
    if image is not None and not is_taken:
        shown = {"mime_type": "image/png", "image": image}
        db.add("thumbnail", dataset_id=file["dataset_id"], name=file["filename"], file_id=file["id"], **shown)
