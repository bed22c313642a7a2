"""The projects, and the rows of lists of datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.responses import Response

from crucible_lineage.client.models import Dataset
from crucible_lineage.queries.graph.standing import entries_in_projects
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["Row", "projects", "rows_of"]


@dataclass(frozen=True)
class Row:
    """A dataset in a list. `state` is current, superseded, incomplete, or raw."""

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


def rows_of(reader: Reader, datasets: Sequence[Dataset]) -> list[Row]:
    """The rows of datasets whose metadata were fetched."""
    with reader.sign_in.session() as session:
        states = [entry.state for entry in entries_in_projects(session, datasets)]
    return [Row(dataset, state) for dataset, state in zip(datasets, states, strict=True)]
