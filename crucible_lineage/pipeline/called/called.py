"""A step that is called in code, and not named in a declaration: as a job, and made, with the places that it fills."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.called.flow_places import About, FlowPlaces, about_file, about_inputs
from crucible_lineage.pipeline.functions.inspect import inspection_of
from crucible_lineage.pipeline.inputs.existing import existing_dataset, find_raw
from crucible_lineage.pipeline.inputs.parent_facts import ParentFacts
from crucible_lineage.pipeline.inputs.raw import hash_files
from crucible_lineage.pipeline.inputs.register import register_raw
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.plan.used import files_for_role
from crucible_lineage.pipeline.spec.ingestion import Ingest
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.pipeline.spec.pipeline import StepSpec
from crucible_lineage.provenance.recipe import UsedDataset, planned_outputs
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session
from crucible_lineage.step import Step

__all__ = ["CalledStep", "called_step"]


@dataclass(frozen=True)
class CalledStep:
    """A call of a step that is ready to be made."""

    session: Session
    places: FlowPlaces
    job: Job
    about: About

    def make(self, run: Mapping[str, object]) -> Mapping[str, DatasetRef]:
        """The datasets that it gives, by output, made in this run or there before; the run relies on them."""
        self.session.hear_statements()
        done = materialize_step(replace(self.job, run=run), self.session)
        for name, dataset in done.outputs.items():
            self.places.note_about(dataset.mfid, self.about)
            self.places.rely(self.job.project, self.job.places[name], dataset, made=done.executed)
        return done.outputs


def called_step(
    session: Session,
    project: str,
    called: Step[..., Any],
    inputs: Mapping[str, object],
    params: Mapping[str, object],
    places: FlowPlaces,
    salt: str | None = None,
) -> CalledStep:
    """Resolve a call of a step. Files that it is given are registered as raw data if they are new.

    An input is a path, the id of a dataset, a dataset, or a list of these. InputError if one is missing or is none. A
    `salt` gives new data and results other ids.
    """
    uses = f"{called.function.__module__}:{called.function.__qualname__}"
    given = {name: value for name, value in params.items() if name not in called.outputs}
    inspection = inspection_of(called, uses, given)
    if missing := [role for role in inspection.required if role not in inputs]:
        raise InputError(f"step {called.name!r} was called without its input {missing[0]!r}")
    found = _Inputs(session, project, places, salt, Ingest(wait=True) if inspection.facts else True)
    used = tuple(part for role, value in inputs.items() for part in found.parts(inspection.roles[role], role, value))
    lists = {role for role, value in inputs.items() if isinstance(value, list)}
    about = about_inputs((part.role, part.role in lists, places.about(part.dataset.mfid)) for part in used)
    filled = {output: places.filled(project, called.name, output, about) for output in inspection.outputs}
    facts = ParentFacts(session, project).of(used) if inspection.facts else None
    outputs = planned_outputs(
        project, inspection.code, inspection.outputs, inspection.params, used, salt=salt, facts=facts
    )
    spec = StepSpec(uses=uses, salt=salt)
    job = Job(called.name, project, inspection, given, used, outputs, spec, {}, filled, step=called)
    return CalledStep(session, places, job, about)


@dataclass(frozen=True)
class _Inputs:
    session: Session
    project: str
    places: FlowPlaces
    salt: str | None
    ingest: bool | Ingest

    def parts(self, shape: str, role: str, value: object) -> Iterator[UsedDataset]:
        values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
        for single in values:
            dataset = self._dataset(single)
            yield UsedDataset(role, dataset, files_for_role(role, shape, dataset, None))

    def _dataset(self, value: Any) -> DatasetRef:
        if isinstance(value, DatasetRef):
            return value
        if not isinstance(value, Path):
            return existing_dataset(value, self.session)
        if not value.is_file():
            raise InputError(f"there is no file {value}")
        raw = hash_files(self.project, [value], None, self.session, salt=self.salt)
        declared = FileInput(file=str(value), ingest=self.ingest)
        dataset = find_raw(raw, self.session) or register_raw(raw, declared, value.name, self.session)
        self.places.note_about(dataset.mfid, about_file(value))
        return dataset
