"""The embedded Crucible: the service's HTTP API over SQLite and files on disk, for one machine.

What is imported here costs nothing; `running` loads Starlette, pydantic and uvicorn.
"""

from __future__ import annotations

from crucible_lineage.server.database import (
    DataFolder,
    instance_id,
    present_datasets,
    project_changes,
    project_revision,
    statements_token,
)

__all__ = [
    "DataFolder",
    "instance_id",
    "present_datasets",
    "project_changes",
    "project_revision",
    "statements_token",
]
