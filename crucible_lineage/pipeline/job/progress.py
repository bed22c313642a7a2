"""What steps tell that are made in other processes: where they are on their way, and what they print.

It goes through files in the data folder, one of each process, which the run reads and takes away. Of a step that is
made on a machine that does not share the folder, nothing is heard until it has ended.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final

from crucible_lineage.disk import private_file, private_folder
from crucible_lineage.errors import StorageError
from crucible_lineage.local.usage import in_use, remove_folder
from crucible_lineage.pipeline.logs import are_steps_heard, hear_steps

if TYPE_CHECKING:
    from crucible_lineage.pipeline.job.job import Job

STARTED: Final = "started"
MADE: Final = "made"

EVERY_S = 0.2  # so often the run looks
MOST_BYTES = 1 << 20  # of what a step prints; the rest is in its log only
LINES = "lines"  # a file that is there if somebody wants to hear what steps print


def tell_phase(job: Job, phase: str, data: Path) -> None:
    """The step has got there; its run, in this process or in another one of the data folder, is told."""
    if not phase_reached(job.run_id, job.name, phase) and (writer := _writer(data, job.run_id)):
        writer.write({"step": job.name, "phase": phase})


def tell_line(job: Job, line: str, data: Path) -> None:
    """The step has printed this; whoever hears steps, in this process or in that of its run, is told."""
    hear_steps(job.name, line)
    if not is_heard(job.run_id) and (writer := _writer(data, job.run_id)):
        writer.write_line(job.name, line)


def is_run_here(data: Path, run_id: str) -> bool:
    """True if the process of the run has this data folder, too, and listens."""
    return _folder(data, run_id).is_dir()


@contextmanager
def hearing_news(data: Path, run_id: str) -> Iterator[ProgressReader]:
    """Receive in this process the news of the run's steps in other processes."""
    folder = private_folder(_folder(data, run_id))
    over = threading.Event()
    with in_use(folder):
        if are_steps_heard():
            private_file(folder / LINES)
        reader = ProgressReader(folder, run_id)
        thread = threading.Thread(target=reader.keep_looking, args=(over,), name="news", daemon=True)
        thread.start()
        try:
            yield reader
        finally:
            over.set()
            thread.join()
            reader.look()
            with suppress(OSError):  # a process that is being ended still writes there
                remove_folder(folder)


class ProgressReader:
    """Reads on in the files of a folder, and passes on what has been added."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._read: Counter[str] = Counter()
        self._lock = threading.Lock()

    def keep_looking(self, over: threading.Event) -> None:
        """Until it is over."""
        while not over.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Whatever has been told until now has been passed on."""
        with self._lock, suppress(OSError):
            for path in sorted(self._folder.glob("*.jsonl")):
                self._read_on(path)

    def _read_on(self, path: Path) -> None:
        with path.open("rb") as stream:
            stream.seek(self._read[path.name])
            whole = stream.read().rpartition(b"\n")[0]
        if not whole:
            return
        self._read[path.name] += len(whole) + 1
        for line in whole.split(b"\n"):
            try:
                told = json.loads(line)
            except ValueError:  # a full disk cut it short
                continue
            if "phase" in told:
                phase_reached(self._run_id, told["step"], told["phase"])
            else:
                hear_steps(told["step"], told["line"])


class _Writer:
    """The file of this process in the folder of a run."""

    def __init__(self, folder: Path) -> None:
        self.hears_lines = (folder / LINES).exists()
        import socket  # the process of a run says nothing here

        self._file: BinaryIO = private_file(folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("ab")
        self._lock = threading.Lock()
        self._printed: Counter[str] = Counter()

    def write(self, told: dict[str, Any]) -> None:
        """That is told. A full disk, or a run that has ended, is no fault of the step."""
        with self._lock, suppress(OSError, ValueError):
            self._file.write(json.dumps(told).encode() + b"\n")
            self._file.flush()

    def write_line(self, step: str, line: str) -> None:
        """The step has printed the line."""
        if not self.hears_lines or self._printed[step] > MOST_BYTES:
            return
        self._printed[step] += len(line) + 1
        full = self._printed[step] > MOST_BYTES
        self.write({"step": step, "line": "... what it prints from here on is in its log" if full else line})

    def close(self) -> None:
        """End the news."""
        with self._lock, suppress(OSError):
            self._file.close()


MOST_RUNS = 8  # whose steps one process makes at a time, on a cluster that several runs share
_lock = threading.Lock()
_writers: dict[Path, _Writer | None] = {}


def _writer(data: Path, run_id: str) -> _Writer | None:
    """None if no run of that id listens in this data folder."""
    folder = _folder(data, run_id)
    with _lock:
        if folder not in _writers:
            while len(_writers) >= MOST_RUNS:
                if old := _writers.pop(next(iter(_writers))):
                    old.close()
            _writers[folder] = None
            with suppress(OSError, StorageError):  # a full disk fails the step elsewhere, and with a reason
                _writers[folder] = _Writer(folder) if run_id and folder.is_dir() else None
        return _writers[folder]


def _folder(data: Path, run_id: str) -> Path:
    return data / "work" / f"news-{run_id}"


def _forget_after_fork() -> None:
    """A child of this process has a file of its own."""
    global _lock
    _lock = threading.Lock()
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


_hearers: dict[str, Callable[[str, str], None]] = {}  # by run


@contextmanager
def hearing_phases(run_id: str, hear: Callable[[str, str], None]) -> Iterator[None]:
    """`hear` is told the step and its phase, in any thread, when a step of the run gets there in this process."""
    _hearers[run_id] = hear
    try:
        yield
    finally:
        del _hearers[run_id]


def is_heard(run_id: str) -> bool:
    """True if the run is under way in this process."""
    return run_id in _hearers


def phase_reached(run_id: str, step: str, phase: str) -> bool:
    """The step has got there. False if nobody hears of it in this process."""
    hear = _hearers.get(run_id)
    if hear:
        hear(step, phase)
    return hear is not None
