"""A running embedded Crucible: its application, in the foreground, or shared by processes; and its worker.

`python -m crucible_lineage.server.running FOLDER PORT` serves a folder until nobody uses it.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvicorn
from filelock import FileLock, Timeout
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from crucible_lineage.server import datasets, files, projects, requests, uploads
from crucible_lineage.server.call import App, Service
from crucible_lineage.server.database import (
    PREFIX,
    Database,
    Transaction,
    now,
    open_database,
    open_folder,
    register_key,
    setting,
)
from crucible_lineage.server.http import ROUTES
from crucible_lineage.server.ingest import IngestionError, Isolation, ingestor_names
from crucible_lineage.server.readers import Found
from crucible_lineage.server.resources import change, to_json
from crucible_lineage.server.shared import LEASE_PATH, identity_of, lock_of
from crucible_lineage.server.storage import ContentStore, Links, sweep

_ = (datasets, files, projects, requests, uploads)  # whose routes are in the table once they are imported
LOCAL_USER_ID = 1
HOST = "127.0.0.1"
log = logging.getLogger("crucible_lineage.server")
POLL_S = 60.0  # for requests of a process that died; all others wake the worker at once
SWEEP_EVERY_POLLS = 60
TURN_S = 1.0
WORKER_CLOSE_S = 10.0  # a file that takes longer is ingested again by the next worker

PROTECTED = "crucible_lineage"  # prefix of provenance keys, which come from the makers of the data, never from a parser

_OPTIONS: dict[str, Any] = {
    "loop": "asyncio", "http": "httptools", "ws": "none", "lifespan": "off", "log_config": None,
    "log_level": "critical", "access_log": False, "server_header": False, "date_header": False,
    "timeout_keep_alive": 75,  # with uvicorn's 5 s, pooled connections fail when they are reused
    "timeout_graceful_shutdown": 5,
}  # fmt: skip


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
        self._thread.join(WORKER_CLOSE_S)
        self._isolation.stop()
        self._thread.join(WORKER_CLOSE_S)
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
        if requested in (None, name):
            return name, "" if name else f"No ingestor here reads this kind of file: {file['filename']}"
        unknown = f"There is no ingestor {requested} here (GET /ingestors lists them)"
        why = f"{requested} could not read the file" if requested in ingestor_names() else unknown
        return name, f"{why}; {name or 'no ingestor'} read it"

    def _store(self, db: Transaction, file: sqlite3.Row, findings: Found) -> None:
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


def fill(db: Transaction, dataset_id: int, values: dict[str, str]) -> None:
    """Set these columns of the dataset where nobody has."""
    for name, value in values.items():
        unset = f"UPDATE resource SET {name} = ? WHERE id = ? AND COALESCE({name}, '') IN ('', 'unknown')"  # noqa: S608
        if value and db.execute(unset, (value, dataset_id)).rowcount:
            change(db, dataset_id)


def replace_thumbnail(db: Transaction, file: sqlite3.Row, image: bytes | None) -> None:
    """Replace the file's only thumbnail, unless people have one under the same name."""
    db.execute("DELETE FROM thumbnail WHERE file_id = ?", (file["id"],))
    name = (file["dataset_id"], file["filename"])
    is_taken = db.first("SELECT 1 FROM thumbnail WHERE dataset_id = ? AND name = ?", *name) is not None
    if image is not None and not is_taken:
        shown = {"mime_type": "image/png", "image": image}
        db.add("thumbnail", dataset_id=file["dataset_id"], name=file["filename"], file_id=file["id"], **shown)


