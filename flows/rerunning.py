"""The flow that makes recorded results again with what is current: one dataset, or all that is stale in a project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from crucible_lineage.errors import InputError
from crucible_lineage.flows.pipelines import PrefectEngine
from crucible_lineage.flows.reports import leave_artifacts, reasons_of, telling_what_was_made, with_its_error
from crucible_lineage.flows.runners import THREADS
from crucible_lineage.pipeline.declare.load import load_pipeline
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.result import PASSING, StepEvent
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
    """Completed if a dataset, or all that is stale in a project, was made again; Failed, with the reasons, if not.

    Args:
        mfid: The dataset to be made again, with what it descends from where that is stale.
        project: Instead of a dataset: the project of which all stale results are made again, in dependency order.
        folder: Where the steps' modules and scripts are. By default, where their pipeline was last run from.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
        runner: What steps run on. By default, what the declaration of their pipeline says, where it still is.
    """
    return with_its_error(lambda: _rerun(mfid, project, folder, crucible, runner))


def _rerun(
    mfid: str | None,
    project: str | None,
    folder: Path | None,
    crucible: CrucibleConnection | None,
    runner: Runner | None,
) -> State[Any]:
    if (mfid is None) == (project is None):
        raise InputError("say what to make again: a dataset, or a project")
    session = session_for(crucible)
    logger = get_run_logger()
    found = plan_rerun(mfid, session, folder, {}) if mfid else plan_stale(project or "", session, folder)
    for dataset, reason in found.left_out.items():
        logger.warning("%s is left out: %s", dataset, reason)

    def listen(event: StepEvent) -> None:
        if event.outcome not in PASSING:
            logger.info("%s: %s %s", event.step, event.outcome, event.detail)

    engine = PrefectEngine(session, crucible, runner or _declared_runner(found.pipeline.name, session))
    with telling_what_was_made(found.pipeline.name, listen) as heard, engine:
        result = run_planned(
            found.pipeline, found.planned, session, lambda: engine, heard, found.choice, arrived=telling_arrived()
        )
    if result.datasets:
        leave_artifacts(result, session)
    if not result.ok:
        return Failed(message=f"rerun: {reasons_of(result)}")
    return Completed(message=f"rerun: {len(result.executed)} executed", data=result.to_json())


def _declared_runner(pipeline: str, session: Session) -> Runner | None:
    """Return what the pipeline runs on, as declared where it last ran; records do not say that."""
    declaration = session.journal.declaration(pipeline)
    if declaration is None or not declaration.is_file():
        return None
    try:
        return load_pipeline(declaration)[0].runner
    except InputError:  # it is being edited; nothing else of it is needed here
        return None
