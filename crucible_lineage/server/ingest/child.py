"""The process in which files are ingested: run by `isolation` as a module, which writes it the folder of each errand.

The folder holds `request.json`; `trying` gets the name of the ingestor in hand, `reply.json` what came of it, and `log`
what was written to the console. A line on standard output says that an errand is done.
"""

from __future__ import annotations

import base64
import faulthandler
import os
import queue
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from crucible_lineage.server.ingest.ingestors import ingest
from crucible_lineage.server.ingest.isolation import Reply, Request

MAX_WRITTEN_BYTES = 64 << 20  # per file, so that an endless message does not fill the disk
GRACE_S = 5.0


def main() -> None:
    told = os.dup(1)
    errands: queue.SimpleQueue[Path] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(errands,), daemon=True).start()
    while True:
        _do(errands.get())
        os.write(told, b"\n")


def _do(folder: Path) -> None:
    _write_to(folder / "log")
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    faulthandler.dump_traceback_later(request.time_s + GRACE_S, exit=True)  # should nobody be left to end this process
    _limit_memory(request.memory_bytes)
    draft = folder / "reply.new"
    draft.write_bytes(_reply(request, (folder / "trying").write_text))
    draft.replace(folder / "reply.json")
    faulthandler.cancel_dump_traceback_later()
    _write_to(Path(os.devnull))


def _write_to(path: Path) -> None:
    """Standard output and error go there from now on, also those of C libraries."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)


def _reply(request: Request, trying: Callable[[str], object]) -> bytes:
    try:
        return _found(request, trying)
    except MemoryError:
        failed = Reply(error=f"MemoryError: reading takes more than {request.memory_bytes >> 20} MB of memory")
    except Exception as error:
        failed = Reply(error=f"{type(error).__name__}: {error}"[:500])
    return failed.model_dump_json().encode()


def _found(request: Request, trying: Callable[[str], object]) -> bytes:
    name, found = ingest(Path(request.path), request.filename, request.wanted, trying)
    reply = Reply(
        name=name,
        metadata=found.metadata,
        attributes=found.attributes,
        thumbnail=None if found.thumbnail is None else base64.b64encode(found.thumbnail).decode(),
    )
    return reply.model_dump_json().encode()


def _listen(errands: queue.SimpleQueue[Path]) -> None:
    """Standard input ends when the parent does, however that came about, and so does this process."""
    with open(0, "rb", closefd=False) as lines:
        for line in lines:
            errands.put(Path(os.fsdecode(line.rstrip(b"\n"))))
    os._exit(1)


def _limit_memory(size: int) -> None:
    """Only POSIX can; elsewhere the time limit must do."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, size), (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)):
        with suppress(ValueError, OSError):  # a lower limit is in force, or the system has none
            resource.setrlimit(kind, (limit, limit))


if __name__ == "__main__":
    main()
