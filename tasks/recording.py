"""`registering`: within it, results of tasks and steps become datasets. A decorator of flows, or a `with` in them.

A step that is called in such a flow accepts paths (registered as raw data if they are new), dataset ids, or the results
of other steps; it runs as a Prefect task, its outputs are registered, and what it returns stands for them.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import logging
import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import ContextVar, copy_context
from copy import copy
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, TypeVar

from prefect import Flow
from prefect import task as prefect_task
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.futures import resolve_futures_to_states
from prefect.logging import get_logger, get_run_logger

from crucible_lineage.errors import TRANSIENT, CrucibleError, LineageError, RunError
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.job.delivering import ONE_CALL_S, deliver_all
from crucible_lineage.pipeline.plan.files import existing_dataset, find_raw, hash_files, new_raw, register_raw
from crucible_lineage.pipeline.step_call import FlowSlots, called_step, file_of
from crucible_lineage.provenance.environment import agent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.registration.register import nothing
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import ClaimingRun
from crucible_lineage.step import Step, open_runners, step_runner
from crucible_lineage.tasks.artifacts import lineage_artifact, lineage_of
from crucible_lineage.tasks.credentials import CrucibleCredentials
from crucible_lineage.tasks.effects import watch_files
from crucible_lineage.tasks.origins import DatasetFuture, Notes, Origins
from crucible_lineage.tasks.secret import watch_secrets
from crucible_lineage.tasks.sessions import REPEATED, Crucible, CrucibleConnection, connection_of, run_ids, session_for
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.masking import masked_text

WORKERS = 4  # concurrent registrations; each waits mostly for the network
THREADS = "register"
_open: ContextVar[Recording | None] = ContextVar("recording", default=None)
RETRY_AFTER_S = 30.0  # chosen: results are kept without a request for this time after one was not answered
SENT = "__crucible_sent__"  # attribute of a flow that is sent to another process


@dataclass(frozen=True)
class Destination:
    """Where the results of a run go. It is pickled for other processes; a block in it carries its key along."""

    project: str
    crucible: CrucibleConnection | Any
    run_id: str = ""
    flow: str = ""
    file: str = ""
    begun: str = ""
    strict: bool = False
    undelivered: Literal["warn", "fail"] = "warn"
    notes: str = ""  # the run whose notes it shares: its outer run, else its own


class Sent(Destination):
    """A destination that goes with a flow's context to another process; whoever reads its pickle installs the hooks."""

    def __setstate__(self, state: dict[str, Any]) -> None:
        from crucible_lineage.tasks.hook import install  # it imports this module

        install()
        vars(self).update(state)


def sent_by(flow: Any, destination: Destination) -> Any:
    """Return a copy of a flow that carries the destination to another process."""
    copied = copy(flow)
    setattr(copied, SENT, Sent(**vars(destination)))
    return copied


def sent_with(context: Mapping[str, Any] | None) -> Destination | None:
    """Return what was sent with the context of a run, which Prefect has serialized or entered; None if nothing."""
    running = FlowRunContext.get()
    flow = ((context or {}).get("flow_run_context") or {}).get("flow") or (running.flow if running else None)
    sent: Destination | None = getattr(flow, SENT, None)
    return sent


