"""Select the data that a run has to process: those created or changed since the last run, or everything.

A result that became current again was changed by that, and so is selected like new data. The mark is the oldest change
of a dataset that is not settled, whose results neither exist nor were given up; so what was incomplete, failed, or came
late is selected again. Everything is selected when the declaration, the code or another input has changed, and at
regular intervals, which also finds deleted results.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

from crucible_lineage.core.slots import CANDIDATE, SUPERSEDED
from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.inputs.inputs import currency_among, is_selected
from crucible_lineage.pipeline.run.result import EXECUTED, REUSED, RunResult
from crucible_lineage.pipeline.spec.inputs import SelectInput
from crucible_lineage.provenance.record import read_record
from crucible_lineage.registration.read import Registered
from crucible_lineage.session import Session
from crucible_lineage.times import utc
from crucible_lineage.watch.folder import OVERLAP, Marks, looks_of

_MFID = re.compile(r"\b[0-9a-z]{26}\b")


def each_selection(pipeline: BoundPipeline) -> str | None:
    """Return the input whose datasets are selected and processed individually, so that some can be left out.

    Returns None if there is no such input, or a step takes all of them together.
    """
    each = [name for name, declared in pipeline.spec.inputs.items() if declared.each and not declared.match]
    if len(each) != 1 or not isinstance(pipeline.spec.inputs[each[0]], SelectInput):
        return None
    (name,) = each
    dependent = {name, *(other for other, declared in pipeline.spec.inputs.items() if declared.partner == name)}
    for step in pipeline.steps.values():  # in an order in which they can run
        sources = {source.source for role_sources in step.sources.values() for source in role_sources}
        if sources & dependent:
            if name not in step.dimensions:
                return None
            dependent.add(step.name)
    return name


def narrowed(pipeline: BoundPipeline, name: str, filters: JsonMapping) -> BoundPipeline:
    """Return the pipeline for those datasets of its selection that also match these filters."""
    declared = pipeline.spec.inputs[name]
    assert isinstance(declared, SelectInput)
    merged = {**declared.select, **filters}
    for key in ("creation_time_gte", "modification_time_gte"):
        if key in declared.select and key in filters:
            merged[key] = max(utc(declared.select[key]), utc(filters[key])).isoformat()
    inputs = {**pipeline.spec.inputs, name: declared.model_copy(update={"select": merged})}
    return replace(pipeline, spec=pipeline.spec.model_copy(update={"inputs": inputs}))


@dataclass(frozen=True)
class _Seen:
    """A dataset of the selection, as it was before the run."""

    changed: datetime
    found: Registered


class SelectionMarks:
    """The position of one pipeline in its selection; `name` is the input."""

    def __init__(self, pipeline: BoundPipeline, name: str, session: Session, sweep_every: timedelta) -> None:
        self.pipeline = pipeline
        self.name = name
        self.session = session
        self.marks = Marks(session)
        self.sweep_every = sweep_every
        self.mark_name = looks_of(pipeline.spec.project, pipeline.name)
        self.mark = self.marks.get(self.mark_name)
        self.started = datetime.now(UTC)
        self._seen: dict[str, _Seen] = {}

    @property
    def is_full(self) -> bool:
        """True if everything has to be selected."""
        mark = self.mark
        if not mark.get("since") or mark["code"] != _code(self.pipeline):
            return True
        return self.started - utc(mark["swept"]) >= self.sweep_every

    def look(self, *, full: bool) -> BoundPipeline:
        """Return the pipeline for the datasets to process now."""
        since = {} if full else {"modification_time_gte": self.mark["since"]}
        pipeline = narrowed(self.pipeline, self.name, since)
        declared = pipeline.spec.inputs[self.name]
        assert isinstance(declared, SelectInput)
        filters = {"project_id": pipeline.spec.project, **declared.filters}
        for dataset in self.session.client.datasets.iter(**filters, include_metadata=True):
            if not is_selected(declared, dataset):
                continue
            record = read_record(dataset.scientific_metadata)
            self._seen[dataset.unique_id] = _Seen(
                changed=utc(dataset.modification_time or dataset.creation_time or self.started),
                found=Registered(dataset, record),
            )
        return pipeline

    def has_other_inputs(self, result: RunResult) -> bool:
        """Return True if another input has changed since the last look, so that everything has to be redone."""
        return bool(self.mark) and self.mark["others"] != self._others(result)

    def note(self, result: RunResult, parked: Iterable[str], *, full: bool) -> None:
        """Store the position for the next run. `parked` are instances that are skipped on purpose."""
        swept = self.started.isoformat() if full else self.mark["swept"]
        mark = {"swept": swept, "code": _code(self.pipeline), "others": self._others(result)}
        since = self._since(result, set(parked))
        self.marks.set(self.mark_name, {**mark, "since": since.isoformat() if since else self.mark.get("since")})

    def _since(self, result: RunResult, parked: set[str]) -> datetime | None:
        if not self._seen:
            return None
        newest = max(seen.changed for seen in self._seen.values())
        ready = set(result.inputs.get(self.name, ())) - self._unfinished(result, parked)
        waiting = {
            mfid: seen.changed
            for mfid, seen in self._seen.items()
            if mfid not in ready and newest - seen.changed < self.sweep_every
        }
        for mfid in self._superseded() if waiting else ():
            waiting.pop(mfid, None)
        return min(waiting.values(), default=newest) - OVERLAP

    def _superseded(self) -> set[str]:
        """Return the datasets not to wait for, since others have replaced them; none if the input includes them."""
        declared = self.pipeline.spec.inputs[self.name]
        if isinstance(declared, SelectInput) and declared.superseded:
            return set()
        found = [seen.found for seen in self._seen.values()]
        currency = currency_among(self.pipeline.spec.project, found, self.session)
        return {one.mfid for one in found if currency.state(one.mfid) in (CANDIDATE, SUPERSEDED)}

    def _unfinished(self, result: RunResult, parked: set[str]) -> set[str]:
        """Return the datasets with a failed or skipped step, except those with a parked one."""
        given_up = {mfid for name in parked for mfid in _MFID.findall(name)}
        failed = (name for name, outcome in result.outcomes.items() if outcome not in (EXECUTED, REUSED))
        return {mfid for name in failed for mfid in _MFID.findall(name)} - given_up

    def _others(self, result: RunResult) -> str:
        return _digest({name: list(mfids) for name, mfids in result.inputs.items() if name != self.name})


def _code(pipeline: BoundPipeline) -> str:
    """Return a digest of the declaration and the code."""
    steps = {
        name: [[variant.inspection.code.fingerprint, variant.inspection.params] for variant in step.variants]
        for name, step in pipeline.steps.items()
    }
    return _digest([pipeline.spec.digest, steps])


def _digest(value: object) -> str:
    return hashlib.sha256(canonical_json(value)).hexdigest()
