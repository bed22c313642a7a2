"""Steps in flows written by hand: a flow gains lineage by a changed import and one line.

    from crucible_lineage.tasks import registering, step as task

    @flow
    @registering(project="lab")
    def process(spectrum: Path, lamp: Path): ...

Inside such a flow a step may be given paths (registered as raw data if they are new), dataset ids, or the results of
other steps; it runs as a Prefect task, its outputs are registered, and what it returns stands for them.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run, task_run

from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.inspect import inspection_of
from crucible_lineage.pipeline.job.job import StepJob
from crucible_lineage.pipeline.job.materialize import materialize_step
from crucible_lineage.pipeline.plan.raw import existing_dataset, find_raw, hash_files, register_raw
from crucible_lineage.pipeline.plan.used import files_for_role
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session
from crucible_lineage.step import Step, step, step_runner
from crucible_lineage.tasks.retries import is_transient
from crucible_lineage.tasks.sessions import CrucibleConnection, session_for

__all__ = ["registering", "step"]

P = ParamSpec("P")
R = TypeVar("R")


class registering:  # noqa: N801 (used like contextlib's helpers: as a decorator, or in a `with`)
    """Steps called within are registered in this project, with their inputs as parents.

    A decorator for a flow function, below `@flow`; or a context manager inside of it.
    """

    def __init__(self, project: str, *, crucible: CrucibleConnection | None = None) -> None:
        self.project = project
        self.crucible = crucible
        self._open: Any = None

    def __call__(self, function: Callable[P, R]) -> Callable[P, R]:
        @functools.wraps(function)
        def registered(*args: P.args, **kwargs: P.kwargs) -> R:
            with _registering(self.project, self.crucible):
                return function(*args, **kwargs)

        return registered

    def __enter__(self) -> None:
        self._open = _registering(self.project, self.crucible)
        self._open.__enter__()

    def __exit__(self, *failure: Any) -> None:
        self._open.__exit__(*failure)


@contextmanager
def _registering(project: str, crucible: CrucibleConnection | None) -> Iterator[None]:
    session = session_for(crucible)
    session.ensure_project(project)
    run_id = uuid.uuid4().hex
    token = step_runner.set(functools.partial(_run_step, project, session, run_id))
    try:
        yield
    finally:
        step_runner.reset(token)


def _run_step(
    project: str,
    session: Session,
    run_id: str,
    called: Step[..., Any],
    inputs: Mapping[str, Any],
    params: Mapping[str, Any],
) -> Any:
    """The registered output of a step (a mapping of them, if it has several)."""
    uses = f"{called.function.__module__}:{called.function.__qualname__}"
    given = {name: value for name, value in params.items() if name not in called.outputs}
    inspection = inspection_of(called, uses, given)
    if missing := [role for role in inspection.required if role not in inputs]:
        raise InputError(f"step {called.name!r} was called without its input {missing[0]!r}")
    used = tuple(
        part for role, value in inputs.items() for part in _parents(project, session, inspection.roles, role, value)
    )

    @task(
        name=called.name,
        task_run_name=called.name,
        cache_policy=NO_CACHE,
        retries=3,
        retry_delay_seconds=[1, 5, 20],
        retry_condition_fn=is_transient,
    )
    def make() -> dict[str, str]:
        run = {
            "engine": "prefect",
            "run_id": run_id,
            "flow_run_id": str(flow_run.get_id() or ""),
            "task_run_id": str(task_run.get_id() or ""),
        }
        job = StepJob(called.name, project, inspection, given, used, step=called, run=run)
        return {name: dataset.mfid for name, dataset in materialize_step(job, session).outputs.items()}

    made = {name: existing_dataset(mfid, session) for name, mfid in make().items()}
    return next(iter(made.values())) if len(made) == 1 else made


def _parents(project: str, session: Session, roles: Mapping[str, str], role: str, value: Any) -> Iterator[UsedDataset]:
    values: Sequence[Any] = value if isinstance(value, (list, tuple)) else [value]
    for single in values:
        dataset = _dataset(project, session, single)
        yield UsedDataset(role, dataset, files_for_role(role, roles[role], dataset, None))


def _dataset(project: str, session: Session, value: Any) -> DatasetRef:
    if isinstance(value, DatasetRef):
        return value
    if isinstance(value, Path):
        if not value.is_file():
            raise InputError(f"there is no file {value}")
        raw = hash_files(project, [value], None, session)
        return find_raw(raw, session) or register_raw(raw, FileInput(file=str(value)), value.name, session)
    return existing_dataset(value, session)
