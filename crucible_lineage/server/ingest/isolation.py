"""Ingestion of one file in a process of its own, which may hang, crash or want all memory and harms nothing else.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` move the limits.
"""

from __future__ import annotations

import base64
import logging
import os
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from crucible_lineage.server.ingest.formats.findings import Found
from crucible_lineage.server.ingest.processes import LOG_FILE, Processes

__all__ = ["IngestJob", "IngestionError", "Isolation", "Limits", "Reply", "limits"]

MAX_REPLY_BYTES = 16 << 20
LOGGED_BYTES = 4000

log = logging.getLogger("crucible_lineage.server")


@dataclass(frozen=True)
class Limits:
    """What one file's ingestion may take."""

    time_s: float = 30.0  # chosen: half of what `register` waits for an ingestion
    memory_bytes: int = 2 << 30  # chosen: a picture of `MAX_PIXELS` in colour, several times over


def limits() -> Limits:
    """The limits that the environment sets."""
    time_s = os.environ.get("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S")
    memory_mb = os.environ.get("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB")
    return Limits(
        time_s=float(time_s) if time_s else Limits.time_s,
        memory_bytes=int(memory_mb) << 20 if memory_mb else Limits.memory_bytes,
    )


class IngestionError(Exception):
    """No ingestor came to an end with this file; the message says which one failed, and how."""


class IngestJob(BaseModel):
    """What the process is to do."""

    path: str
    filename: str
    wanted: str | None
    time_s: float
    memory_bytes: int


class Reply(BaseModel):
    """What came of it: what `ingestors.ingest` gives, or an error."""

    name: str | None = None
    metadata: dict[str, Any] = {}
    attributes: dict[str, str] = {}
    thumbnail: str | None = None
    error: str | None = None


class Isolation:
    """Reads one file at a time; `stop`, from another thread, ends the one in hand and all that come."""

    def __init__(self) -> None:
        self.stopped = False
        self._processes = Processes()
        self._lock = threading.Lock()

    def ingest(self, path: Path, filename: str, wanted: str | None) -> tuple[str | None, Found]:
        """Ingest in a process of its own, as `ingestors.ingest` does."""
        if not path.is_file():
            raise FileNotFoundError(path)
        within = limits()
        request = IngestJob(
            path=str(path), filename=filename, wanted=wanted, time_s=within.time_s, memory_bytes=within.memory_bytes
        )
        with tempfile.TemporaryDirectory(prefix="crucible-ingest-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
            ended = self._run(folder, within.time_s)
            _log(folder / LOG_FILE, filename)
            reply = _reply(folder, ended)
        if reply.error is not None:
            raise IngestionError(reply.error)
        thumbnail = None if reply.thumbnail is None else base64.b64decode(reply.thumbnail)
        return reply.name, Found(reply.metadata, thumbnail, reply.attributes)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            self._processes.close()

    def _run(self, folder: Path, time_s: float) -> str:
        """Run the process. Returns how it ended, in words."""
        with self._lock:
            if self.stopped:
                raise IngestionError("the server is closing")
            process = self._processes.start(folder)
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            process.kill()

        timer = threading.Timer(time_s, end)
        timer.daemon = True
        timer.start()
        try:
            code = process.wait()
        finally:
            timer.cancel()
        if overdue.is_set():
            return f"was not done after {time_s:g} s and was stopped"
        return f"ended its process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"


def _reply(folder: Path, ended: str) -> Reply:
    path, trying = folder / "reply.json", folder / "trying"
    if not path.exists():
        name = trying.read_text(encoding="utf-8", errors="replace") if trying.exists() else "the ingestion"
        return Reply(error=f"{name or 'the ingestion'} {ended}")
    if path.stat().st_size > MAX_REPLY_BYTES:
        return Reply(error=f"what was found in the file is larger than {MAX_REPLY_BYTES >> 20} MB")
    try:
        return Reply.model_validate_json(path.read_bytes())
    except ValueError:
        return Reply(error="what was found in the file cannot be understood")


def _log(path: Path, filename: str) -> None:
    """Log what ingestors wrote to the console, for whoever looks after the server."""
    if path.exists() and (text := path.read_bytes()[-LOGGED_BYTES:].decode("utf-8", "replace").strip()):
        log.warning("Ingesting %s: %s", filename, text)