class Undelivered:
    """Results of one flow run that are not yet in Crucible. Thread-safe."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.session = session
        self.run_id = run_id
        self.reason = ""
        self._away_until = 0.0
        self._kept: list[str] = []
        self._lock = threading.Lock()

    def is_away(self) -> bool:
        """Return whether the service recently failed to answer."""
        return time.monotonic() < self._away_until

    def look(self, project: str) -> None:
        """Check whether the service answers, before the flow begins.

        Raises UnreachableError if it does not, and the owner of this key is not known from an earlier request.
        """
        if self.session.settings.embedded:
            return
        try:
            with self.session.connect(at_most_s=ONE_CALL_S) as client:
                client.projects.find(project)
            _ = self.session.account  # stored, so that the owner of waiting results is known while the service is away
        except TRANSIENT as error:
            self.session.set_agent(agent({"unique_id": self.session.account}))
            self.note_away(error)

    def note_away(self, error: CrucibleError) -> None:
        """Note that the service did not answer: keep results for a while."""
        self.reason = str(error).partition("\n")[0]
        self._away_until = time.monotonic() + RETRY_AFTER_S

    def register(self, step: str, new: NewDataset, register: Callable[[], DatasetRef]) -> DatasetRef:
        """Register a dataset, or keep it until that is possible. Children of kept datasets are kept, too."""
        if not self.is_away() and not self.session.outbox.names_of(new.parents):
            try:
                return register()
            except TRANSIENT as error:
                self.note_away(error)
        return self.keep(step, new)

    def raw(
        self,
        project: str,
        paths: Sequence[Path],
        note: str | None = None,
        parents: Sequence[DatasetRef] = (),
        **fields: Any,
    ) -> DatasetRef:
        """Find (without parents), register or keep the dataset of files that no step made."""
        declared = FileInput(file=(str(paths[0]),), **fields)
        raw = hash_files(project, paths, None, self.session, parents=parents)
        name = declared.dataset_name or paths[0].name
        if not self.is_away() and not self.session.outbox.names_of([parent.mfid for parent in parents]):
            try:
                known = None if parents else find_raw(raw, self.session)
                return known or register_raw(raw, declared, name, self.session, note)
            except TRANSIENT as error:
                self.note_away(error)
        known = self.session.known(raw.mfid)
        return known or self.keep(name, new_raw(raw, declared, name, self.session, note))

    def keep(self, step: str, new: NewDataset) -> DatasetRef:
        """Keep a dataset in the outbox. Its id is final, so children can refer to it."""
        paths = {file.ref.sha256: file.path for file in new.files}
        self.session.outbox.put(step, str(new.fields["project_id"]), [new], paths, self.run_id)
        with self._lock:
            self._kept.append(new.mfid)
        dataset = self.session.outbox.find(new.mfid)
        assert dataset is not None  # just put there
        return dataset

    def is_kept(self, mfid: str) -> bool:
        """Return whether this run has kept the dataset in the outbox."""
        return mfid in self._kept

    def deliver(self, patience_s: float) -> None:
        """Deliver the outbox, including results of earlier runs, if the service answers."""
        deliver_all(self.session, patience_s, lambda reason: setattr(self, "reason", reason), nothing)

    def left(self) -> list[str]:
        """Return the results of this run that wait in the outbox."""
        waiting = {mfid for item in self.session.outbox.waiting() for mfid in item.mfids} if self._kept else set()
        return [mfid for mfid in self._kept if mfid in waiting]


class Recording:
    """An open `registering`. In the flow's process it registers in the background, in other processes at once."""

    def __init__(
        self, destination: Destination, session: Session, *, owner: bool, origins: Origins | None = None
    ) -> None:
        self.destination = destination
        self.session = session
        self.owner = owner
        self.process = os.getpid()
        flows = session.settings.data / "flows"
        self.folder = flows / destination.run_id  # for files that are being stored
        self.folder.mkdir(parents=True, exist_ok=True)
        self.origins = origins or Origins(Notes(flows / (destination.notes or destination.run_id) / "notes"))
        self._has_own_notes = origins is None
        self._noted_before = self.origins.notes.results()
        self.undelivered = Undelivered(session, destination.run_id)
        run = ClaimingRun(destination.run_id, datetime.fromisoformat(destination.begun), destination.file)
        is_away = self.undelivered.is_away
        self.slots = FlowSlots(session, destination.flow, run, at_once=not owner, is_away=is_away)
        self.within = _open.get() if owner else None
        if not owner:
            self.origins.share()
        self.futures: list[DatasetFuture] = []
        self._elsewhere: list[DatasetRef] = []
        self.notices: list[str] = []  # uncertainties, for the artifact
        self.reused = 0
        self._reasons: set[str] = set()
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(WORKERS, thread_name_prefix=THREADS) if owner else None

    def begin(self) -> None:
        """Require the project and deliver earlier results, if the service answers."""
        project, undelivered = self.destination.project, self.undelivered
        undelivered.look(project)
        if undelivered.is_away():
            warn("Crucible does not answer (%s); results wait in the outbox until it does", undelivered.reason)
            return
        self.session.ensure_project(project)
        if self._pool is not None and not self.session.outbox.is_empty:
            self._pool.submit(undelivered.deliver, LAST_WAIT_S)

    def is_new(self, *reasons: str) -> bool:
        """Return whether one of these reasons not to store a value has not been given in this flow run."""
        new = set(reasons) - self._reasons
        self._reasons |= new
        return bool(new)

    def later(
        self, work: Callable[[], DatasetRef], logger: Any, label: str, *, is_result: bool = True
    ) -> DatasetFuture:
        """Start to register a dataset with `work` and return its future; a failure is a warning, and set in it."""
        future = DatasetFuture()

        def registered() -> None:
            try:
                future.set_result(work())
            except Exception as error:
                logger.warning("%s is not registered: %s", label, masked_text(str(error)))
                future.set_exception(error)

        if self._pool is None:
            registered()
        else:
            self._pool.submit(copy_context().run, registered)  # events refer to the current run
        if is_result:
            with self._lock:
                self.futures.append(future)
        return future

    def share(self) -> None:
        """Wait for running registrations, and let other processes find the results."""
        wait(self.futures, timeout=SHARE_WAIT_S)
        self.origins.share()

    def close(self, *, failed: bool = False) -> None:
        """Wait until everything is registered or has failed, and note the results that the run relied on as current."""
        if self._pool is None:
            return
        self._pool.shutdown(wait=True)
        self._pool = None
        if self.undelivered.left():
            self.undelivered.deliver(LAST_WAIT_S)
        try:
            self.slots.settle(failed=failed)
        except LineageError as error:
            warn("results are registered, but could not be noted as current: %s", error)
        notes = self.origins.notes
        noted = (notes.read(name) for name in sorted(notes.results() - self._noted_before))
        self._elsewhere = [origin.future.result() for origin in noted if origin is not None]
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._has_own_notes:
            shutil.rmtree(notes.folder, ignore_errors=True)

    def datasets(self) -> list[DatasetRef]:
        """Return the registered datasets, each once, in the order in which they were made."""
        done = (future.result() for future in self.futures if future.done() and future.exception() is None)
        return list({dataset.mfid: dataset for dataset in (*done, *self._elsewhere)}.values())


