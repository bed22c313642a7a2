"""An open `registering`: what it has registered, what waits, and which recording a running task belongs to."""

from __future__ import annotations

import functools
import logging
import os
import shutil
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from contextvars import Context, ContextVar, copy_context
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import filelock  # noqa: F401 (hooks before a fork run in reverse order: its own, which hold our locks, after ours)
from prefect.context import FlowRunContext
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger
from prefect.settings import PREFECT_HOME, PREFECT_LOCAL_STORAGE_PATH

from crucible_lineage.core.journal import MADE, ResultRow
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import TRANSIENT, CrucibleError, LineageError
from crucible_lineage.machine.opened import watch_files
from crucible_lineage.machine.process import leave_out_of_forks
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.job.delivering import ONE_CALL_S, delivery_context
from crucible_lineage.pipeline.job.keeping import Support
from crucible_lineage.pipeline.plan.files import RawFiles, find_raw, new_raw, raw_files
from crucible_lineage.pipeline.step_call import FlowSlots
from crucible_lineage.provenance.environment import agent
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.deliver import Deliverer
from crucible_lineage.registration.payload import LocalFile, NewDataset
from crucible_lineage.registration.register import add_equal_parents, new_parents
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import ClaimingRun
from crucible_lineage.tasks.artifacts import tell_asset
from crucible_lineage.tasks.origins import Origins
from crucible_lineage.tasks.secret import watch_secrets
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from crucible_lineage.text.masking import masked_text

open_here: ContextVar[Recording | None] = ContextVar("recording", default=None)
RETRY_AFTER_S = 30.0  # chosen: results are kept without a request for this time after one was not answered
SENT = "__crucible_sent__"  # attribute of a flow that is sent to another process


@dataclass(frozen=True)
class Destination:
    """Where the results of a run go. It goes with a flow's context to other processes; a block in it carries its key
    along, and whoever reads its pickle installs the hooks.
    """

    project: str
    crucible: CrucibleConnection | Any
    run_id: str = ""
    flow: str = ""
    file: str = ""
    begun: str = ""
    strict: bool = False
    undelivered: Literal["warn", "fail"] = "warn"
    notes: str = ""  # the run whose notes it shares: its outer run, else its own

    def __setstate__(self, state: dict[str, Any]) -> None:
        from crucible_lineage.tasks.hook import install  # it imports this module

        install()
        vars(self).update(state)


def sent_by(flow: Any, destination: Destination) -> Any:
    """Return a copy of a flow that carries the destination to another process."""
    copied = copy(flow)
    setattr(copied, SENT, destination)
    return copied


def sent_with(context: Mapping[str, Any] | None) -> Destination | None:
    """Return what was sent with the context of a run, which Prefect has serialized or entered; None if nothing."""
    running = FlowRunContext.get()
    flow = ((context or {}).get("flow_run_context") or {}).get("flow") or (running.flow if running else None)
    sent: Destination | None = getattr(flow, SENT, None)
    return sent


@dataclass(frozen=True)
class Arrival:
    """What is done once a result is at Crucible, in the context of its task run: `slots` are those that it fills.

    `used` are the parents that it was made from now, `keyword` is that of Prefect's cache, if it is stored there;
    `cached` is the SHA-256 of a file that the flow was given, which the file cache has.
    """

    label: str
    used: Sequence[UsedDataset] = ()
    slots: Mapping[str, SlotClaim] = field(default_factory=dict)
    keyword: str = ""
    cached: str = ""
    context: Context = field(default_factory=copy_context)  # events refer to the current run


