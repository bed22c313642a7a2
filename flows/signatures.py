"""Flow runs that wait for signatures: suspended, with no process alive, and resumed when their results are signed."""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from uuid import uuid4

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.exceptions import NotPausedError
from prefect.flow_runs import resume_flow_run, suspend_flow_run
from prefect.runtime import deployment, flow_run

__all__ = ["resume_signed", "suspend_until_signed"]

PAUSED = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED]))
TAG = "unsigned-"  # of a flow run that waits: with the id of each result that needs a signature


def suspend_until_signed(mfids: Collection[str]) -> None:
    """End this flow run as Suspended, tagged with the results that need signatures.

    Whoever signs them resumes it; a worker then runs the flow once more, which finds the signatures. Nothing is done
    for a run without a deployment, which no worker can resume, and where another run waits for the same results.
    """
    if not mfids or not deployment.id:
        return
    with get_client(sync_client=True) as client:
        same = FlowRunFilterTags(all_=[TAG + mfid for mfid in mfids])
        if client.read_flow_runs(flow_run_filter=FlowRunFilter(tags=same, state=PAUSED), limit=1):
            return
        tags = [tag for tag in client.read_flow_run(flow_run.id).tags if not tag.startswith(TAG)]
        client.update_flow_run(flow_run.id, tags=sorted({*tags, *(TAG + mfid for mfid in mfids)}))
    suspend_flow_run(timeout=None, key=str(uuid4()))  # by a new key each time: a resumed run may have to wait again


def resume_signed(mfids: Collection[str]) -> list[str]:
    """Resume the flow runs that wait for signatures of these results. Returns their names."""
    if not mfids:
        return []
    waits = FlowRunFilter(tags=FlowRunFilterTags(any_=[TAG + mfid for mfid in mfids]), state=PAUSED)
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=waits)
    resumed = []
    for run in found:
        with suppress(NotPausedError):  # somebody else was faster
            resume_flow_run(run.id)
            resumed.append(run.name)
    return resumed
