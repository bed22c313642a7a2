"""Reasons for a run that did not succeed, for the state of its flow run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Failed

from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.run.result import RunResult

__all__ = ["reasons_of", "waiting_told", "with_its_error"]


def with_its_error(run: Callable[[], State[Any]]) -> State[Any]:
    """Return the state of `run`, or failed with the message of an error of ours, without our traceback."""
    try:
        return run()
    except LineageError as error:
        get_run_logger().error("%s", error)
        return Failed(message=str(error), data=error)


def reasons_of(result: RunResult) -> str:
    """The errors of its steps, and what is made and not at Crucible."""
    told = [*map(result.error_line, result.errors)]
    unseen = f"what was there was not seen at Crucible: {result.unseen}" if result.unseen else ""
    return "; ".join([*told, *filter(None, [waiting_told(result), unseen])])


def waiting_told(result: RunResult) -> str:
    """Describe the results that wait to be delivered, why, and the way out; empty if only failed steps' do."""
    waiting = [one for one in result.waiting if one.step not in result.errors]
    if not waiting:
        return ""
    number = sum(len(one.mfids) for one in waiting)
    reason = next((f": {one.error.splitlines()[0]}" for one in waiting if one.error), "")
    datasets = "1 dataset is made and waits" if number == 1 else f"{number} datasets are made and wait"
    return f"{datasets} to be delivered{reason} (the next run delivers, as does crucible-lineage push)"
