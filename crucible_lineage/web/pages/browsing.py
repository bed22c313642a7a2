"""Pages of projects, their datasets, pipelines and runs.

Datasets are searched by words and filters, counted and sorted, also as CSV and JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from crucible_lineage.client.models import Project
from crucible_lineage.core.datasets import in_threads
from crucible_lineage.core.journal import Journal
from crucible_lineage.core.slots import CURRENT, INCOMPLETE, SUPERSEDED
from crucible_lineage.core.tables import EVERYTHING, Snapshot
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.labels import csv_text
from crucible_lineage.queries.catalogue.columns import (
    Column,
    Surface,
    as_json,
    as_table,
    columns_at,
    facets,
    number_column,
)
from crucible_lineage.queries.catalogue.listing import MOST_HITS, PER_PAGE, DatasetSearch, SearchResult, browse, page_of
from crucible_lineage.queries.catalogue.runs import (
    ListedRun,
    find_run,
    local_runs,
    newest_first,
    pipelines_of,
    runs_by_results,
)
from crucible_lineage.queries.graph.state import DatasetEntry, entries_of_copy
from crucible_lineage.queries.overview import overview
from crucible_lineage.web.reader import Reader, still_reading
from crucible_lineage.web.rendering import rendered

SHORTEST_SEARCH = 3


def datasets(reader: Reader) -> Response:
    """Show a page of the matching datasets of a project, or of all projects and of those without one."""
    project = _scope(reader)
    words = reader.parameter("q")
    if words and is_mfid(words):
        return RedirectResponse(f"/datasets/{words}", 303)
    if waiting := still_reading(reader, project):
        return waiting
    found = _search_result(reader, project)
    number = reader.page
    entries, pages = page_of(found.listed, number)
    query = {name: value for name, value in reader.query.items() if name not in ("page", "cursor")}
    columns = _columns(project, found.numbers)
    return rendered(
        "browse.html",
        reader.name,
        project=project,
        here=f"/projects/{quote(project.project_id, safe='')}" if project else "",
        query=query,
        entries=entries,
        total=len(found.listed),
        page=number,
        pages=pages,
        folded=found.folded[:PER_PAGE] if number == 1 else (),
        superseded=len(found.folded),
        choices=[
            (column.name, column.heading, found.facets[column.name])
            for column in facets().values()
            if not (project and column.name == "project") and (found.facets[column.name] or column.name in query)
        ],
        columns=columns,
        orders={column.name: _toggled(query, column.name) for column in columns if column.name != "results"},
        most=MOST_HITS,
    )


def _columns(project: Project | None, numbers: Sequence[str] = ()) -> list[Column]:
    """Return the columns of a page, with a column for each of these numbers instead of a common one."""
    found: list[Column] = []
    for column in columns_at(Surface.PAGE):
        if column.name == "results" and numbers:
            found.extend(map(number_column, numbers))
        elif not (project and column.name == "project"):
            found.append(column)
    return found


def datasets_csv(reader: Reader) -> Response:
    """Return all matching datasets of a project, or of all, as CSV."""
    project = _scope(reader)
    names, rows = as_table(_search_result(reader, project).entries)
    return _download(csv_text(names, rows), "text/csv; charset=utf-8", f"{_file_name(project)}.csv")


def datasets_json(reader: Reader) -> Response:
    """Return all matching datasets of a project, or of all, as JSON."""
    project = _scope(reader)
    rows = as_json(_search_result(reader, project).entries)
    document = {"project": project.project_id if project else None, "datasets": rows}
    return _download(json.dumps(document, ensure_ascii=False), "application/json", f"{_file_name(project)}.json")


def _scope(reader: Reader) -> Project | None:
    """Return the project in the address; None for the addresses of all datasets."""
    return reader.project if "project" in reader.request.path_params else None


def _file_name(project: Project | None) -> str:
    return project.project_id if project else "datasets"


def _search_result(reader: Reader, project: Project | None) -> SearchResult:
    with reader.sign_in.session() as session:
        return browse(session, project.project_id if project else EVERYTHING, _search(reader))


def _search(reader: Reader) -> DatasetSearch:
    service: dict[str, object] = {}
    if keyword := reader.parameter("keyword"):
        service["keyword"] = [keyword]
    if sample := reader.parameter("sample"):
        service["sample_mfid"] = sample
    words, scope = reader.parameter("q") or "", reader.parameter("in") or ""
    if scope not in ("", "metadata"):
        raise InputError(f"in={scope}: searches are in metadata, or without `in` in names and fields")
    if words and scope and len(words) < SHORTEST_SEARCH:
        raise InputError(f"A search in metadata needs {SHORTEST_SEARCH} letters or more; {words!r} is shorter.")
    return DatasetSearch(
        words="" if scope else words,
        metadata=words if scope else "",
        facets={name: value for name in facets() if (value := reader.parameter(name))},
        since=_date(reader, "since"),
        until=_date(reader, "until"),
        service=service,
        sort=reader.parameter("sort") or "",
    )


def _date(reader: Reader, name: str) -> str:
    text = reader.parameter(name) or ""
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError as error:
        raise InputError(f"{name}={text} is not a date; write it as in 2026-05-01") from error


def _toggled(query: Mapping[str, str], column: str) -> tuple[str, str]:
    """Return the sort order after a click on this column, reversed if it is the current one; and the current order."""
    sort = query.get("sort", "")
    if sort == column:
        return f"-{column}", "ascending"
    return column, "descending" if sort == f"-{column}" else "none"


def _download(text: str, kind: str, name: str) -> Response:
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})


def projects(reader: Reader) -> Response:
    """Show all projects that the reader's key can see, with the number of visible datasets."""
    listed, count = reader.client.projects.list(), reader.client.datasets.count
    numbers = in_threads(lambda project: count(project_id=project.project_id), listed)
    return rendered(
        "projects.html",
        reader.name,
        projects=list(zip(listed, numbers, strict=True)),
        without=count(project_mfid_is_null=True),
    )


