"""Projects as tasks."""

from __future__ import annotations

from crucible_lineage.client.models import Project
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = ["ensure_project", "list_projects"]


@api_task("project {project_id}")
def ensure_project(project_id: str, title: str | None = None, *, crucible: Crucible | None = None) -> str:
    """The project's name, once it is there: the embedded Crucible makes it, elsewhere InputError says it is missing."""
    session_for(crucible).ensure_project(project_id, title)
    return project_id


@api_task("list projects")
def list_projects(*, limit: int | None = None, crucible: Crucible | None = None) -> list[Project]:
    """The projects that the key may see."""
    return session_for(crucible).client.projects.list(limit=limit)
