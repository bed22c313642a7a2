"""The Prefect task that materializes one step of a pipeline: run if need be, register, link, deliver."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

from prefect import task
from prefect.logging import get_run_logger

from crucible_lineage.json_types import JsonObject
from crucible_lineage.pipeline.job.delivering import Driver, deliverer_for
from crucible_lineage.pipeline.job.job import job_from_json, made_to_json
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.logs import STEP_LOG
from crucible_lineage.pipeline.processes.supervised import end_with_parent
from crucible_lineage.tasks.artifacts import tell_made
from crucible_lineage.tasks.sessions import REPEATED, CrucibleConnection, run_ids, session_for
from crucible_lineage.text.amounts import amount

MOST_LINES, LONGEST_LINE = 250, 2000  # of the beginning of what a step prints, and of the end; in characters


@task(task_run_name="{step}", **REPEATED)
def materialize(
    step: str,  # noqa: ARG001 (the name that Prefect shows)
    job: str,
    crucible: CrucibleConnection,
    driver: Driver | None = None,
) -> JsonObject:
    """Materialize a step and return `{"outputs": {name: MFID}, "executed": bool, "note": str}`.

    `job` is JSON of names, ids and declared values only, from `crucible_lineage.pipeline.job.job.job_to_json`. It
    is text because Prefect draws an arrow for each argument that is the same object as an earlier result, and Python
    has only one empty string. With `driver`, delivery may be left to that process, if it shares the data folder.
    """
    end_with_parent()
    session = session_for(crucible)
    parsed = json.loads(job)
    deliverer = deliverer_for(parsed["run"]["run_id"], session, driver)
    received = job_from_json(parsed, run_ids(), session)
    with bounded(get_run_logger().info) as log:
        result = materialize_step(received, session, log, deliverer)
    if result.executed and not result.waits:  # else its deliverer emits the events
        pipeline, used = (received.pipeline or {}).get("name", ""), [part.dataset.mfid for part in received.used]
        tell_made(pipeline, received.project, received.name, used, result.outputs)
    return made_to_json(result)


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
