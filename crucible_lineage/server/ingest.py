"""Ingest one file: the ingestors in their order, those of other packages, and a process for each file.

Another package provides an ingestor as an entry point of the group `crucible_lineage.ingestors`. The entry point's name
is the ingestor's. It points to a class without arguments that has `suffixes` (such as `{".spe"}`) and `read(path)`,
which returns a `Found`, or None for a file of another kind. An error of `read` becomes the request's error message.

`CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S` and `CRUCIBLE_LINEAGE_INGEST_MEMORY_MB` limit the process: its hang, crash or use of
memory harms nothing else.
"""

from __future__ import annotations

import base64
import faulthandler
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from crucible_lineage.server.database import JsonObject
from crucible_lineage.server.readers import (
    Found,
    read_hdf5,
    read_image,
    read_json,
    read_nexus,
    read_signals,
    read_table,
    read_workbook,
)

GROUP = "crucible_lineage.ingestors"
TIME_S = 30.0  # chosen: half as long as `register` waits for an ingestion
MEMORY_MB = 2048  # chosen: several copies of a colour picture of `MAX_PIXELS`
MAX_WRITTEN_BYTES = 64 << 20  # per file, so that an endless message does not fill the disk
MAX_REPLY_BYTES = 16 << 20
LOGGED_BYTES = 4000
GRACE_S = 5.0

log = logging.getLogger("crucible_lineage.server")


@dataclass(frozen=True)
class Ingestor:
    """A reader for files with some suffixes; `read` returns None for a file of another kind."""

    name: str
    suffixes: Collection[str]
    read: Callable[[Path], Found | None]


_HDF5 = frozenset({".h5", ".hdf5", ".hdf", ".he5", ".nxs", ".nx5"})
_IMAGES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".gif", ".bmp", ".webp"})

# By name: the plugin of RosettaSciIO, and the suffixes that belong to this kind of file only.
_PLUGINS: dict[str, tuple[str, frozenset[str]]] = {
    "DigitalMicrographIngestor": ("digitalmicrograph", frozenset({".dm3", ".dm4"})),
    "EMDIngestor": ("emd", frozenset({".emd"})),
    "FEISeriesIngestor": ("tia", frozenset({".ser"})),
    "BrukerIngestor": ("bruker", frozenset({".bcf"})),
    "MRCIngestor": ("mrc", frozenset({".mrc"})),
    "EMSAIngestor": ("msa", frozenset({".msa", ".ems", ".emsa"})),
    "RenishawIngestor": ("renishaw", frozenset({".wdf"})),
    "DigitalSurfIngestor": ("digitalsurf", frozenset({".sur", ".pro"})),
    "HyperSpyIngestor": ("hspy", frozenset({".hspy"})),
}
INGESTORS: tuple[Ingestor, ...] = (
    Ingestor("NexusIngestor", _HDF5, read_nexus),
    Ingestor("H5Ingestor", _HDF5, read_hdf5),
    Ingestor("ImageIngestor", _IMAGES, read_image),
    *(Ingestor(name, suffixes, partial(read_signals, plugin)) for name, (plugin, suffixes) in _PLUGINS.items()),
    Ingestor("WorkbookIngestor", frozenset({".xlsx", ".xlsm", ".xls", ".ods"}), read_workbook),
    Ingestor("JsonIngestor", frozenset({".json"}), read_json),
    Ingestor("DelimitedTextIngestor", frozenset({".csv", ".tsv", ".txt", ".dat"}), read_table),
)


class IngestionError(Exception):
    """The ingestion of a file failed; the message names the ingestor and the failure."""


def ingest(
    path: Path, filename: str, requested: str | None, on_attempt: Callable[[str], object] = lambda _: None
) -> tuple[str | None, Found]:
    """Return the name of the first ingestor that could read the file with its findings, or None with empty findings.

    The `requested` ingestor is tried first, whatever the file's suffix. `on_attempt` gets the name of each one tried.
    """
    suffix = Path(filename).suffix.lower()
    for ingestor in _in_order(requested, on_attempt):
        if ingestor.name == requested or suffix in ingestor.suffixes:
            on_attempt(ingestor.name)
            findings = ingestor.read(path)
            if findings is not None:
                return ingestor.name, findings
    return None, Found({})


def read(path: Path) -> JsonObject:
    """Return the fields and metadata of a file. Raises ValueError if no ingestor can read it.

    A time without a zone is omitted, since it is ambiguous.
    """
    name, findings = ingest(path, path.name, None)
    if name is None:
        raise ValueError(f"no ingestor reads files like {path.name}")
    own_names = ("dataset_name", "data_format")
    fields = {key: value for key, value in findings.attributes.items() if key not in own_names}
    if "timestamp" in fields and datetime.fromisoformat(fields["timestamp"]).tzinfo is None:
        del fields["timestamp"]
    return {**findings.metadata, **fields}


def ingestor_names() -> list[str]:
    """Return the names of all ingestors, those of other packages first."""
    return [*(entry.name for entry in _foreign()), *(ingestor.name for ingestor in INGESTORS)]


