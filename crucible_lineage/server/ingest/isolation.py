"""Ingestion of files in a process beside this one, which may hang, crash or want all memory and harms nothing else.

The process stays for the next file, since starting it takes longer than reading most files; after a failure, or when
what it was started with has changed, there is another one.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` move the limits.
"""

from __future__ import annotations

import base64
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from crucible_lineage.server.ingest.findings import Found

__all__ = ["IngestionError", "Isolation", "Limits", "Reply", "Request", "limits"]

MAX_REPLY_BYTES = 16 << 20
LOGGED_BYTES = 4000
MOST_FILES = 200  # chosen: by then whatever reading leaves behind in a process is still little

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


class Request(BaseModel):
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
        self._process: subprocess.Popen[bytes] | None = None
        self._started_with: object = None
        self._files = 0
        self._busy = False
        self._lock = threading.Lock()

    def ingest(self, path: Path, filename: str, wanted: str | None) -> tuple[str | None, Found]:
        """What `ingestors.ingest` gives, or IngestionError; FileNotFoundError if the content is not there."""
        if not path.is_file():
            raise FileNotFoundError(path)
        within = limits()
        request = Request(
            path=str(path), filename=filename, wanted=wanted, time_s=within.time_s, memory_bytes=within.memory_bytes
        )
        with tempfile.TemporaryDirectory(prefix="crucible-ingest-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "request.json").write_text(request.model_dump_json(), encoding="utf-8")
            (folder / "log").touch()
            ended = self._run(folder, within)
            _log(folder / "log", filename)
            reply = _reply(folder, ended)
        if reply.error is not None:
            self._drop()
            raise IngestionError(reply.error)
        thumbnail = None if reply.thumbnail is None else base64.b64decode(reply.thumbnail)
        return reply.name, Found(reply.metadata, thumbnail, reply.attributes)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            if self._process is not None:
                _kill(self._process)
            busy = self._busy
        if not busy:
            self._drop()

    def _run(self, folder: Path, within: Limits) -> str:
        """How the process ended, in words; nothing if it is there for the next file."""
        process = self._ready(folder, within)
        overdue = threading.Event()

        def end() -> None:
            overdue.set()
            _kill(process)

        timer = threading.Timer(within.time_s, end)
        timer.daemon = True
        timer.start()
        try:
            is_done = _errand(process, folder)
        finally:
            timer.cancel()
            timer.join()
            with self._lock:
                self._busy = False
        if is_done and not overdue.is_set() and not self.stopped:
            return ""
        code = process.wait()
        self._drop()
        if overdue.is_set():
            return f"was not done after {within.time_s:g} s and was stopped"
        return f"ended its process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"

    def _ready(self, folder: Path, within: Limits) -> subprocess.Popen[bytes]:
        """The process that is there, if it was started as one would be now; else a new one."""
        wanted = (dict(os.environ), list(sys.path), within.memory_bytes)
        process = self._process
        if process and (process.poll() is not None or self._started_with != wanted or self._files >= MOST_FILES):
            self._drop()
        with self._lock:
            if self.stopped:
                raise IngestionError("the server is closing")
            if self._process is None:
                self._process, self._started_with, self._files = _start(folder / "log"), wanted, 0
            self._files += 1
            self._busy = True
            return self._process

    def _drop(self) -> None:
        """There is no process any more."""
        with self._lock:
            process, self._process = self._process, None
        if process is None:
            return
        _kill(process)
        process.wait()
        for pipe in (process.stdin, process.stdout):
            with suppress(OSError):
                pipe.close()  # type: ignore[union-attr]


def _start(log: Path) -> subprocess.Popen[bytes]:
    """The process, with this one's import path, and nothing of its own to read from or write to but the folders."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    with log.open("wb") as errors:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "crucible_lineage.server.ingest.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            env={**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,
        )


def _errand(process: subprocess.Popen[bytes], folder: Path) -> bool:
    """True when the process has told that it is done with the folder; False if it ended before."""
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        process.stdin.write(os.fsencode(folder) + b"\n")
        process.stdin.flush()
    except OSError:
        return False
    return process.stdout.readline() != b""


def _kill(process: subprocess.Popen[bytes]) -> None:
    """The process is over, and where it can be told, also those that it started."""
    if process.poll() is not None:
        return
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)


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
    """What ingestors wrote to the console, for whoever looks after the server."""
    if text := path.read_bytes()[-LOGGED_BYTES:].decode("utf-8", "replace").strip():
        log.warning("Ingesting %s: %s", filename, text)
