"""An order to make a step, as JSON of names, ids and declared values, for another process.

The JSON holds no client, no key, no content of a file, and no value that came from the environment: such a parameter
crosses as its reference, and whoever makes the step fills it in from an environment of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from crucible_lineage.pipeline.bind.command import inspect_command
from crucible_lineage.pipeline.bind.inspect import inspect_step
from crucible_lineage.pipeline.declare.variables import from_environment
from crucible_lineage.pipeline.job.job import StepJob
from crucible_lineage.pipeline.job.order import StepOrder, declared_beside, declared_keywords
from crucible_lineage.pipeline.plan.raw import existing_dataset
from crucible_lineage.pipeline.spec.pipeline import OutputFields
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.session import Session

__all__ = ["job_from_json", "order_to_json"]


def order_to_json(order: StepOrder) -> dict[str, Any]:
    """The order as names, ids and declared values."""
    instance, pipeline = order.instance, order.pipeline.spec
    spec = instance.step.spec
    return {
        "name": instance.name,
        "label": instance.label,
        "project": pipeline.project,
        "pipeline": instance.step.declared,
        "declared": declared_beside(spec),
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
    place = f"step {order['name']!r}, where it is to be made"
    given = {**order["params"], **from_environment(order["references"], order["variables"], place)}
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
        env=from_environment(order["env"], order["variables"], place),
        declared_in=folder,
        keywords=declared_keywords(order["pipeline"]),
        pipeline=order["pipeline"],
        declared=order["declared"],
        run={**run, "run_id": order["run_id"]},
        attempt=order["attempt"],
        timeout_s=order["timeout"],
        supersedes=order["supersedes"],
    )


def _used(entry: Mapping[str, Any], session: Session) -> UsedDataset:
    dataset = existing_dataset(entry["mfid"], session)
    return UsedDataset(entry["role"], dataset, tuple(file for file in dataset.files if file.name in entry["files"]))
