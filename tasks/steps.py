"""Steps in hand-written flows: a flow gains lineage by a changed import and one line.

    from crucible_lineage.tasks import registering, step as task

    @flow
    @registering(project="lab")
    def process(spectrum: Path, lamp: Path): ...

Inside such a flow a step accepts paths (registered as raw data if they are new), dataset ids, or the results of
other steps; it runs as a Prefect task, its outputs are registered, and what it returns stands for them.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from prefect import task

from crucible_lineage.pipeline.plan.files import existing_dataset
from crucible_lineage.pipeline.step_call import called_step
from crucible_lineage.step import Step, StepRunner, step
from crucible_lineage.tasks.dropin.recording import Recording
from crucible_lineage.tasks.sessions import REPEATED, run_ids

__all__ = ["step", "steps_in"]


def steps_in(recording: Recording) -> StepRunner:
    """Return the runner of steps that are called during this recording."""
    return functools.partial(_run_step, recording)


def _run_step(
    recording: Recording,
    called: Step[..., Any],
    inputs: Mapping[str, object],
    params: Mapping[str, object],
) -> Any:
    """Run a step and return its registered output, or a mapping if it has several."""
    project, session = recording.destination.project, recording.session
    prepared = called_step(session, project, called, inputs, params, recording.slots)

    @task(name=called.name, task_run_name=called.name, **REPEATED)
    def make() -> dict[str, str]:
        run = {**run_ids(), "run_id": recording.destination.run_id}
        return {name: dataset.mfid for name, dataset in prepared.make(run).items()}

    outputs = {name: existing_dataset(mfid, session) for name, mfid in make().items()}
    return next(iter(outputs.values())) if len(outputs) == 1 else outputs
