"""The pipelines of a project, with how the results of their steps stand; and those of all projects, a row each."""

from __future__ import annotations

from starlette.responses import Response

from crucible_lineage.core.slots import CURRENT, INCOMPLETE, SUPERSEDED
from crucible_lineage.queries.catalogue.pipelines import pipelines_of
from crucible_lineage.queries.overview import overview
from crucible_lineage.web.pages.copying import still_reading
from crucible_lineage.web.reader import Reader
from crucible_lineage.web.rendering import rendered

__all__ = ["all_pipelines", "pipelines"]


def pipelines(reader: Reader) -> Response:
    """The page: what the records tell. What a declaration would do now, only who has the file can plan."""
    project = reader.client.projects.get(reader.request.path_params["project"])
    if waiting := still_reading(reader, project, "Pipelines"):
        return waiting
    with reader.sign_in.session() as session:
        found = pipelines_of(session, project.project_id)
    states = (CURRENT, SUPERSEDED, INCOMPLETE)
    return rendered("pipelines.html", reader.name, project=project, pipelines=found, states=states)


def all_pipelines(reader: Reader) -> Response:
    """Show how the pipelines of all projects stand, what needs a person first."""
    if waiting := still_reading(reader, None, "Pipelines"):
        return waiting
    with reader.sign_in.session() as session:
        found = overview(session)
    return rendered("overview.html", reader.name, pipelines=found)
