"""A job as JSON of names, ids and declared values, for another process.

The JSON has no client, no key, no content of a file, and no value from the environment: such a parameter is sent as a
reference, which the process that executes the step resolves in its own environment.
"""

from __future__ import annotations

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import (
    TRANSIENT,
    CertificateError,
    ChecksumError,
    FileChangedError,
    ForbiddenError,
    InputError,
    LineageError,
    OnHoldError,
    StepError,
    UnauthorizedError,
)
from crucible_lineage.json_types import JsonMapping, JsonObject
from crucible_lineage.pipeline.declare.variables import from_environment
from crucible_lineage.pipeline.functions.inspect import inspect_declared
from crucible_lineage.pipeline.inputs.existing import existing_dataset
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.job.materialize import Materialized
from crucible_lineage.pipeline.spec.pipeline import StepSpec
from crucible_lineage.provenance.recipe import UsedDataset, planned_outputs
from crucible_lineage.session import Session

_KINDS = (
    *(InputError, OnHoldError, FileChangedError, ChecksumError),
    *(ForbiddenError, UnauthorizedError, CertificateError, *TRANSIENT),
)
_IN_PLAN = ("params", "matrix", "inputs", "group_by", "across")  # resolved by the plan


def job_to_json(job: Job) -> JsonObject:
    """Encode a job as names, ids and declared values."""
    return {
        "name": job.name,
        "label": job.label,
        "group": job.group,
        "project": job.project,
        "pipeline": job.pipeline,
        "spec": {
            **job.spec.model_dump(mode="json", exclude={*_IN_PLAN, "folder"}, exclude_defaults=True),
            "folder": str(job.spec.folder),
        },
        "params": {name: value for name, value in job.given.items() if name not in job.spec.references},
        "variables": list(job.variables),
        "gaps": list(job.gaps),
        "roles": dict(job.inspection.roles),
        "used": [
            {
                "role": part.role,
                "mfid": part.dataset.mfid,
                "files": [file.name for file in part.files],
                "chosen": part.chosen and dict(part.chosen),
            }
            for part in job.used
        ],
        "run": dict(job.run),
        "slots": {output: {key: vars(claim) for key, claim in claims.items()} for output, claims in job.slots.items()},
        "attempt": job.outputs[0].recipe.get("attempt", 0),
        "facts": job.outputs[0].recipe.get("facts"),
        "supersedes": {planned.output: planned.supersedes for planned in job.outputs if planned.supersedes},
    }


def job_from_json(sent: JsonMapping, run: JsonMapping, session: Session) -> Job:
    """Decode a job where it arrived: the local code determines the ids of its outputs."""
    spec = StepSpec.model_validate(sent["spec"])
    subject = f"step {sent['name']!r}, where it is made"
    given = {**sent["params"], **from_environment(spec.references, sent["variables"], subject)}
    inspection = inspect_declared(sent["name"], spec, sent["roles"], given, session.store)
    used = tuple(_used(entry, session) for entry in sent["used"])
    outputs = planned_outputs(
        sent["project"],
        inspection.code,
        inspection.outputs,
        inspection.params,
        used,
        attempt=sent["attempt"],
        salt=spec.salt,
        supersedes=sent["supersedes"],
        facts=sent["facts"],
    )
    return Job(
        name=sent["name"],
        project=sent["project"],
        inspection=inspection,
        given=given,
        used=used,
        outputs=outputs,
        spec=spec,
        run={**sent["run"], **run},
        slots={
            output: {key: SlotClaim(**claim) for key, claim in claims.items()}
            for output, claims in sent["slots"].items()
        },
        label=sent["label"],
        group=sent["group"],
        pipeline=sent["pipeline"],
        variables=tuple(sent["variables"]),
        gaps=tuple(sent["gaps"]),
    )


def made_to_json(made: Materialized) -> dict[str, object]:
    """Encode a step's result, for another process or machine."""
    fields = {name: getattr(made, name) for name in ("executed", "note", "seconds", "waits")}
    return {**fields, "outputs": {name: dataset.mfid for name, dataset in made.outputs.items()}}


def made_from_json(sent: JsonMapping, session: Session) -> Materialized:
    """Decode a result that another process or machine made."""
    outputs = {name: existing_dataset(mfid, session) for name, mfid in sent["outputs"].items()}
    fields = {name: sent[name] for name in ("executed", "note", "seconds", "waits")}
    return Materialized(outputs, **fields)


def error_to_json(error: LineageError) -> JsonObject:
    """Encode the error of a step, for another process or machine."""
    log, trace = getattr(error, "log", None), getattr(error, "trace", "")
    return {"kind": type(error).__name__, "message": str(error), "log": log, "trace": trace}


def error_from_json(sent: JsonMapping, step: str) -> LineageError:
    """Decode an error: of its own kind if retries or counts of failures depend on that, else as the step's."""
    for kind in _KINDS:
        if kind.__name__ == sent["kind"]:
            return kind(sent["message"])
    return StepError(sent["message"], step=step, log=sent["log"], trace=sent["trace"])


def _used(entry: JsonMapping, session: Session) -> UsedDataset:
    dataset = existing_dataset(entry["mfid"], session)
    files = tuple(file for file in dataset.files if file.name in entry["files"])
    return UsedDataset(entry["role"], dataset, files, entry["chosen"])