def pipelines(reader: Reader) -> Response:
    """Show the pipelines of a project from its records. Their plans need the declarations, which are not here."""
    project = reader.project
    if waiting := still_reading(reader, project, "Pipelines"):
        return waiting
    with reader.sign_in.session() as session:
        found = pipelines_of(session.mirror.snapshot(project.project_id))
    states = (CURRENT, SUPERSEDED, INCOMPLETE)
    return rendered("pipelines.html", reader.name, project=project, pipelines=found, states=states)


def all_pipelines(reader: Reader) -> Response:
    """Show the status of the pipelines of all projects, those that need attention first."""
    if waiting := still_reading(reader, None, "Pipelines"):
        return waiting
    with reader.sign_in.session() as session:
        found = overview(session)
    return rendered("overview.html", reader.name, pipelines=found)


@dataclass(frozen=True)
class RunRow:
    """A run with those of its outputs that the reader can see."""

    run: ListedRun
    outputs: tuple[DatasetEntry, ...]


def runs(reader: Reader) -> Response:
    """Show the runs of a project that have outputs, newest first."""
    project = reader.project
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    copy, found = _runs(reader, project)
    shown, pages = page_of(found, reader.page)
    return rendered(
        "runs.html",
        reader.name,
        project=project,
        runs=[_run_row(one, copy) for one in shown],
        total=len(found),
        page=reader.page,
        pages=pages,
    )


def run(reader: Reader) -> Response:
    """Show one run with all its outputs. A beginning of its id, or an id of Prefect, leads to its own address."""
    project = reader.project
    if waiting := still_reading(reader, project, "Runs"):
        return waiting
    copy, found = _runs(reader, project)
    named = reader.request.path_params["run"]
    one = next((one for one in found if one.run_id == named), None)
    if one is None:
        run_id = _run_id(reader, project, named, copy)
        if run_id not in {one.run_id for one in found}:
            raise HTTPException(404)
        return RedirectResponse(quote(run_id, safe=""), 303)
    return rendered("run.html", reader.name, project=project, row=_run_row(one, copy), columns=_columns(project))


def _run_id(reader: Reader, project: Project, named: str, copy: Snapshot) -> str:
    with reader.sign_in.session() as session:
        try:
            return find_run(session, named, {project.project_id: copy}).run_id
        except InputError as error:
            raise HTTPException(404) from error


def _runs(reader: Reader, project: Project) -> tuple[Snapshot, list[ListedRun]]:
    """Return the copy of a project and its runs, newest first.

    A run is listed if the reader can see one of its outputs. How it ended is known only for runs from the server's data
    folder.
    """
    with reader.sign_in.session() as session:
        copy = session.mirror.snapshot(project.project_id)
    local = _local_runs(reader.sign_in.data, project.project_id)
    return copy, newest_first(runs_by_results(copy, project.project_id, local).values())


def _local_runs(data: Path, project: str) -> dict[str, ListedRun]:
    path = data / "journal.sqlite"
    if not path.exists():
        return {}
    journal = Journal(path, "", str)  # read-only, without an account
    try:
        return local_runs(journal, data, project)
    finally:
        journal.close()


def _run_row(run: ListedRun, copy: Snapshot) -> RunRow:
    entries = entries_of_copy(copy)
    return RunRow(run, tuple(entries[mfid] for mfid in run.made or ()))
