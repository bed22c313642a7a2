"""Which engine runs the steps of a command, and Prefect's settings for runs of ours."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Collection
from pathlib import Path

import click

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import BoundPipeline
from crucible_lineage.pipeline.run import Listener, LocalEngine, RunResult, make_plan, run_pipeline
from crucible_lineage.session import Session

__all__ = ["prefect_is_configured", "run_with_engine"]

# Nothing of ours phones home; a slow machine gets time to start Prefect's ephemeral API (its own limit is 20 s).
PREFECT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "180",
    "PREFECT_LOGGING_LEVEL": "ERROR",
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    "PREFECT_SERVER_LOGGING_LEVEL": "ERROR",
}


def run_with_engine(
    engine: str,
    pipeline: BoundPipeline,
    session: Session,
    listener: Listener,
    jobs: int,
    forced: Collection[str] = (),
) -> RunResult:
    """The result of a run on `local`, `prefect`, or `auto`: Prefect where one is configured, else this process."""
    if engine == "local" or (engine == "auto" and not prefect_is_configured()):
        return run_pipeline(pipeline, session, lambda: LocalEngine(pipeline, session, jobs), listener, forced)
    return _run_on_prefect(pipeline, session, listener, forced)


def prefect_is_configured() -> bool:
    """True if a Prefect API is named in the environment or in the active Prefect profile. Does not import Prefect."""
    if os.environ.get("PREFECT_API_URL"):
        return True
    home = Path(os.environ.get("PREFECT_HOME") or Path.home() / ".prefect")
    try:
        profiles = tomllib.loads((home / "profiles.toml").read_text(encoding="utf-8"))
    except (OSError, tomllib.TOMLDecodeError):
        return False
    active = profiles.get("profiles", {}).get(os.environ.get("PREFECT_PROFILE") or profiles.get("active"), {})
    return bool(active.get("PREFECT_API_URL"))


def _run_on_prefect(
    pipeline: BoundPipeline, session: Session, listener: Listener, forced: Collection[str]
) -> RunResult:
    """The run as a Prefect flow; a run in which all is fresh is told so without importing Prefect."""
    if make_plan(pipeline, session, forced).is_fresh:
        return run_pipeline(pipeline, session, lambda: LocalEngine(pipeline, session, 1), listener)
    for name, value in PREFECT_SETTINGS.items():
        os.environ.setdefault(name, value)
    if not prefect_is_configured():
        click.echo("starting Prefect for this run; that takes some seconds", err=True)
        os.environ.setdefault("PREFECT_HOME", str(session.settings.data / "prefect"))
    # Importing Prefect costs over a second; only a run that has something to do pays for it.
    from crucible_lineage.flows.pipelines import observing
    from crucible_lineage.flows.pipelines import run_pipeline as run_flow
    from crucible_lineage.tasks.sessions import CrucibleConnection, share_session

    share_session(session)
    with observing(listener) as observer:
        state = run_flow(
            str(pipeline.spec.path), CrucibleConnection.of(session.settings), tuple(forced), return_state=True
        )
    if observer.result is None:
        raise InputError(f"the Prefect flow ended before the pipeline was run: {state.message}")
    return observer.result
