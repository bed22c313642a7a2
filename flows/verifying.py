"""The flow that verifies a project: whether all is still as the provenance records say."""

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
from crucible_lineage.queries.verify.verify import Verification
from crucible_lineage.queries.verify.verify import verify_project as verify
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = ["verify_project"]

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
        _leave_table(project, found)
    if found.ok:
        return Completed(message=message, data=found.to_json())
    for finding in found.findings[:MOST_ROWS]:
        logger.error("%s: %s", finding.check, plain(finding.message))
    return Failed(message=f"{message}; the first: {plain(found.findings[0].message)}")


def _leave_table(project: str, found: Verification) -> None:
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
