"""One open `registering`: its destination, known values, and running registrations."""

from __future__ import annotations

import logging
import os
import shutil
import threading
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.step_call import FlowRun, FlowSlots, file_of
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session
from crucible_lineage.tasks.credentials import CrucibleCredentials
from crucible_lineage.tasks.dropin.description import TaskDescription
from crucible_lineage.tasks.dropin.effects import watch_files
from crucible_lineage.tasks.dropin.origins import DatasetFuture, Notes, Origins
from crucible_lineage.tasks.dropin.secret import hidden_text, watch_secrets
from crucible_lineage.tasks.dropin.undelivered import Undelivered
from crucible_lineage.tasks.sessions import CrucibleConnection, connection_of, session_for

WORKERS = 4  # concurrent registrations; each waits mostly for the network
THREADS = "register"
ATTRIBUTE = "__crucible_lineage__"  # of a flow's function, with the destination of its results


@dataclass(frozen=True)
class Destination:
    """Where the results of a run go. It is pickled for other processes; a block in it carries its key along."""

    project: str
    crucible: CrucibleConnection | Any
    reuse: bool
    run_id: str = ""
    flow: str = ""
    file: str = ""
    begun: str = ""
    strict: bool = False
    undelivered: Literal["warn", "fail"] = "warn"
    notes: str = ""  # the run whose notes it shares: its outer run, else its own


class Recording:
    """An open `registering`. In the flow's process it registers in the background, in other processes at once."""

    def __init__(
        self, destination: Destination, session: Session, *, owner: bool, origins: Origins | None = None
    ) -> None:
        self.destination = destination
        self.session = session
        self.owner = owner
        flows = session.settings.data / "flows"
        self.folder = flows / destination.run_id
        self.origins = origins or Origins(Notes(flows / (destination.notes or destination.run_id) / "notes"))
        self._noted_before = set(self.origins.notes.names())
        self.undelivered = Undelivered(session, destination.run_id)
        run = FlowRun(destination.run_id, destination.flow, destination.file, destination.begun)
        self.slots = FlowSlots(session, run, at_once=not owner, is_away=self.undelivered.is_away)
        self.shared = not owner  # whether other processes need to know the results made here
        self.futures: list[DatasetFuture] = []
        self._elsewhere: list[DatasetRef] = []
        self.notices: list[str] = []  # uncertainties, for the artifact
        self.reused = 0
        self.within: Recording | None = None
        self._held: list[PendingResult] = []
        self._inner: dict[Recording, bool] = {}  # ended subflows of an open transaction, and whether they failed
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=THREADS) if owner else None

    def begin(self, undelivered: Undelivered) -> None:
        """Begin with the service's known state; deliver earlier waiting results if it answers."""
        self.undelivered = undelivered
        self.slots.is_away = undelivered.is_away
        if self._pool is not None and not undelivered.is_away() and not self.session.outbox.is_empty:
            self._pool.submit(undelivered.deliver, LAST_WAIT_S)

    def reuses(self, description: TaskDescription) -> bool:
        """Return whether results of the task are to be used again instead of running it."""
        return self.destination.reuse if description.reuse is None else description.reuse

    def later(
        self, work: Callable[[], DatasetRef], logger: Any, label: str, held: PendingResult | None = None
    ) -> DatasetFuture:
        """Start to register a dataset with `work` and return its future.

        A failure is a warning, and is set in the future. A `held` result waits for the end of its transaction.
        """
        future = DatasetFuture()
        with self._lock:
            self.futures.append(future)
        if held is None:
            self._start(future, work, logger, label)
        else:
            held.add(future, copy_context().run, lambda: self._start(future, work, logger, label), logger, label)
            self._held.append(held)
        return future

    def aside(self, work: Callable[[], DatasetRef], logger: Any, label: str) -> DatasetFuture:
        """Start to register a dataset that is not a result: a file that the flow was given."""
        future = DatasetFuture()
        self._start(future, work, logger, label)
        return future

    def _start(self, future: DatasetFuture, work: Callable[[], DatasetRef], logger: Any, label: str) -> None:
        def registered() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                logger.warning("%s is not registered: %s", label, hidden_text(str(error)))
                future.set_exception(error)

        if self._pool is None:
            registered()
        else:
            self._pool.submit(copy_context().run, registered)  # events refer to the current run

    def dataset(self, future: DatasetFuture) -> DatasetRef:
        """Wait for a dataset. One in an open transaction is registered now, since something is made from it."""
        for held in self._held:
            held.start(future)
        return future.result()

    def close(self, *, failed: bool = False) -> None:
        """Wait until everything is registered or has failed, and note the results that the run relied on as current.

        A subflow in a transaction of its parent flow is closed with the parent: the transaction may still be rolled
        back. If the parent registers nothing, results are registered before the transaction ends.
        """
        outer = self.within
        if outer is not None and outer._pool is not None and any(held.waits for held in self._held):
            outer._inner.setdefault(self, failed)
        elif outer is None or self not in outer._inner:
            self._finish(failed=failed)

    def _finish(self, *, failed: bool) -> None:
        for inner, inner_failed in self._inner.items():
            inner._finish(failed=inner_failed)
            self.futures += inner.futures
        self._inner = {}
        if self._pool is not None:
            for held in self._held:
                held.commit(None)
            self._pool.shutdown(wait=True)
            self._pool = None
            if self.undelivered.left():
                self.undelivered.deliver(LAST_WAIT_S)
            try:
                self.slots.settle(failed=failed)
            except LineageError as error:
                warn("results are registered, but could not be noted as current: %s", error)
            self._elsewhere = [*self._elsewhere, *self.origins.notes.datasets(self._noted_before)]
            shutil.rmtree(self.folder, ignore_errors=True)

    def under_way(self) -> list[DatasetFuture]:
        """Return the running registrations that do not wait for the end of a transaction."""
        return [future for future in self.futures if not any(held.holds(future) for held in self._held)]

    def share(self) -> None:
        """Share known values, and those to come, with other processes."""
        self.shared = True
        self.origins.share()

    def datasets(self) -> list[DatasetRef]:
        """Return the registered datasets, each once, in the order in which they were made."""
        done = (future.result() for future in self.futures if future.done() and future.exception() is None)
        return list({dataset.mfid: dataset for dataset in (*done, *self._elsewhere)}.values())


