"""Pipeline runs of a project, by the records of their outputs and the journal of the server's data folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.responses import Response

from crucible_lineage.client.models import Project
from crucible_lineage.core.journal import Journal
from crucible_lineage.core.mirror import Snapshot
from crucible_lineage.core.slots import INCOMPLETE
from crucible_lineage.queries.catalogue.browse import page_of
from crucible_lineage.queries.catalogue.runs import (
    ListedRun,
    newest_first,
    remembered_runs,
    runs_by_results,
    with_memory,
)
from crucible_lineage.queries.graph.standing import Entry, entries_of_copy
from crucible_lineage.web.pages.copying import still_reading
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["run", "runs"]


@dataclass(frozen=True)
class RunRow:
    """A run with those of its outputs that the reader may see."""

    run: ListedRun
    outputs: tuple[Entry, ...]

    @property
    def state(self) -> str:
        """Return how the run ended; empty if neither the journal nor a record says so."""
        incomplete = sum(entry.state == INCOMPLETE for entry in self.outputs)
        return f"{incomplete} incomplete" if incomplete else self.run.state or ""

    @property
    def steps(self) -> str:
        """Return how many steps ended how, where the journal knows."""
        return ", ".join(f"{count} {outcome}" for outcome, count in (self.run.steps or {}).items())


def runs(reader: Reader) -> Response:
    """Show the runs of a project that have outputs, newest first."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    copy, found = _found(reader, project)
    shown, pages = page_of(found, reader.page)
    return rendered(
        "runs.html",
        reader.name,
        project=project,
        runs=[_row(one, copy) for one in shown],
        total=len(found),
        registered=[one for one in reversed(copy.summaries.values()) if one.tells_of_run][:20],
        page=reader.page,
        pages=pages,
    )


def run(reader: Reader) -> Response:
    """Show one run with all its outputs."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    copy, found = _found(reader, project)
    one = next((one for one in found if one.run_id == reader.request.path_params["run"]), None)
    if one is None:
        raise HTTPException(404)
    return rendered("run.html", reader.name, project=project, row=_row(one, copy))


def _found(reader: Reader, project: Project) -> tuple[Snapshot, list[ListedRun]]:
    """Return the copy of a project and its runs, newest first.

    A run is listed if the reader may see one of its outputs. How it ended is in the server's data folder, if it took
    place from there.
    """
    with reader.sign_in.session() as session:
        copy = session.mirror.snapshot(project.project_id)
    by_results = runs_by_results(copy, project.project_id)
    here = _remembered(reader.sign_in.data, project.project_id)
    return copy, newest_first(with_memory(run, here.get(run_id)) for run_id, run in by_results.items())


def _remembered(data: Path, project: str) -> dict[str, ListedRun]:
    path = data / "journal.sqlite"
    if not path.exists():
        return {}
    journal = Journal(path, "", str)  # only read, and by run
    try:
        return remembered_runs(journal, data, project)
    finally:
        journal.close()


def _row(run: ListedRun, copy: Snapshot) -> RunRow:
    entries = entries_of_copy(copy)
    return RunRow(run, tuple(entries[mfid] for mfid in run.made))
