"""Progress of steps in other processes: the phase that each has reached, and the lines that it prints.

Each process writes a file in the data folder, which the run reads and removes. A step on a machine that does not share
the folder reports nothing until it has ended.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from crucible_lineage.disk import private_file, private_folder
from crucible_lineage.errors import StorageError
from crucible_lineage.local.usage import in_use, remove_folder
from crucible_lineage.pipeline.logs import has_listeners, publish_line

if TYPE_CHECKING:
    from crucible_lineage.pipeline.job.job import Job

STARTED: Final = "started"
MADE: Final = "made"

EVERY_S = 0.2  # the run's polling interval
MOST_BYTES = 1 << 20  # of what a step prints; the rest is in its log only
LINES = "lines"  # a file that exists if somebody listens to what steps print


def report_phase(job: Job, phase: str, data: Path) -> None:
    """Report the phase of a step to its run, in this process or in another one of the data folder."""
    if not publish_phase(job.run_id, job.name, phase) and (writer := _writer(data, job.run_id)):
        writer.write({"step": job.name, "phase": phase})


def report_line(job: Job, line: str, data: Path) -> None:
    """Report a printed line to the listeners in this process and in that of the run."""
    publish_line(job.name, line)
    if not is_under_way(job.run_id) and (writer := _writer(data, job.run_id)):
        writer.write_line(job.name, line)


def is_run_here(data: Path, run_id: str) -> bool:
    """Return whether the process of the run shares this data folder and listens."""
    return _folder(data, run_id).is_dir()


@contextmanager
def reading_progress(data: Path, run_id: str) -> Iterator[ProgressReader]:
    """Receive in this process the progress of the run's steps in other processes."""
    folder = private_folder(_folder(data, run_id))
    stop = threading.Event()
    with in_use(folder):
        if has_listeners():
            private_file(folder / LINES)
        reader = ProgressReader(folder, run_id)
        thread = threading.Thread(target=reader.poll, args=(stop,), name="news", daemon=True)
        thread.start()
        try:
            yield reader
        finally:
            stop.set()
            thread.join()
            reader.look()
            with suppress(OSError):  # a process that is ending may still write there
                remove_folder(folder)


class ProgressReader:
    """Reads what is appended to the files of a folder, and publishes it in this process."""

    def __init__(self, folder: Path, run_id: str) -> None:
        self._folder = folder
        self._run_id = run_id
        self._read: Counter[str] = Counter()
        self._lock = threading.Lock()

    def poll(self, stop: threading.Event) -> None:
        """Look at intervals until `stop` is set."""
        while not stop.wait(EVERY_S):
            self.look()

    def look(self) -> None:
        """Publish everything that was reported up to now."""
        with self._lock, suppress(OSError):
            for path in sorted(self._folder.glob("*.jsonl")):
                self._read_on(path)

    def _read_on(self, path: Path) -> None:
        with path.open("rb") as stream:
            stream.seek(self._read[path.name])
            complete = stream.read().rpartition(b"\n")[0]
        if not complete:
            return
        self._read[path.name] += len(complete) + 1
        for line in complete.split(b"\n"):
            try:
                report = json.loads(line)
            except ValueError:  # a full disk truncated it
                continue
            if "phase" in report:
                publish_phase(self._run_id, report["step"], report["phase"])
            else:
                publish_line(report["step"], report["line"])


class _Writer:
    """The file of this process in the folder of a run."""

    def __init__(self, folder: Path) -> None:
        self._has_listeners = (folder / LINES).exists()
        import socket  # not needed in the process of a run

        self._file: BinaryIO = private_file(folder / f"{socket.gethostname()}-{os.getpid()}.jsonl").open("ab")
        self._lock = threading.Lock()
        self._printed: Counter[str] = Counter()

    def write(self, report: dict[str, object]) -> None:
        """Append a report. A full disk, or a run that has ended, does not fail the step."""
        with self._lock, suppress(OSError, ValueError):
            self._file.write(json.dumps(report).encode() + b"\n")
            self._file.flush()

    def write_line(self, step: str, line: str) -> None:
        """Append a line that the step has printed."""
        if not self._has_listeners or self._printed[step] > MOST_BYTES:
            return
        self._printed[step] += len(line) + 1
        full = self._printed[step] > MOST_BYTES
        self.write({"step": step, "line": "... what it prints from here on is in its log" if full else line})

    def close(self) -> None:
        """Close the file; later reports are dropped."""
        with self._lock, suppress(OSError):
            self._file.close()


MAX_RUNS = 8  # whose steps one process executes at a time, on a cluster that several runs share
_lock = threading.Lock()
_writers: dict[Path, _Writer | None] = {}


def _writer(data: Path, run_id: str) -> _Writer | None:
    """Return the writer for a run; None if no run of that id listens in this data folder."""
    folder = _folder(data, run_id)
    with _lock:
        if folder not in _writers:
            while len(_writers) >= MAX_RUNS:
                if old := _writers.pop(next(iter(_writers))):
                    old.close()
            _writers[folder] = None
            with suppress(OSError, StorageError):  # on a full disk, the step fails elsewhere, with a reason
                _writers[folder] = _Writer(folder) if run_id and folder.is_dir() else None
        return _writers[folder]


def _folder(data: Path, run_id: str) -> Path:
    return data / "work" / f"news-{run_id}"


def _forget_after_fork() -> None:
    """Forget the writers in a forked child, which writes a file of its own."""
    global _lock
    _lock = threading.Lock()
    _writers.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


_listeners: dict[str, Callable[[str, str], None]] = {}  # by run


@contextmanager
def listening_to_phases(run_id: str, listener: Callable[[str, str], None]) -> Iterator[None]:
    """Call `listener(step, phase)`, in any thread, when a step of the run reaches a phase in this process."""
    _listeners[run_id] = listener
    try:
        yield
    finally:
        del _listeners[run_id]


def is_under_way(run_id: str) -> bool:
    """Return whether the run is under way in this process."""
    return run_id in _listeners


def publish_phase(run_id: str, step: str, phase: str) -> bool:
    """Call the run's listener. Return False if it has none in this process."""
    listener = _listeners.get(run_id)
    if listener:
        listener(step, phase)
    return listener is not None
