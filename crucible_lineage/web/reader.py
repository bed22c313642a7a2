"""A signed-in reader's way to Crucible: our client with the reader's own key, so that the server decides on access.

What takes longer than a page may, as the first look at a project, is begun when a reader asks, and the page says so.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Generic, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Project
from crucible_lineage.core.tables import EVERYTHING
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.queries.verify.verify import Verification
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.web.rendering import rendered

T = TypeVar("T")


WAIT_S = 0.8  # a copy that was made before is looked through in a part of that
ASK_AGAIN_S = 2


@dataclass(frozen=True)
class SignIn:
    """One reader's sign-in. `folder` holds copies of what this reader's key may see; `copies` are the first ones.

    `data` is the data folder of the server.
    """

    client: CrucibleClient
    name: str
    checks: BackgroundTasks[Verification]
    copies: BackgroundTasks[None]
    folder: Path
    data: Path
    expires: float

    def session(self) -> ReadingSession:
        """A session for one page."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ReadingSession(self.client, self.folder)


@dataclass(frozen=True)
class Reader:
    """One request by somebody who has signed in."""

    request: Request
    sign_in: SignIn

    @property
    def client(self) -> CrucibleClient:
        """The way to Crucible with the reader's key."""
        return self.sign_in.client

    @property
    def name(self) -> str:
        """Whom the pages greet."""
        return self.sign_in.name

    @property
    def mfid(self) -> str:
        """The MFID in the address; what is none is a page that is not there."""
        mfid = str(self.request.path_params["mfid"])
        if not is_mfid(mfid):
            raise HTTPException(404)
        return mfid

    def asked(self, name: str) -> str | None:
        """A parameter of the query, without blanks around it; None if it is not there or empty."""
        return self.request.query_params.get(name, "").strip() or None

    @property
    def page(self) -> int:
        """The number of the page of a list, 1 if none is given. InputError for what is no number."""
        text = self.asked("page") or "1"
        if not text.isascii() or not text.isdigit():
            raise InputError(f"page={text} is no page; pages are numbered from 1 on")
        return int(text)

    @property
    def query(self) -> Mapping[str, str]:
        """All parameters of the query that are not empty."""
        return {name: value for name, value in self.request.query_params.items() if value.strip()}


class ReadingSession(Session):
    """A session over a reader's client. Its files are the reader's own: what the server's owner keeps is not."""

    def __init__(self, client: CrucibleClient, folder: Path) -> None:
        super().__init__(Settings(folder, client.api_url, source="the server of these pages"))
        self._reading = client

    @property
    def client(self) -> CrucibleClient:
        """The reader's client, which outlives this session."""
        return self._reading


@dataclass(frozen=True)
class BackgroundTask(Generic[T]):
    """Work that is under way or done."""

    begun: datetime
    result: Future[T]

    def done_within(self, seconds: float) -> bool:
        """True as soon as it is done, False after `seconds`."""
        return bool(wait([self.result], seconds).done)


class BackgroundTasks(Generic[T]):
    """The last work of one kind on each project, for one reader."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._last: dict[str, BackgroundTask[T]] = {}
        self._lock = threading.Lock()

    def of(self, project: str, work: Callable[[], T], *, anew: bool = False) -> BackgroundTask[T]:
        """The last work on a project; begun now if there is none, if it failed, or if a new one is asked for."""
        with self._lock:
            last = self._last.get(project)
            failed = last is not None and last.result.done() and last.result.exception() is not None
            if last is None or failed or (anew and last.result.done()):
                last = self._last[project] = BackgroundTask(datetime.now(UTC), self._pool.submit(work))
            return last


def still_reading(reader: Reader, project: Project | None, here: str = "Datasets") -> Response | None:
    """A page that asks again, while the datasets of a project, or of all, are read the first time; None once they are.

    `here` is the tab of the page. What fails is raised where it is asked for next.
    """
    name = project.project_id if project else EVERYTHING
    copying = reader.sign_in.copies.of(name, partial(_copied, reader.sign_in, name))
    if copying.done_within(WAIT_S):
        return None
    page = rendered("reading.html", reader.name, project=project, here=here, begun=copying.begun.isoformat())
    page.headers["Refresh"] = str(ASK_AGAIN_S)
    return page


def _copied(sign_in: SignIn, project: str) -> None:
    with sign_in.session() as session:
        session.mirror.snapshot(project)
