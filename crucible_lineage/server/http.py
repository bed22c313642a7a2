"""The HTTP conventions of all routes: strict query parameters, bodies, envelopes, errors, limits."""

from __future__ import annotations

import errno
import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial, wraps
from inspect import iscoroutinefunction
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import AfterValidator, BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crucible_lineage.server.database import PREFIX, stored_time
from crucible_lineage.server.schema import REMEDY, DamagedError

Json = Any
NO_ROOM = "This Crucible cannot write: its disk is full or read-only; nothing of this request was kept"
_NO_ROOM_CODES = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN)
_NO_ROOM_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES)
MAX_BODY_BYTES = 8 << 20  # chosen: half for metadata, half for thumbnails; files use the storage routes
MAX_ROW_ID = (1 << 63) - 1

Limit = Annotated[int, Query(ge=0, le=1000)]
Offset = Annotated[int, Query(ge=0, le=MAX_ROW_ID)]

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

log = logging.getLogger("crucible_lineage.server")
log.addHandler(logging.NullHandler())  # silent unless the program that embeds the server listens


class Form(BaseModel):
    """Base of strict JSON bodies, which refuse unknown fields."""

    model_config = ConfigDict(extra="forbid")


class LenientBody(BaseModel):
    """Base of the JSON bodies that clients build from their own models; unknown fields are ignored."""

    model_config = ConfigDict(extra="ignore")


def refuse(status: int, detail: Any) -> HTTPException:
    """Return the exception for the response `{"detail": ...}` with this status."""
    return HTTPException(status, detail)


def invalid(
    location: str, name: str, message: str, value: object = None, kind: str = "value_error"
) -> RequestValidationError:
    """Return the exception for one wrong value: a 422 response with a list, as FastAPI itself sends."""
    return RequestValidationError([{"type": kind, "loc": (location, name), "msg": message, "input": value}])


def page(items: list[Any], limit: int, total: int | None, offset: int) -> Json:
    """Return the envelope of a collection that is paged by offset."""
    return {"items": items, "limit": limit, "total": total, "offset": offset}


class StrictRoute(APIRoute):
    """A route that refuses undeclared query parameters. Its endpoint returns JSON values or a response."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **options: Any) -> None:
        if not iscoroutinefunction(endpoint):
            endpoint = _serialized(endpoint, options.get("status_code") or 200)
        super().__init__(path, endpoint, **options)
        self._slashes = None if ":path" in path else path.count("/")

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Try the pattern only if the number of segments agrees, as it does for a tenth of all routes."""
        if self._slashes not in (None, scope["path"].count("/")):
            return Match.NONE, {}
        return super().matches(scope)

    def get_route_handler(self) -> Callable[[Request], Awaitable[Response]]:  # type: ignore[override]
        handle = super().get_route_handler()
        declared = frozenset(_query_names(self.dependant))

        async def strict(request: Request) -> Response:
            unknown = [name for name in request.query_params if name not in declared]
            if unknown:
                raise RequestValidationError(
                    [
                        {
                            "type": "extra_forbidden",
                            "loc": ("query", name),
                            "msg": "Extra inputs are not permitted",
                            "input": request.query_params[name],
                        }
                        for name in unknown
                    ]
                )
            try:
                return await handle(request)
            except HTTPException as error:
                if isinstance(error.__cause__, RecursionError):
                    raise refuse(400, "The JSON body is nested too deeply to be read") from None
                raise

        return strict


router = partial(APIRouter, prefix=PREFIX, route_class=StrictRoute)


_short: set[Callable[..., Any]] = set()


def short(endpoint: Endpoint) -> Endpoint:
    """Run this endpoint of a few queries in the event loop, because switching to a thread would take as long."""
    _short.add(endpoint)
    return endpoint


def _serialized(endpoint: Callable[..., Any], status: int) -> Callable[..., Any]:
    """Wrap the endpoint so that it serializes its own response.

    FastAPI would validate the response again, in another thread, which takes a quarter of the time of a call.
    """

    @wraps(endpoint)
    def respond(**arguments: Any) -> Response:
        value = endpoint(**arguments)
        if isinstance(value, Response):
            return value
        response = JSONResponse(value, status)
        if (call := arguments.get("call")) is not None:
            response.headers.raw.extend(call.headers.raw)
        return response

    @wraps(endpoint)
    async def respond_in_loop(**arguments: Any) -> Response:
        return respond(**arguments)

    return respond_in_loop if endpoint in _short else respond


def add_error_handlers(app: FastAPI) -> None:
    """Make every error a JSON object with `detail`, without a stack trace."""
    app.add_exception_handler(RequestValidationError, _validation_answer)
    for kind in (sqlite3.DatabaseError, OSError, UnicodeError, DamagedError):
        app.add_exception_handler(kind, _failure_answer)