_here: dict[str, Recording] = {}  # open recordings of this process, by run id
_lock = threading.Lock()

_inherited: list[object] = []  # recordings of the parent process, which a fork must not close
LAST_WAIT_S = 10.0  # chosen: wait at the end of a flow for an unreachable service
SHARE_WAIT_S = 30.0  # longer than any registration takes; after it the fork or the task continues anyway


def _before_fork() -> None:
    """Finish running registrations before a fork: a lock held at that moment would stay locked in the child."""
    if threading.current_thread().name.startswith(THREADS):
        return
    for recording in list(_here.values()):
        recording.share()


def _after_fork() -> None:
    """Drop inherited recordings: a forked process opens its own, since connections and threads are not inherited."""
    _inherited.append(dict(_here))
    _here.clear()


if hasattr(os, "register_at_fork"):
    # Hooks before a fork run in reverse order: ours must run before those of filelock, which hold locks that we need.
    import filelock  # noqa: F401

    os.register_at_fork(before=_before_fork, after_in_child=_after_fork)


@contextmanager
def open_recording(request: Destination) -> Iterator[Recording]:
    """Record tasks and steps called in this block. Raises InputError if this Prefect has no place to see them."""
    from crucible_lineage.tasks.hook import install, note_sent_by  # they import this module

    install()
    watch_secrets()
    watch_files()
    session = session_for(request.crucible)
    is_block = isinstance(request.crucible, CrucibleCredentials)
    settled = request.crucible if is_block else connection_of(request.crucible).settled(session.settings)
    running = FlowRunContext.get()
    flow = running.flow if running else None
    if running is not None:
        note_sent_by(running.task_runner)
    name, file = (flow.name, file_of(flow.fn)) if flow else ("", "")
    outer = _open.get()  # of the parent flow: the two share their known values
    if outer is not None and outer.session is not session:
        outer = None
    run_id, begun = uuid.uuid4().hex, datetime.now(UTC).isoformat()
    is_inside = _open.get() is not None  # another Crucible's notes may then be those of the flow run
    shared_by = str(running.flow_run.id) if running and running.flow_run and not is_inside else run_id
    notes = outer.destination.notes if outer else shared_by  # a task worker knows the flow run alone
    destination = replace(request, crucible=settled, run_id=run_id, flow=name, file=file, begun=begun, notes=notes)
    recording = Recording(destination, session, owner=True, origins=outer.origins if outer else None)
    recording.begin()
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
        return recording if recording.process == os.getpid() else _attached(recording.destination)
    if FlowRunContext.get() is not None:
        return current(sent) if (sent := sent_with(None)) is not None else None  # the flow registers nothing
    recordings = list(_here.values())  # a plain thread of the flow's process has no context
    outer = {id(recording.within) for recording in recordings}
    innermost = [recording for recording in recordings if id(recording) not in outer]
    if len(innermost) == 1:
        return innermost[0]
    if len(innermost) > 1:
        warn(
            "a task called in a plain thread is not registered: %d flows register in this process, and the thread does "
            "not say which one it belongs to; start it with contextvars.copy_context().run, or call task.submit",
            len(innermost),
        )
    return None


