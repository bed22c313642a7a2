"""Calls of steps in code, without a declaration: the job of a call, and the slots that its results fill."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crucible_lineage.core.slots import SlotClaim, pipeline_keyword, slot
from crucible_lineage.errors import TRANSIENT, InputError, RefusedError
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.declare.pipeline import StepSpec
from crucible_lineage.pipeline.plan.bound import BoundStep
from crucible_lineage.pipeline.plan.facts import ParentFacts
from crucible_lineage.pipeline.plan.files import existing_dataset, find_raw, hash_files, raw_files, register_raw
from crucible_lineage.pipeline.plan.inspect import inspection_of
from crucible_lineage.provenance.recipe import UsedDataset, planned_outputs
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.known import KnownResults
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import ClaimingRun, Currency
from crucible_lineage.step import Step

About = tuple[str, ...]
"""The subject of a result: files by folder and name, datasets by id."""


def called_step(
    session: Session,
    project: str,
    called: Step[..., Any],
    inputs: Mapping[str, object],
    params: Mapping[str, object],
    slots: FlowSlots,
) -> Callable[[Mapping[str, object]], Mapping[str, DatasetRef]]:
    """Resolve a call of a step, and register its input files as raw data if they are new.

    Return a function that executes it in a run, lets the run rely on its results, and returns them by output.
    An input is a path, the id of a dataset, a dataset, or a list of these. Raises InputError if one is missing or
    invalid.
    """
    # Most flows call tasks alone, for which these imports would take a tenth of a second.
    from crucible_lineage.pipeline.job.job import Outcome
    from crucible_lineage.pipeline.job.materialize import materialize_now
    from crucible_lineage.pipeline.plan.expand import Instance
    from crucible_lineage.pipeline.plan.plan import MISSING, StepPlan, files_for_role

    uses = f"{called.function.__module__}:{called.function.__qualname__}"
    given = {name: value for name, value in params.items() if name not in called.outputs}
    inspection = inspection_of(called, uses, given)
    if missing := [role for role in inspection.required if role not in inputs]:
        raise InputError(f"step {called.name!r} was called without its input {missing[0]!r}")
    used = tuple(
        UsedDataset(role, dataset, files_for_role(role, inspection.roles[role], dataset, None))
        for role, value in inputs.items()
        for single in (value if isinstance(value, (list, tuple)) else [value])
        for dataset in [_dataset(session, project, slots, single)]
    )
    lists = {role for role, value in inputs.items() if isinstance(value, list)}
    about = about_inputs((part.role, part.role in lists, slots.about(part.dataset.mfid)) for part in used)
    claims = {output: slots.claims(project, called.name, output, about) for output in inspection.outputs}
    facts = ParentFacts(session, project).of(used) if inspection.facts else None
    outputs = planned_outputs(project, inspection.code, inspection.outputs, inspection.params, used, facts=facts)
    step = BoundStep(called.name, StepSpec(uses=uses), (), ())
    instance = Instance(called.name, step, "", given, inspection, ())
    job = StepPlan(instance, MISSING, outputs=outputs, used=used, project=project, slots=claims, called=called)

    def make(run: Mapping[str, object]) -> Mapping[str, DatasetRef]:
        session.refresh_statements()
        done = materialize_now(replace(job, run=run), session)
        for name, dataset in done.results.items():
            slots.note_about(dataset.mfid, about)
            slots.rely(project, claims[name], dataset, made=done.outcome == Outcome.EXECUTED)
        return done.results

    return make


def _dataset(session: Session, project: str, slots: FlowSlots, value: Any) -> DatasetRef:
    if isinstance(value, DatasetRef):
        return value
    if not isinstance(value, Path):
        return existing_dataset(value, session)
    if not value.is_file():
        raise InputError(f"there is no file {value}")
    raw = raw_files(project, hash_files([value], session))
    declared = FileInput(file=(str(value),))
    dataset = find_raw(raw, session) or register_raw(raw, declared, value.name, session)
    slots.note_about(dataset.mfid, about_file(value))
    return dataset


# Which results of a flow are current: the slots that they fill, in which the newest run of the flow wins.
#
# A slot is the flow, the task and its output, and the subject of the result. Several results of one run for one slot
# (of a swept parameter, say) are current together; they supersede those of earlier runs only.


@dataclass(eq=False)
class FlowSlots:
    """The results that a run of a flow relies on, and the slots that they fill.

    In the flow's own process, slots are written at its end, so that a run that changes nothing writes nothing; in other
    processes, `at_once`.
    """

    session: Session
    flow: str  # empty outside of a flow
    run: ClaimingRun
    at_once: bool
    is_away: Callable[[], bool] = lambda: False

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._projects: dict[str, Currency] = {}
        self._relied: dict[tuple[str, str], dict[str, bool]] = {}  # {(project, slot): {MFID: was it made by this run}}
        self._about: dict[str, About] = {}

    @property
    def keywords(self) -> tuple[str, ...]:
        """The keywords by which all results of the flow are found."""
        return (pipeline_keyword(self.flow),) if self.flow else ()

    def note_about(self, mfid: str, about: About) -> None:
        """Record the subject of a dataset of this run."""
        self._about[mfid] = about

    def about(self, mfid: str) -> About:
        """Return the subject of a dataset: itself, if it is not of this run."""
        return self._about.get(mfid, (mfid,))

    def claims(self, project: str, task: str, output: str, about: About) -> dict[str, SlotClaim]:
        """Return the slot of a result with this run's claim to it. Empty outside of a flow."""
        if not self.flow:
            return {}
        key = slot(self.flow, task, output, ", ".join(about))
        return {key: self.run.claim(self._currency(project), project, key)}

    def rely(self, project: str, slots: Mapping[str, SlotClaim], dataset: DatasetRef, *, made: bool) -> None:
        """Let the run rely on a result for these slots; one that it has `made` was registered with them."""
        for key in slots:
            if self.at_once:
                if not made and self.run.current(self._currency(project), project, key) != {dataset.mfid}:
                    self._make_current(project, key, dataset.mfid)
                continue
            with self._lock:
                relied = self._relied.setdefault((project, key), {})
                relied[dataset.mfid] = made or relied.get(dataset.mfid, False)

    def settle(self, *, failed: bool) -> None:
        """Make the results that the run relied on current. After a failure, earlier ones stay current as well."""
        for (project, key), relied in self._relied.items():
            current = self.run.current(self._currency(project), project, key)
            if set(relied) == current and not any(relied.values()):
                continue
            stays = failed and not any(relied.values())  # a result made by this run has superseded earlier ones
            for mfid, made in relied.items():
                if not made and not (stays and mfid in current):
                    self._make_current(project, key, mfid)

    def _make_current(self, project: str, key: str, mfid: str) -> None:
        currency = self._currency(project)
        self.run.make_current(self.session.mirror, self.session.client, currency, project, mfid, [key])

    def _currency(self, project: str) -> Currency:
        """Return which results of the flow were current when this run first read the project."""
        with self._lock:
            if project not in self._projects:
                client, is_away = lambda: self.session.client, self.is_away()
                results = KnownResults(self.session.mirror, client, project, self.flow, is_away=is_away)
                try:
                    results.sync()
                except (RefusedError, *TRANSIENT):
                    results.is_away = True
                    results.sync()
                self._projects[project] = results.slots
            return self._projects[project]


def about_file(path: Path) -> About:
    """Return a file as a subject, by the names of its folder and itself: its full path differs between machines."""
    return (f"{path.absolute().parent.name}/{path.name}",)


def about_inputs(inputs: Iterable[tuple[str, bool, About]]) -> About:
    """Return the joint subject of inputs, each given by role, whether it is in a list, and its own subject.

    A list of files of one folder stands for that folder, so that an additional file does not change the slot.
    """
    roles: dict[tuple[str, bool], dict[str, None]] = {}
    for role, is_list, about in inputs:
        roles.setdefault((role, is_list), {}).update(dict.fromkeys(about))
    found: dict[str, None] = {}
    for (_, is_list), parts in roles.items():
        folders = {part.rpartition("/")[0] for part in parts}
        is_folder = is_list and len(folders) == 1 and "" not in folders
        found |= {f"{folders.pop()}/*": None} if is_folder else parts
    return tuple(found)


def file_of(function: Any) -> str:
    """Return the name of the file that defines a flow; empty for a notebook's cell, whose name changes each time."""
    code = getattr(inspect.unwrap(function), "__code__", None)
    path = Path(code.co_filename) if code else Path()
    return "" if code is None or path.name.startswith("<") or "ipykernel" in str(path) else path.name
