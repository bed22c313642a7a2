"""Datasets on a page, of a project or of all: words and filters together, counted, sorted, as CSV and JSON too."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date
from typing import Any
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from crucible_lineage.client.models import Project
from crucible_lineage.core.mirror import EVERYTHING
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.values import csv_text, told_value
from crucible_lineage.queries.catalogue.browse import FACETS, MOST_HITS, PER_PAGE, Browsed, Wanted, browse, page_of
from crucible_lineage.queries.graph.standing import Entry
from crucible_lineage.web.pages.copying import still_reading
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["all_csv", "all_datasets", "all_json", "project_csv", "project_datasets", "project_json"]

LABELS = {
    "step": "Step", "pipeline": "Pipeline", "state": "State", "measurement": "Measurement", "format": "Format",
    "session": "Session", "instrument": "Instrument", "project": "Project",
}  # fmt: skip
HEADERS = (
    ("name", "Name", ""), ("measurement", "Measurement", "wide"), ("kind", "Kind", "wide"), ("step", "Step", "wide"),
    ("project", "Project", "wide"), ("state", "State", ""), ("taken", "Taken", "wide"), ("size", "Size", "wide number"),
)  # fmt: skip
SHORTEST_SEARCH = 3
FIELDS = (
    *(
        "mfid",
        "dataset_name",
        "project",
        "state",
        "step",
        "pipeline",
        "measurement",
        "data_type",
        "data_format",
        "session_name",
    ),
    *("instrument_name", "timestamp", "created", "size"),
)


def project_datasets(reader: Reader) -> Response:
    """The datasets of a project that fit, a page of them."""
    return _datasets(reader, _project(reader))


def all_datasets(reader: Reader) -> Response:
    """The datasets of all projects, and of none, that fit, a page of them."""
    return _datasets(reader, None)


def project_csv(reader: Reader) -> Response:
    """All that fits in a project, as CSV."""
    return _csv(reader, _project(reader))


def project_json(reader: Reader) -> Response:
    """All that fits in a project, as JSON."""
    return _json(reader, _project(reader))


def all_csv(reader: Reader) -> Response:
    """All that fits, as CSV."""
    return _csv(reader, None)


def all_json(reader: Reader) -> Response:
    """All that fits, as JSON."""
    return _json(reader, None)


def _project(reader: Reader) -> Project:
    return reader.client.projects.get(reader.request.path_params["project"])


def _datasets(reader: Reader, project: Project | None) -> Response:
    words = reader.asked("q")
    if words and is_mfid(words):
        return RedirectResponse(f"/datasets/{words}", 303)
    if waiting := still_reading(reader, project):
        return waiting
    found = _found(reader, project)
    number = reader.page
    entries, pages = page_of(found.listed, number)
    query = {name: value for name, value in reader.query.items() if name not in ("page", "cursor")}
    facets = [name for name in FACETS if not (project and name == "project")]
    headers = [header for header in HEADERS if not (project and header[0] == "project")]
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
            (name, LABELS[name], found.facets[name]) for name in facets if len(found.facets[name]) or name in query
        ],
        headers=[(name, label, kind, _toggled(query, name)) for name, label, kind in headers],
        numbers=[(name, _toggled(query, f"results.{name}")) for name in found.numbers],
        key_numbers=_key_numbers,
        shown=lambda entry, name: _told(entry, name),
        most=MOST_HITS,
    )


def _csv(reader: Reader, project: Project | None) -> Response:
    rows = [_row(entry) for entry in _found(reader, project).entries]
    numbers = list(dict.fromkeys(name for row in rows for name in row["results"]))
    columns = [*FIELDS, *(f"results.{name}" for name in numbers)]
    cells = [[*(row[name] for name in FIELDS), *(row["results"].get(name) for name in numbers)] for row in rows]
    return _download(csv_text(columns, cells), "text/csv; charset=utf-8", f"{_file_name(project)}.csv")


def _json(reader: Reader, project: Project | None) -> Response:
    rows = [_row(entry) for entry in _found(reader, project).entries]
    told = {"project": project.project_id if project else None, "datasets": rows}
    return _download(json.dumps(told, ensure_ascii=False), "application/json", f"{_file_name(project)}.json")


def _file_name(project: Project | None) -> str:
    return project.project_id if project else "datasets"


def _found(reader: Reader, project: Project | None) -> Browsed:
    with reader.sign_in.session() as session:
        return browse(session, project.project_id if project else EVERYTHING, _wanted(reader))


def _wanted(reader: Reader) -> Wanted:
    service: dict[str, Any] = {}
    if keyword := reader.asked("keyword"):
        service["keyword"] = [keyword]
    if sample := reader.asked("sample"):
        service["sample_mfid"] = sample
    words, where = reader.asked("q") or "", reader.asked("in") or ""
    if where not in ("", "metadata"):
        raise InputError(f"in={where} is no place to search in; there is metadata, or leave it out")
    if words and where and len(words) < SHORTEST_SEARCH:
        raise InputError(f"A search in metadata needs {SHORTEST_SEARCH} letters or more, and {words!r} is shorter.")
    return Wanted(
        words="" if where else words,
        metadata=words if where else "",
        facets={name: value for name in FACETS if (value := reader.asked(name))},
        since=_date(reader, "since"),
        until=_date(reader, "until"),
        service=service,
        sort=reader.asked("sort") or "",
    )


def _date(reader: Reader, name: str) -> str:
    text = reader.asked(name) or ""
    try:
        return date.fromisoformat(text).isoformat() if text else ""
    except ValueError as error:
        raise InputError(f"{name}={text} is no date; dates look like 2026-05-01") from error


def _toggled(query: Mapping[str, str], column: str) -> tuple[str, str]:
    """Return the order that a click on this column gives, reversed if it is the present one; and the present order."""
    sort = query.get("sort", "")
    if sort == column:
        return f"-{column}", "ascending"
    return column, "descending" if sort == f"-{column}" else "none"


def _key_numbers(entry: Entry) -> str:
    return ", ".join(f"{name} {told_value(name, value)}" for name, value in list(entry.summary.numbers.items())[:3])


def _told(entry: Entry, name: str) -> str:
    value = entry.summary.numbers.get(name)
    return "" if value is None else told_value(name, value)


def _row(entry: Entry) -> dict[str, Any]:
    one, told = entry.summary, entry.to_json()
    return {
        **{
            name: told[name] for name in ("mfid", "dataset_name", "state", "step", "pipeline", "measurement", "created")
        },
        "project": one.standing.project or None,
        "data_type": one.data_type or None,
        "data_format": one.data_format or None,
        "session_name": one.session or None,
        "instrument_name": one.instrument or None,
        "timestamp": one.timestamp or None,
        "size": one.size,
        "superseded_by": list(entry.superseded_by),
        "results": dict(one.numbers),
    }


def _download(text: str, kind: str, name: str) -> Response:
    return Response(text, media_type=kind, headers={"Content-Disposition": f'attachment; filename="{name}"'})
