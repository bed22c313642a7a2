"""The application: routes, errors and limits put together around one data folder."""

from __future__ import annotations

from functools import cache

from fastapi import FastAPI

from crucible_lineage import __version__
from crucible_lineage.server.call import Service
from crucible_lineage.server.http import BodyLimit, add_error_handlers
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
    app.openapi = cache(lambda: _document(app))  # type: ignore[method-assign]
    add_error_handlers(app)
    app.add_middleware(BodyLimit, unlimited_prefix=f"{PREFIX}/storage/")
    return app


def _document(app: FastAPI) -> dict[str, object]:
    from crucible_lineage.server.openapi import describe  # takes 50 ms; only the document needs it

    return describe(app)
