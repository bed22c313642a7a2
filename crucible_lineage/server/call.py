"""The application: a request finds its route and its user, and its endpoint's value or error becomes the answer."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from inspect import iscoroutinefunction
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from crucible_lineage.server.database import PREFIX, REVISION, Database, JsonObject, Transaction, hash_key
from crucible_lineage.server.http import Refusal, Route, checked, invalid
from crucible_lineage.server.resources import VIEWER, Caller, require, role_on
from crucible_lineage.server.schema import REMEDY, DamagedError
from crucible_lineage.server.storage import ContentStore, Links, file_of

MAX_BODY_BYTES = 8 << 20  # chosen: half for metadata, half for thumbnails; files use the storage routes
NO_ROOM = "This Crucible cannot write: its disk is full or read-only; nothing of this request was kept"
UNFORESEEN = "Internal Server Error"
_NO_ROOM_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)

NOBODY = Caller(0, "", elevated=False)

log = logging.getLogger("crucible_lineage.server")
log.addHandler(logging.NullHandler())  # silent unless the program that embeds the server listens


@dataclass(frozen=True)
class Service:
    """The parts of a running server that routes use."""

    database: Database
    storage: ContentStore
    links: Links
    wake: Callable[[], None]  # the worker that ingests files


@dataclass(frozen=True)
class Call:
    """A request by a user; for a route that needs no key, by nobody."""

    service: Service
    request: Request
    caller: Caller
    key: str
    headers: dict[str, str] = field(default_factory=dict)  # of the response

    @property
    def base_url(self) -> str:
        """The scheme, host and prefix as the caller sees them, without a final slash."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}{PREFIX}"

    @property
    def write(self) -> Any:
        return self.service.database.write

    def add_revision(self, db: Transaction, project: sqlite3.Row | None) -> None:
        """Add the project's revision to the response headers, if the caller may read the project."""
        if project is not None and role_on(db, self.caller, project["id"]) >= VIEWER:
            row = db.execute(f"{REVISION} WHERE project_id = ?", (project["id"],)).fetchone()
            self.headers["Crucible-Revision"] = row[0]


class App:
    """The ASGI application of these routes."""

    def __init__(self, service: Service, routes: list[Route]) -> None:
        self.service = service
        self.routes = routes
        self._by_shape: dict[tuple[str, int], list[Route]] = defaultdict(list)
        for route in sorted(routes, key=lambda route: route.path.count("{")):  # /search before /{mfid}
            self._by_shape[route.method, route.path.count("/")].append(route)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception as error:
            status, detail = _refused(error)
            if detail is UNFORESEEN:
                log.exception("%s %s failed", request.method, request.url.path.split("/storage/")[0])
            response = JSONResponse({"detail": detail}, status, {"Retry-After": "1"} if status == 503 else None)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        route, values = self._find(request)
        call = Call(self.service, request, NOBODY, "") if route.is_open else _authenticated(self.service, request)
        arguments = route.arguments(values, request.query_params)
        if "body" in route.types:
            blocks, size = [], 0
            async for block in request.stream():
                size += len(block)
                if size > MAX_BODY_BYTES:
                    raise Refusal(413, f"The request body is larger than {MAX_BODY_BYTES} bytes")
                blocks.append(block)
            arguments["body"] = checked("body", route.types["body"], b"".join(blocks))
        if iscoroutinefunction(route.endpoint):
            value = await route.endpoint(call=call, **arguments)
        elif route.is_short:
            value = self._outcome(route, call, arguments)
        else:
            value = await run_in_threadpool(self._outcome, route, call, arguments)
        if isinstance(value, Response):
            return value
        return JSONResponse(value, route.status, call.headers)

    def _outcome(self, route: Route, call: Call, arguments: JsonObject) -> Any:
        """Call the endpoint, in a transaction if it takes one: to read for GET, else to write."""
        if "call" in route.given:
            arguments["call"] = call
        if not route.given & {"db", "row"}:
            return route.endpoint(**arguments)
        database = self.service.database
        with database.read() if route.method == "GET" else database.write() as db:
            if "row" in route.given:
                lookup = file_of if route.of == "file" else require
                arguments["row"] = lookup(db, call.caller, arguments.pop("mfid"), route.role, route.of)
            if "db" in route.given:
                arguments["db"] = db
            return route.endpoint(**arguments)

    def _find(self, request: Request) -> tuple[Route, dict[str, str]]:
        path: str = request.scope["path"]
        own = path.removeprefix(PREFIX)
        for route in self._by_shape.get((request.method, own.count("/")), ()) if path.startswith(PREFIX) else ():
            if (match := route.pattern.fullmatch(own)) is not None:
                return route, match.groupdict()
        raise Refusal(404, f"{request.method} {path} is not part of the embedded Crucible; see docs/server.md")


def _authenticated(service: Service, request: Request) -> Call:
    """Return the call of the user with the key in the header. One indexed read takes 20 us, less than a thread."""
    database, headers = service.database, request.headers
    scheme, _, key = headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise Refusal(401, "No API key was sent; expected the header Authorization: Bearer <key>")
    with database.read() as db:
        user = db.first("SELECT user.* FROM api_key JOIN user ON user.id = user_id WHERE hash = ?", hash_key(key))
    if user is None:
        raise Refusal(401, "This API key is not known here")
    is_admin = user["platform_role"] == "admin"
    mode = headers.get("crucible-privilege-mode", "elevated" if is_admin else "normal").lower()
    if mode not in ("normal", "elevated"):
        raise invalid("header", "crucible-privilege-mode", "must be normal or elevated")
    if mode == "elevated" and not is_admin:
        raise Refusal(403, "Elevated privileges are for platform administrators only")
    caller = Caller(user["id"], user["unique_id"], elevated=mode == "elevated", is_admin=is_admin)
    return Call(service, request, caller, key)


def _refused(error: Exception) -> tuple[int, Any]:
    """Return status and detail for an error, also a full disk, a busy or damaged database, text that is no Unicode."""
    code, cause = getattr(error, "sqlite_errorcode", 0) & 0xFF, getattr(error, "strerror", None) or str(error)
    # Python's module meets undecodable text when it reads a row or computes its checksum.
    undecodable = ("Could not decode to UTF-8", "user-defined function raised exception")
    is_damage = isinstance(error, DamagedError | UnicodeDecodeError) or any(words in cause for words in undecodable)
    if isinstance(error, Refusal):
        return error.status, error.detail
    if isinstance(error, UnicodeEncodeError):
        return 422, "The request contains text that is not valid Unicode (a lone surrogate)"
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return 503, "The database is busy; try again"
    if code in _NO_ROOM_CODES or (isinstance(error, OSError) and error.errno in _NO_ROOM_ERRORS):
        return 507, f"{NO_ROOM} ({cause})"
    if is_damage or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return 500, f"This Crucible's database is damaged ({cause}); {REMEDY}"
    return 500, UNFORESEEN
