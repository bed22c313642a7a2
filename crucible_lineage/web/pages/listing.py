"""Lists: the projects, and datasets by project, by filters and by search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from starlette.responses import RedirectResponse, Response

from crucible_lineage.client.filters import DatasetFilters
from crucible_lineage.client.models import Dataset, FacetValue, Project
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.records import state
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["Row", "all_datasets", "project_datasets", "projects", "rows_of"]

PER_PAGE = 50
MOST_FOUND = 50  # the service gives no more
SHORTEST_SEARCH = 3
SORTS = {
    "": ("newest data first", {}),
    "created": ("registered last first", {"sort": "created"}),
    "updated": ("changed last first", {"sort": "updated"}),
    "name": ("by name", {"sort": "name"}),
}
EXACT = {"measurement": "measurement", "format": "data_format", "session": "session_name", "sample": "sample_mfid"}
CHOICES = {"measurement": "Measurement", "format": "Format", "session": "Session"}
FACETS = {"measurement": "measurement", "format": "data_format", "session": "session"}


@dataclass(frozen=True)
class Row:
    """A dataset in a list. `state` is what its provenance says, empty where it has none."""

    record: Dataset
    state: str


def projects(reader: Reader) -> Response:
    """All projects that the reader's key sees, with how many datasets it sees in each."""
    counts = {facet.value: facet.count for facet in reader.client.datasets.facets("project", limit=1000)}
    listed = reader.client.projects.list()
    return rendered(
        "projects.html",
        reader.name,
        projects=[(project, counts.get(project.unique_id, 0)) for project in listed],
        without=counts.get(None, 0),
    )


def all_datasets(reader: Reader) -> Response:
    """Datasets of all projects."""
    return _datasets(reader, None)


def project_datasets(reader: Reader) -> Response:
    """The datasets of a project."""
    return _datasets(reader, reader.client.projects.get(reader.request.path_params["project"]))


def rows_of(datasets: Sequence[Dataset]) -> list[Row]:
    """The rows of datasets whose metadata were fetched."""
    return [Row(dataset, state({"scientific_metadata": dataset.scientific_metadata})) for dataset in datasets]


def _datasets(reader: Reader, project: Project | None) -> Response:
    words = reader.asked("q")
    if words and is_mfid(words):
        return RedirectResponse(f"/datasets/{words}", 303)
    home: DatasetFilters = {"project_id": project.project_id} if project else {}
    filters = {**_filters(reader), **home}
    problem = f"A search needs {SHORTEST_SEARCH} letters or more." if words and len(words) < SHORTEST_SEARCH else None
    if words and not problem:
        rows, next_cursor, total = rows_of(_found(reader, words, filters)), None, None
    else:
        page = reader.client.dataset_page(
            PER_PAGE, reader.asked("cursor"), include_metadata=True, **filters, **_sort(reader)
        )
        rows, next_cursor, total = rows_of(page.datasets), page.next_cursor, page.total
    return rendered(
        "datasets.html",
        reader.name,
        project=project,
        rows=rows,
        total=total,
        next_cursor=next_cursor,
        problem=problem,
        query={name: value for name, value in reader.query.items() if name != "cursor"},
        is_first="cursor" not in reader.query,
        choices=_choices(reader, home),
        sorts={name: label for name, (label, _) in SORTS.items()},
        is_search=bool(words and not problem),
        most=MOST_FOUND,
    )


def _found(reader: Reader, words: str, filters: Mapping[str, Any]) -> list[Dataset]:
    """The best matches that also fit the filters: the service's search knows none but the project."""
    client = reader.client
    if reader.asked("in") == "metadata":
        hits = client.datasets.search_scientific_metadata(words, limit=MOST_FOUND)
        mfids = [hit.unique_id for hit in hits if hit.resource_type == "dataset"]
    else:
        found = client.datasets.search(words, limit=MOST_FOUND, project_id=filters.get("project_id"))
        mfids = [dataset.unique_id for dataset in found]
    kept: list[Dataset] = []
    for mfid in mfids:
        kept += client.dataset_page(1, include_metadata=True, unique_id=mfid, **filters).datasets
    return kept


def _filters(reader: Reader) -> dict[str, Any]:
    """The filters in the query, as the service calls them."""
    found: dict[str, Any] = {wire: value for name, wire in EXACT.items() if (value := reader.asked(name))}
    if keyword := reader.asked("keyword"):
        found["keyword"] = [keyword]
    for name, wire in (("since", "creation_time_gte"), ("until", "creation_time_lte")):
        if text := reader.asked(name):
            try:
                found[wire] = date.fromisoformat(text)
            except ValueError as error:
                raise InputError(f"{name}={text} is no date; dates look like 2026-05-01") from error
    return found


def _sort(reader: Reader) -> Mapping[str, str]:
    name = reader.asked("sort") or ""
    if name not in SORTS:
        raise InputError(f"there is no order {name!r}; there are: {', '.join(filter(None, SORTS))}")
    return SORTS[name][1]


def _choices(reader: Reader, home: DatasetFilters) -> list[tuple[str, str, list[FacetValue]]]:
    """(parameter, label, values with counts) of the filters that are chosen from a list."""
    return [
        (name, label, [facet for facet in reader.client.datasets.facets(FACETS[name], **home) if facet.value])
        for name, label in CHOICES.items()
    ]