def is_recording() -> bool:
    """Return whether a flow registers in this process, or in the one that it was forked from."""
    return bool(_here) or _open.get() is not None


def warn(message: str, *arguments: object) -> None:
    """Log a warning in the run, or in our own log outside of one."""
    run_logger().warning("%s", masked_text(message % arguments if arguments else message))


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


# ---------------------------------------------------------------- `registering`

Function = TypeVar("Function", bound=Callable[..., Any])


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Register results of tasks called within in this project, as children of what they were made from.

    A decorator for the function of a flow, sync or async, below `@flow`; or a context manager inside a flow. With
    `strict`, a task fails if lineage is uncertain: an argument without a known parent, a result that is not recorded.
    While the service is unreachable, results wait in the outbox; with `undelivered="fail"` the flow run fails at its
    end if some still do.
    """

    def __init__(
        self,
        project: str,
        *,
        crucible: Crucible | None = None,
        strict: bool = False,
        undelivered: Literal["warn", "fail"] = "warn",
    ) -> None:
        self._request = Destination(project, crucible, strict=strict, undelivered=undelivered)
        self._open: list[tuple[AbstractContextManager[Recording], Recording]] = []

    def __call__(self, function: Function) -> Function:
        """Wrap the function of a flow."""
        if isinstance(function, Flow):
            function.fn = self(function.fn)
            return function
        wrapped: Any
        if inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def yields_async(*args: Any, **kwargs: Any) -> Any:
                async with self._for_run():
                    async for item in function(*args, **kwargs):
                        yield item

            wrapped = yields_async
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def awaited(*args: Any, **kwargs: Any) -> Any:
                async with self._for_run():
                    return await asyncio.to_thread(_await_tasks, await function(*args, **kwargs))

            wrapped = awaited
        elif inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def yields(*args: Any, **kwargs: Any) -> Any:
                with self._for_run():
                    return _await_tasks((yield from function(*args, **kwargs)))

            wrapped = yields
        else:

            @functools.wraps(function)
            def called(*args: Any, **kwargs: Any) -> Any:
                with self._for_run():
                    return _await_tasks(function(*args, **kwargs))

            wrapped = called
        with suppress(NameError, TypeError, SyntaxError):  # Prefect reads texts as annotations of the wrapper's module
            wrapped.__signature__ = inspect.signature(function, eval_str=True)
            wrapped.__annotations__ = inspect.get_annotations(function, eval_str=True)
        return wrapped  # type: ignore[no-any-return]

    def __enter__(self) -> Recording:
        """Begin to record. The recording's `datasets()` are those registered so far."""
        within = _registered(self._request)
        recording = within.__enter__()
        self._open.append((within, recording))
        return recording

    def __exit__(self, *failure: Any) -> None:
        within, _ = self._open.pop()
        within.__exit__(*failure)

    async def __aenter__(self) -> Recording:
        return self.__enter__()

    async def __aexit__(self, *failure: Any) -> None:
        _, recording = self._open[-1]
        # Remaining registrations do not block the event loop.
        await asyncio.to_thread(functools.partial(recording.close, failed=failure[0] is not None))
        self.__exit__(*failure)

    def _for_run(self) -> registering:
        """Return a copy for one run, since a flow may run several times at once."""
        copied = copy(self)
        copied._open = []
        return copied