class PendingResult:
    """The results of one call in a transaction: registered when that is committed, dropped when it is rolled back."""

    def __init__(self) -> None:
        self._waiting: dict[DatasetFuture, tuple[Callable[[], None], Any, str]] = {}
        self._started: list[tuple[Any, str]] = []

    @property
    def waits(self) -> bool:
        """Whether results wait."""
        return bool(self._waiting)

    def add(
        self, future: DatasetFuture, run: Callable[..., Any], start: Callable[[], None], logger: Any, label: str
    ) -> None:
        """Keep a result until the end of the transaction."""
        self._waiting[future] = (lambda: run(start), logger, label)

    def holds(self, future: DatasetFuture) -> bool:
        """Return whether the result waits."""
        return future in self._waiting

    def start(self, future: DatasetFuture) -> None:
        """Register the result now, if it waits."""
        if (pending := self._waiting.pop(future, None)) is not None:
            start, logger, label = pending
            self._started.append((logger, label))
            start()

    def commit(self, _: object) -> None:
        """Register the results, as a hook of the task's transaction."""
        for future in list(self._waiting):
            self.start(future)

    def roll_back(self, _: object) -> None:
        """Drop the results, as a hook of the task's transaction, with a warning for each."""
        reason = "its transaction was rolled back"
        while self._waiting:
            future, (_start, logger, label) = self._waiting.popitem()
            logger.warning("%s is not registered: %s", label, reason)
            future.set_exception(LineageError(f"{label} is not registered: {reason}"))
        for logger, label in self._started:
            logger.warning(
                "%s stays registered, though %s: it was needed, or its flow ended, before that", label, reason
            )
        self._started.clear()


_open: ContextVar[Recording | None] = ContextVar("recording", default=None)
_here: dict[str, Recording] = {}  # open recordings of this process, by run id
_lock = threading.Lock()

_elsewhere: dict[str, Destination] = {}  # destinations that were open in the process from which this one was forked
_inherited: list[object] = []  # recordings of the parent process, which a fork must not close
LAST_WAIT_S = 10.0  # chosen: wait at the end of a flow for an unreachable service
FORK_WAIT_S = 30.0  # longer than any registration takes; after it the fork continues anyway


def _before_fork() -> None:
    """Finish running registrations before a fork: a lock held at that moment would stay locked in the child."""
    if threading.current_thread().name.startswith(THREADS):
        return
    for recording in list(_here.values()):
        wait(recording.under_way(), timeout=FORK_WAIT_S)
        recording.share()


