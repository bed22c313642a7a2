"""Which engine runs the steps of a command, and Prefect's settings for runs of ours."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from crucible_lineage.disk import private_folder
from crucible_lineage.errors import InputError, LineageError, RunError
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.engines.engine import Engine
from crucible_lineage.pipeline.run.result import Choice, Listener, RunResult
from crucible_lineage.pipeline.run.run import plan_for_run, run_planned
from crucible_lineage.pipeline.run.stopping import Stop
from crucible_lineage.pipeline.spec.pipeline import Runner
from crucible_lineage.session import Session

__all__ = ["RunRequest", "prefect_is_configured", "run_with_engine"]

# Nothing of ours phones home; a slow machine gets time to start Prefect's ephemeral API (its own limit is 20 s).
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


@dataclass(frozen=True)
class RunRequest:
    """A run that was asked for: the pipeline, parameters for this run, and which steps."""

    pipeline: BoundPipeline
    overrides: Mapping[str, Any] = field(default_factory=dict)
    choice: Choice = Choice()
    runner: Runner | None = None


def run_with_engine(
    engine: str, request: RunRequest, session: Session, listener: Listener, jobs: int, stop: Stop | None = None
) -> RunResult:
    """The result of a run on `local`, `prefect`, or `auto`: Prefect where one is configured, else this process."""
    if request.runner and engine == "local":
        raise InputError("--runner says what Prefect runs the steps on; leave --engine local out")
    runner = request.runner or request.pipeline.spec.runner
    is_submitted = engine != "local" and runner is not None and runner.type == "slurm"
    asks_prefect = request.runner is not None and not is_submitted
    if engine == "prefect" or (engine == "auto" and (asks_prefect or prefect_is_configured())):
        return _run_on_prefect(request, session, listener, stop)
    if is_submitted:
        assert runner is not None
        return _run_on_slurm(request, session, listener, runner, stop)
    if runner and runner.type != "threads":
        way_out = "" if engine == "local" else "; with --engine prefect it is used"
        click.echo(f"note: runner {runner.type} is not used: steps run in threads of this process{way_out}", err=True)
    return _run_here(request, session, listener, lambda: _local_engine(session, jobs), stop)


def _run_here(
    request: RunRequest, session: Session, listener: Listener, engine: Callable[[], Engine], stop: Stop | None
) -> RunResult:
    pipeline, choice = request.pipeline, request.choice
    planned = plan_for_run(pipeline, session, listener, choice)
    gc.freeze()  # all of this is kept until the command ends, and need not be looked through again and again
    return run_planned(pipeline, planned, session, engine, listener, choice, stop)


def _run_on_slurm(
    request: RunRequest, session: Session, listener: Listener, runner: Runner, stop: Stop | None
) -> RunResult:
    from crucible_lineage.pipeline.engines.slurm import SlurmEngine  # few pipelines ask for Slurm

    with SlurmEngine(session, runner) as engine:
        return _run_here(request, session, listener, lambda: engine, stop)


def _local_engine(session: Session, jobs: int) -> Engine:
    from crucible_lineage.pipeline.engines.local import LocalEngine  # only a run that has something to do makes steps

    return LocalEngine(session, jobs)


def prefect_is_configured() -> bool:
    """True if a Prefect API is named in the environment or in the active Prefect profile. Does not import Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    import tomllib

    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = profiles.get("profiles", {}).get(os.environ.get("PREFECT_PROFILE") or profiles.get("active"), {})
    return bool(active.get("PREFECT_API_URL"))


def _run_on_prefect(request: RunRequest, session: Session, listener: Listener, stop: Stop | None) -> RunResult:
    """The run as a Prefect flow; a run in which all is fresh is told so without importing Prefect."""
    planned = plan_for_run(request.pipeline, session, listener, request.choice)
    if planned.plan.is_fresh:
        engine = lambda: _local_engine(session, 1)  # noqa: E731
        return run_planned(request.pipeline, planned, session, engine, listener, request.choice, stop)
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    if not prefect_is_configured():
        click.echo("starting Prefect for this run; that takes some seconds", err=True)
        os.environ.setdefault("PREFECT_HOME", str(private_folder(session.settings.data / "prefect")))
    # Importing Prefect costs over a second; only a run that has something to do pays for it.
    from crucible_lineage.flows.pipelines import observing, run_pipeline
    from crucible_lineage.flows.reaching import reaching_prefect
    from crucible_lineage.tasks.sessions import CrucibleConnection, share_session

    share_session(session)
    path, connection = str(request.pipeline.spec.path), CrucibleConnection.of(session.settings)
    way_out = "what is registered stays: run the same again when it is back, or with --engine local"
    with observing(listener, stop) as observer, reaching_prefect("run the pipeline", way_out):
        state = run_pipeline(
            path, connection, dict(request.overrides), request.choice, request.runner, return_state=True
        )
    if observer.result is None:
        error = state.result(raise_on_failure=False)
        if isinstance(error, LineageError):
            raise error
        raise RunError(f"the Prefect flow ended before the pipeline was run: {state.message}")
    return observer.result
