"""The projects."""

from __future__ import annotations

from starlette.responses import Response

from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["projects"]


def projects(reader: Reader) -> Response:
    """Show all projects that the reader's key sees, with how many datasets it sees in each."""
    counts = {facet.value: facet.count for facet in reader.client.datasets.facets("project", limit=1000)}
    listed = reader.client.projects.list()
    return rendered(
        "projects.html",
        reader.name,
        projects=[(project, counts.get(project.unique_id, 0)) for project in listed],
        without=counts.get(None, 0),
    )
