"""Ingest one file: the ingestors in their order, and the process in which that is done.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` limit the process: its hang, crash or use of
memory harms nothing else.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crucible_lineage.server import readers
from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.readers import Found

TIME_S = 30.0  # chosen: half as long as `register` waits for an ingestion
TEXT_BYTES = 1 << 18  # chosen: reading so much text takes a tenth of a second at most
SMALL_BYTES = 1 << 20  # chosen: a file that leaves little memory in use
MEMORY_MB = 2048  # chosen: several copies of a colour picture of `MAX_PIXELS`
MAX_WRITTEN_BYTES = 64 << 20  # per file, so that an endless message does not fill the disk
MAX_REPLY_BYTES = 16 << 20
GRACE_S = 5.0


@dataclass(frozen=True)
class Ingestor:
    """A reader for files with some suffixes; `read` returns None for a file of another kind."""

    name: str
    suffixes: Collection[str]
    read: Callable[[Path], Found | None]
    is_harmless: bool = False  # of small files: pure Python, which takes a thousandth of the start of a process


_IMAGES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"}
INGESTORS: tuple[Ingestor, ...] = (
    Ingestor("H5Ingestor", {".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5"}, readers.read_hdf5),
    Ingestor("ImageIngestor", _IMAGES, readers.read_image),
    Ingestor("JsonIngestor", {".json"}, readers.read_json, is_harmless=True),
    Ingestor("DelimitedTextIngestor", {".csv", ".tsv", ".txt", ".dat"}, readers.read_table, is_harmless=True),
)


class IngestionError(Exception):
    """The ingestion of a file failed; the message names the ingestor and the failure."""


def candidates(filename: str, requested: str | None) -> list[Ingestor]:
    """Return the ingestors to try: the requested one first, whatever the file's suffix."""
    suffix = Path(filename).suffix.lower()
    found = [ingestor for ingestor in INGESTORS if ingestor.name == requested or suffix in ingestor.suffixes]
    return sorted(found, key=lambda ingestor: ingestor.name != requested)


def ingest(path: Path, filename: str, requested: str | None) -> tuple[str | None, Found]:
    """Return the name of the first candidate that could read the file and its findings, or None and empty ones."""
    for ingestor in candidates(filename, requested):
        if (findings := ingestor.read(path)) is not None:
            return ingestor.name, findings
    return None, Found({})


def read(path: Path) -> JsonObject:
    """Return the metadata of a file. Raises ValueError if no ingestor can read it."""
    name, findings = ingest(path, path.name, None)
    if name is None:
        raise ValueError(f"no ingestor reads files like {path.name}")
    return findings.metadata


def ingestor_names() -> list[str]:
    """Return the names of all ingestors in their order."""
    return [ingestor.name for ingestor in INGESTORS]


class Isolation:
    """Ingests one file at a time, in a process that is replaced after a large file or a failure; `stop`, from another
    thread, ends it and refuses others.
    """

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[str] | None = None

    def ingest(self, path: Path, filename: str, requested: str | None) -> tuple[str | None, Found]:
        """Ingest as `ingest` does. Raises IngestionError if that fails."""
        size, chosen = path.stat().st_size, candidates(filename, requested)
        if size <= TEXT_BYTES and all(ingestor.is_harmless for ingestor in chosen):
            return ingest(path, filename, requested)
        limit_s = float(os.environ.get("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S") or TIME_S)
        if self._process is None:
            command = [sys.executable, "-P", "-m", "crucible_lineage.server.ingest"]
            own = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
            self._process = subprocess.Popen(command, env=own, start_new_session=True, **pipes)  # noqa: S603  this package
        process = self._process
        if self.stopped:
            self.rest()
            raise IngestionError("the server is closing")
        timer, end = threading.Timer(limit_s, _kill, (process,)), time.monotonic() + limit_s
        timer.start()
        assert process.stdout is not None
        with suppress(BrokenPipeError):  # it has died
            print(json.dumps([str(path), filename, requested, limit_s]), file=process.stdin, flush=True)
        line = process.stdout.readline()
        timer.cancel()
        code = 0 if line and size <= SMALL_BYTES else self.rest()
        if not line:
            ended = f"ended its process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
            if time.monotonic() >= end:
                ended = f"was not done after {limit_s:g} s and was stopped"
            raise IngestionError(f"{' or '.join(ingestor.name for ingestor in chosen)} {ended}")
        answer = json.loads(line)
        if "error" in answer:
            self.rest()
            raise IngestionError(answer["error"])
        return answer["name"], Found(answer["metadata"], base64.b64decode(answer["thumbnail"]) or None)

    def rest(self) -> int:
        """End the process, until there is another file; return its exit code."""
        process, self._process = self._process, None
        if process is None:
            return 0
        with suppress(subprocess.TimeoutExpired):  # it is reading
            process.communicate(timeout=0.1)
        _kill(process)
        process.communicate()
        return process.returncode

    def stop(self) -> None:
        self.stopped = True
        if (process := self._process) is not None:
            _kill(process)


def _kill(process: subprocess.Popen[str]) -> None:
    """End the process and its children."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


def main() -> None:
    """Ingest the files named in lines of JSON; the result of each is a line, too."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no reply
    memory_mb = int(os.environ.get("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB") or MEMORY_MB)
    with suppress(ImportError):  # elsewhere than on POSIX, the time limit must suffice
        import resource

        for kind, limit in ((resource.RLIMIT_AS, memory_mb << 20), (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)):
            with suppress(ValueError, OSError):  # a lower limit applies, or the system has none
                resource.setrlimit(kind, (limit, limit))
    for line in sys.stdin:
        path, filename, requested, limit_s = json.loads(line)
        faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True)  # in case the server has died
        try:
            name, found = ingest(Path(path), filename, requested)
            picture = base64.b64encode(found.thumbnail or b"").decode()
            text = json.dumps({"name": name, "metadata": found.metadata, "thumbnail": picture})
            if len(text) > MAX_REPLY_BYTES:
                raise ValueError(f"the metadata found in the file are larger than {MAX_REPLY_BYTES >> 20} MB")
        except MemoryError:
            text = json.dumps({"error": f"MemoryError: reading takes more than {memory_mb} MB of memory"})
        except Exception as error:
            text = json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})
        print(text, file=replies, flush=True)
        faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