class Serving(uvicorn.Server):
    """uvicorn with the application of a data folder, which calls `on_ready`, and keeps why it did not start.

    `around` may wrap the API in another application, which then answers the requests that the API does not.
    """

    def __init__(
        self,
        data_dir: Path | str,
        host: str = HOST,
        port: int = 0,
        api_key: str | None = None,
        around: Callable[[ASGIApp], ASGIApp] = lambda app: app,
        **options: Any,
    ) -> None:
        self.folder = open_folder(data_dir)
        with FileLock(self.folder.lock):
            self.database = open_database(self.folder.database)
        local_key = self.folder.local_key.read_text(encoding="ascii").strip()
        self.api_key = api_key or local_key
        with self.database.write() as db:
            for accepted in {local_key, self.api_key}:
                register_key(db, accepted, LOCAL_USER_ID)
            secret = str(setting(db, "link_secret"))
        storage = ContentStore(self.folder)
        self._worker = Worker(self.database, storage)
        app = around(App(Service(self.database, storage, Links(secret), self._worker.wake), ROUTES))
        super().__init__(uvicorn.Config(app, host=host, port=port, **{**_OPTIONS, **options}))
        self.on_ready: Callable[[], None] = lambda: None
        self.error: str | None = None

    def run_quietly(self) -> None:
        """Answer requests until `should_exit`, then close the folder."""
        listen = f"The embedded Crucible could not listen on {self.config.host}:{self.config.port}"
        try:
            self.run()
        except SystemExit:
            self.error = f"{listen}: the address is in use or not one of this machine"
        except OSError as error:  # the certificate is missing or invalid
            self.error = f"{listen}: {error}"
        finally:
            self._worker.close()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.on_ready()

    @property
    def port(self) -> int:
        return int(self.servers[0].sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        """The address of the API."""
        host = self.config.host
        shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
        return f"{'https' if self.config.is_ssl else 'http'}://{shown}:{self.port}{PREFIX}"


def serve(data_dir: Path | str, *, on_ready: Callable[[str], None], **options: Any) -> None:
    """Serve with these options of `Serving` until Ctrl-C or SIGTERM; calls `on_ready` with the address once requests
    are answered. Raises RuntimeError if it cannot listen."""
    server = Serving(data_dir, **options)
    server.on_ready = lambda: on_ready(server.url)
    with suppress(KeyboardInterrupt):  # uvicorn raises the signal again once it has stopped
        server.run_quietly()
    if server.error is not None:
        raise RuntimeError(server.error)


LINGER_S = 5.0  # chosen: the next command of a person or script still finds it
CHECK_EVERY_S = 0.5


class _Shared(Serving):
    """A server that announces its address, and stops when it has had no client for a while."""

    def __init__(self, root: Path, port: int) -> None:
        super().__init__(root, HOST, port, around=self._with_lease, timeout_keep_alive=1 << 30)
        self.on_ready = self._announce
        self._watching: asyncio.Task[None] | None = None

    def _with_lease(self, answers: ASGIApp) -> ASGIApp:
        identity = JSONResponse(identity_of(self.folder))

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await (identity if scope["path"] == LEASE_PATH else answers)(scope, receive, send)

        return app

    def _announce(self) -> None:
        draft = self.folder.notice.with_suffix(".new")
        draft.write_text(json.dumps({"pid": os.getpid(), "port": self.port}), encoding="ascii")
        draft.replace(self.folder.notice)
        _report({"ready": self.port})
        self._watching = asyncio.get_running_loop().create_task(self._watch())

    async def _watch(self) -> None:
        alone_since = time.monotonic()
        while not self.should_exit:
            await asyncio.sleep(CHECK_EVERY_S)
            try:
                is_announced = json.loads(self.folder.notice.read_text(encoding="ascii"))["pid"] == os.getpid()
            except (OSError, ValueError, KeyError):
                is_announced = False
            if not is_announced:  # the folder was removed or has another server
                self.should_exit = True
            elif self.server_state.connections or next_ingestion(self.database):
                alone_since = time.monotonic()
            elif time.monotonic() - alone_since >= LINGER_S:
                with suppress(Timeout), lock_of(self.folder).acquire(timeout=0):
                    if not self.server_state.connections:  # no client is connecting
                        self.folder.notice.unlink(missing_ok=True)
                        for server in self.servers:
                            server.close()
                        self.should_exit = True


def main(root: Path, port: int) -> None:
    """Serve the folder until nobody uses it, on this port if that is free, else on another.

    Raises SystemExit if the folder cannot be served.
    """
    try:
        for chosen in (port, 0):
            server = _Shared(root, chosen)
            server.run_quietly()
            if server.error is None:
                return
        raise RuntimeError(server.error)
    except (OSError, RuntimeError) as error:
        _report({"text": str(error)})
        raise SystemExit(1) from error


def _report(message: dict[str, object]) -> None:
    """Report the outcome of the start to the parent process, once, and close the pipe."""
    print(f"\n{json.dumps(message)}", flush=True)  # on a line of its own, whatever a library has printed before
    sys.stdout.close()


if __name__ == "__main__":
    os.umask(0o077)  # files are for their owner only
    main(Path(sys.argv[1]), int(sys.argv[2]))
