"""One `registering` while it is open: its destination, what it knows of values, and the registrations under way."""

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
from crucible_lineage.tasks.dropin.effects import watch_files
from crucible_lineage.tasks.dropin.origins import Made, Notes, Origins
from crucible_lineage.tasks.dropin.secret import hidden_text, watch_secrets
from crucible_lineage.tasks.dropin.undelivered import Undelivered
from crucible_lineage.tasks.sessions import Crucible, CrucibleConnection, session_for

WORKERS = 4  # registrations at a time; each waits for the network most of its time
THREADS = "register"
ATTRIBUTE = "__crucible_lineage__"  # of a flow's function: where its results go


@dataclass(frozen=True)
class Destination:
    """Where results go, and the run that they are of. A value that crosses to other processes; a block in it brings its
    key along.
    """

    project: str
    crucible: CrucibleConnection | Any
    reuse: bool
    run_id: str = ""
    flow: str = ""
    file: str = ""
    begun: str = ""
    salt: str | None = None
    strict: bool = False
    undelivered: Literal["warn", "fail"] = "warn"
    notes: str = ""  # the run whose notes it shares: the one that it is within, else its own


class Recording:
    """What an open `registering` does. In the process of the flow registrations go on beside it, elsewhere at once."""

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
        self.shared = not owner  # whether other processes have to know what is made here
        self.made: list[Made] = []
        self._elsewhere: list[DatasetRef] = []
        self.said: list[str] = []  # what is not certain
        self.reused = 0
        self.within: Recording | None = None
        self._held: list[PendingResult] = []
        self._inner: dict[Recording, bool] = {}  # of subflows that have ended in a transaction that has not: failed?
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=THREADS) if owner else None

    def begin(self, undelivered: Undelivered) -> None:
        """Begin with what is known of the service; what waits from before is delivered, if it answers."""
        self.undelivered = undelivered
        self.slots.is_away = undelivered.is_away
        if self._pool is not None and not undelivered.is_away() and not self.session.outbox.is_empty:
            self._pool.submit(undelivered.deliver, LAST_WAIT_S)

    def later(self, work: Callable[[], DatasetRef], logger: Any, what: str, held: PendingResult | None = None) -> Made:
        """The dataset that `work` registers; in the flow's process, it is being registered when this returns.

        A failure is a warning; whoever needs the dataset finds the error in it. A result that is `held` waits for the
        end of its transaction.
        """
        made = Made()
        with self._lock:
            self.made.append(made)
        if held is None:
            self._start(made, work, logger, what)
        else:
            held.add(made, copy_context().run, lambda: self._start(made, work, logger, what), logger, what)
            self._held.append(held)
        return made

    def aside(self, work: Callable[[], DatasetRef], logger: Any, what: str) -> Made:
        """The same, of a dataset that is no result: a file that the flow was given."""
        made = Made()
        self._start(made, work, logger, what)
        return made

    def _start(self, made: Made, work: Callable[[], DatasetRef], logger: Any, what: str) -> None:
        def registered() -> None:
            try:
                made.set_result(work())
            except Exception as error:
                logger.warning("%s is not registered: %s", what, hidden_text(str(error)))
                made.set_exception(error)

        if self._pool is None:
            registered()
        else:
            self._pool.submit(copy_context().run, registered)  # events tell of the run that it is for

    def dataset(self, made: Made) -> DatasetRef:
        """The dataset, registered by now: also one whose transaction has not ended, since something is made of it."""
        for held in self._held:
            held.start(made)
        return made.result()

    def close(self, *, failed: bool = False) -> None:
        """Wait until everything is registered, or was warned of, and note what the run relied on as current.

        A subflow in a transaction of its parent flow is closed with the parent: the transaction may still be rolled
        back. Where the parent registers nothing, results are registered before the transaction ends.
        """
        above = self.within
        if above is not None and above._pool is not None and any(held.waits for held in self._held):
            above._inner.setdefault(self, failed)
        elif above is None or self not in above._inner:
            self._finish(failed=failed)

    def _finish(self, *, failed: bool) -> None:
        for inner, inner_failed in self._inner.items():
            inner._finish(failed=inner_failed)
            self.made += inner.made
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
                warn("results are there, but could not be noted as those that hold: %s", error)
            self._elsewhere = [*self._elsewhere, *self.origins.notes.datasets(self._noted_before)]
            shutil.rmtree(self.folder, ignore_errors=True)

    def under_way(self) -> list[Made]:
        """Return what is being registered, and does not wait for the end of a transaction."""
        return [made for made in self.made if not any(held.holds(made) for held in self._held)]

    def share(self) -> None:
        """Other processes find what is known here, and what will be."""
        self.shared = True
        self.origins.share()

    def datasets(self) -> list[DatasetRef]:
        """Return what has been registered, each once, in the order in which it was made."""
        done = (made.result() for made in self.made if made.done() and made.exception() is None)
        return list({dataset.mfid: dataset for dataset in (*done, *self._elsewhere)}.values())


