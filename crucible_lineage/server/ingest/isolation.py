"""Ingestion of one file in a process of its own, which may hang, crash or want all memory and harms nothing else.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` move the limits. The process is forked from
one that has imported all it needs, which takes some milliseconds, or started as a new interpreter where there is no
fork.
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
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel

from crucible_lineage.server.ingest.formats.findings import Found

MAX_REPLY_BYTES = 16 << 20
LOGGED_BYTES = 4000

log = logging.getLogger("crucible_lineage.server")


LOG_FILE = "log"
_COMMAND = [sys.executable, "-P", "-m", "crucible_lineage.server.ingest.child"]


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


class IngestProcess(Protocol):
    """A process that ingests one file."""

    def wait(self) -> int:
        """Its exit code once it has ended, negative for a signal."""

    def kill(self) -> None:
        """Kill it and, where possible, what it started."""


class Processes:
    """Starts them, one at a time."""

    def __init__(self) -> None:
        self._server: _ForkServer | None = None
        self._lock = threading.Lock()

    def start(self, folder: Path) -> IngestProcess:
        """A process that does the errand in this folder; what it says goes to the folder's `log`."""
        if not hasattr(os, "fork"):
            return _Fresh(folder)
        surroundings = _surroundings()
        with self._lock:
            if self._server is None or not self._server.serves(surroundings):
                self._end()
                self._server = _ForkServer(surroundings)
            return self._server.fork(folder)

    def close(self) -> None:
        """No process is left."""
        with self._lock:
            self._end()

    def _end(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None


def _surroundings() -> dict[str, str]:
    """Return this process's environment and import path: ingestors of other packages may need both."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _ForkServer:
    """An interpreter that has done its imports and forks for each errand; it ends when its standard input does."""

    def __init__(self, surroundings: Mapping[str, str]) -> None:
        self._surroundings = surroundings
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter with a module of this package
            _COMMAND,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=surroundings,
            start_new_session=True,
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._errands, self._told = self._process.stdin, self._process.stdout

    def serves(self, surroundings: Mapping[str, str]) -> bool:
        """Whether it lives, and was started with just this environment."""
        return self._process.poll() is None and self._surroundings == surroundings

    def fork(self, folder: Path) -> IngestProcess:
        """A child with this errand. If this interpreter is dead, so is the child."""
        with suppress(OSError):
            self._errands.write(os.fsencode(folder) + b"\0")
            self._errands.flush()
        return _Forked(self, self.number())

    def number(self) -> int | None:
        """Read what it sends next: a child's process id, then its exit code. None once it is dead."""
        line = self._told.readline()
        return int(line) if line.strip() else None

    def end(self) -> None:
        """End it, and the child in hand, which reads the same input."""
        with suppress(OSError):
            self._errands.close()
        self._process.kill()
        self._process.wait()
        self._told.close()


class _Forked:
    def __init__(self, server: _ForkServer, pid: int | None) -> None:
        self._server = server
        self._pid = pid

    def wait(self) -> int:
        code = self._server.number() if self._pid is not None else None
        self._pid = None
        return -signal.SIGKILL if code is None else code

    def kill(self) -> None:
        if self._pid is not None:
            _kill_group(self._pid)


class _Fresh:
    def __init__(self, folder: Path) -> None:
        with (folder / LOG_FILE).open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter with a module of this package
                [*_COMMAND, str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=_surroundings(),
                start_new_session=True,
            )

    def wait(self) -> int:
        try:
            return self._process.wait()
        finally:
            with suppress(OSError):
                self._process.stdin.close()  # type: ignore[union-attr]

    def kill(self) -> None:
        if self._process.poll() is not None:
            return
        if sys.platform == "win32":
            self._process.kill()
        else:
            _kill_group(self._process.pid)


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
