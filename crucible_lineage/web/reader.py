"""Access of a signed-in reader: our client with the reader's own key, so that the server decides about rights.

Work that takes too long for a page, such as the first reading of a project, runs in the background, and the page says
so.
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


WAIT_S = 0.8  # updating an existing copy takes less
ASK_AGAIN_S = 2


@dataclass(frozen=True)
class SignIn:
    """One reader's sign-in. `folder` has copies of what this reader's key can see; `copies` are the first readings.

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
        """Return a session for one page."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ReadingSession(self.client, self.folder)


@dataclass(frozen=True)
class Reader:
    """One request of a signed-in reader."""

    request: Request
    sign_in: SignIn

    @property
    def client(self) -> CrucibleClient:
        """The client with the reader's key."""
        return self.sign_in.client

    @property
    def name(self) -> str:
        """The reader's name."""
        return self.sign_in.name

    @property
    def project(self) -> Project:
        """The project in the address, as the service returns it."""
        return self.client.projects.get(self.request.path_params["project"])

    @property
    def mfid(self) -> str:
        """The MFID in the address. Raises HTTPException (404) if it is invalid."""
        mfid = str(self.request.path_params["mfid"])
        if not is_mfid(mfid):
            raise HTTPException(404)
        return mfid

    def parameter(self, name: str) -> str | None:
        """Return a stripped parameter of the query; None if it is missing or empty."""
        return self.request.query_params.get(name, "").strip() or None

    @property
    def page(self) -> int:
        """The page number of a list, by default 1. Raises InputError if it is not a number."""
        text = self.parameter("page") or "1"
        if not text.isascii() or not text.isdigit():
            raise InputError(f"page={text} is not a page number; pages are numbered from 1")
        return int(text)

    @property
    def query(self) -> Mapping[str, str]:
        """The parameters of the query that are not empty."""
        return {name: value for name, value in self.request.query_params.items() if value.strip()}


class ReadingSession(Session):
    """A session over a reader's client, with the reader's own files instead of the server owner's."""

    def __init__(self, client: CrucibleClient, folder: Path) -> None:
        super().__init__(Settings(folder, client.api_url, source="the server of these pages"))
        self._reading = client

    @property
    def client(self) -> CrucibleClient:
        """The reader's client, which outlives this session."""
        return self._reading


@dataclass(frozen=True)
class BackgroundTask(Generic[T]):
    """Work in progress or done."""

    begun: datetime
    result: Future[T]

    def done_within(self, seconds: float) -> bool:
        """Return True as soon as it is done, False after `seconds`."""
        return bool(wait([self.result], seconds).done)


class BackgroundTasks(Generic[T]):
    """The latest work of one kind on each project, for one reader."""

    def __init__(self, pool: ThreadPoolExecutor) -> None:
        self._pool = pool
        self._last: dict[str, BackgroundTask[T]] = {}
        self._lock = threading.Lock()

    def of(self, project: str, work: Callable[[], T], *, restart: bool = False) -> BackgroundTask[T]:
        """Return the latest work on a project. It is started if there is none, if it failed, or with `restart`."""
        with self._lock:
            last = self._last.get(project)
            failed = last is not None and last.result.done() and last.result.exception() is not None
            if last is None or failed or (restart and last.result.done()):
                last = self._last[project] = BackgroundTask(datetime.now(UTC), self._pool.submit(work))
            return last


def still_reading(reader: Reader, project: Project | None, here: str = "Datasets") -> Response | None:
    """Return a page that refreshes itself while the datasets of a project, or of all, are read the first time.

    Returns None once they are read. `here` is the tab of the page. Errors are raised by the next use of the copy.
    """
    name = project.project_id if project else EVERYTHING
    copying = reader.sign_in.copies.of(name, partial(_copy, reader.sign_in, name))
    if copying.done_within(WAIT_S):
        return None
    page = rendered("reading.html", reader.name, project=project, here=here, begun=copying.begun.isoformat())
    page.headers["Refresh"] = str(ASK_AGAIN_S)
    return page


def _copy(sign_in: SignIn, project: str) -> None:
    with sign_in.session() as session:
        session.mirror.snapshot(project)
