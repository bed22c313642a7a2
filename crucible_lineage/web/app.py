"""The application of the pages beside the API: routes, sign-in and error pages."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import secrets
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import CancelledError
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import httpx
from anyio import CapacityLimiter, to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Account
from crucible_lineage.errors import (
    CrucibleError,
    ForbiddenError,
    InputError,
    LineageError,
    NotFoundError,
    RefusedError,
    UnauthorizedError,
)
from crucible_lineage.web import views
from crucible_lineage.web.rendering import Reader, SignIn, rendered, resource

log = logging.getLogger("crucible_lineage.web")

View = Callable[[Reader], Response]
API_URL = "http://embedded/api/v3"  # the API's address for the pages' own client
MOST_RUNS = 10_000
PAGES_AT_A_TIME = 8  # threads, separate from those of the API, which the pages wait for

VIEWS: tuple[tuple[str, View], ...] = (
    ("/", views.projects),
    ("/datasets", views.datasets),
    ("/datasets.csv", views.datasets_csv),
    ("/pipelines", views.page_of("status", "overview.html", all=True)),
    ("/ask", views.questions),
    ("/ask/{question}", views.question),
    ("/projects/{project}", views.datasets),
    ("/projects/{project}/datasets.csv", views.datasets_csv),
    ("/projects/{project}/runs", views.page_of("runs", "runs.html", number=MOST_RUNS)),
    ("/projects/{project}/findings", views.page_of("verify", "findings.html")),
    ("/compare", views.page_of("diff", "compare.html")),
    ("/datasets/{mfid}", views.dataset),
    ("/datasets/{mfid}/metadata.json", views.metadata),
    ("/datasets/{mfid}/thumbnail", views.thumbnail),
    ("/datasets/{mfid}/thumbnails/{number:int}", views.thumbnail),
    ("/datasets/{mfid}/lineage", views.lineage),
    ("/datasets/{mfid}/lineage.html", views.lineage_html),
    ("/datasets/{mfid}/lineage.svg", views.lineage_svg),
    ("/files/{mfid}", views.download),
)

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self' data:; frame-src 'self'; form-action 'self'; "
    "base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers hide the origin of a form
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Cache-Control": "private, no-store",
}
STATUSES: tuple[tuple[type[LineageError], int], ...] = (
    (NotFoundError, 404),
    (ForbiddenError, 403),
    (RefusedError, 400),
    (InputError, 400),
    (CrucibleError, 502),
)
TITLES = {400: "This cannot be done", 403: "Not allowed", 404: "Not found", 405: "Not allowed", 502: "No answer"}


def with_pages(api: ASGIApp, data: Path) -> ASGIApp:
    """Return an application with the API under /api and the pages everywhere else. `data` is the server's folder."""
    pages = _Pages(api, data).app

    async def both(scope: Scope, receive: Receive, send: Send) -> None:
        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":  # security headers, unless a view set its own
                present = {name.lower() for name, _ in message["headers"]}
                added = ((name.lower().encode(), value.encode()) for name, value in HEADERS.items())
                message["headers"] = [*message["headers"], *(pair for pair in added if pair[0] not in present)]
            await send(message)

        if scope["type"] == "http" and not scope["path"].startswith("/api/"):
            await pages(scope, receive, guarded)
        else:
            await api(scope, receive, send)

    return both


class _Pages:
    """The application of the pages, with its sign-ins."""

    def __init__(self, api: ASGIApp, data: Path) -> None:
        self._api = api
        self._sign_ins = SignIns(data)
        self._threads: CapacityLimiter | None = None
        self.app: ASGIApp = Starlette(
            routes=[
                Route("/sign-in", self._sign_in, methods=["GET", "POST"]),
                Route("/sign-out", self._sign_out, methods=["POST"]),
                Route("/static/{name}", _static),
                *(Route(path, self._endpoint(view)) for path, view in VIEWS),
            ],
            exception_handlers=dict.fromkeys((HTTPException, LineageError, Exception), self._failed),
        )

    def _endpoint(self, view: View) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            sign_in = self._sign_ins.of(request)
            if sign_in is None:
                return _to_sign_in(request)
            if self._threads is None:
                self._threads = CapacityLimiter(PAGES_AT_A_TIME)
            return await to_thread.run_sync(view, Reader(request, sign_in), limiter=self._threads)

        return endpoint

    async def _sign_in(self, request: Request) -> Response:
        if request.method != "POST":
            return rendered("sign_in.html", next=safe_path(request.query_params.get("next", "/")))
        form = await read_form(request)
        target = safe_path(form.get("next", "/"))
        if not is_from_here(request):
            return rendered("sign_in.html", status=403, next=target, problem="The form did not come from this server.")
        key = form.get("key", "").strip()
        try:
            client = CrucibleClient(API_URL, key, transport=Bridge(self._api, asyncio.get_running_loop()))
            account = await to_thread.run_sync(client.account.whoami)
        except (InputError, UnauthorizedError):
            return rendered("sign_in.html", status=403, next=target, problem="This key is not known here.")
        response = RedirectResponse(target, 303)
        self._sign_ins.begin(request, response, client, account, key)
        return response

    async def _sign_out(self, request: Request) -> Response:
        if not is_from_here(request):
            raise HTTPException(403, "The form did not come from this server.")
        response = RedirectResponse("/sign-in", 303)
        self._sign_ins.end(request, response)
        return response

    async def _failed(self, request: Request, error: Exception) -> Response:
        """Say what is wrong. An unforeseen error is logged for the server's operator, and hidden from the reader."""
        if isinstance(error, UnauthorizedError):  # the key was revoked
            response = _to_sign_in(request)
            self._sign_ins.end(request, response)
            return response
        if isinstance(error, HTTPException):
            status = error.status_code
            text = "There is no such page." if status == 404 else error.detail
        elif isinstance(error, LineageError):
            status, text = next((status for kind, status in STATUSES if isinstance(error, kind)), 500), str(error)
        else:
            log.error("the page %s failed", request.url.path, exc_info=error)
            status, text = 500, "The page could not be shown because of a fault in crucible-lineage."
        sign_in = self._sign_ins.of(request)
        title = TITLES.get(status, "Something failed")
        return rendered("problem.html", sign_in.name if sign_in else None, status, title=title, text=text)