def _after_fork() -> None:
    """Drop inherited recordings: a forked process opens its own, since connections and threads are not inherited."""
    _elsewhere.update({key: recording.destination for key, recording in _here.items()})
    _inherited.append(dict(_here))
    _here.clear()
    _open.set(None)


if hasattr(os, "register_at_fork"):
    # Hooks before a fork run in reverse order: ours must run before those of filelock, which hold locks that we need.
    import filelock  # noqa: F401

    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


@contextmanager
def open_recording(request: Destination) -> Iterator[Recording]:
    """Record tasks and steps called in this block."""
    watch_secrets()
    watch_files()
    project, crucible = request.project, request.crucible
    session = session_for(crucible)
    run_id = uuid.uuid4().hex
    undelivered = Undelivered(session, run_id)
    undelivered.look(project)
    if undelivered.is_away():
        warn("Crucible does not answer (%s); results wait in the outbox until it does", undelivered.reason)
    else:
        session.ensure_project(project)
    is_block = isinstance(crucible, CrucibleCredentials)
    settled = crucible if is_block else connection_of(crucible).settled(session.settings)
    running = FlowRunContext.get()
    flow = running.flow if running else None
    name, file = (flow.name, file_of(flow.fn)) if flow else ("", "")
    begun = datetime.now(UTC).isoformat()
    outer = _open.get()  # of the parent flow: the two share their known values
    if outer is not None and outer.session is not session:
        outer = None
    notes = (outer.destination.notes if outer else "") or run_id
    destination = replace(request, crucible=settled, run_id=run_id, flow=name, file=file, begun=begun, notes=notes)
    recording = Recording(destination, session, owner=True, origins=outer.origins if outer else None)
    recording.within = _open.get()
    recording.begin(undelivered)
    _here[destination.run_id] = recording
    token = _open.set(recording)
    try:
        yield recording
    finally:
        _open.reset(token)
        try:
            recording.close()
        finally:
            _here.pop(destination.run_id, None)


def current(destination: Destination | None = None) -> Recording | None:
    """Find the open recording for this code: of the given destination, else by context, flow, or in this process."""
    if destination is not None:
        return _here.get(destination.run_id) or _attached(destination)
    if (recording := _open.get()) is not None:
        return recording
    if (request := requested_destination()) is not None:
        return _attached(request)
    if FlowRunContext.get() is not None:  # of a flow that registers nothing
        return None
    innermost = _innermost()  # a plain thread of the flow's process has no context
    if len(innermost) == 1:
        return innermost[0]
    if len(innermost) > 1:
        warn(
            "a task called in a plain thread is not registered: %d flows register in this process, and the thread does "
            "not say which one it belongs to; start it with contextvars.copy_context().run, or call task.submit",
            len(innermost),
        )
    elif len(_elsewhere) == 1:
        return _attached(next(iter(_elsewhere.values())))
    return None


def _innermost() -> list[Recording]:
    """Return the open recordings of this process that contain no other."""
    recordings = list(_here.values())
    outer = {id(recording.within) for recording in recordings}
    return [recording for recording in recordings if id(recording) not in outer]


def requested_destination() -> Destination | None:
    """Return the destination that the current flow's function requests; None if it registers nothing."""
    running = FlowRunContext.get()
    flow, flow_run = (running.flow, running.flow_run) if running else (None, None)
    request = getattr(flow.fn, ATTRIBUTE, None) if flow else None
    if flow is None or not isinstance(request, Destination):
        return None
    run = str(flow_run.id) if flow_run else uuid.uuid4().hex
    begun = (flow_run.start_time if flow_run else None) or datetime.now(UTC)
    return replace(request, run_id=run, flow=flow.name, file=file_of(flow.fn), begun=begun.isoformat())


def warn(message: str, *arguments: object) -> None:
    """Log a warning in the run, or in our own log outside of one."""
    run_logger().warning("%s", hidden_text(message % arguments if arguments else message))


def run_logger() -> logging.Logger | Any:
    """Return the logger of the current run, or our own outside of one."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("crucible_lineage")


def _attached(destination: Destination) -> Recording | None:
    """Return this process's recording for a flow that runs in another process."""
    with _lock:
        recording = _here.get(destination.run_id)
        if recording is None:
            watch_secrets()
            watch_files()
            session = session_for(destination.crucible)
            recording = _here[destination.run_id] = Recording(destination, session, owner=False)
        return recording


def data_folder(recording: Recording) -> Path:
    """Return the recording's folder for files being stored; it is removed with the recording."""
    recording.folder.mkdir(parents=True, exist_ok=True)
    return recording.folder
