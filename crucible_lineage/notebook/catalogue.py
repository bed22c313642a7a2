"""The catalogue: the queries and actions of the commands, for Python; and its plans, runs and lineages."""

from __future__ import annotations

import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from html import escape
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from crucible_lineage.ask.diff import LineageComparison, compare_datasets
from crucible_lineage.ask.explain import Explanation, explain
from crucible_lineage.ask.impact import RequestedDeletion, request_deletion
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.listing import list_datasets
from crucible_lineage.ask.names import find_mfid, find_project
from crucible_lineage.ask.table import Table, data_frame, make_table
from crucible_lineage.errors import InputError, RunError
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import first_lines, nodes_text
from crucible_lineage.lineage.model import DOUBTFUL
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.lineage.text import render_tree
from crucible_lineage.notebook.dataset import Dataset, Datasets
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.corrections import FieldChange, set_values
from crucible_lineage.pipeline.plan.plan import PipelinePlan, StepPlan
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE

if TYPE_CHECKING:
    import pandas

    from crucible_lineage.client import CrucibleClient

__all__ = ["Catalogue", "Lineage", "PlanView", "RunView"]

MOST_LINES = 60  # of a plan or run in a notebook


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

    def find(
        self,
        *,
        step: str | None = None,
        pipeline: str | None = None,
        run: str | None = None,
        where: str | None = None,
        project: str | None = None,
        sort: str | None = None,
        every: bool = False,
    ) -> Datasets:
        """Return measured data and current results; with `every`, also superseded, incomplete and doubtful datasets.

        `where` is a condition over columns such as `"measurement == 'Raman'"`; `sort` is `created`, `name`, `step` or
        another column, after a minus in descending order.
        """
        found = list_datasets(
            self.session, self._in(project), step=step, pipeline=pipeline, run=run, where=where, sort=sort, every=every
        )
        return Datasets(self, [entry.mfid for entry in found.entries], found.others.get(DOUBTFUL, 0))

    def table(
        self,
        step: str,
        *,
        where: str | None = None,
        fields: str | Sequence[str] = (),
        by: str | Sequence[str] = (),
        over_time: str | None = None,
        pipeline: str | None = None,
        project: str | None = None,
        every: bool = False,
    ) -> pandas.DataFrame | Table:
        """Return a row for each current result of a step, with parameters, returned values, instrument and sample.

        `where` is a condition such as `"params.degree > 2 and results.rms < 0.5"`, `fields` are further columns, also
        of ancestors (`axis.results.rms`); `by` makes groups, and `over_time` follows a number over the time of
        measurement, as in the command `table`. Returns a DataFrame if pandas is installed; one of a number over time
        has the limits in `attrs["series"]`.
        """
        found = make_table(
            self.session,
            self._in(project),
            step,
            pipeline=pipeline,
            where=where,
            fields=[fields] if isinstance(fields, str) else fields,
            by=[by] if isinstance(by, str) else by,
            over_time=over_time,
            every=every,
        )
        try:
            return data_frame(found)
        except InputError:  # pandas is not installed
            return found

    def plan(self, path: str | PathLike[str], *, params: Mapping[str, object] | None = None) -> PlanView:
        """Preview a run of the pipeline in the file; `params` replace parameters, as in `{"fit.degree": 4}`."""
        bound = bind_file(Path(path), self.session.store, dict(params or {}))
        return PlanView(bound.name, make_plan(bound, self.session))

    def run(
        self,
        path: str | PathLike[str],
        *,
        params: Mapping[str, object] | None = None,
        force: Sequence[str] = (),
        only: Sequence[str] = (),
        jobs: int | None = None,
    ) -> RunView:
        """Run the pipeline in the file: make what is missing, `jobs` steps at a time, and register it.

        `force` names steps to rerun, `only` the steps to run. Raises RunError with the failures unless everything
        requested is made and at Crucible. Registered results stay, and the next run continues from there.
        """
        bound = bind_file(Path(path), self.session.store, dict(params or {}))
        most = jobs or JOBS_AT_ONCE
        choice = StepChoice(tuple(force), tuple(only))
        result = plan_and_run(bound, self.session, lambda: LocalEngine(self.session, most), lambda _: None, choice)
        if not result.ok:
            failed = [*map(result.error_line, result.errors)]
            waiting = [f"{one.step}: waits for delivery: {one.error}" for one in result.waiting]
            unseen = [f"existing results were not checked at Crucible: {result.unseen}"] if result.unseen else []
            reasons = "\n".join((*failed, *waiting, *unseen)) or "it was stopped"
            raise RunError(f"run pipeline {bound.name!r}: some steps failed\n{reasons}")
        return RunView(self, result)

    def lineage(self, name: str | Dataset) -> Lineage:
        """Return the lineage of a dataset: its ancestors and descendants."""
        mfid = self._mfid(name)
        return Lineage(fetch_lineage(self.session, mfid), mfid)

    def diff(self, old: str | Dataset, new: str | Dataset) -> LineageComparison:
        """Compare two datasets, including their ancestors."""
        return compare_datasets(self.session, self._mfid(old), self._mfid(new))

    def why(self, name: str | Dataset) -> Explanation:
        """Explain how a dataset was made."""
        return explain(self.session, self._mfid(name))

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
        """Register files that were measured or exported again in place of a measured dataset; return the new dataset.

        It takes over fields, metadata, keywords and samples. The old one is superseded.
        """
        from crucible_lineage.pipeline.plan.revisions import replace_measured  # slow to import

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

    def _mfid(self, name: str | Dataset) -> str:
        if isinstance(name, Dataset):
            return name.mfid
        if not isinstance(name, str):
            raise InputError(f"name a dataset by its MFID, the beginning of it, its name, or itself, not by {name!r}")
        return find_mfid(self.session, name, [self._project] if self._project else ())

    def _in(self, project: str | None) -> str:
        return find_project(self.session, project or self._project)


