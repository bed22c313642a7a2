"""The flows for upkeep: verify a project, reproduce some of its results, and make stale ones again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from crucible_lineage.ask.verify import verify_project as verify
from crucible_lineage.errors import InputError
from crucible_lineage.flows.pipelines import THREADS, PrefectEngine, marked_alive
from crucible_lineage.flows.reports import failing_with_message, reporting, state_of, telling_arrived, tolerating
from crucible_lineage.json_types import json_of
from crucible_lineage.lineage.labels import plain
from crucible_lineage.pipeline.rerun import plan_rerun, plan_stale
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.remake.driver import Options
from crucible_lineage.remake.reproduce import BUILT, reproduce_datasets, sampled
from crucible_lineage.statements.consent import Consent
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for
from crucible_lineage.text.amounts import amount

MOST_ROWS = 500


@flow(name="verify-project", flow_run_name="verify {project}", persist_result=False)
@failing_with_message
def verify_project(project: str, read_bytes: bool = False, crucible: CrucibleConnection | None = None) -> State[Any]:
    """Verify a project. The flow run is Completed if there is no error, else Failed; a table lists the findings.

    Nothing in Crucible is changed.

    Args:
        project: The project's name in Crucible.
        read_bytes: Also download and hash every file.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
    """
    session = session_for(crucible)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    verification = verify(session, project, read_bytes=read_bytes)
    findings = amount(len(verification.findings), "finding") if verification.findings else "no findings"
    message = f"project {project}: {findings} in {verification.scope}"
    if verification.findings:
        rows = [json_of(finding) for finding in verification.findings[:MOST_ROWS]]
        with tolerating("the table of findings"):
            create_table_artifact(table=rows, key="findings", description=f"What verification found in {project}")
    if verification.ok:
        return Completed(message=message, data=verification.to_json())
    for finding in verification.findings[:MOST_ROWS]:
        logger.error("%s: %s", finding.check, plain(finding.message))
    return Failed(message=f"{message}; the first: {plain(verification.findings[0].message)}")


@flow(name="reproduce-sample", flow_run_name="reproduce {sample} of {project}", persist_result=False)
@failing_with_message
def reproduce_sample(
    project: str,
    sample: int = 20,
    here: bool = False,
    crucible: CrucibleConnection | None = None,
    run_code_of: Sequence[str] = (),
    network: bool = False,
) -> State[Any]:
    """Make some results again. The flow run is Completed if all are equal within tolerance; a table lists them.

    Else it is Failed with the first difference. Nothing at Crucible is changed.

    Args:
        project: The project's name in Crucible.
        sample: Number of current results, chosen at random.
        here: Use the environment of the worker, instead of the recorded versions.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
        run_code_of: Accounts whose code may run, beside the worker's own and `project trust --code`.
        network: Let the steps use the network.
    """
    session = session_for(crucible)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    mfids = sampled(session, project, sample)
    options = Options(here=here, network=network, environments=session.settings.data / BUILT)
    outcomes = reproduce_datasets(session, mfids, options, logger.info, consent=Consent(run_code_of))
    worst_first = [outcome.to_json() for outcome in sorted(outcomes, key=lambda outcome: outcome.is_good)]
    rows = [{name: outcome[name] for name in ("name", "mfids", "verdict", "said", "causes")} for outcome in worst_first]
    with tolerating("the table of what was made again"):
        create_table_artifact(table=rows, key="made-again", description=f"Results of {project}, made again")
    good = sum(outcome.is_good for outcome in outcomes)
    message = f"project {project}: {good} of {amount(len(outcomes), 'result')} reproduced"
    bad = [outcome for outcome in outcomes if not outcome.is_good]
    for outcome in bad:
        logger.error("%s", plain("\n".join(outcome.lines())))
    if not bad:
        return Completed(message=message, data=[outcome.to_json() for outcome in outcomes])
    return Failed(message=f"{message}; the first: {plain(next(bad[0].lines()))}")


@flow(name="rerun", persist_result=False, task_runner=THREADS)
@failing_with_message
def rerun(
    mfid: str | None = None,
    project: str | None = None,
    folder: Path | None = None,
    crucible: CrucibleConnection | None = None,
) -> State[Any]:
    """Make a dataset, or all stale results of a project, again. The flow run is Completed, or Failed with the reasons.

    Args:
        mfid: The dataset to be made again, with its stale ancestors.
        project: Instead of a dataset: the project of which all stale results are made again, in dependency order.
        folder: Folder with the steps' modules and scripts. By default, the one from which their pipeline last ran.
        crucible: Which Crucible to use. By default, the one configured where the flow runs.
    """
    if (mfid is None) == (project is None):
        raise InputError("rerun needs either a dataset or a project; nothing was made")
    session = session_for(crucible)
    rerun_plan = plan_rerun(mfid, session, folder, {}) if mfid else plan_stale(project or "", session, folder)
    for dataset, reason in rerun_plan.left_out.items():
        get_run_logger().warning("%s is left out: %s", dataset, reason)
    engine = PrefectEngine(session)
    with marked_alive(session.settings.data), reporting(rerun_plan.pipeline) as listen:
        result = plan_and_run(
            rerun_plan.pipeline,
            session,
            lambda: engine,
            listen,
            rerun_plan.choice,
            arrived=telling_arrived(),
            planned=rerun_plan.planned,
        )
    return state_of(result, session, "rerun")
