"""What a step printed, as a file that is bounded and has no secrets in it; whoever wants to hears it line by line."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

from crucible_lineage.pipeline.logs.secrets import Blotter

__all__ = ["LOG_LIMIT_BYTES", "STEP_LOG", "Hear", "StepLog", "are_steps_heard", "hear_steps", "hearing_steps"]

STEP_LOG = "step.log"  # what the step printed; it becomes a file of the child
LOG_LIMIT_BYTES = 1 << 20  # half of it for the beginning, half for the end
MOST_HEARD_BYTES = 1 << 16  # of a line

Hear = Callable[[str], None]

_hearers: list[Callable[[str, str], None]] = []


@contextmanager
def hearing_steps(hear: Callable[[str, str], None]) -> Iterator[None]:
    """`hear` is told the lines that steps print in this process meanwhile: whose, and which."""
    _hearers.append(hear)
    try:
        yield
    finally:
        _hearers.remove(hear)


def are_steps_heard() -> bool:
    """True if somebody in this process wants to hear what steps print."""
    return bool(_hearers)


def hear_steps(step: str, line: str) -> None:
    """Whoever hears steps in this process is told the line."""
    for hear in list(_hearers):
        hear(step, line)


class StepLog:
    """Takes bytes, in any thread. `hear` is called with each line, without its end."""

    def __init__(self, path: Path, blotter: Blotter | None = None, hear: Hear | None = None) -> None:
        self.path = path
        self.blotter = blotter or Blotter()
        self.size = 0
        self._hear = hear
        self._lock = threading.Lock()
        self._file = path.open("wb", buffering=0)
        self._room, self._left_out, self._held = LOG_LIMIT_BYTES // 2, 0, 0
        self._tail: deque[bytes] = deque()
        self._unsure = b""  # may be the beginning of a secret
        self._line = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, data: bytes) -> None:
        """Add output of the step."""
        with self._lock:
            if self._file.closed:  # by one that its step had left behind
                return
            sure, self._unsure = self.blotter.data(self._unsure + data, last=False)
            self._keep(sure)

    def close(self) -> None:
        """Complete the file: beginning, the size of what was left out, end."""
        with self._lock:
            if self._file.closed:
                return
            self._keep(self.blotter.data(self._unsure)[0])
            if self._line:
                self._tell(self._line)
            if self._left_out:
                self._write(f"\n[... {self._left_out} bytes are left out here ...]\n".encode())
            self._write(b"".join(self._tail))
            self._file.close()

    def text(self, most: int = LOG_LIMIT_BYTES) -> str:
        """The end of it, at `most` so many bytes."""
        with self.path.open("rb") as stream:
            stream.seek(max(0, self.path.stat().st_size - most))
            return stream.read().decode(errors="replace").strip()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self._hear and data:
            self._tell_lines(data)
        if self._room and data:
            self._write(data[: self._room])
            self._room, data = max(0, self._room - len(data)), data[self._room :]
        if data:
            self._tail.append(data)
            self._held += len(data)
            while self._held - len(self._tail[0]) >= LOG_LIMIT_BYTES // 2:
                self._held -= len(self._tail[0])
                self._left_out += len(self._tail.popleft())

    def _write(self, data: bytes) -> None:
        """On a full disk the log ends early; the step's own files, which it needs room for as well, tell of that."""
        with suppress(OSError):
            self._file.write(data)

    def _tell_lines(self, data: bytes) -> None:
        *lines, self._line = (self._line + data).split(b"\n")
        if len(self._line) > MOST_HEARD_BYTES:
            lines, self._line = [*lines, self._line], b""
        for line in lines:
            self._tell(line)

    def _tell(self, line: bytes) -> None:
        assert self._hear is not None
        with suppress(Exception):  # that nobody can be told is no fault of the step
            self._hear(line.decode(errors="replace").rstrip("\r"))