@dataclass(frozen=True)
class PlanView:
    """Plan of a run: for each step whether its result exists, and if not, why."""

    pipeline: str
    planned: PipelinePlan

    @property
    def steps(self) -> tuple[StepPlan, ...]:
        """The instances of the steps, in an order in which they can run."""
        return self.planned.steps

    @property
    def is_fresh(self) -> bool:
        """True if nothing would be made."""
        return self.planned.is_fresh

    def __repr__(self) -> str:
        states = Counter(step.state for step in self.steps)
        return f"<plan of {self.pipeline}: {', '.join(f'{count} {state}' for state, count in states.items())}>"

    def __str__(self) -> str:
        return "\n".join(
            f"{step.name}: {step.state}{f' ({causes})' if (causes := '; '.join(step.causes)) else ''}"
            for step in self.steps
        )

    def _repr_html_(self) -> str:
        return _page(repr(self), str(self).splitlines())


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
        return _page(repr(self), lines)


@dataclass(frozen=True)
class Lineage:
    """The ancestors and descendants of a dataset. `graph` has the nodes and edges; notebooks show a drawing."""

    graph: LineageGraph
    mfid: str

    @cached_property
    def svg(self) -> str:
        """The drawing as SVG."""
        return render_svg(self.graph, self.mfid)

    def __repr__(self) -> str:
        return f"<lineage of {self.mfid}: {nodes_text(len(self))}>"

    def __str__(self) -> str:
        return render_tree(self.graph, self.mfid)

    def __len__(self) -> int:
        return len(self.graph)

    def _repr_html_(self) -> str:
        return f'<div style="overflow:auto;max-width:100%">{self.svg}</div>'


def _page(title: str, lines: Sequence[str]) -> str:
    """Return a title and lines as HTML; of many lines the first, and the number of the others."""
    shown = "\n".join(first_lines(lines, MOST_LINES, "and {} more"))
    return f"<strong>{escape(title)}</strong><pre>{escape(shown)}</pre>"
