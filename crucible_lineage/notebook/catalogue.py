"""The catalogue: the queries and actions of the commands, for Python; and its plans, runs and lineages."""

from __future__ import annotations

import json
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from html import escape
from os import PathLike
from pathlib import Path
from typing import Any, Self

from crucible_lineage.ask.impact import RequestedDeletion, request_deletion
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
from crucible_lineage.pipeline.plan.revisions import replace_measured
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE

__all__ = ["Catalogue", "RunView"]

MOST_LINES = 60  # of a run in a notebook


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
        the options of its command (`every` for `--all`), and calibrations. Tables are DataFrames if there is pandas.
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

    def replace(self, old: str | Dataset, *files: str | PathLike[str], why: str = "") -> Dataset:
        """Register files in place of a measured dataset, which is superseded; return the new one, described alike."""
        paths = [Path(file) for file in files]
        if absent := [path for path in paths if not path.is_file()]:
            raise InputError(f"replace: there is no file {absent[0]}")
        if not paths:
            raise InputError("replace: name the new files")
        return Dataset(self, replace_measured(self.session, self._mfid(old), paths, why).mfid)

    def delete(self, name: str | Dataset, *, why: str = "", even_if_used: bool = False) -> RequestedDeletion:
        """Request the deletion of a dataset: it is hidden at once, and deleted when an administrator has agreed.

        Raises InputError with the datasets made from it, if there are any and `even_if_used` is False.
        """
        way_out = "look at its impact, or pass even_if_used=True"
        return request_deletion(self.session, self._mfid(name), why, even_if_used=even_if_used, way_out=way_out)

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
