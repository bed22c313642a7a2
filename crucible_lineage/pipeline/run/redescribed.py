"""A changed `output:` of results that are there: their records are updated, nothing is made again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crucible_lineage.core.store import Store
from crucible_lineage.errors import ForbiddenError, LineageError
from crucible_lineage.ids import canonical_json
from crucible_lineage.pipeline.bind.model import BoundPipeline, BoundStep
from crucible_lineage.pipeline.job.job import Job, dataset_name, job_of
from crucible_lineage.pipeline.plan.expand import Instance
from crucible_lineage.pipeline.plan.plan import StepPlan
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

__all__ = ["DescribedAnew", "described_anew"]

WHOLE = ""  # the declaration as a whole
FIELDS = ("measurement", "data_type", "session_name")


@dataclass(frozen=True)
class DescribedAnew:
    """By instance: what was changed, in words, and why that failed."""

    told: dict[str, str] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def described_anew(
    pipeline: BoundPipeline,
    steps: Iterable[StepPlan],
    instances: Mapping[str, Instance],
    session: Session,
    run_id: str,
) -> DescribedAnew:
    """A changed `output:` of steps whose results are there is applied."""
    described, found = _Redescription(session.store, pipeline), DescribedAnew()
    for step in steps if described.changed else ():
        instance = instances[step.name]
        if instance.step.name not in described.changed:
            continue
        job = job_of(pipeline, instance, step.used, step.outputs, {"run_id": run_id}, {})
        try:
            told = _redescribe(job, step.results, session)
        except ForbiddenError as refusal:  # a contributor may use what another member has made, not rename it
            reason = str(refusal).partition("\n")[0]
            found.told[step.name] = (
                f"the description was not updated: {reason}; "
                "the owner or an editor of the project can update it by running this once"
            )
            described.left = True
            continue
        except LineageError as error:
            found.errors[step.name] = f"the result exists, but its description could not be updated: {error}"
            continue
        if told:
            found.told[step.name] = told
    if not found.errors and not described.left:
        described.note()
    return found


class _Redescription:
    """Which declared steps describe their outputs otherwise than when their results were last looked at."""

    def __init__(self, store: Store, pipeline: BoundPipeline) -> None:
        self.store = store
        self.pipeline = pipeline
        self.before = store.described(pipeline.spec.project, pipeline.name)
        self.left = False  # something is for others to change
        whole = {WHOLE: pipeline.spec.digest}
        same = self.before.get(WHOLE) == pipeline.spec.digest  # most runs: no step need be looked at
        self.now = whole if same else {**whole, **{step.name: _digest(step) for step in pipeline.steps.values()}}

    @property
    def changed(self) -> frozenset[str]:
        """The steps whose results are to be described anew."""
        names = self.now.keys() - {WHOLE}
        return frozenset(name for name in names if self.before.get(name, self.now[name]) != self.now[name])

    def note(self) -> None:
        """All results are described as is declared now."""
        if len(self.now) > 1:
            self.store.note_described(self.pipeline.spec.project, self.pipeline.name, self.now)


def _redescribe(job: Job, results: Mapping[str, DatasetRef], session: Session) -> str:
    """Change the records of a step's results.

    Returns what was changed and what was not, in words; empty if nothing had to be.
    """
    told, left = list[str](), list[str]()
    for output, dataset in results.items():
        found = session.client.datasets.get(dataset.mfid, include_metadata=True)
        wanted = _wanted(job, output, found.scientific_metadata or {}, session)
        fields = {name: value for name, value in wanted.items() if value is not None and getattr(found, name) != value}
        if fields:
            session.client.datasets.update(dataset.mfid, **fields)
        present = {word.keyword for word in session.client.datasets.get_keywords(dataset.mfid)}
        words = [word for word in job.spec.output.keywords if word not in present]
        for word in words:
            session.client.datasets.add_keyword(dataset.mfid, word)
        told += [f"{name} is {value!r}" for name, value in fields.items()]
        told += [f"keyword {word!r} was added" for word in words]
        left += _not_applied(job, output, found.scientific_metadata or {})
    return "; ".join(([f"description updated: {'; '.join(told)}"] if told else []) + left)


def _not_applied(job: Job, output: str, present: Mapping[str, object]) -> list[str]:
    """Declared metadata that the result has not: its record holds the hash of those with which it was made."""
    lacking = [name for name, value in job.spec.output.metadata.items() if present.get(name, ...) != value]
    where = "" if len(job.inspection.outputs) == 1 else f" of {output}"
    step = job.name.partition("[")[0]
    return [f"metadata {name!r}{where} is unchanged until `--force {step}` reruns the step" for name in lacking]


def _wanted(job: Job, output: str, metadata: Mapping[str, object], session: Session) -> dict[str, object]:
    declared, inspection = job.spec.output, job.inspection
    name, _ = dataset_name(job, output, metadata, lambda mfid: _fields(mfid, session))
    by_step = {"measurement": inspection.measurement, "data_type": inspection.data_type}
    described = {field: getattr(declared, field) or by_step.get(field) for field in FIELDS}
    return {"dataset_name": name, **described}


def _fields(mfid: str, session: Session) -> Mapping[str, object]:
    return session.client.datasets.get(mfid, include_metadata=True).model_dump()


def _digest(step: BoundStep) -> str:
    declared = step.spec.output
    output = declared.model_dump(mode="json", include={"dataset_name", "keywords", *FIELDS})
    if declared.metadata:
        output["metadata"] = declared.metadata
    return hashlib.sha256(canonical_json(output)).hexdigest()[:16]
