"""Pages of projects, their datasets and runs, of pipelines, comparisons, and the findings of `verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from crucible_lineage.ask.columns import Column, Surface, as_table, columns_at
from crucible_lineage.ask.diff import compare_datasets
from crucible_lineage.ask.listing import Listing, list_datasets
from crucible_lineage.ask.names import find_mfid
from crucible_lineage.ask.overview import overview
from crucible_lineage.ask.runs import ListedRun, find_run, local_runs, newest_first, runs_by_results
from crucible_lineage.ask.verify import verify_project
from crucible_lineage.client.models import Project
from crucible_lineage.core.journal import Journal
from crucible_lineage.core.tables import EVERYTHING, Snapshot
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.checks import Finding
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import HIDDEN_NAME, csv_text
from crucible_lineage.standing.standings import Standing, standings_in
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import named_mfids, redacted, rendered

PER_PAGE = 50
MOST_LINES = 1000  # of a comparison; `diff` prints them all
MOST_FINDINGS = 200  # on the page; the command prints them all


def projects(reader: Reader) -> Response:
    """Show all projects that the reader's key can see."""
    return rendered("projects.html", reader.name, projects=reader.client.projects.list())


def datasets(reader: Reader) -> Response:
    """Show a page of the matching datasets of a project, or of all projects and of those without one."""
    project = _scope(reader)
    words = reader.parameter("q")
    if words and is_mfid(words):
        return RedirectResponse(f"/datasets/{words}", 303)
    found = _listing(reader, project)
    first, pages = _page(reader, len(found))
    query = {name: value for name, value in reader.query.items() if name != "page"}
    columns = _columns(project)
    return rendered(
        "browse.html",
        reader.name,
        project=project,
        here=f"/projects/{quote(project.project_id, safe='')}" if project else "",
        query=query,
        entries=found.entries[first : first + PER_PAGE],
        total=len(found),
        others=sorted(found.others.items()),
        page=reader.page,
        pages=pages,
        columns=columns,
        orders={column.name: _toggled(query, column.name) for column in columns if column.name != "results"},
    )


def datasets_csv(reader: Reader) -> Response:
    """Return all matching datasets of a project, or of all, as CSV."""
    project = _scope(reader)
    names, rows = as_table(_listing(reader, project).entries)
    name = f"{project.project_id if project else 'datasets'}.csv"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return Response(csv_text(names, rows), media_type="text/csv; charset=utf-8", headers=headers)


def _scope(reader: Reader) -> Project | None:
    """Return the project in the address; None for the addresses of all datasets."""
    return reader.project if "project" in reader.request.path_params else None


def _listing(reader: Reader, project: Project | None) -> Listing:
    """Return the datasets that the query selects, the newest first unless it names an order."""
    with reader.sign_in.session() as session:
        return list_datasets(
            session,
            project.project_id if project else EVERYTHING,
            step=reader.parameter("step"),
            pipeline=reader.parameter("pipeline"),
            words=reader.parameter("q") or "",
            where=reader.parameter("where"),
            sort=reader.parameter("sort") or "-created",
            every=reader.parameter("all") is not None,
        )


