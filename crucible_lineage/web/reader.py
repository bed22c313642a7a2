"""Access of a signed-in reader: our client with the reader's own key, so that the server decides about rights."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Project
from crucible_lineage.core.journal import Journal
from crucible_lineage.dataclass import dataclass
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings


@dataclass(frozen=True)
class SignIn:
    """A sign-in: `folder` has copies of what the reader's key can see, `data` is the server's data folder."""

    client: CrucibleClient
    name: str
    folder: Path
    data: Path
    expires: float

    def session(self) -> ReadingSession:
        """Return a session for one page."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ReadingSession(self.client, self.folder, self.data)


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

    is_open_to_all = True  # it tells nothing of this machine but how visible runs ended

    def __init__(self, client: CrucibleClient, folder: Path, data: Path) -> None:
        super().__init__(Settings(folder, client.api_url, source="the server of these pages"))
        self._reading, self._data = client, data

    @property
    def ran_here(self) -> tuple[Journal, Path]:
        """The server's journal, read without an account, and its data folder; the reader's own if there is none."""
        path = self._data / "journal.sqlite"
        if not path.exists():
            return super().ran_here
        journal = Journal(path, "", str)
        self._stack.callback(journal.close)
        return journal, self._data

    @property
    def client(self) -> CrucibleClient:
        """The reader's client, which outlives this session."""
        return self._reading
