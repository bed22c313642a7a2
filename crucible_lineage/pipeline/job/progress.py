"""Progress of steps: the phase that each has reached, and the lines that it prints.

Steps in other processes append to a file in the data folder, which the run reads and removes. A step on a machine that
does not share the folder reports nothing until it has ended.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from crucible_lineage.core.folders import in_use, remove_folder
from crucible_lineage.machine.disk import private_file, private_folder
from crucible_lineage.pipeline.logs import LineCallback, publish_line

if TYPE_CHECKING:
    from crucible_lineage.pipeline.job.job import Job

STARTED: Final = "started"
MADE: Final = "made"

EVERY_S = 0.2  # the run's polling interval
MOST_BYTES = 8 << 20  # of a run's file; what steps print then is in their logs only

_listeners: dict[str, Callable[[str, str], None]] = {}  # by run


@contextmanager
def listening_to_phases(run_id: str, listener: Callable[[str, str], None]) -> Iterator[None]:
    """Call `listener(step, phase)`, in any thread, when a step of the run reaches a phase."""
    _listeners[run_id] = listener
    try:
        yield
    finally:
        del _listeners[run_id]


def report_phase(job: Job, phase: str, data: Path) -> None:
    """Report the phase of a step to its run, in this process or in another one of the data folder."""
    if listener := _listeners.get(job.run_id):
        listener(job.name, phase)
    else:
        _append(data, job.run_id, {"step": job.name, "phase": phase})


def report_line(job: Job, data: Path, on_line: LineCallback | None, line: str) -> None:
    """Report a printed line to `on_line`, and to the listeners in this process and in that of the run."""
    publish_line(job.name, line)
    if job.run_id not in _listeners:
        _append(data, job.run_id, {"step": job.name, "line": line})
    if on_line:
        on_line(line)


def is_run_here(data: Path, run_id: str) -> bool:
    """Return whether the process of the run shares this data folder and reads reports."""
    return _file(data, run_id).is_file()


class ProgressReader:
    """Reads what is appended to a run's file, and publishes it in this process."""

    def __init__(self, data: Path, run_id: str) -> None:
        self._path = _file(data, run_id)
        self._run_id = run_id
        self._read = 0
        self._lock = threading.Lock()

    def poll(self, stop: threading.Event) -> None:
        """Publish at intervals until `stop` is set."""
        while not stop.wait(EVERY_S):
            self.publish()

    def publish(self) -> None:
        """Publish everything that was reported up to now."""
        with self._lock:
            with self._path.open("rb") as stream:
                stream.seek(self._read)
                complete, end, _ = stream.read().rpartition(b"\n")
            self._read += len(complete) + len(end)
            for line in complete.splitlines():
                with suppress(ValueError):  # a full disk truncated it
                    report = json.loads(line)
                    if "line" in report:
                        publish_line(report["step"], report["line"])
                    elif listener := _listeners.get(self._run_id):
                        listener(report["step"], report["phase"])


@contextmanager
def reading_progress(data: Path, run_id: str) -> Iterator[ProgressReader]:
    """Receive in this process the progress of the run's steps in other processes."""
    folder = private_folder(_file(data, run_id).parent)
    stop = threading.Event()
    with in_use(folder):
        private_file(_file(data, run_id))
        reader = ProgressReader(data, run_id)
        thread = threading.Thread(target=reader.poll, args=(stop,), name="progress", daemon=True)
        thread.start()
        try:
            yield reader
        finally:
            stop.set()
            thread.join()
            reader.publish()
            remove_folder(folder)


def _append(data: Path, run_id: str, report: dict[str, str]) -> None:
    """Append to the file of a run that reads it. A full disk, or a run that has ended, does not fail the step."""
    with suppress(OSError):
        descriptor = os.open(_file(data, run_id), os.O_WRONLY | os.O_APPEND)
        try:
            if "phase" in report or os.fstat(descriptor).st_size < MOST_BYTES:
                os.write(descriptor, json.dumps(report).encode() + b"\n")
        finally:
            os.close(descriptor)


def _file(data: Path, run_id: str) -> Path:
    return data / "work" / f"news-{run_id}" / "progress.jsonl"
