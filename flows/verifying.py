"""The flows that verify a project: whether all is as its records say, and some results made again are the same."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from crucible_lineage.amounts import amount
from crucible_lineage.flows.reports import with_its_error
from crucible_lineage.lineage.labels import plain
from crucible_lineage.queries.impact import note_what_follows
from crucible_lineage.queries.verify.verify import Verification
from crucible_lineage.queries.verify.verify import verify_project as verify
from crucible_lineage.remake.driver import Options, Outcome
from crucible_lineage.remake.receipts import state_receipts
from crucible_lineage.remake.reproduce import reproduce_datasets, sampled
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

MOST_ROWS = 500


@flow(name="verify-project", flow_run_name="verify {project}", persist_result=False)
def verify_project(project: str, read_bytes: bool = False, crucible: CrucibleConnection | None = None) -> State[Any]:
    """Completed if no error was found, else Failed with the findings; a table has them, the worst first.

    Changes nothing in Crucible.

    Args:
        project: The project's name in Crucible.
        read_bytes: Download every file and hash it, too.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
    """
    return with_its_error(lambda: _verify_project(project, read_bytes, crucible))


def _verify_project(project: str, read_bytes: bool, crucible: CrucibleConnection | None) -> State[Any]:
    session = session_for(crucible)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    found = verify(session, project, read_bytes=read_bytes)
    looked_at = f"{amount(found.datasets, 'dataset')} ({found.records} with a record), {amount(found.files, 'file')}"
    findings = amount(len(found.findings), "finding") if found.findings else "no findings"
    message = f"project {project}: {findings} in {looked_at}"
    if found.findings:
        _leave_findings(project, found)
    if found.ok:
        return Completed(message=message, data=found.to_json())
    for finding in found.findings[:MOST_ROWS]:
        logger.error("%s: %s", finding.check, plain(finding.message))
    return Failed(message=f"{message}; the first: {plain(found.findings[0].message)}")


def _leave_findings(project: str, found: Verification) -> None:
    rows = [
        {
            "class": finding.check,
            "severity": finding.severity,
            "datasets": " ".join(finding.ids),
            "what": plain(finding.message),
            "way out": finding.command,
        }
        for finding in found.findings[:MOST_ROWS]
    ]
    create_table_artifact(table=rows, key="findings", description=f"What verification found in project {project}")


@flow(name="reproduce-sample", flow_run_name="reproduce {sample} of {project}", persist_result=False)
def reproduce_sample(
    project: str,
    sample: int = 20,
    older_than: str | None = None,
    here: bool = False,
    crucible: CrucibleConnection | None = None,
) -> State[Any]:
    """Completed if all were the same, within the tolerance, else Failed with the first difference; a table has all.

    No result is changed; what came of each is stated as a receipt.

    Args:
        project: The project's name in Crucible.
        sample: How many current results are chosen at random.
        older_than: Only results that are older, as in 30d or 12h.
        here: In the environment of the worker, instead of one of the recorded versions.
        crucible: Which Crucible. By default, the environment where the flow runs says so.
    """
    return with_its_error(lambda: _reproduce(project, sample, older_than, crucible, here=here))


def _reproduce(
    project: str, sample: int, older_than: str | None, crucible: CrucibleConnection | None, *, here: bool
) -> State[Any]:
    session = session_for(crucible)
    logger = get_run_logger()
    logger.info(session.settings.describe())
    mfids = sampled(session, project, sample, older_than)
    options = Options(here=here, environments=session.settings.data / "environments")
    found = reproduce_datasets(session, mfids, options, logger.info)
    note_what_follows(session, found)
    _, faults = state_receipts(session, found)
    for fault in faults:
        logger.warning("%s", plain(fault))
    _leave_table(project, found)
    good = sum(one.is_good for one in found)
    message = f"project {project}: {good} of {amount(len(found), 'result')} made again the same"
    bad = [one for one in found if not one.is_good]
    for one in bad:
        logger.error("%s", plain("\n".join(one.lines())))
    if not bad:
        return Completed(message=message, data=[one.to_json() for one in found])
    return Failed(message=f"{message}; the first: {plain(next(bad[0].lines()))}")


def _leave_table(project: str, found: list[Outcome]) -> None:
    rows = [
        {
            "step": one.name,
            "datasets": " ".join(one.mfids),
            "verdict": one.verdict,
            "said": plain(one.said),
            "why": plain("; ".join(one.causes)),
        }
        for one in sorted(found, key=lambda one: one.is_good)
    ]
    create_table_artifact(table=rows, key="made-again", description=f"Results of project {project}, made again")
