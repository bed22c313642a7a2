"""The catalogue: the queries and actions of the commands, for Python; its plans, runs and lineages; and `registering`,
which registers the results of steps that a notebook or a script calls, without any server."""

from __future__ import annotations

import atexit
import functools
import json
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Never, Self

from crucible_lineage.ask.listing import Listing
from crucible_lineage.ask.names import find_mfid
from crucible_lineage.ask.question import MODULES, NOTEBOOK, Question, find_question
from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError, RunError, nearest
from crucible_lineage.lineage.labels import first_lines
from crucible_lineage.lineage.model import DOUBTFUL
from crucible_lineage.notebook.dataset import Dataset, Datasets
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.corrections import FieldChange, set_values
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.pipeline.step_call import FlowSlots, called_step
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE, Settings, profile_settings, resolve_settings
from crucible_lineage.standing.slots import ClaimingRun
from crucible_lineage.step import Step, steps_run_by

__all__ = ["Catalogue", "RunView", "connect", "registering"]

MOST_LINES = 60  # of a run in a notebook
ENGINE = "python"


class Catalogue:
    """The datasets of a Crucible. Threads may share it; close it, or use it as a context manager.

    A dataset is named by its MFID, a unique beginning of it, its name, or the object itself. `project` may be omitted
    if the catalogue has one, or this key can see only one. Methods raise InputError for what does not exist.
    """

    def __init__(self, session: Session, project: str | None = None) -> None:
        self.session = session
        self._project = project
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> CrucibleClient:
        """The client of Crucible's API, for everything else."""
        return self.session.client

    def dataset(self, name: str | Dataset) -> Dataset:
        """Return a dataset."""
        return Dataset(self, self._mfid(name))

    def find(self, **given: Any) -> Datasets:
        """Return the datasets that `list` would list: measured data and current results; with `every=True` all."""
        found: Listing = self.list(**given)
        return Datasets(self, [entry.mfid for entry in found.entries], found.others.get(DOUBTFUL, 0))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """Return the method of a question, as in `catalogue.table("fit", where="results.rms < 0.5")`.

        There are list, show, table, runs, why, lineage, diff, impact, verify, statements, status and plan, each with
        the options of its command (`every` for `--all`). Tables are DataFrames if there is pandas.
        """
        if name not in MODULES:
            raise AttributeError(f"a catalogue has no {name!r}; {nearest(name, MODULES)}")
        question = find_question(name)
        names = [parameter.target for parameter in question.parameters if parameter.name != "project"]

        def ask(*given: object, params: Mapping[str, object] | None = None, **named: object) -> Any:
            named |= dict(zip(names, given, strict=False))
            if params:
                named["overrides"] = [f"{key}={json.dumps(value)}" for key, value in params.items()]
            return question.function(self.session, **self._resolved(question, named)).in_python()

        ask.__name__, ask.__doc__ = name, question.help_at(NOTEBOOK)
        return ask

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *MODULES})

    def _resolved(self, question: Question, named: Mapping[str, object]) -> dict[str, Any]:
        """Return the parameters with ids for datasets and texts for paths, within the catalogue's project."""
        found: dict[str, Any] = {}
        for name, value in named.items():
            found[name] = str(value) if isinstance(value, PathLike) else value
            if name in ("dataset", "old", "new"):
                with suppress(InputError):  # it may be a run, a step or a file
                    found[name] = self._mfid(value)
        has_project = any(parameter.target == "project" for parameter in question.parameters)
        is_free = not any(each.param.is_argument and each.target in found for each in question.parameters)
        question.require(found)
        return {"project": self._project, **found} if has_project and is_free and self._project else found

    def run(
        self,
        path: str | PathLike[str],
        *,
        params: Mapping[str, object] | None = None,
        force: Sequence[str] = (),
        only: Sequence[str] = (),
        jobs: int = JOBS_AT_ONCE,
    ) -> RunView:
        """Run the pipeline in the file: make what is missing, `jobs` steps at a time, and register it.

        `force` names steps to rerun, `only` the steps to run. Raises RunError with the failures unless everything
        requested is made and at Crucible. Registered results stay, and the next run continues from there.
        """
        bound = bind_file(Path(path), self.session.store, dict(params or {}))
        choice = StepChoice(tuple(force), tuple(only))
        result = plan_and_run(bound, self.session, lambda: LocalEngine(self.session, jobs), lambda _: None, choice)
        if not result.ok:
            failed = [*map(result.error_line, result.errors)]
            waiting = [f"{row.step}: waits for delivery: {row.error}" for row in result.waiting]
            unseen = [f"existing results were not checked at Crucible: {result.unseen}"] if result.unseen else []
            reasons = "\n".join((*failed, *waiting, *unseen)) or "it was stopped"
            raise RunError(f"run pipeline {bound.name!r}: some steps failed\n{reasons}")
        return RunView(self, result)

    def set(
        self, name: str | Dataset, values: Mapping[str, object], *, why: str = "", dry_run: bool = False
    ) -> list[FieldChange]:
        """Set fields, metadata and links of a dataset, as in `{"metadata.power_mW": 5, "parent+": other}`.

        Returns the changes. Author, time and reason are recorded. With `dry_run` nothing is changed. Results that used
        the old value become stale.
        """
        request = (f"set {name}", self._mfid(name), values)
        return set_values(self.session, [request], self._mfid, why, dry_run=dry_run)

    def keep(self, mfid: str, name: str, fetch: Callable[[Path], None]) -> Path:
        """Return the path of a dataset's file, kept until the catalogue is closed. `fetch` creates it if necessary."""
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="crucible-lineage-", ignore_cleanup_errors=True)
            target = Path(self._folder.name) / mfid / name
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                fetch(target)
        return target

    def close(self) -> None:
        """Close connections and remove copies of files."""
        self.session.close()
        with self._lock:
            if self._folder is not None:
                self._folder.cleanup()
                self._folder = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<catalogue: {self.session.settings.describe()}>"

    def _mfid(self, name: object) -> str:
        if isinstance(name, Dataset):
            return name.mfid
        if not isinstance(name, str):
            raise InputError(f"name a dataset by its MFID, the beginning of it, its name, or itself, not by {name!r}")
        return find_mfid(self.session, name, [self._project] if self._project else ())