async def _static(request: Request) -> Response:
    types = {"style.css": "text/css", "icon.svg": "image/svg+xml"}
    name = request.path_params["name"]
    if name not in types:
        raise HTTPException(404)
    return Response(resource(name), media_type=types[name], headers={"Cache-Control": "max-age=300"})


def _to_sign_in(request: Request) -> Response:
    requested = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    if request.headers.get("sec-fetch-site") == "cross-site":
        # After a link from another site the browser sends no cookie, even if signed in; the refresh does.
        page = rendered("sign_in.html", next=requested)
        page.headers["Refresh"] = f"0; url={quote(requested, safe='/?&=%+')}"
        return page
    return RedirectResponse(f"/sign-in?next={quote(requested, safe='/')}" if requested != "/" else "/sign-in", 303)


class Bridge(httpx.BaseTransport):
    """Sends requests to `app`, which runs in `loop`, from other threads."""

    def __init__(self, app: ASGIApp, loop: asyncio.AbstractEventLoop) -> None:
        self._wire = httpx.ASGITransport(app)
        self._loop = loop

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Return the application's complete answer."""
        if self._loop.is_closed():
            raise RuntimeError("the server has stopped")
        waiting = asyncio.run_coroutine_threadsafe(self._answer(request, request.read()), self._loop)
        try:
            return waiting.result(request.extensions.get("timeout", {}).get("read"))
        except (TimeoutError, CancelledError) as cause:
            waiting.cancel()
            raise httpx.ReadTimeout("the server did not answer its own request in time", request=request) from cause

    async def _answer(self, request: httpx.Request, body: bytes) -> httpx.Response:
        target = request.extensions.get("target")  # signed links are sent exactly as signed
        url = request.url.copy_with(raw_path=target) if target else request.url
        inner = httpx.Request(request.method, url, headers=request.headers, content=body)
        answer = await self._wire.handle_async_request(inner)
        content = b"".join([part async for part in answer.aiter_raw()])
        return httpx.Response(answer.status_code, headers=answer.headers, content=content, request=request)


LIFETIME_S = 12 * 3600
MOST_POSTED_BYTES = 16 << 10
POSTED_WITHIN_S = 30.0


class SignIns:
    """The sign-ins by the token in a cookie, in memory only; each key has its own folder of the data folder."""

    def __init__(self, data: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._data = data
        self._clock = clock
        self._by_token: dict[str, SignIn] = {}
        self._lock = threading.Lock()

    def of(self, request: Request) -> SignIn | None:
        """Return the sign-in of the request's cookie, unless it has expired."""
        found = self._by_token.get(request.cookies.get(_cookie_name(request), ""))
        return found if found is not None and found.expires > self._clock() else None

    def begin(self, request: Request, response: Response, client: CrucibleClient, account: Account, key: str) -> None:
        """Sign a reader in, and set the token as a cookie of the response."""
        self.end(request, response)
        folder = self._data / "pages" / hashlib.sha256(key.encode()).hexdigest()[:32]
        token = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            self._by_token = {old: sign_in for old, sign_in in self._by_token.items() if sign_in.expires > now}
            self._by_token[token] = SignIn(client, _name(account), folder, self._data, now + LIFETIME_S)
        response.set_cookie(_cookie_name(request), token, httponly=True, samesite="strict", secure=_is_secure(request))

    def end(self, request: Request, response: Response) -> None:
        """Remove the sign-in and its cookie."""
        name = _cookie_name(request)
        with self._lock:
            self._by_token.pop(request.cookies.get(name, ""), None)
        response.delete_cookie(name, httponly=True, samesite="strict", secure=_is_secure(request))


def is_from_here(request: Request) -> bool:
    """Return True if a page of this server sent the form. Requests without an origin are refused."""
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


def safe_path(text: str) -> str:
    """Return `text` if it is a path of this server, else the front page, so that signing in never leads elsewhere."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


async def read_form(request: Request) -> dict[str, str]:
    """Return the fields of a posted form; none if it is too long or not UTF-8. Raises HTTPException on a timeout."""
    body = b""
    try:
        async with asyncio.timeout(POSTED_WITHIN_S):
            async for block in request.stream():
                body += block
                if len(body) > MOST_POSTED_BYTES:
                    return {}
    except TimeoutError:
        raise HTTPException(408, f"The form did not arrive within {POSTED_WITHIN_S:g} s.") from None
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), errors="strict").items()}
    except ValueError:
        return {}


def _cookie_name(request: Request) -> str:
    """Return a name for each port: browsers send a host's cookies to all its ports, and would mix up two servers."""
    return f"crucible-lineage-{request.url.port or request.url.scheme}"


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _name(account: Account) -> str:
    user = account.user_info
    if user is None:
        return account.user_unique_id
    full = " ".join(filter(None, (user.first_name, user.last_name)))
    return full or user.username or account.user_unique_id