class Recording:
    """An open `registering`: its results go to the outbox at once, and from there to Crucible beside the flow.

    In other processes than the flow's own, each waits until its results have arrived.
    """

    def __init__(
        self, destination: Destination, session: Session, *, owner: bool, origins: Origins | None = None
    ) -> None:
        watch_secrets()
        watch_files(str(PREFECT_HOME.value()), str(PREFECT_LOCAL_STORAGE_PATH.value()))
        self.destination = destination
        self.session = session
        self.owner = owner
        self.process = os.getpid()
        notes = session.settings.data / "flows" / (destination.notes or destination.run_id)
        self.origins = origins or Origins(notes)
        self._has_own_notes = origins is None
        if owner:
            self.origins.folder.mkdir(parents=True, exist_ok=True)
        self._noted_before = self.origins.noted_runs()
        run = ClaimingRun(destination.run_id, datetime.fromisoformat(destination.begun), destination.file)
        self.slots = FlowSlots(session, destination.flow, run, at_once=not owner, is_away=self.is_away)
        self.within = open_here.get() if owner else None
        if not owner:
            self.origins.share()
        self.notices: list[str] = []  # uncertainties, for the artifact
        self.reused = 0
        self.reason = ""  # why results wait
        self._away_until = 0.0
        self.not_stored: set[str] = set()  # reasons not to store a value, as warnings have given them
        self.supports: dict[str, Support] = {}  # of results, by the digest of the code
        self._made: dict[str, DatasetRef] = {}
        self._arrivals: dict[str, list[Arrival]] = {}
        self._lock, self.describing = threading.Lock(), threading.Lock()
        self._client = session.connect(at_most_s=ONE_CALL_S)
        self.deliverer = Deliverer(delivery_context(session, self._client), self._note_outcome)
        self._is_closed = False

    def begin(self) -> None:
        """Require the project and deliver earlier results, if the service answers.

        Raises UnreachableError if it does not, and the owner of this key is not known from an earlier request.
        """
        session, project = self.session, self.destination.project
        try:
            if not session.settings.embedded:
                self._client.projects.find(project)
                _ = session.account  # stored, so that the owner of waiting results is known while the service is away
            session.ensure_project(project)
        except TRANSIENT as error:
            session.set_agent(agent({"unique_id": session.account}))
            self.note_away(error)
            warn("Crucible does not answer (%s); results wait in the outbox until it does", self.reason)
            return
        if not session.outbox.is_empty:
            self.deliverer.take_up()

    def is_away(self) -> bool:
        """Return whether the service recently failed to answer."""
        return time.monotonic() < self._away_until

    def note_away(self, error: CrucibleError) -> None:
        """Note that the service did not answer: ask nothing of it for a while."""
        self.reason = str(error).partition("\n")[0]
        self._away_until = time.monotonic() + RETRY_AFTER_S

    # ------------------------------------------------------------ results

    def put(self, step: str, new: NewDataset, arrival: Arrival, draft: Path | None = None) -> DatasetRef:
        """Put a dataset into the outbox, from where it is delivered. Its id is final, so children can refer to it.

        The files of a result of the run are moved from its `draft`; no flow that makes the same has to be waited for.
        """
        session, dataset = self.session, new.ref(new.mfid)
        if arrival.used and session.outbox.row(new.mfid) is not None:  # as parents of an equal result, ours may wait
            self.deliverer.drain(0.0)
        with session.turn(new.mfid) if draft is None else nullcontext(), self.describing:
            row = session.outbox.row(new.mfid)
            if row is None:
                payload = session.outbox.put(step, new.project, [new], self.destination.run_id, draft)
                row = payload.row(session.account)
        with self._lock:
            self._arrivals.setdefault(new.mfid, []).append(arrival)
        if draft is not None:
            self.note(dataset)
        self.deliverer.add(row)
        if not self.owner:
            self.deliverer.drain(LAST_WAIT_S)
        return dataset

    def put_files(
        self,
        files: Sequence[LocalFile],
        note: str | None,
        arrival: Arrival,
        parents: Sequence[DatasetRef] = (),
        *,
        salt: str | None = None,
        ingest: bool = False,
        draft: Path | None = None,
        **fields: Any,
    ) -> DatasetRef:
        """Find (without parents) or put the dataset of files that no step made. With a `salt`, other calls make others.

        A failure to ask the service is no obstacle: registering the same files again gives the same dataset.
        """
        raw = raw_files(self.destination.project, files, parents=parents, salt=salt)
        declared = FileInput(file=(files[0].ref.name,), ingest=ingest, **fields)
        known = self.session.known(raw.mfid) if salt else self.find(raw) if not parents else None
        if known is not None:
            if draft is not None:
                self.note(known)
            if arrival.cached:
                self.session.cache.share(arrival.cached)
            return known
        name = declared.dataset_name or files[0].ref.name
        return self.put(name, new_raw(raw, declared, name, self.session, note), arrival, draft)

    def find(self, raw: RawFiles) -> DatasetRef | None:
        """Return the dataset of these files, if it is registered or waits; while the service is away, as known here."""
        if not self.is_away():
            try:
                return find_raw(raw, self.session) or self.session.outbox.find(raw.mfid)
            except TRANSIENT as error:
                self.note_away(error)
        return self.session.known(raw.mfid)

    def note(self, dataset: DatasetRef) -> None:
        """Note a dataset that the run made or reused."""
        with self._lock:
            self._made[dataset.mfid] = dataset

    def _note_outcome(self, row: ResultRow, _: object) -> None:
        """Take the outcome of a delivery: a failure is a warning."""
        if row.state == MADE:
            self.reason = row.error.partition("\n")[0]
            return
        for mfid in row.mfids:
            with self._lock:
                arrivals = self._arrivals.pop(mfid, [])  # none of an earlier run, or of the source of a result
            for number, arrival in enumerate(arrivals):
                try:
                    if row.error:
                        raise LineageError(row.error)
                    if (dataset := row.refs.get(mfid) or self.session.known(mfid)) is not None:
                        follow_up = functools.partial(self._follow_up, is_ours=row.is_ours and not number)
                        arrival.context.run(follow_up, row.step, arrival, dataset)
                except Exception as error:
                    self._made.pop(mfid, None)
                    arrival.context.run(warn, "%s is not registered: %s", arrival.label, error)

    def _follow_up(self, step: str, arrival: Arrival, dataset: DatasetRef, *, is_ours: bool) -> None:
        if arrival.used and is_ours:
            parents = [part.dataset.mfid for part in arrival.used]
            payload = {"project": self.destination.project, "flow": self.destination.flow, "task": step}
            tell_asset(dataset, parents, payload)
        elif not is_ours:  # parents of equal bytes and origin give equal results
            if equal := new_parents(dataset, arrival.used):
                add_equal_parents(self._client, dataset.mfid, equal)
            if arrival.keyword:
                self._client.datasets.add_keyword(dataset.mfid, arrival.keyword)
        self.slots.rely(self.destination.project, arrival.slots, dataset, made=is_ours)
        if arrival.cached:
            self.session.cache.share(arrival.cached)

    # ------------------------------------------------------------ the end

    def share(self) -> None:
        """Wait for running deliveries, and let other processes find the results."""
        self.deliverer.drain(SHARE_WAIT_S)
        self.origins.share()

    def left(self) -> list[str]:
        """Return the results of this run that wait in the outbox."""
        waiting = {mfid for item in self.session.outbox.waiting() for mfid in item.mfids} if self._arrivals else set()
        return [mfid for mfid in self._arrivals if mfid in waiting]

    def close(self, *, failed: bool = False) -> None:
        """Wait until everything is registered or has failed, and note the results that the run relied on as current."""
        if self._is_closed or not self.owner:
            return
        self._is_closed = True
        if self.origins.is_shared:
            self.deliverer.take_up()
        self.deliverer.drain(LAST_WAIT_S)
        self.deliverer.stop()
        for mfid in self.left():
            for arrival in self._arrivals[mfid]:
                if arrival.slots:
                    self.slots.rely(self.destination.project, arrival.slots, self._made[mfid], made=True)
        try:
            self.slots.settle(failed=failed)
        except LineageError as error:
            warn("results are registered, but could not be noted as current: %s", error)
        elsewhere = map(self.origins.of_run, sorted(self.origins.noted_runs() - self._noted_before))
        self._made = {origin.dataset.mfid: origin.dataset for origin in elsewhere if origin is not None} | self._made
        if self._has_own_notes:
            shutil.rmtree(self.origins.folder, ignore_errors=True)
        self._client.close()

    def datasets(self) -> list[DatasetRef]:
        """Return the datasets that the run made or reused, each once, in the order in which they were made."""
        return list(self._made.values())


