"""Prefect's API: errors as ours, and flow runs that have no worker."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType, FlowRunFilterTags
from prefect.client.schemas.objects import FlowRun, StateType, Worker
from prefect.settings import PREFECT_API_URL, PREFECT_HOME

from crucible_lineage.errors import PrefectAwayError, RunError

# Begin what Prefect says, as a plain RuntimeError, when a flow run cannot begin.
UNREACHED = "Failed to reach API"
NOT_STARTED = "Timed out while attempting to connect to ephemeral Prefect API server"


@contextmanager
def reaching_prefect(what: str, way_out: str) -> Iterator[None]:
    """`what` is done in this block by asking Prefect.

    RunError, with the way out, if it refuses; PrefectAwayError if it is away.
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
        raise kind(f"could not {what}: {where}: {reason}\n{way_out}") from error


AFTER = timedelta(minutes=10)  # chosen: a worker that starts a process or a container takes less
MOST = 200
CRASHED = """'{"state": {"type": "CRASHED", "name": "Crashed"}, "force": true}'"""


@dataclass(frozen=True)
class AbandonedFlowRun:
    """A flow run that has not ended and has no worker; `since` is its last change."""

    id: str
    name: str
    state: str
    since: str
    pool: str

    @property
    def command(self) -> str:
        """Return the command that ends it."""
        return f"prefect api POST /flow_runs/{self.id}/set_state --data {CRASHED}"


def flow_runs_left(after: timedelta = AFTER) -> list[AbandonedFlowRun]:
    """Return the runs of our deployments that have been Pending, or Running without their worker, for some time.

    A worker that is back under the same name counts as the one that began. Raises PrefectAwayError if Prefect is away.
    """
    states = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=[StateType.PENDING, StateType.RUNNING, StateType.CANCELLING])
    )
    wanted = FlowRunFilter(state=states, tags=FlowRunFilterTags(all_=["crucible"]))
    with reaching_prefect("look for flow runs", "try again when it is there"), get_client(sync_client=True) as client:
        runs = client.read_flow_runs(flow_run_filter=wanted, limit=MOST)
        pools = {run.work_pool_name for run in runs if run.work_pool_name}
        began = {pool: _earliest(client, pool) for pool in pools}
    return [
        AbandonedFlowRun(
            str(run.id), run.name, str(run.state_name), run.state.timestamp.isoformat(), run.work_pool_name
        )
        for run in runs
        if run.state and run.work_pool_name and _is_left(run, began[run.work_pool_name], datetime.now(UTC) - after)
    ]


def _is_left(run: FlowRun, began: datetime | None, before: datetime) -> bool:
    """Whether it last changed before that time, and waits to be started or was begun by no worker that is online."""
    assert run.state is not None
    if run.state.timestamp > before:
        return False
    if run.state_type == StateType.PENDING:
        return True
    return began is None or (run.start_time is not None and began > run.start_time)


def _earliest(client: SyncPrefectClient, pool: str) -> datetime | None:
    """When the first of the workers began that are online; None if none is."""
    online = [one for one in _workers(client, pool) if str(one.status).upper().endswith("ONLINE")]
    return min((one.created for one in online if one.created), default=None)


def _workers(client: SyncPrefectClient, pool: str) -> Iterable[Worker]:
    return client.read_workers_for_work_pool(pool)
