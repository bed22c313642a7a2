"""One request by a known user: what routes are given, and how the key that was sent becomes a user."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.datastructures import MutableHeaders

from crucible_lineage.server.catalogue.access import READABLE, VIEWER, Caller, roles
from crucible_lineage.server.database import Database, hash_key
from crucible_lineage.server.files.sessions import Links
from crucible_lineage.server.files.storage import ContentStore
from crucible_lineage.server.http import PREFIX, invalid, refuse
from crucible_lineage.server.instance import REVISION, STATEMENTS
from crucible_lineage.server.seals import REMEDY

REVISION_HEADER, STATEMENTS_HEADER = "Crucible-Revision", "Crucible-Statements"


@dataclass(frozen=True)
class Service:
    """What a running server has, as the routes see it: `app.state.service`."""

    database: Database
    storage: ContentStore
    links: Links
    wake_worker: Callable[[], None]


@dataclass(frozen=True)
class AuthenticatedCall:
    """One request by a known user."""

    caller: Caller
    service: Service
    request: Request
    key: str
    headers: MutableHeaders  # of the answer

    @property
    def base_url(self) -> str:
        """Scheme, host and prefix as the caller sees them, without a final slash."""
        return base_url(self.request)

    @property
    def read(self) -> Any:
        return self.service.database.read

    @property
    def write(self) -> Any:
        return self.service.database.write

    def tell_revision(self, db: sqlite3.Connection, project_id: int | None) -> None:
        """The answer says the project's revision in a header, to those who have a part in the project."""
        if project_id is not None and roles(db, self.caller, [project_id])[project_id] >= VIEWER:
            found = db.execute(f"{REVISION} WHERE project_id = ?", (project_id,)).fetchone()
            self.headers[REVISION_HEADER] = found[0]

    def tell_statements(self, db: sqlite3.Connection) -> None:
        """The answer says in a header which statements there are that the caller may read, as a text to compare."""
        found = db.execute(f"{STATEMENTS} AND {READABLE}", {"user": self.caller.id}).fetchone()
        self.headers[STATEMENTS_HEADER] = found[0]


async def _authenticate(request: Request, response: Response) -> AuthenticatedCall:
    """Return who calls. Runs in the event loop: one indexed read of 20 us, where a thread hop would cost more."""
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
        caller=Caller(user["id"], user["unique_id"], elevated=mode == "elevated", is_admin=is_admin,
                      is_service_account=bool(user["is_service_account"])),
        service=service,
        request=request,
        key=key,
        headers=response.headers,
    )  # fmt: skip


def base_url(request: Request) -> str:
    """Scheme, host and prefix as the caller sees them, without a final slash."""
    return f"{request.url.scheme}://{request.url.netloc}{PREFIX}"


Call = Annotated[AuthenticatedCall, Depends(_authenticate)]