here: dict[str, Recording] = {}  # open recordings of this process, by run id
_lock = threading.Lock()
LAST_WAIT_S = 10.0  # chosen: wait at the end of a flow for an unreachable service
SHARE_WAIT_S = 30.0  # longer than any registration takes; after it the fork or the task continues anyway


def _before_fork() -> None:
    """Finish running deliveries before a fork: a lock held at that moment would stay locked in the child."""
    for recording in list(here.values()):
        recording.share()


leave_out_of_forks(here, _before_fork)


def current(destination: Destination | None = None) -> Recording | None:
    """Find the open recording for this code: of the given destination, else by context, flow, or in this process."""
    if destination is not None:
        return here.get(destination.run_id) or _attached(destination)
    if (recording := open_here.get()) is not None:
        return recording if recording.process == os.getpid() else _attached(recording.destination)
    if FlowRunContext.get() is not None:
        return current(sent) if (sent := sent_with(None)) is not None else None  # the flow registers nothing
    recordings = list(here.values())  # a plain thread of the flow's process has no context
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
    return bool(here) or open_here.get() is not None


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
        recording = here.get(destination.run_id)
        if recording is None:
            session = session_for(destination.crucible)
            recording = here[destination.run_id] = Recording(destination, session, owner=False)
        return recording