def _page(reader: Reader, total: int) -> tuple[int, int]:
    """Return the number of the first entry of the page that is shown, and the number of pages.

    Raises InputError if there is no such page.
    """
    pages = max(1, -(-total // PER_PAGE))
    if not 1 <= reader.page <= pages:
        raise InputError(f"there is no page {reader.page}; there are {pages}")
    return (reader.page - 1) * PER_PAGE, pages


def _columns(project: Project | None) -> list[Column]:
    return [column for column in columns_at(Surface.PAGE) if not (project and column.name == "project")]


def _toggled(query: Mapping[str, str], column: str) -> tuple[str, str]:
    """Return the sort order after a click on this column, reversed if it is the current one; and the current order."""
    sort = query.get("sort", "")
    if sort == column:
        return f"-{column}", "ascending"
    return column, "descending" if sort == f"-{column}" else "none"


def pipelines(reader: Reader) -> Response:
    """Show the status of the pipelines of all projects, those that need attention first."""
    with reader.sign_in.session() as session:
        found = overview(session).pipelines
    return rendered("overview.html", reader.name, pipelines=found)


@dataclass(frozen=True)
class RunRow:
    """A run with those of its outputs that the reader can see."""

    run: ListedRun
    outputs: tuple[Standing, ...]


def runs(reader: Reader) -> Response:
    """Show the runs of a project that have outputs, newest first."""
    project = reader.project
    copy, found = _runs(reader, project)
    first, pages = _page(reader, len(found))
    shown = _run_rows(reader, found[first : first + PER_PAGE], copy)
    return rendered(
        "runs.html", reader.name, project=project, runs=shown, total=len(found), page=reader.page, pages=pages
    )


def run(reader: Reader) -> Response:
    """Show one run with all its outputs. A beginning of its id, or an id of Prefect, leads to its own address."""
    project = reader.project
    copy, found = _runs(reader, project)
    named = reader.request.path_params["run"]
    one = next((one for one in found if one.run_id == named), None)
    if one is not None:
        return rendered(
            "run.html", reader.name, project=project, row=_run_rows(reader, [one], copy)[0], columns=_columns(project)
        )
    with reader.sign_in.session() as session:
        try:
            run_id = find_run(session, named, {project.project_id: copy}).run_id
        except InputError as error:
            raise HTTPException(404) from error
    if run_id not in {one.run_id for one in found}:
        raise HTTPException(404)
    return RedirectResponse(quote(run_id, safe=""), 303)


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


def _run_rows(reader: Reader, runs: Sequence[ListedRun], copy: Snapshot) -> list[RunRow]:
    with reader.sign_in.session() as session:
        made = dict.fromkeys(mfid for run in runs for mfid in run.made or ())
        found = standings_in(session, copy, reader.project.project_id, among=made)
    return [RunRow(run, tuple(found[mfid] for mfid in run.made or ())) for run in runs]


def compare(reader: Reader) -> Response:
    """Show the differences between two datasets and their ancestors, or a form if not both are named."""
    named = {name: reader.parameter(name) or "" for name in ("old", "new")}
    if not all(named.values()):
        return rendered("compare.html", reader.name, asked=named)
    with reader.sign_in.session() as session:
        try:
            found = compare_datasets(session, *(find_mfid(session, name) for name in named.values()))
        except InputError as error:
            return rendered("compare.html", reader.name, 400, asked=named, problem=str(error))
    hidden = _hidden(found.old) | _hidden(found.new)
    lines = [line for line in found.lines() if not (hidden and line.startswith("  facts."))]  # facts name parents
    shown = [redacted(line, hidden) for line in lines[:MOST_LINES]]
    return rendered("compare.html", reader.name, asked=named, lines=shown, more=len(lines) - len(shown))


def _hidden(graph: LineageGraph) -> set[str]:
    """Return the datasets in records that this reader cannot see."""
    named = (named_mfids(node.record) for node in graph.nodes.values() if node.record)
    return {mfid for mfids in named for mfid in mfids if mfid not in graph or mfid in graph.hidden}


def findings(reader: Reader) -> Response:
    """Show the findings of a project, worst first."""
    project = reader.project
    with reader.sign_in.session() as session:
        verified = verify_project(session, project.project_id)
    return rendered(
        "findings.html",
        reader.name,
        project=project,
        verified=verified,
        findings=[_redacted_finding(finding, verified.hidden) for finding in verified.findings[:MOST_FINDINGS]],
        total=len(verified.findings),
        counts=Counter(finding.severity for finding in verified.findings),
        hidden_name=HIDDEN_NAME,
    )


def _redacted_finding(finding: Finding, hidden: Collection[str]) -> Finding:
    return replace(
        finding,
        ids=tuple(redacted(mfid, hidden) for mfid in finding.ids),
        message=redacted(finding.message, hidden),
        command=redacted(finding.command, hidden),
    )
