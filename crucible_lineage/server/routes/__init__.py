"""The routes, one module per group of the API; their order matters where a fixed word competes with an identifier."""

from __future__ import annotations

from fastapi import APIRouter

from crucible_lineage.server.routes import (
    access,
    account,
    datasets,
    deletions,
    files,
    graphs,
    ingestions,
    instruments,
    joining,
    links,
    metadata,
    projects,
    samples,
    search,
    service_accounts,
    thumbnails,
    transfers,
    uploads,
    users,
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
    service_accounts.router,
    joining.router,
)
