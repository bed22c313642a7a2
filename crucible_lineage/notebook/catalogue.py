"""The catalogue: what one asks of a Crucible in Python, the same questions that the commands ask."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Self

from crucible_lineage.core.slots import CURRENT
from crucible_lineage.errors import InputError, RunError
from crucible_lineage.lineage.model import DOUBTFUL
from crucible_lineage.notebook.dataset import Dataset, Datasets
from crucible_lineage.notebook.views import Lineage, PlanView, Rows, RunView
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.engines.local import LocalEngine
from crucible_lineage.pipeline.inputs.corrections import (
    FieldChange,
    add_sample,
    all_changes,
    apply_changes,
    changes_of,
    link_datasets,
    link_sample,
    read_table,
    rename_sample,
    unlink_datasets,
)
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.run.result import StepChoice, StepEvent
from crucible_lineage.pipeline.run.run import plan_and_run
from crucible_lineage.queries.catalogue.listing import list_datasets
from crucible_lineage.queries.catalogue.reference import find_mfid, find_project
from crucible_lineage.queries.diff import LineageComparison, compare_datasets
from crucible_lineage.queries.explain import Explanation, explain
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.queries.impact import RequestedDeletion, ask_deletion
from crucible_lineage.queries.table import data_frame, make_table
from crucible_lineage.session import Session

if TYPE_CHECKING:
    import pandas

    from crucible_lineage.client import CrucibleClient

__all__ = ["Catalogue"]


def _unheard(_event: StepEvent) -> None:
    """Ignore events; the end of the run reports them."""


class Catalogue:
    """The datasets of a Crucible. Threads may share it; close it, or use it as a context manager.

    Where a dataset is asked for, its MFID, a unique beginning of it, its name, or itself will do. `project` may be left
    out where the catalogue has one, or this key sees only one. Questions raise InputError for what is not there.
    """

    def __init__(self, session: Session, project: str | None = None) -> None:
        self.session = session
        self._project = project
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._lock = threading.Lock()

    @property
    def client(self) -> CrucibleClient:
        """Crucible's API, for all that is not a question of this catalogue."""
        return self.session.client

    def dataset(self, name: str | Dataset) -> Dataset:
        """The dataset that is meant."""
        return Dataset(self, self._meant(name))

    def find(
        self,
        *,
        step: str | None = None,
        pipeline: str | None = None,
        run: str | None = None,
        project: str | None = None,
        sort: str | None = None,
        every: bool = False,
        doubtful: bool = False,
        **filters: object,
    ) -> Datasets:
        """Measured data and current results; with `every`, also what is superseded or incomplete.

        What is on hold, or comes from what is, is left out unless it is asked for as `doubtful`; the answer shows how
        many that are.

        `filters` are those of Crucible's own list, as `measurement`, `keyword`, `instrument_name`; `sort` is `created`,
        `name`, `step`, `pipeline`, `measurement` or `state`, with a minus before it the other way round.
        """
        found = list_datasets(
            self.session,
            self._in(project),
            step=step,
            pipeline=pipeline,
            run=run,
            filters=filters,
            sort=sort,
            every=every,
            doubtful=doubtful,
        )
        return Datasets(self, [entry.mfid for entry in found.entries], found.others.get(DOUBTFUL, 0))

    def current(self, step: str | None = None, *, pipeline: str | None = None, project: str | None = None) -> Datasets:
        """The results that hold now, of a step or of all, in the order in which they were made."""
        found = list_datasets(self.session, self._in(project), step=step, pipeline=pipeline, results=True)
        current = [entry.mfid for entry in found.entries if entry.state == CURRENT]
        return Datasets(self, current, found.others.get(DOUBTFUL, 0))

    def table(
        self,
        step: str,
        *,
        where: str | None = None,
        fields: str | Sequence[str] = (),
        by: str | Sequence[str] = (),
        pipeline: str | None = None,
        project: str | None = None,
        every: bool = False,
    ) -> pandas.DataFrame | Rows:
        """A row for each current result of a step, with parameters, returned values, instrument and sample.

        `where` is a condition as `"params.degree > 2 and results.rms < 0.5"`, `fields` are more columns, also of
        ancestors (`axis.results.rms`), `by` makes groups: all as the command `table` has them. A DataFrame where pandas
        is installed.
        """
        found = make_table(
            self.session,
            self._in(project),
            step,
            pipeline=pipeline,
            where=where,
            fields=[fields] if isinstance(fields, str) else fields,
            by=[by] if isinstance(by, str) else by,
            every=every,
        )
        try:
            return data_frame(found)
        except InputError:  # pandas is not installed
            return Rows(found)

    def plan(self, path: str | PathLike[str], *, params: Mapping[str, object] | None = None) -> PlanView:
        """Preview a run of the pipeline in that file: what it would do, and why.

        `params` are as `{"fit.degree": 4}`.
        """
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
        """The run of the pipeline in that file: what is not there yet is made, `jobs` steps at a time, and registered.

        `force` are steps to be made again, `only` the ones to be made. RunError, with what failed, unless all that was
        asked for is made and at Crucible; what is registered stays, and the next run goes on from there.
        """
        bound = bind_file(Path(path), self.session.store, dict(params or {}))
        most = jobs or min(8, (os.cpu_count() or 1) + 2)
        choice = StepChoice(tuple(force), tuple(only))
        result = plan_and_run(bound, self.session, lambda: LocalEngine(self.session, most), _unheard, choice)
        if not result.ok:
            failed = [*map(result.error_line, result.errors)]
            waiting = [f"{one.step}: waits to be delivered: {one.error}" for one in result.waiting]
            unseen = [f"what was there was not seen at Crucible: {result.unseen}"] if result.unseen else []
            told = "\n".join((*failed, *waiting, *unseen)) or "it was stopped"
            raise RunError(f"run pipeline {bound.name!r}: some steps failed\n{told}")
        return RunView(self, result)

    def lineage(self, name: str | Dataset) -> Lineage:
        """Where a dataset comes from and what was made of it."""
        mfid = self._meant(name)
        return Lineage(fetch_lineage(self.session, mfid), mfid)

    def diff(self, old: str | Dataset, new: str | Dataset) -> LineageComparison:
        """Compare two datasets, and all that they come from."""
        return compare_datasets(self.session, self._meant(old), self._meant(new))

    def why(self, name: str | Dataset) -> Explanation:
        """Explain how a dataset came to be."""
        return explain(self.session, self._meant(name))

    def set(
        self, name: str | Dataset, values: Mapping[str, object], *, why: str = "", dry_run: bool = False
    ) -> list[FieldChange]:
        """Set fields and metadata of a dataset, as `{"metadata.power_mW": 5}`; return what changed.

        It is noted who did it, when and why. With `dry_run` nothing is changed. Results that went by the old value are
        stale from then on.
        """
        changes = changes_of(self.session, self._meant(name), values)
        if not dry_run:
            apply_changes(self.session, changes, why)
        return changes

    def set_from(self, table: str | PathLike[str], *, why: str = "", dry_run: bool = False) -> list[FieldChange]:
        """Set what a CSV file says: a column `mfid`, and one for each field; an empty cell changes nothing.

        Return what changed. Every row is checked before the first is applied; with `dry_run` nothing is changed.
        """
        changes = all_changes(self.session, read_table(Path(table)), self._meant)
        if not dry_run:
            apply_changes(self.session, changes, why)
        return changes

    def rename(self, name: str | Dataset, new_name: str, *, why: str = "") -> Dataset:
        """Give a dataset another name; return it."""
        mfid = self._meant(name)
        self.set(Dataset(self, mfid), {"dataset_name": new_name}, why=why)
        return Dataset(self, mfid)

    def link(self, parent: str | Dataset, child: str | Dataset, *, why: str = "") -> None:
        """Make one dataset derived from another."""
        link_datasets(self.session, self._meant(parent), self._meant(child), why)

    def unlink(self, parent: str | Dataset, child: str | Dataset, *, why: str = "") -> None:
        """Remove the link between two datasets. What a step was made of stands in its record."""
        unlink_datasets(self.session, self._meant(parent), self._meant(child), why)

    def add_sample(
        self, name: str, *, on: Sequence[str | Dataset] = (), project: str | None = None, why: str = ""
    ) -> str:
        """Add a sample, on which the datasets `on` were measured; return its MFID."""
        measured = [self._meant(one) for one in on]
        return add_sample(self.session, self._in(project), name, measured, why)

    def rename_sample(self, sample: str, new_name: str, *, why: str = "") -> None:
        """Give a sample, by its MFID, another name. It is noted at the datasets that were measured on it."""
        rename_sample(self.session, sample, new_name, why)

    def link_sample(self, sample: str, *datasets: str | Dataset, why: str = "") -> None:
        """Say that these datasets were measured on a sample, by its MFID."""
        link_sample(self.session, sample, [self._meant(one) for one in datasets], why)

    def replace(self, old: str | Dataset, *files: str | PathLike[str], why: str = "") -> Dataset:
        """Register files that were measured or exported again to replace a measured dataset; return the new one.

        It takes over fields, metadata, keywords and samples. The old one is superseded from then on.
        """
        from crucible_lineage.pipeline.inputs.revisions import replace_measured  # what registers costs time to import

        paths = [Path(file) for file in files]
        if absent := [path for path in paths if not path.is_file()]:
            raise InputError(f"replace: there is no file {absent[0]}")
        if not paths:
            raise InputError("replace: name the files")
        return Dataset(self, replace_measured(self.session, self._meant(old), paths, why).mfid)

    def delete(self, name: str | Dataset, *, why: str = "", even_if_used: bool = False) -> RequestedDeletion:
        """Ask for a dataset to be deleted: it is hidden at once, and deleted when an administrator has agreed.

        Raises InputError, with what was made of it, if that is anything, unless `even_if_used` is True.
        """
        way_out = "look at its impact, or say even_if_used=True"
        return ask_deletion(self.session, self._meant(name), why, even_if_used=even_if_used, else_say=way_out)

    def keep(self, mfid: str, name: str, place: Callable[[Path], None]) -> Path:
        """Where a file of a dataset lies until the catalogue is closed; `place` puts it there if it does not yet."""
        with self._lock:
            if self._folder is None:
                self._folder = tempfile.TemporaryDirectory(prefix="crucible-lineage-", ignore_cleanup_errors=True)
            target = Path(self._folder.name) / mfid / name
            if not target.is_file():
                target.parent.mkdir(parents=True, exist_ok=True)
                place(target)
        return target

    def close(self) -> None:
        """Connections are closed, and copies of files are gone."""
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

    def _meant(self, name: str | Dataset) -> str:
        if isinstance(name, Dataset):
            return name.mfid
        if not isinstance(name, str):
            raise InputError(f"name a dataset by its MFID, the beginning of one, its name, or itself, not by {name!r}")
        return find_mfid(self.session, name, [self._project] if self._project else ())

    def _in(self, project: str | None) -> str:
        return find_project(self.session, project or self._project)
