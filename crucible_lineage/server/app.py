"""The application: routes, errors and limits put together around one data folder."""

from __future__ import annotations

from typing import NoReturn

from fastapi import FastAPI, Request
from starlette.routing import Route

from crucible_lineage import __version__
from crucible_lineage.server.call import Service
from crucible_lineage.server.http import BodyLimit, add_error_handlers, refuse
from crucible_lineage.server.instance import PREFIX
from crucible_lineage.server.routes import datasets, deletions, files, people, projects, search, uploads

ROUTERS = tuple(  # search first: the first match wins, and its fixed words would match as identifiers
    part.router for part in (search, datasets, uploads, files, projects, deletions, people)
)


def build_app(service: Service) -> FastAPI:
    """Return the ASGI application of an embedded Crucible."""
    app = FastAPI(
        title="Crucible, embedded",
        version=__version__,
        docs_url=f"{PREFIX}/docs",
        redoc_url=None,
        openapi_url=f"{PREFIX}/openapi.json",
        redirect_slashes=False,
        strict_content_type=False,
    )
    app.state.service = service
    for router in ROUTERS:  # include_router would build each route twice, the second time at the first request
        app.router.routes.extend(router.routes)
    methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
    app.router.routes.append(Route(f"{PREFIX}/{{path:path}}", _refuse_others, methods=methods))
    add_error_handlers(app)
    app.add_middleware(BodyLimit, unlimited_prefix=f"{PREFIX}/storage/")
    return app


async def _refuse_others(request: Request) -> NoReturn:
    raise refuse(404, f"The embedded Crucible has no {request.method} {request.url.path}; see docs/server.md")