def _await_tasks(returned: Any) -> Any:
    """Return what a flow has returned once its tasks have ended: Prefect, too, waits for futures, but only later."""
    resolve_futures_to_states(returned)
    return returned


@contextmanager
def _registered(request: Destination) -> Iterator[Recording]:
    """Record tasks and steps called in this block, and show what was registered."""
    with open_recording(request) as recording:
        runner = functools.partial(_run_step, recording)
        token = step_runner.set(runner)
        open_runners.append(runner)
        failed = True
        try:
            yield recording
            failed = False
        finally:
            step_runner.reset(token)
            open_runners.remove(runner)
            recording.close(failed=failed)
            _show_results(recording)
        if (waiting := recording.undelivered.left()) and recording.destination.undelivered == "fail":
            raise RunError(_waiting_message(recording, len(waiting)))


def _run_step(
    recording: Recording, called: Step[..., Any], inputs: Mapping[str, object], params: Mapping[str, object]
) -> Any:
    """Run a step and return its registered output, or a mapping if it has several."""
    session = recording.session
    prepared = called_step(session, recording.destination.project, called, inputs, params, recording.slots)

    @prefect_task(name=called.name, task_run_name=called.name, **REPEATED)
    def make() -> dict[str, str]:
        run = {**run_ids(), "run_id": recording.destination.run_id}
        return {name: dataset.mfid for name, dataset in prepared.make(run).items()}

    outputs = {name: existing_dataset(mfid, session) for name, mfid in make().items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs


def _show_results(recording: Recording) -> None:
    """Log what the flow run registered, and add the artifact `lineage`; a failure to do so is only a warning."""
    datasets = recording.datasets()
    if not datasets or FlowRunContext.get() is None:
        return
    project = recording.destination.project
    count = amount(len(datasets), "dataset")
    run_logger().info("registered in %s: %s, %d of them reused", project, count, recording.reused)
    try:
        waiting = recording.undelivered.left()
        if waiting:
            recording.notices.append(_waiting_message(recording, len(waiting)))
            warn("%s", recording.notices[-1])
        shown = [dataset.mfid for dataset in datasets if dataset.mfid not in waiting]
        graph = lineage_of(shown, recording.session)
        last = datasets[-1].mfid if len(datasets) == 1 else None
        lineage_artifact(graph, last, recording.session, notes=recording.notices)
    except Exception as error:
        warn("the lineage cannot be shown: %s", error)


def _waiting_message(recording: Recording, count: int) -> str:
    return (
        f"{amount(count, 'result')} in the outbox: {recording.undelivered.reason}; the next run of a flow here, or "
        "`crucible-lineage push`, delivers them"
    )
