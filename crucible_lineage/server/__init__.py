"""The embedded Crucible: the service's HTTP API over SQLite and files on disk, for one machine.

Importing this package costs nothing; Starlette is loaded when a server is started.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from crucible_lineage.server.database import (
    DataFolder,
    instance_id,
    present_datasets,
    project_changes,
    project_revision,
    statements_token,
)

if TYPE_CHECKING:
    from crucible_lineage.server.running import RunningServer, serve, start_server

__all__ = [
    "DataFolder",
    "RunningServer",
    "instance_id",
    "present_datasets",
    "project_changes",
    "project_revision",
    "serve",
    "start_server",
    "statements_token",
]


def __getattr__(name: str) -> Any:
    # Pydantic and uvicorn cost a part of a second, which `lineage` or `plan` do not need.
    if name in ("RunningServer", "serve", "start_server"):
        from crucible_lineage.server import running

        return getattr(running, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