def _in_order(requested: str | None, on_attempt: Callable[[str], object]) -> Iterator[Ingestor]:
    """Yield the requested ingestor, then those of other packages, which know their own formats, then ours."""
    foreign = sorted(_foreign(), key=lambda entry: entry.name != requested)
    own = sorted(INGESTORS, key=lambda ingestor: ingestor.name != requested)
    if own[0].name == requested:
        yield own.pop(0)
    for entry in foreign:
        on_attempt(entry.name)
        try:
            ingestor = entry.load()()
        except Exception as error:
            if entry.name == requested:
                raise
            sys.stderr.write(f"{entry.name} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}\n")
            continue
        yield Ingestor(entry.name, frozenset(ingestor.suffixes), ingestor.read)
    yield from own


def _foreign() -> list[EntryPoint]:
    own = {ingestor.name for ingestor in INGESTORS}
    by_name = {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in own}
    return [by_name[name] for name in sorted(by_name)]


class Isolation:
    """Ingests one file at a time, each in its own process; `stop`, from another thread, ends it and refuses others."""

    def __init__(self) -> None:
        self.stopped = False
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()

    def ingest(self, path: Path, filename: str, requested: str | None) -> tuple[str | None, Found]:
        """Ingest as `ingest` does. Raises IngestionError if that fails."""
        if not path.is_file():
            raise FileNotFoundError(path)
        limit_s = float(os.environ.get("CRUCIBLE_LINEAGE_INGEST_TIMEOUT_S") or TIME_S)
        with tempfile.TemporaryDirectory(prefix="crucible-ingest-", ignore_cleanup_errors=True) as name:
            folder = Path(name)
            ended = self._run([name, str(path), filename, requested or "", str(limit_s)], folder / "log", limit_s)
            output = (folder / "log").read_bytes()[-LOGGED_BYTES:].decode("utf-8", "replace").strip()
            if output:  # for the server's administrator
                log.warning("Ingesting %s: %s", filename, output)
            reply = _reply(folder, ended)
        if "error" in reply:
            raise IngestionError(reply["error"])
        picture = reply["thumbnail"]
        found = Found(reply["metadata"], base64.b64decode(picture) if picture else None, reply["attributes"])
        return reply["name"], found

    def stop(self) -> None:
        with self._lock:
            self.stopped = True
            if self._process is not None:
                _kill(self._process)

    def _run(self, arguments: list[str], output: Path, limit_s: float) -> str:
        """Run the process and return how it ended, in words."""
        command = [sys.executable, "-P", "-m", "crucible_lineage.server.ingest", *arguments]
        path = os.pathsep.join(entry for entry in sys.path if entry)  # ingestors of other packages may need it
        environment = {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with self._lock, output.open("wb") as file:
            if self.stopped:
                raise IngestionError("the server is closing")
            self._process = process = subprocess.Popen(  # noqa: S603  this interpreter with a module of this package
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file, env=environment, start_new_session=True
            )
        try:
            code = process.wait(limit_s)
        except subprocess.TimeoutExpired:
            _kill(process)
            process.wait()
            return f"was not done after {limit_s:g} s and was stopped"
        return f"ended its process with exit code {code}" if code >= 0 else f"was killed by signal {-code}"


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End the process and its children."""
    if process.poll() is None:
        with suppress(ProcessLookupError, PermissionError):
            if sys.platform == "win32":
                process.kill()
            else:
                os.killpg(process.pid, signal.SIGKILL)


def _reply(folder: Path, ended: str) -> JsonObject:
    path, trying = folder / "reply.json", folder / "trying"
    if not path.exists():
        name = trying.read_text(encoding="utf-8", errors="replace") if trying.exists() else ""
        return {"error": f"{name or 'the ingestion'} {ended}"}
    if path.stat().st_size > MAX_REPLY_BYTES:
        return {"error": f"the metadata found in the file are larger than {MAX_REPLY_BYTES >> 20} MB"}
    return dict(json.loads(path.read_bytes()))


def main(folder: Path, path: Path, filename: str, requested: str | None, limit_s: float) -> None:
    """Ingest one file in this process: write the ingestor at work to `trying`, the result to `reply.json`."""
    faulthandler.dump_traceback_later(limit_s + GRACE_S, exit=True)  # in case the server has died
    memory_mb = int(os.environ.get("CRUCIBLE_LINEAGE_INGEST_MEMORY_MB") or MEMORY_MB)
    _limit_memory(memory_mb << 20)
    try:
        name, found = ingest(path, filename, requested, (folder / "trying").write_text)
        picture = base64.b64encode(found.thumbnail).decode() if found.thumbnail else None
        reply = json.dumps(
            {"name": name, "metadata": found.metadata, "attributes": found.attributes, "thumbnail": picture}
        )
    except MemoryError:
        reply = json.dumps({"error": f"MemoryError: reading takes more than {memory_mb} MB of memory"})
    except Exception as error:
        reply = json.dumps({"error": f"{type(error).__name__}: {error}"[:500]})
    draft = folder / "reply.new"
    draft.write_text(reply, encoding="utf-8")
    draft.replace(folder / "reply.json")


def _limit_memory(size: int) -> None:
    """Limit memory and written bytes; only POSIX can, elsewhere the time limit must suffice."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, size), (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)):
        with suppress(ValueError, OSError):  # a lower limit applies, or the system has none
            resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4] or None, float(sys.argv[5]))
