"""The flow that makes recorded results again with current inputs: one dataset, or all stale ones of a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from crucible_lineage.errors import InputError
from crucible_lineage.flows.pipelines import PrefectEngine
from crucible_lineage.flows.reports import (
    failing_with_message,
    reasons_of,
    reporting_if_stopped,
    show_result,
    step_listener,
)
from crucible_lineage.flows.runners import THREADS
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.run import run_planned
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session
from crucible_lineage.tasks.artifacts import telling_arrived
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for


@flow(name="rerun", persist_result=False, task_runner=THREADS)
def rerun(
    mfid: str | None = None,
    project: str | None = None,
    folder: Path | None = None,
    crucible: CrucibleConnection | None = None,
    runner: Runner | None = None,
) -> State[Any]:
    """Make a dataset, or all stale results of a project, again. The flow run is Completed, or Failed with the reasons.

    Args:
        mfid: The dataset to be made again, with its stale ancestors.
        project: Instead of a dataset: the project of which all stale results are made again, in dependency order.
        folder: Folder with the steps' modules and scripts. By default, the one from which their pipeline last ran.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
        runner: What steps run on. By default, the runner in their pipeline's declaration, if that still exists.
    """
    return failing_with_message(lambda: _rerun(mfid, project, folder, crucible, runner))


def _rerun(
    mfid: str | None,
    project: str | None,
    folder: Path | None,
    crucible: CrucibleConnection | None,
    runner: Runner | None,
) -> State[Any]:
    if (mfid is None) == (project is None):
        raise InputError("rerun needs either a dataset or a project; nothing was made")
    session = session_for(crucible)
    rerun_plan = plan_rerun(mfid, session, folder, {}) if mfid else plan_stale(project or "", session, folder)
    for dataset, reason in rerun_plan.left_out.items():
        get_run_logger().warning("%s is left out: %s", dataset, reason)
    engine = PrefectEngine(session, crucible, runner or _declared_runner(rerun_plan.pipeline.name, session))
    listener = step_listener(rerun_plan.pipeline)
    with reporting_if_stopped(rerun_plan.pipeline.name, listener) as reporter, engine:
        result = run_planned(
            rerun_plan.pipeline,
            rerun_plan.planned,
            session,
            lambda: engine,
            reporter,
            rerun_plan.choice,
            arrived=telling_arrived(),
        )
    show_result(result, session)
    if not result.ok:
        return Failed(message=f"rerun: {reasons_of(result)}")
    return Completed(message=f"rerun: {len(result.executed)} executed", data=result.to_json())


def _declared_runner(pipeline: str, session: Session) -> Runner | None:
    """Return the runner declared where the pipeline last ran, which records do not contain; None if unknown."""
    declaration = session.journal.declaration(pipeline)
    if declaration is None or not declaration.is_file():
        return None
    try:
        return load_pipeline(declaration).runner
    except InputError:  # the declaration is being edited
        return None
