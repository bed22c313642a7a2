"""The routes, one module per group of the API; their order matters where a fixed word competes with an identifier."""

from __future__ import annotations

from fastapi import APIRouter

from crucible_lineage.server.routes.files import files, ingestions, thumbnails, transfers, uploads
from crucible_lineage.server.routes.people import access, account, users
from crucible_lineage.server.routes.resources import (
    datasets,
    deletions,
    graphs,
    instruments,
    links,
    metadata,
    projects,
    samples,
    search,
)

__all__ = ["ROUTERS"]

ROUTERS: tuple[APIRouter, ...] = (
    search.router,
    account.router,
    datasets.router,
    samples.router,
    metadata.router,
    access.router,
    links.router,
    thumbnails.router,
    uploads.router,
    files.router,
    transfers.router,
    ingestions.router,
    projects.router,
    instruments.router,
    graphs.router,
    deletions.router,
    users.router,
)
