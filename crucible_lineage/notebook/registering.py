"""`registering`: steps that are called within it become datasets, in a notebook or a script, without any server."""

from __future__ import annotations

import atexit
import functools
import sys
import threading
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from os import PathLike
from pathlib import Path
from typing import Any, Self

from crucible_lineage.errors import InputError
from crucible_lineage.notebook.catalogue import Catalogue
from crucible_lineage.notebook.dataset import Dataset, Datasets
from crucible_lineage.pipeline.step_call import FlowRun, FlowSlots, called_step
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, profile_settings, resolve_settings
from crucible_lineage.step import Step, StepRunner, open_runners, step_runner

__all__ = ["registering"]

ENGINE = "python"
_lock = threading.Lock()
_shared: dict[Settings, Catalogue] = {}  # datasets that were made are asked after the block, too


class registering:  # noqa: N801 (used like contextlib's helpers)
    """Within the block a step that is called gives a dataset, which is registered in the project with its parents.

    It may be given paths (measured data, registered if they are new), datasets, ids or names. What is there for the
    same inputs, parameters and code is not made again. `catalogue` says which Crucible; without it, that of
    `connect()`. Each use is one run: what it gives holds from its end on, in place of what earlier runs of the same
    `name` gave for the same step and data; by default that is the script's, or `notebook`. Needs no Prefect; within a
    Prefect flow use `crucible_lineage.tasks.registering`.
    """

    def __init__(self, project: str, *, catalogue: Catalogue | None = None, name: str | None = None) -> None:
        self.project = project
        self.catalogue = catalogue or _default()
        self.name = name or _script() or "notebook"
        self.run_id = uuid.uuid4().hex
        self._places: FlowSlots | None = None
        self._made: dict[str, None] = {}
        self._open: list[tuple[StepRunner, Any]] = []

    @property
    def datasets(self) -> Datasets:
        """Return the results of the steps that were called, in this order."""
        return Datasets(self.catalogue, tuple(self._made))

    def __enter__(self) -> Self:
        session = self.catalogue.session
        session.ensure_project(self.project)
        run = FlowRun(self.run_id, self.name, _script(), datetime.now(UTC).isoformat())
        self._places = FlowSlots(session, run, at_once=False)
        runner = functools.partial(self._run)
        self._open.append((runner, step_runner.set(runner)))
        open_runners.append(runner)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        runner, token = self._open.pop()
        step_runner.reset(token)
        open_runners.remove(runner)
        if self._places is not None:
            self._places.settle(failed=kind is not None)

    def _run(self, called: Step[..., Any], inputs: Mapping[str, object], params: Mapping[str, object]) -> Any:
        """The dataset that a step gives, or a mapping of them if it has several outputs."""
        session = self.catalogue.session
        given = {role: _refs(value, self.catalogue) for role, value in inputs.items()}
        run = {"engine": ENGINE, "run_id": self.run_id}
        assert self._places is not None  # steps come here within the block only
        outputs = called_step(session, self.project, called, given, params, self._places).make(run)
        made = {name: Dataset(self.catalogue, ref.mfid) for name, ref in outputs.items()}
        self._made |= dict.fromkeys(dataset.mfid for dataset in made.values())
        return next(iter(made.values())) if len(made) == 1 else made


def _refs(value: object, catalogue: Catalogue) -> Any:
    """Replace names of datasets in a step's argument by the datasets."""
    if isinstance(value, (list, tuple, Datasets)):
        return [_refs(one, catalogue) for one in value]
    if isinstance(value, Dataset):
        return value.ref
    if not isinstance(value, str):
        return value
    try:
        return catalogue.dataset(value).ref
    except InputError as error:
        if not Path(value).is_file():
            raise
        raise InputError(f"{error}; there is a file of that name: give it as Path({value!r})") from error


def _script() -> str:
    """The name of the script that runs; empty in a notebook or at a prompt."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).stem if path and "ipykernel" not in path else ""


def _default() -> Catalogue:
    settings = resolve_settings()
    with _lock:
        if settings not in _shared:
            _shared[settings] = connect()
        return _shared[settings]


def connect(
    data: str | PathLike[str] | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
    project: str | None = None,
) -> Catalogue:
    """A catalogue of the Crucible that is named; without an argument, the one that commands without options use.

    `data` alone means the Crucible embedded in that folder. Without it, `url` and `api_key`, the variables
    CRUCIBLE_API_URL and CRUCIBLE_API_KEY, and the official client's configuration file name a service, in this order;
    `profile` is a section of that file. Where none does, it is the one embedded in the user's data folder. Questions
    are about `project`, unless they name another one. Nothing is asked before the first question. Close it, or use it
    in a `with`; else it is closed with the process. InputError if what is named is not there or does not go together.
    """
    session = Session(_settings(data, url, api_key, profile))
    session.remake = _remade
    catalogue = Catalogue(session, project)
    atexit.register(catalogue.close)
    return catalogue


def _settings(data: str | PathLike[str] | None, url: str | None, api_key: str | None, profile: str | None) -> Settings:
    if data == "":  # which would be the current folder
        raise InputError("connect: the name of the data folder is empty; name one, or leave it out")
    folder = Path(data) if data is not None else None
    if profile is None:
        return resolve_settings(data=folder, api_url=url, api_key=api_key)
    if url is not None or api_key is not None:
        raise InputError("connect: a profile names the address and the key; give either, not both")
    return profile_settings(profile, data=folder)


def _remade(session: Session, mfid: str, sha256: str) -> Path:
    from crucible_lineage.remake.healing import remade_file  # hardly ever is something lost

    return remade_file(session, mfid, sha256)
