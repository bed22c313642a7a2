"""The processes in which files are ingested: forked from one that has imported all it needs, or each started anew.

A fork takes some milliseconds, a new interpreter with its imports a tenth of a second and more. Where there is no
fork (Windows), each file has a new interpreter.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Protocol

__all__ = ["LOG_FILE", "IngestProcess", "Processes"]

LOG_FILE = "log"
_COMMAND = [sys.executable, "-P", "-m", "crucible_lineage.server.ingest.child"]


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
