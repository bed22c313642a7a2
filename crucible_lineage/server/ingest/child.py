"""The process that ingests one file; `isolation` runs this module with the folder of the job.

The folder holds `request.json`. The process writes the name of the current ingestor to `trying` and the result to
`reply.json`. With `--fork FD`, it forks a child for each folder that it reads from standard input, and writes the
child's process id to this descriptor, then its exit code; standard output has what imported libraries print. It stays
single-threaded, because only then is forking safe.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import NoReturn

from crucible_lineage.server.ingest.ingestors import INGESTORS, ingest
from crucible_lineage.server.ingest.isolation import LOG_FILE, IngestJob, Reply

MAX_WRITTEN_BYTES = 64 << 20  # per file, so that an endless message does not fill the disk
GRACE_S = 5.0


def main(folder: Path) -> None:
    request = IngestJob.model_validate_json((folder / "request.json").read_bytes())
    faulthandler.dump_traceback_later(request.time_s + GRACE_S, exit=True)  # in case nobody ends this process
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _limit_memory(request.memory_bytes)
    draft = folder / "reply.new"
    draft.write_bytes(_reply(request, (folder / "trying").write_text))
    draft.replace(folder / "reply.json")


def _reply(request: IngestJob, on_attempt: Callable[[str], object]) -> bytes:
    try:
        name, found = ingest(Path(request.path), request.filename, request.wanted, on_attempt)
        reply = Reply(name=name, metadata=found.metadata, attributes=found.attributes, thumbnail=found.thumbnail)
        return reply.model_dump_json().encode()
    except MemoryError:
        failure = Reply(error=f"MemoryError: reading takes more than {request.memory_bytes >> 20} MB of memory")
    except Exception as error:
        failure = Reply(error=f"{type(error).__name__}: {error}"[:500])
    return failure.model_dump_json().encode()


def _end_with_parent() -> None:
    """Exit when standard input ends, as it does when the parent ends in any way."""
    os.read(0, 1)  # not by `sys.stdin`, whose lock would block the end of this process
    os._exit(1)


def _limit_memory(size: int) -> None:
    """Limit memory and written bytes; only POSIX can, elsewhere the time limit must suffice."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    for kind, limit in ((resource.RLIMIT_AS, size), (resource.RLIMIT_FSIZE, MAX_WRITTEN_BYTES)):
        with suppress(ValueError, OSError):  # a lower limit applies, or the system has none
            resource.setrlimit(kind, (limit, limit))


def fork_for_each(replies: int) -> None:
    """Fork a child for each folder that standard input names, one after the other, until it ends."""
    while folder := _next_folder():
        _import_readers(Path(folder))
        if (pid := os.fork()) == 0:
            os.close(replies)
            _be_child(Path(folder))
        _send(replies, pid)
        _send(replies, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))


def _next_folder() -> str:
    """Read a path up to its zero byte, unbuffered, since the children share the input."""
    name = b""
    while (byte := os.read(0, 1)) not in (b"", b"\0"):
        name += byte
    return os.fsdecode(name)


def _send(replies: int, number: int) -> None:
    os.write(replies, b"%d\n" % number)


def _import_readers(folder: Path) -> None:
    """Import slow modules before the fork, once a file needs them."""
    request = IngestJob.model_validate_json((folder / "request.json").read_bytes())
    suffix = Path(request.filename).suffix.lower()
    for module in {module for ingestor in INGESTORS if suffix in ingestor.suffixes for module in ingestor.modules}:
        with suppress(ImportError):  # the ingestor reports what it lacks
            import_module(module)


def _be_child(folder: Path) -> NoReturn:
    code = 1
    try:
        os.setsid()  # a process group of its own, so that its children can be ended with it
        log = os.open(folder / LOG_FILE, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(log, 1)
        os.dup2(log, 2)
        main(folder)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    if sys.argv[1] == "--fork":
        fork_for_each(int(sys.argv[2]))
    else:
        main(Path(sys.argv[1]))
