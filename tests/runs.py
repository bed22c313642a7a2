"""Runs of pipelines on threads of this process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session


def run(session: Session, path: Path, choice: StepChoice = StepChoice(), **overrides: Any) -> RunResult:
    """Run the pipeline in a file; `scaled__factor=3` sets a parameter of a step."""
    bound = bind_file(path, session.store, {name.replace("__", "."): value for name, value in overrides.items()})
    return plan_and_run(bound, session, lambda: LocalEngine(session, 2), lambda event: None, choice)


def states(session: Session, path: Path) -> dict[str, str]:
    """The planned states of the steps of the pipeline in a file."""
    return {step.name: step.state for step in make_plan(bind_file(path, session.store), session).steps}


def listed_states(session: Session, project: str = "lab") -> dict[str, str]:
    """The state of each dataset of a project, as lists have it."""
    return {standing.mfid: standing.state for standing in list_datasets(session, project, every=True).entries}


def forget(mirror: Mirror) -> None:
    """Let a mirror have read nothing."""
    for table in ("dataset", "trusted", "member", "slot", "feed", "absent"):
        mirror.write(f"DELETE FROM {table}")
