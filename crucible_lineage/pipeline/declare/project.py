"""The project that a pipeline names: whether the first run can make it, and which one a folder's pipelines name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from crucible_lineage.errors import Fault, InputError
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id
from crucible_lineage.pipeline.declare.load import Declaration, read_declaration

__all__ = ["project_fault", "project_in"]


def project_in(folder: Path) -> str | None:
    """Return the project that the pipeline files in a folder name; None if they name none, or several."""
    projects = set()
    for file in sorted((*folder.glob("*.yaml"), *folder.glob("*.yml"))):
        with suppress(InputError):  # of another program
            spec = read_declaration(file).spec
            projects |= {spec.project} if spec else set()
    return projects.pop() if len(projects) == 1 else None


def project_fault(declared: Declaration) -> Fault | None:
    """Return why the pipeline's project cannot be made; None if it can, or if no project can be read."""
    project = declared.spec.project if declared.spec and "project" in declared.document.data else None
    if project is None or is_project_id(project):
        return None
    return declared.document.fault(("project",), f"no project can be called {project!r}: {PROJECT_ID_RULE}")