class PendingResult:
    """The results of one call in a transaction: registered when that is committed, dropped when it is rolled back."""

    def __init__(self) -> None:
        self._waiting: dict[Made, tuple[Callable[[], None], Any, str]] = {}
        self._started: list[tuple[Any, str]] = []

    @property
    def waits(self) -> bool:
        """Return whether results wait."""
        return bool(self._waiting)

    def add(self, made: Made, run: Callable[..., Any], start: Callable[[], None], logger: Any, what: str) -> None:
        """Keep a result until the end of the transaction."""
        self._waiting[made] = (lambda: run(start), logger, what)

    def holds(self, made: Made) -> bool:
        """Whether the result waits."""
        return made in self._waiting

    def start(self, made: Made) -> None:
        """Register the result now, if it waits."""
        if (found := self._waiting.pop(made, None)) is not None:
            start, logger, what = found
            self._started.append((logger, what))
            start()

    def commit(self, _: object) -> None:
        """Register the results, as a hook of the task's transaction."""
        for made in list(self._waiting):
            self.start(made)

    def roll_back(self, _: object) -> None:
        """Drop the results, as a hook of the task's transaction, and say which of them are not registered."""
        why = "its transaction was rolled back"
        while self._waiting:
            made, (_start, logger, what) = self._waiting.popitem()
            logger.warning("%s is not registered: %s", what, why)
            made.set_exception(LineageError(f"{what} is not registered: {why}"))
        for logger, what in self._started:
            logger.warning("%s stays registered, though %s: it was needed, or its flow ended, before that", what, why)
        self._started.clear()


_open: ContextVar[Recording | None] = ContextVar("recording", default=None)
_here: dict[str, Recording] = {}  # the recordings that this process has open, by run id
_lock = threading.Lock()


_elsewhere: dict[str, Destination] = {}  # those that were open where this process was forked from
_inherited: list[object] = []  # what a forked process must not close
LAST_WAIT_S = 10.0  # chosen: so long the end of a flow waits for a service that is away
FORK_WAIT_S = 30.0  # longer than any registration takes; then the fork goes on all the same


def _before_fork() -> None:
    """Finish what is being registered, and hold other processes off: a lock that is held would be held in both."""
    if threading.current_thread().name.startswith(THREADS):
        return
    for recording in list(_here.values()):
        wait(recording.under_way(), timeout=FORK_WAIT_S)
        recording.share()


def _after_fork() -> None:
    """A forked process opens recordings of its own: connections and threads do not cross."""
    _elsewhere.update({key: recording.destination for key, recording in _here.items()})
    _inherited.append(dict(_here))
    _here.clear()
    _open.set(None)


if hasattr(os, "register_at_fork"):
    # What is called before a fork is called in the reverse order: filelock holds its locks then, which we wait for.
    import filelock  # noqa: F401

    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


@contextmanager
def opened(wish: Destination) -> Iterator[Recording]:
    """Tasks and steps called in this block are recorded."""
    watch_secrets()
    watch_files()
    project, crucible = wish.project, wish.crucible
    session = session_for(crucible)
    run_id = uuid.uuid4().hex
    undelivered = Undelivered(session, run_id)
    undelivered.look(project)
    if undelivered.is_away():
        warn("Crucible does not answer (%s); results wait in the outbox until it does", undelivered.reason)
    else:
        session.ensure_project(project)
    settled = crucible if _holds_key(crucible) else _connection(crucible).settled(session.settings)
    running = FlowRunContext.get()
    flow = running.flow if running else None
    name, file = (flow.name, file_of(flow.fn)) if flow else ("", "")
    begun = datetime.now(UTC).isoformat()
    above = _open.get()  # the flow that this is a subflow of: what one made the other knows
    if above is not None and above.session is not session:
        above = None
    notes = (above.destination.notes if above else "") or run_id
    destination = replace(wish, crucible=settled, run_id=run_id, flow=name, file=file, begun=begun, notes=notes)
    recording = Recording(destination, session, owner=True, origins=above.origins if above else None)
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
    """The recording that is open for this code: the one that came along, else by context, flow, or in this process."""
    if destination is not None:
        return _here.get(destination.run_id) or _attached(destination)
    if (recording := _open.get()) is not None:
        return recording
    if (wish := wanted()) is not None:
        return _attached(wish)
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
    """The recordings that are open in this process, without those that hold another one."""
    found = list(_here.values())
    holding = {id(one.within) for one in found}
    return [one for one in found if id(one) not in holding]


def wanted() -> Destination | None:
    """Where the flow that this code is part of wants its results, if it does: its function says so."""
    running = FlowRunContext.get()
    wish = getattr(running.flow.fn, ATTRIBUTE, None) if running and running.flow else None
    if not isinstance(wish, Destination):
        return None
    assert running is not None
    assert running.flow is not None
    flow_run = running.flow_run
    run = str(flow_run.id) if flow_run else uuid.uuid4().hex
    begun = (flow_run.start_time if flow_run else None) or datetime.now(UTC)
    flow = running.flow
    file, moment = file_of(flow.fn), begun.isoformat()
    return replace(wish, run_id=run, flow=flow.name, file=file, begun=moment)


def warn(message: str, *arguments: object) -> None:
    """A warning in the log of the run, or where there is none."""
    run_logger().warning("%s", hidden_text(message % arguments if arguments else message))


def run_logger() -> logging.Logger | Any:
    """The log of the run that goes on here, or that of this module."""
    try:
        return get_run_logger()
    except MissingContextError:
        return get_logger("crucible_lineage")


def _attached(destination: Destination) -> Recording | None:
    """The recording of this process for a flow that runs in another one."""
    with _lock:
        found = _here.get(destination.run_id)
        if found is None:
            watch_secrets()
            watch_files()
            session = session_for(destination.crucible)
            found = _here[destination.run_id] = Recording(destination, session, owner=False)
        return found


def _connection(crucible: Crucible | None) -> CrucibleConnection:
    if isinstance(crucible, str):
        return CrucibleConnection(block=crucible)
    return crucible if isinstance(crucible, CrucibleConnection) else CrucibleConnection()


def _holds_key(crucible: Crucible | None) -> bool:
    return not (crucible is None or isinstance(crucible, (str, CrucibleConnection)))


def data_folder(recording: Recording) -> Path:
    """A folder for what is being stored; the recording's, so that it goes with it."""
    recording.folder.mkdir(parents=True, exist_ok=True)
    return recording.folder
