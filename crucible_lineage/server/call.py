"""A request by a known user: what routes receive, and how an API key becomes a user."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.datastructures import MutableHeaders

from crucible_lineage.server.access import READABLE, VIEWER, Caller, Kind, require, role_on
from crucible_lineage.server.database import PREFIX, REVISION, STATEMENTS, Database, hash_key
from crucible_lineage.server.http import invalid, refuse
from crucible_lineage.server.schema import REMEDY
from crucible_lineage.server.storage import ContentStore, Links


@dataclass(frozen=True)
class Service:
    """The parts of a running server that routes use: `app.state.service`."""

    database: Database
    storage: ContentStore
    links: Links
    wake_worker: Callable[[], None]


@dataclass(frozen=True)
class AuthenticatedCall:
    """A request by a known user."""

    caller: Caller
    service: Service
    request: Request
    key: str
    headers: MutableHeaders  # of the response

    @property
    def base_url(self) -> str:
        """The scheme, host and prefix as the caller sees them, without a final slash."""
        return f"{self.request.url.scheme}://{self.request.url.netloc}{PREFIX}"

    @property
    def read(self) -> Any:
        return self.service.database.read

    @property
    def write(self) -> Any:
        return self.service.database.write

    @contextmanager
    def reading(self, mfid: str, kind: Kind = None) -> Iterator[tuple[sqlite3.Connection, sqlite3.Row]]:
        """Yield the database and the row of a resource that the caller may read; the same errors as `require`."""
        with self.read() as db:
            yield db, require(db, self.caller, mfid, VIEWER, kind)

    @contextmanager
    def writing(self, mfid: str, role: int, kind: Kind = None) -> Iterator[tuple[sqlite3.Connection, sqlite3.Row]]:
        """Yield a transaction that writes, and the row of a resource on which the caller has at least this role."""
        with self.write() as db:
            yield db, require(db, self.caller, mfid, role, kind)

    def add_revision(self, db: sqlite3.Connection, project_id: int | None) -> None:
        """Add the project's revision to the response headers, if the caller may read the project."""
        if project_id is not None and role_on(db, self.caller, project_id) >= VIEWER:
            row = db.execute(f"{REVISION} WHERE project_id = ?", (project_id,)).fetchone()
            self.headers["Crucible-Revision"] = row[0]

    def add_statements(self, db: sqlite3.Connection) -> None:
        """Add a header that changes whenever the statements that the caller may read change."""
        readable = "1" if self.caller.elevated else READABLE
        row = db.execute(f"{STATEMENTS} AND {readable}", {"user": self.caller.id}).fetchone()
        self.headers["Crucible-Statements"] = row[0]


async def _authenticate(request: Request, response: Response) -> AuthenticatedCall:
    """Return the caller. Runs in the event loop: one indexed read takes 20 us, less than a thread switch."""
    service: Service = request.app.state.service
    if service.database.damage:
        raise refuse(500, f"This Crucible's database is damaged ({service.database.damage}); {REMEDY}")
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    key = key.strip()
    if scheme.lower() != "bearer" or not key:
        raise refuse(401, "No API key was sent; expected the header Authorization: Bearer <key>")
    with service.database.read() as db:
        user = db.execute(
            "SELECT user.* FROM api_key JOIN user ON user.id = api_key.user_id WHERE hash = ?", (hash_key(key),)
        ).fetchone()
    if user is None:
        raise refuse(401, "This API key is not known here")
    is_admin = user["platform_role"] == "admin"
    mode = request.headers.get("crucible-privilege-mode", "elevated" if is_admin else "normal").lower()
    if mode not in ("normal", "elevated"):
        raise invalid("header", "crucible-privilege-mode", "must be normal or elevated", mode)
    if mode == "elevated" and not is_admin:
        raise refuse(403, "Elevated privileges are for platform administrators only")
    return AuthenticatedCall(
        caller=Caller(user["id"], user["unique_id"], elevated=mode == "elevated", is_admin=is_admin),
        service=service,
        request=request,
        key=key,
        headers=response.headers,
    )


Call = Annotated[AuthenticatedCall, Depends(_authenticate)]
