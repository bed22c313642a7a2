"""What a project may be called where it is made by the first run that names it: in the embedded Crucible."""

from __future__ import annotations

from crucible_lineage.errors import Fault
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id
from crucible_lineage.pipeline.declare.load import Declaration

__all__ = ["project_fault"]


def project_fault(declared: Declaration) -> Fault | None:
    """Return why the pipeline's project cannot be made; None if it can, or if no project can be read."""
    project = declared.spec.project if declared.spec and "project" in declared.document.data else None
    if project is None or is_project_id(project):
        return None
    return declared.document.fault(("project",), f"no project can be called {project!r}: {PROJECT_ID_RULE}")