class BodyLimit:
    """Middleware: responds 413 to a JSON body beyond the limit, and 500 without a trace to an unforeseen error."""

    def __init__(self, app: ASGIApp, unlimited_prefix: str) -> None:
        self.app = app
        self.unlimited_prefix = unlimited_prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False
        received = 0
        limited = not scope["path"].startswith(self.unlimited_prefix)

        async def receive_counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if limited and received > MAX_BODY_BYTES:
                raise HTTPException(413, f"The request body is larger than {MAX_BODY_BYTES} bytes")
            return message

        async def send_noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive_counted, send_noted)
        except ClientDisconnect:
            return
        except Exception:
            log.exception("%s %s failed", scope["method"], scope["path"].split("/storage/")[0])
            if started:
                raise
            await JSONResponse({"detail": "Internal Server Error"}, 500)(scope, receive, send)


def _query_names(dependant: Any) -> set[str]:
    names: set[str] = set()
    for field in dependant.query_params:
        annotation = field.field_info.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            names |= {info.alias or name for name, info in annotation.model_fields.items()}
        else:
            names.add(field.alias)
    for dependency in dependant.dependencies:
        names |= _query_names(dependency)
    return names


def _validation_answer(_request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    shown = (
        {key: _shown(item[key]) for key in ("type", "loc", "msg", "input") if key in item} for item in error.errors()
    )
    return JSONResponse({"detail": list(shown)}, 422)


def _shown(value: object) -> Any:
    """Return `value` if it is plain enough to be sent back, text shortened, and otherwise None."""
    if isinstance(value, tuple):
        return list(value)
    if isinstance(value, str):
        return value[:200].encode("utf-8", "replace").decode()
    return value if isinstance(value, int | bool) else None


def _failure_answer(_request: Request, error: Exception) -> Response:
    """Return the response to a full disk, a busy or damaged database, and text that is no Unicode."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if isinstance(error, UnicodeEncodeError):
        return JSONResponse({"detail": "The request contains text that is not valid Unicode (a lone surrogate)"}, 422)
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return JSONResponse({"detail": "The database is busy; try again"}, 503, {"Retry-After": "1"})
    if code in _NO_ROOM_CODES or (isinstance(error, OSError) and error.errno in _NO_ROOM_ERRORS):
        return JSONResponse({"detail": f"{NO_ROOM} ({getattr(error, 'strerror', error)})"}, 507)
    cause = "text that cannot be decoded" if isinstance(error, UnicodeDecodeError) else str(error)
    # Python's module meets undecodable text when it reads a row or computes its checksum.
    causes = ("Could not decode to UTF-8", "user-defined function raised exception")
    is_damage = isinstance(error, DamagedError | UnicodeDecodeError) or any(words in cause for words in causes)
    if is_damage or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return JSONResponse({"detail": f"This Crucible's database is damaged ({cause}); {REMEDY}"}, 500)
    raise error


def _checked_moment(text: str) -> str:
    stored_time(text)
    return text


def _plain_name(name: str) -> str:
    if name in (".", "..") or any(character in "/\\" or ord(character) < 32 for character in name):
        raise ValueError("must be a plain file name, without folders or control characters")
    if len(name.encode("utf-8", "replace")) > 255:
        raise ValueError("must not be longer than 255 bytes")
    return name


Text = Annotated[str, Field(max_length=10_000)]
FileName = Annotated[str, Field(min_length=1), AfterValidator(_plain_name)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1, max_length=500)]
Moment = Annotated[str, Field(max_length=64), AfterValidator(_checked_moment)]
Count = Annotated[int, Field(ge=0, le=MAX_ROW_ID)]


class _New(LenientBody):
    unique_id: str | None = None
    public: bool = False
    owner: str | None = None
    owner_orcid: str | None = None
    project_id: str | None = None
    project_mfid: str | None = None
    timestamp: Moment | None = None
    scientific_metadata: dict[str, object] | None = None


class _DatasetFields(BaseModel):
    dataset_name: Text | None = None
    measurement: Text | None = None
    data_type: Text | None = None
    data_format: Text | None = None
    session_name: Text | None = None
    size: Count | None = None
    instrument_name: Text | None = None
    instrument_id: str | None = None
    instrument_mfid: str | None = None


class DatasetBody(_New, _DatasetFields):
    pass


class DatasetPatch(Form, _DatasetFields):
    timestamp: Moment | None = None


class _SampleFields(BaseModel):
    sample_name: Text | None = None
    sample_type: Text | None = None
    description: Text | None = None


class NewSample(_New, _SampleFields):
    pass


class SamplePatch(Form, _SampleFields):
    timestamp: Moment | None = None