@dataclass(frozen=True)
class RunView:
    """Outcome of a run of a pipeline; `run["fit"]` is the result of that step."""

    catalogue: Catalogue
    result: RunResult

    @property
    def outcomes(self) -> Mapping[str, str]:
        """How each instance of a step ended: executed, reused, left out."""
        return self.result.outcomes

    def __getitem__(self, step: str) -> Dataset | Datasets:
        """Return the dataset of a step or of one of its instances (`fit[a.txt]`), or datasets if there are several."""
        names = [name for name in self.result.datasets if step in (name, name.partition("[")[0])]
        if not names:
            raise KeyError(f"the run has no step {step!r}; there are: {', '.join(self.result.datasets)}")
        datasets = Datasets(self.catalogue, [mfid for name in names for mfid in self.result.datasets[name].values()])
        return datasets[0] if len(datasets) == 1 else datasets

    def __repr__(self) -> str:
        return f"<run {self.result.run_id} of {self.result.pipeline}: {len(self.result.executed)} executed>"

    def _repr_html_(self) -> str:
        made = self.result.datasets
        lines = [
            f"{step}: {outcome} {', '.join(made.get(step, {}).values())}" for step, outcome in self.outcomes.items()
        ]
        shown = "\n".join(first_lines(lines, MOST_LINES, "and {} more"))
        return f"<strong>{escape(repr(self))}</strong><pre>{escape(shown)}</pre>"


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
        self.catalogue = catalogue or _shared(resolve_settings())
        self.name = name or _script() or "notebook"
        self.run_id = uuid.uuid4().hex
        self._slots: FlowSlots | None = None
        self._made: dict[str, None] = {}
        self._open: list[AbstractContextManager[None]] = []

    def __call__(self, _: object) -> Never:
        """Refuse to decorate a flow, with what does."""
        raise TypeError("a flow is decorated by another one: from crucible_lineage.tasks import registering")

    @property
    def datasets(self) -> Datasets:
        """The results of the steps that were called, in this order."""
        return Datasets(self.catalogue, tuple(self._made))

    def __enter__(self) -> Self:
        session = self.catalogue.session
        session.ensure_project(self.project)
        run = ClaimingRun(self.run_id, datetime.now(UTC), _script())
        self._slots = FlowSlots(session, self.name, run, at_once=False)
        self._open.append(steps_run_by(self._run))
        self._open[-1].__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._open.pop().__exit__(None, None, None)
        if self._slots is not None:
            self._slots.settle(failed=kind is not None)

    def _run(self, step: Step[..., Any], inputs: Mapping[str, object], params: Mapping[str, object]) -> Any:
        """Run a step. Returns its dataset, or a mapping of them if it has several outputs."""
        session = self.catalogue.session
        refs = {role: _refs(value, self.catalogue) for role, value in inputs.items()}
        run = {"engine": ENGINE, "run_id": self.run_id}
        assert self._slots is not None  # steps get here only within the block
        outputs = called_step(session, self.project, step, refs, params, self._slots)(run)
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


@functools.cache
def _shared(_: Settings) -> Catalogue:
    """Return the catalogue of these settings; it stays open, since datasets are read after the block, too."""
    return connect()


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
