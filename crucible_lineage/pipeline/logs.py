"""What steps print and the phases they reach: logs, bounded and without secrets, as those of faults; live reports."""

from __future__ import annotations

import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path

from crucible_lineage.errors import LineageError
from crucible_lineage.machine.disk import private_file, private_folder, storage_error
from crucible_lineage.text.masking import Redactor, redactor_of

STEP_LOG = "step.log"  # what the step printed; it becomes a file of the child
LOG_LIMIT_BYTES = 1 << 20  # half of it for the beginning, half for the end
TAIL_BYTES = 2000
MAX_LINE_BYTES = 1 << 16  # longer lines are reported in parts

LineCallback = Callable[[str], None]

_listeners: list[Callable[[str, str], None]] = []  # to lines
_phase_listeners: dict[str, Callable[[str, str], None]] = {}  # by run

LOG_FORMAT = "%(levelname)s %(name)s: %(message)s"
FOLDER = "logs"  # in the data folder
MAX_FILES = 100


@contextmanager
def listening_to_steps(listener: Callable[[str, str], None]) -> Iterator[None]:
    """Call `listener(step, line)` for each line that steps report in this process during the block."""
    _listeners.append(listener)
    try:
        yield
    finally:
        _listeners.remove(listener)


class StepLog:
    """The log of a step, written in any thread; its file begins with the first bytes. `on_line` gets each line."""

    def __init__(self, path: Path, redactor: Redactor | None = None, on_line: LineCallback | None = None) -> None:
        self.path = path
        self.redactor = redactor or redactor_of()
        self.size = 0
        self._on_line = on_line
        self._lock = threading.Lock()
        self._file: FileIO | None = None
        self._is_closed = False
        self._room, self._left_out, self._held = LOG_LIMIT_BYTES // 2, 0, 0
        self._tail: deque[bytes] = deque()
        self._unsure = b""  # an unfinished line, or the beginning of a secret
        self._line = b""

    def write(self, data: bytes) -> None:
        """Add output of the step."""
        with self._lock:
            if self._is_closed:  # written by a process that the step left behind
                return
            sure, self._unsure = self.redactor.data(self._unsure + data, last=False)
            self._keep(sure)

    def close(self) -> None:
        """Complete the file: beginning, the size of what was left out, end."""
        with self._lock:
            if self._is_closed:
                return
            self._keep(self.redactor.data(self._unsure)[0])
            if self._line:
                self._report(self._line)
            if self._left_out:
                self._write(f"\n[... {self._left_out} bytes are left out here ...]\n".encode())
            self._write(b"".join(self._tail))
            self._is_closed = True
            if self._file is not None:
                self._file.close()

    def _keep(self, data: bytes) -> None:
        self.size += len(data)
        if self._on_line and data:
            *lines, self._line = (self._line + data).split(b"\n")
            if len(self._line) > MAX_LINE_BYTES:
                lines, self._line = [*lines, self._line], b""
            for line in lines:
                self._report(line)
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
        """Write to the file. On a full disk the log ends early; writing the step's own files reports that."""
        with suppress(OSError):
            if self._file is None and data:
                self._file = self.path.open("wb", buffering=0)
            if self._file is not None:
                self._file.write(data)

    def _report(self, line: bytes) -> None:
        assert self._on_line is not None
        with suppress(Exception):  # a failing callback does not fail the step
            self._on_line(line.decode(errors="replace").rstrip("\r"))


def tail_of(log: Path) -> str:
    """Return the end of a log, for messages; empty if there is none."""
    if not log.exists():
        return ""
    with log.open("rb") as stream:
        stream.seek(max(0, log.stat().st_size - TAIL_BYTES))
        return stream.read().decode(errors="replace").strip()


def record_fault(error: BaseException, data: Path) -> tuple[str, str]:
    """Write the traceback to a file, or else into the message. Return the message and the file, without secrets."""
    if isinstance(error, OSError) and (refused := storage_error(error)) is not None:
        return str(refused), ""
    redactor = redactor_of()
    trace = redactor.text("".join(traceback.format_exception(error)))
    line = redactor.text(f"{type(error).__name__}: {error}".removesuffix(": "))
    message = f"{line}; this is a fault of crucible-lineage, please report it"
    try:
        folder = private_folder(data / FOLDER)
        for old in sorted(folder.glob("fault-*.log"))[: -MAX_FILES + 1]:
            with suppress(OSError):
                old.unlink()
        log = folder / f"fault-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.log"
        private_file(log).write_text(trace, encoding="utf-8", errors="backslashreplace")
    except (OSError, LineageError):
        return f"{message}; its traceback:\n{trace}", ""
    return f"{message}; its traceback is in {log}", str(log)


@contextmanager
def listening_to_phases(run_id: str, listener: Callable[[str, str], None]) -> Iterator[None]:
    """Call `listener(step, phase)`, in any thread, when a step of the run reaches a phase."""
    _phase_listeners[run_id] = listener
    try:
        yield
    finally:
        del _phase_listeners[run_id]


def report_phase(run_id: str, step: str, phase: str) -> None:
    """Report the phase of a step to its run, if that has a listener."""
    if listener := _phase_listeners.get(run_id):
        listener(step, phase)


def report_line(step: str, on_line: LineCallback | None, line: str) -> None:
    """Report a printed line to `on_line`, and to the listeners in this process."""
    for listener in list(_listeners):
        listener(step, line)
    if on_line:
        on_line(line)
