"""Ingestion of one file in a separate process, whose hang, crash or use of memory harms nothing else.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` set the limits. The process is forked within
milliseconds from one that has imported all it needs. Where fork does not exist, it is a new interpreter.
"""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from crucible_lineage.server.ingest.formats.findings import Found

MAX_REPLY_BYTES = 16 << 20
LOGGED_BYTES = 4000
TIME_S = 30.0  # chosen: half as long as `register` waits for an ingestion
MEMORY_MB = 2048  # chosen: several copies of a colour picture of `MAX_PIXELS`

log = logging.getLogger("crucible_lineage.server")


LOG_FILE = "log"
_COMMAND = [sys.executable, "-P", "-m", "crucible_lineage.server.ingest.child"]


class IngestionError(Exception):
    """The ingestion of a file failed; the message names the ingestor and the failure."""


class IngestJob(BaseModel):
    """The job of the process."""

    path: str
    filename: str
    wanted: str | None
    time_s: float
    memory_bytes: int


class Reply(BaseModel):
    """The result of a job: what `ingestors.ingest` returns, or an error."""

    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")

    name: str | None = None
    metadata: dict[str, object] = {}
    attributes: dict[str, str] = {}
    thumbnail: bytes | None = None
    error: str | None = None


class Isolation:
    """Ingests one file at a time; `stop`, from another thread, ends the current job and refuses others."""

    def __init__(self) -> None:
        self.stopped = False
        self._server: _ForkServer | None = None
        self._lock = threading.Lock()

    def ingest(self, path: Path, filename: str, requested: str | None) -> tuple[str | None, Found]:
        """Ingest in a separate process, as `ingestors.ingest` does."""
        if not path.is_file():
            raise FileNotFoundError(path)
        job = IngestJob(
            path=str(path),
            filename=filename,
            wanted=requested,
            time_s=float(os.environ.get("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S") or TIME_S),
            memory_bytes=int(os.environ.get("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB") or MEMORY_MB) << 20,
        )
        with tempfile.TemporaryDirectory(prefix="crucible-ingest-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            (folder / "request.json").write_text(job.model_dump_json(), encoding="utf-8")
            ended = self._run(folder, job.time_s)
            _log(folder / LOG_FILE, filename)
            reply = _reply(folder, ended)
        if reply.error is not None:
            raise IngestionError(reply.error)
        return reply.name, Found(reply.metadata, reply.thumbnail, reply.attributes)

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            self._end_server()

    def _run(self, folder: Path, time_s: float) -> str:
        """Run the process and return how it ended, in words."""
        with self._lock:
            if self.stopped:
                raise IngestionError("the server is closing")
            process = self._start(folder)
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

    def _start(self, folder: Path) -> _Forked | _Fresh:
        """Start a process for the job in this folder; its output goes to the folder's `log`."""
        if not hasattr(os, "fork"):
            return _Fresh(folder)
        environment = _environment()
        if self._server is None or not self._server.serves(environment):
            self._end_server()
            self._server = _ForkServer(environment)
        return self._server.fork(folder)

    def _end_server(self) -> None:
        if self._server is not None:
            self._server.end()
            self._server = None


def _reply(folder: Path, ended: str) -> Reply:
    path, trying = folder / "reply.json", folder / "trying"
    if not path.exists():
        name = trying.read_text(encoding="utf-8", errors="replace") if trying.exists() else "the ingestion"
        return Reply(error=f"{name or 'the ingestion'} {ended}")
    if path.stat().st_size > MAX_REPLY_BYTES:
        return Reply(error=f"the metadata found in the file are larger than {MAX_REPLY_BYTES >> 20} MB")
    try:
        return Reply.model_validate_json(path.read_bytes())
    except ValueError:
        return Reply(error="the process of the ingestor sent an invalid reply")


def _log(path: Path, filename: str) -> None:
    """Log what ingestors wrote to the console, for the server's administrator."""
    if path.exists() and (text := path.read_bytes()[-LOGGED_BYTES:].decode("utf-8", "replace").strip()):
        log.warning("Ingesting %s: %s", filename, text)


def _environment() -> dict[str, str]:
    """Return this process's environment and import path; ingestors of other packages may need both."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


class _ForkServer:
    """An interpreter that has done its imports and forks for each job; it ends with its standard input."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        replies, child_end = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter with a module of this package
                [*_COMMAND, "--fork", str(child_end)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(child_end,),
                env=environment,
                start_new_session=True,
            )
        except BaseException:
            os.close(replies)
            raise
        finally:
            os.close(child_end)
        assert self._process.stdin is not None
        self._jobs, self._replies = self._process.stdin, os.fdopen(replies, "rb")

    def serves(self, environment: Mapping[str, str]) -> bool:
        """Return whether it lives and was started with this environment."""
        return self._process.poll() is None and self._environment == environment

    def fork(self, folder: Path) -> _Forked:
        """Fork a child for this job. If this interpreter is dead, the child counts as killed."""
        with suppress(OSError):
            self._jobs.write(os.fsencode(folder) + b"\0")
            self._jobs.flush()
        return _Forked(self, self.number())

    def number(self) -> int | None:
        """Read the next reply: a child's process id, then its exit code. None once this interpreter is dead."""
        line = self._replies.readline()
        return int(line) if line.strip() else None

    def end(self) -> None:
        """End this interpreter and its current child, which reads the same input."""
        with suppress(OSError):
            self._jobs.close()
        self._process.kill()
        self._process.wait()
        self._replies.close()


class _Forked:
    """A process that was forked for a job."""

    def __init__(self, server: _ForkServer, pid: int | None) -> None:
        self._server = server
        self._pid = pid

    def wait(self) -> int:
        """Return the exit code once the process has ended; negative for a signal."""
        code = self._server.number() if self._pid is not None else None
        self._pid = None
        return -signal.SIGKILL if code is None else code

    def kill(self) -> None:
        if self._pid is not None:
            _kill_group(self._pid)


class _Fresh:
    """A new interpreter for a job."""

    def __init__(self, folder: Path) -> None:
        with (folder / LOG_FILE).open("wb") as output:
            self._process = subprocess.Popen(  # noqa: S603 - this interpreter with a module of this package
                [*_COMMAND, str(folder)],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=_environment(),
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
