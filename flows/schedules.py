"""What Prefect says against a declared schedule. Prefect has the last word on what `cron` and `rrule` mean."""

from __future__ import annotations

from prefect.client.schemas.schedules import construct_schedule
from pydantic import ValidationError

from crucible_lineage.errors import Fault
from crucible_lineage.pipeline.declare.yaml import read_document
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec

__all__ = ["schedule_fault"]


def schedule_fault(spec: PipelineSpec) -> Fault | None:
    """Return why Prefect cannot read the schedule, with its place in the file; None if it can, or there is none."""
    declared = spec.schedule
    if declared is None:
        return None
    try:
        construct_schedule(declared.interval, None, declared.cron, declared.rrule, declared.timezone)
    except ValueError as error:  # also pydantic's
        reasons = [one["msg"] for one in error.errors()] if isinstance(error, ValidationError) else [str(error)]
        key = next(name for name in ("cron", "interval", "rrule") if getattr(declared, name) is not None)
        said = "; ".join(reasons).replace("Value error, ", "")
        return read_document(spec.path).fault(("schedule", key), f"schedule: {said}")
    return None
