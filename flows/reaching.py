"""Access to Prefect's API, with its errors as ours, and flow runs that have lost their worker."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from crucible_lineage.errors import PrefectAwayError, RunError

# Prefixes of Prefect's plain RuntimeErrors when a flow run cannot begin.
UNREACHED = "Failed to reach API"
NOT_STARTED = "Timed out while attempting to connect to ephemeral Prefect API server"


@contextmanager
def reaching_prefect(action: str, remedy: str) -> Iterator[None]:
    """Convert errors of Prefect's API in this block: RunError if it refuses, PrefectAwayError if it is unreachable.

    Messages name the `action` that failed and its `remedy`.
    """
    try:
        yield
    except (httpx.HTTPError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not str(error).startswith((UNREACHED, NOT_STARTED)):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        where = f"Prefect at {PREFECT_API_URL.value()}"
        if str(error).startswith(NOT_STARTED):
            where = f"Prefect, which was started for this and keeps its database in {PREFECT_HOME.value()}"
        kind = RunError if isinstance(error, httpx.HTTPStatusError) else PrefectAwayError
        raise kind(f"could not {action}: {where}: {reason}\n{remedy}") from error


AFTER = timedelta(minutes=10)  # chosen: a worker that starts a process or a container takes less
MOST = 200
CRASHED = """'{"state": {"type": "CRASHED", "name": "Crashed"}, "force": true}'"""


@dataclass(frozen=True)
class AbandonedFlowRun:
    """An unfinished flow run without a worker; `since` is its last change."""

    id: str
    name: str
    state: str
    since: str
    pool: str

    @property
    def command(self) -> str:
        """Command that ends the flow run."""
        return f"prefect api POST /flow_runs/{self.id}/set_state --data {CRASHED}"


def flow_runs_left(after: timedelta = AFTER) -> list[AbandonedFlowRun]:
    """Return the runs of our deployments that have been Pending, or Running without their worker, for some time.

    A restarted worker of the same name counts as the same. Raises PrefectAwayError if Prefect is unreachable.
    """
    states = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    )
    run_filter = FlowRunFilter(state=states, tags=FlowRunFilterTags(all_=["crucible"]))
    with reaching_prefect("look for flow runs", "try again when it is running"), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=run_filter, limit=MOST)
        pools = {run.work_pool_name for run in runs if run.work_pool_name}
        started = {pool: _earliest(client, pool) for pool in pools}
    return [
        AbandonedFlowRun(
            str(run.id), run.name, str(run.state_name), run.state.timestamp.isoformat(), run.work_pool_name
        )
        for run in runs
        if run.state and run.work_pool_name and _is_left(run, started[run.work_pool_name], datetime.now(UTC) - after)
    ]


def _is_left(run: FlowRun, worker_started: datetime | None, before: datetime) -> bool:
    """Whether a run last changed `before` that time, and is pending or was started by no worker that is online."""
    assert run.state is not None
    if run.state.timestamp > before:
        return False
    if run.state_type == StateType.PENDING:
        return True
    return worker_started is None or (run.start_time is not None and worker_started > run.start_time)


def _earliest(client: SyncPrefectClient, pool: str) -> datetime | None:
    """Return when the first of the online workers started; None if none is online."""
    workers = client.read_workers_for_work_pool(pool)
    online = [worker for worker in workers if str(worker.status).upper().endswith("ONLINE")]
    return min((worker.created for worker in online if worker.created), default=None)
