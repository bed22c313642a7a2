"""A signed-in reader's way to Crucible: our client with the reader's own key, so that the server decides on access."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request

from crucible_lineage.client import CrucibleClient
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.queries.verify.verify import Verification
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.web.long_work import LongWorks

__all__ = ["Reader", "ReadingSession", "SignIn"]


@dataclass(frozen=True)
class SignIn:
    """One reader's sign-in. `folder` holds copies of what this reader's key may see; `copies` are the first ones.

    `data` is the data folder of the server.
    """

    client: CrucibleClient
    name: str
    checks: LongWorks[Verification]
    copies: LongWorks[None]
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
