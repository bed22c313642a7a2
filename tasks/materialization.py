"""The Prefect task that materializes one step of a pipeline: run if need be, register, link, deliver."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from prefect import task
from prefect.logging import get_run_logger

from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.job.job import StepState
from crucible_lineage.pipeline.logs import STEP_LOG, LineCallback
from crucible_lineage.tasks.sessions import REPEATED, run_ids
from crucible_lineage.text.amounts import amount

MOST_LINES, LONGEST_LINE = 250, 2000  # of the beginning of what a step prints, and of the end; in characters


@task(task_run_name="{step}", **REPEATED)
def materialize(
    step: str,  # noqa: ARG001 (the name that Prefect shows)
    make: Callable[[JsonObject, LineCallback], StepState],
) -> StepState:
    """Materialize a step by `make`, which gets the ids of this run for its record, and a function for lines of its log.

    Prefect looks into mappings and values with fields that a task is given; a function it hands on as it is.
    """
    with bounded(get_run_logger().info) as log:
        return make(run_ids(), log)


@contextmanager
def bounded(log: Callable[[str], object]) -> Iterator[Callable[[str], None]]:
    """Yield a function that logs the beginning of many lines at once, and their end after the block.

    Each line of Prefect's log is a row of a database. Between, the log has the number of lines that are in the file.
    """
    first, end = count(1), deque[str](maxlen=MOST_LINES)

    def add(line: str) -> None:
        shown = line if len(line) <= LONGEST_LINE else f"{line[:LONGEST_LINE]}..."
        (log if next(first) <= MOST_LINES else end.append)(shown)

    try:
        yield add
    finally:
        if (left_out := next(first) - 1 - MOST_LINES - len(end)) > 0:
            log(f"[... {amount(left_out, 'line')} left out here; see {STEP_LOG} of the result: show --log ...]")
        for line in end:
            log(line)
