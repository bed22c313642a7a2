"""Signing in with an API key, once: the browser keeps a random token, this process the key that it stands for."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Account
from crucible_lineage.queries.verify.verify import Verification
from crucible_lineage.web.long_work import LongWorks
from crucible_lineage.web.reader import SignIn

__all__ = ["SignIns", "is_from_here", "posted", "safe_path"]

LIFETIME_S = 12 * 3600
MOST_SIGN_INS = 1000  # the oldest gives way
CHECKS_AT_A_TIME = 2  # of all readers together
MOST_POSTED_BYTES = 16 << 10
POSTED_WITHIN_S = 30.0


class SignIns:
    """Who is signed in, by the token in their cookie. Kept in memory: a restart of the server signs everybody out.

    In `pages` within the data folder, each key has a folder of its own.
    """

    def __init__(self, data: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._data = data
        self._clock = clock
        self._checking = ThreadPoolExecutor(CHECKS_AT_A_TIME, thread_name_prefix="check")
        self._copying = ThreadPoolExecutor(CHECKS_AT_A_TIME, thread_name_prefix="copy")
        self._known: dict[str, SignIn] = {}
        self._lock = threading.Lock()

    def of(self, request: Request) -> SignIn | None:
        """The sign-in that the request's cookie stands for, unless it has expired."""
        found = self._known.get(request.cookies.get(_cookie_name(request), ""))
        return found if found is not None and found.expires > self._clock() else None

    def begin(self, request: Request, response: Response, client: CrucibleClient, account: Account, key: str) -> None:
        """The reader is signed in, and the response brings the browser the token for it."""
        self.end(request, response)
        folder = self._data / "pages" / hashlib.sha256(key.encode()).hexdigest()[:32]
        token = secrets.token_urlsafe(32)
        now = self._clock()
        with self._lock:
            expired = [old for old, sign_in in self._known.items() if sign_in.expires <= now]
            for old in [*expired, *list(self._known)[: max(0, len(self._known) - len(expired) - MOST_SIGN_INS + 1)]]:
                self._known.pop(old, None)
            checks, copies = LongWorks[Verification](self._checking), LongWorks[None](self._copying)
            self._known[token] = SignIn(client, _name(account), checks, copies, folder, self._data, now + LIFETIME_S)
        response.set_cookie(_cookie_name(request), token, httponly=True, samesite="strict", secure=_is_secure(request))

    def end(self, request: Request, response: Response) -> None:
        """The token stands for nothing any more, and the browser forgets it."""
        name = _cookie_name(request)
        with self._lock:
            self._known.pop(request.cookies.get(name, ""), None)
        response.delete_cookie(name, httponly=True, samesite="strict", secure=_is_secure(request))


def is_from_here(request: Request) -> bool:
    """True if a page of this server sent the form. Browsers say where from; who does not say is refused."""
    return urlsplit(request.headers.get("origin", "")).netloc == request.headers.get("host")


def safe_path(text: str) -> str:
    """`text` if it is a path of this server, else the front page: nobody is sent elsewhere after signing in."""
    is_local = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable()
    return text if is_local else "/"


async def posted(request: Request) -> dict[str, str]:
    """The fields of a posted form; of one that is too long, or not in UTF-8, none. HTTPException if it never ends."""
    body = b""
    try:
        async with asyncio.timeout(POSTED_WITHIN_S):
            async for block in request.stream():
                body += block
                if len(body) > MOST_POSTED_BYTES:
                    return {}
    except TimeoutError:
        raise HTTPException(408, f"The form did not come within {POSTED_WITHIN_S:g} s.") from None
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode("ascii"), errors="strict").items()}
    except ValueError:
        return {}


def _cookie_name(request: Request) -> str:
    """Different for each port: browsers give a host's cookies to all of its ports, and would mix up two servers."""
    return f"crucible-lineage-{request.url.port or request.url.scheme}"


def _is_secure(request: Request) -> bool:
    return request.url.scheme == "https"


def _name(account: Account) -> str:
    user = account.user_info
    if user is None:
        return account.user_unique_id
    full = " ".join(filter(None, (user.first_name, user.last_name)))
    return full or user.username or account.user_unique_id
