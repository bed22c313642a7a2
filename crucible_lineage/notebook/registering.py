"""`registering`: register the results of steps that a notebook or a script calls, without any server."""

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
from crucible_lineage.pipeline.step_call import FlowSlots, called_step
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings, profile_settings, resolve_settings
from crucible_lineage.standing.slots import ClaimingRun
from crucible_lineage.step import Step, StepRunner, open_runners, step_runner

__all__ = ["registering"]

ENGINE = "python"
_lock = threading.Lock()
_shared: dict[Settings, Catalogue] = {}  # stay open, since datasets are read after the block, too


class registering:  # noqa: N801 (used like contextlib's helpers)
    """Make steps that are called within the block return datasets, registered in the project with their parents.

    Steps accept paths (measured data, registered if new), datasets, ids or names. Existing results of the same inputs,
    parameters and code are not made again. `catalogue` is the Crucible to use, by default that of `connect()`. Each use
    is one run: at its end, its results replace those of earlier runs of the same `name` for the same step and data. The
    default name is the script's, or `notebook`. Needs no Prefect; in a Prefect flow use
    `crucible_lineage.tasks.registering`.
    """

    def __init__(self, project: str, *, catalogue: Catalogue | None = None, name: str | None = None) -> None:
        self.project = project
        if catalogue is None:
            settings = resolve_settings()
            with _lock:
                if settings not in _shared:
                    _shared[settings] = connect()
                catalogue = _shared[settings]
        self.catalogue = catalogue
        self.name = name or _script() or "notebook"
        self.run_id = uuid.uuid4().hex
        self._slots: FlowSlots | None = None
        self._made: dict[str, None] = {}
        self._open: list[tuple[StepRunner, Any]] = []

    @property
    def datasets(self) -> Datasets:
        """The results of the steps that were called, in this order."""
        return Datasets(self.catalogue, tuple(self._made))

    def __enter__(self) -> Self:
        session = self.catalogue.session
        session.ensure_project(self.project)
        run = ClaimingRun(self.run_id, datetime.now(UTC), _script())
        self._slots = FlowSlots(session, self.name, run, at_once=False)
        runner = functools.partial(self._run)
        self._open.append((runner, step_runner.set(runner)))
        open_runners.append(runner)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        runner, token = self._open.pop()
        step_runner.reset(token)
        open_runners.remove(runner)
        if self._slots is not None:
            self._slots.settle(failed=kind is not None)

    def _run(self, step: Step[..., Any], inputs: Mapping[str, object], params: Mapping[str, object]) -> Any:
        """Run a step. Returns its dataset, or a mapping of them if it has several outputs."""
        session = self.catalogue.session
        refs = {role: _refs(value, self.catalogue) for role, value in inputs.items()}
        run = {"engine": ENGINE, "run_id": self.run_id}
        assert self._slots is not None  # steps get here only within the block
        outputs = called_step(session, self.project, step, refs, params, self._slots).make(run)
        made = {name: Dataset(self.catalogue, ref.mfid) for name, ref in outputs.items()}
        self._made |= dict.fromkeys(dataset.mfid for dataset in made.values())
        return next(iter(made.values())) if len(made) == 1 else made


def _refs(value: object, catalogue: Catalogue) -> Any:
    """Replace names of datasets in a step's argument by the datasets."""
    if isinstance(value, list | tuple):
        return [_refs(item, catalogue) for item in value]
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
    """Return the name of the running script; empty in a notebook or at a prompt."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return Path(path).stem if path and "ipykernel" not in path else ""


def connect(
    data: str | PathLike[str] | None = None,
    *,
    url: str | None = None,
    api_key: str | None = None,
    profile: str | None = None,
    project: str | None = None,
) -> Catalogue:
    """Return a catalogue of a Crucible; without arguments, the one that commands without options use.

    `data` alone means the Crucible embedded in that folder. Otherwise `url` and `api_key`, the variables
    CRUCIBLE_API_URL and CRUCIBLE_API_KEY, and the official client's configuration file name a service, in this order;
    `profile` is a section of that file. If none does, it is the one embedded in the user's data folder. Queries use
    `project` unless they name another one. No request is made before the first query. Close the catalogue, or use it
    in a `with`; otherwise it is closed at exit. Raises InputError for missing or contradictory arguments.
    """
    if data == "":  # would be the current folder
        raise InputError("connect: the name of the data folder is empty; name one, or leave it out")
    if profile is not None and (url is not None or api_key is not None):
        raise InputError("connect: a profile names the address and the key; give either, not both")
    folder = Path(data) if data is not None else None
    if profile is None:
        settings = resolve_settings(data=folder, api_url=url, api_key=api_key)
    else:
        settings = profile_settings(profile, data=folder)
    catalogue = Catalogue(Session(settings), project)
    atexit.register(catalogue.close)
    return catalogue
