"""A step handed over to be made: within this process as it is, to another one as JSON of names and ids.

The JSON holds no client, no key, no content of a file, and no value that came from the environment: such a parameter
crosses as its reference, and whoever makes the step fills it in from an environment of its own.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import BoundPipeline
from crucible_lineage.pipeline.command import inspect_command
from crucible_lineage.pipeline.expand import Instance
from crucible_lineage.pipeline.inspection import inspect_step
from crucible_lineage.pipeline.job import StepJob
from crucible_lineage.pipeline.knowledge import pipeline_keyword
from crucible_lineage.pipeline.raw import existing_dataset
from crucible_lineage.pipeline.spec import OutputFields
from crucible_lineage.pipeline.variables import Variables
from crucible_lineage.recipe import UsedDataset
from crucible_lineage.session import Session

__all__ = ["StepOrder", "job_from_json", "order_to_json", "step_job"]


@dataclass(frozen=True)
class StepOrder:
    """An instance to be made in a run: its parents, which attempt it is, and what its outputs replace."""

    pipeline: BoundPipeline
    instance: Instance
    used: tuple[UsedDataset, ...]
    run_id: str
    attempt: int = 0
    supersedes: Mapping[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The name of the instance."""
        return self.instance.name


def step_job(order: StepOrder, run: Mapping[str, Any]) -> StepJob:
    """The job that an order comes down to in this process; `run` says who makes it."""
    instance, spec = order.instance, order.instance.step.spec
    return StepJob(
        name=instance.name,
        project=order.pipeline.spec.project,
        inspection=instance.inspection,
        given=instance.given,
        used=order.used,
        output=spec.output,
        label=instance.label,
        command=spec.run or (),
        env=spec.env,
        declared_in=spec.folder,
        keywords=_keywords(instance.step.declared),
        pipeline=instance.step.declared,
        run={**run, "run_id": order.run_id},
        attempt=order.attempt,
        timeout_s=spec.timeout,
        supersedes=order.supersedes,
    )


def order_to_json(order: StepOrder) -> dict[str, Any]:
    """The order as names, ids and declared values."""
    instance, pipeline = order.instance, order.pipeline.spec
    spec = instance.step.spec
    return {
        "name": instance.name,
        "label": instance.label,
        "project": pipeline.project,
        "pipeline": instance.step.declared,
        "uses": spec.uses,
        "run": spec.run,
        "env": dict(spec.env),
        "folder": str(spec.folder),
        "params": {name: value for name, value in instance.given.items() if name not in spec.references},
        "references": dict(spec.references),
        "variables": list(pipeline.env),
        "output": spec.output.model_dump(mode="json", exclude_defaults=True),
        "timeout": spec.timeout,
        "roles": dict(instance.inspection.roles),
        "used": [
            {"role": part.role, "mfid": part.dataset.mfid, "files": [file.name for file in part.files]}
            for part in order.used
        ],
        "run_id": order.run_id,
        "attempt": order.attempt,
        "supersedes": dict(order.supersedes),
    }


def job_from_json(order: Mapping[str, Any], run: Mapping[str, Any], session: Session) -> StepJob:
    """The job that an order comes down to where it arrived: its code is that which stands there."""
    folder = Path(order["folder"])
    given = _filled(order)
    if order["uses"]:
        inspection = inspect_step(order["uses"], given, folder, session.store)
    else:
        inspection = inspect_command(order["name"], order["run"], order["roles"], given, folder, order["env"])
    return StepJob(
        name=order["name"],
        project=order["project"],
        inspection=inspection,
        given=given,
        used=tuple(_used(entry, session) for entry in order["used"]),
        output=OutputFields.model_validate(order["output"]),
        label=order["label"],
        command=order["run"] if isinstance(order["run"], str) else tuple(order["run"] or ()),
        env=order["env"],
        declared_in=folder,
        keywords=_keywords(order["pipeline"]),
        pipeline=order["pipeline"],
        run={**run, "run_id": order["run_id"]},
        attempt=order["attempt"],
        timeout_s=order["timeout"],
        supersedes=order["supersedes"],
    )


def _keywords(declared: Mapping[str, str] | None) -> tuple[str, ...]:
    return (pipeline_keyword(declared["name"]),) if declared else ()


def _filled(order: Mapping[str, Any]) -> dict[str, Any]:
    faults: list[str] = []
    variables = Variables({}, tuple(order["variables"]), os.environ, lambda _, message: faults.append(message))
    given: dict[str, Any] = {**order["params"], **variables.filled(order["references"], ())}
    if faults:
        raise InputError(f"step {order['name']!r}, where it is to be made: {faults[0]}")
    return given


def _used(entry: Mapping[str, Any], session: Session) -> UsedDataset:
    dataset = existing_dataset(entry["mfid"], session)
    return UsedDataset(entry["role"], dataset, tuple(file for file in dataset.files if file.name in entry["files"]))
