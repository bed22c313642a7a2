"""The reader of a page, signed in with a key; and pages from templates.

Every value is escaped, and parents hidden from the reader are not shown. Control characters for terminals or text
direction are spelled out.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import dataclass, is_dataclass
from datetime import UTC
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import ChainableUndefined, Environment, PackageLoader, UndefinedError
from markupsafe import Markup, escape
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from crucible_lineage.client import CrucibleClient
from crucible_lineage.client.models import Project
from crucible_lineage.core.journal import Journal
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.labels import HIDDEN_NAME, plain, plain_lines, short_id
from crucible_lineage.refs import relation_text
from crucible_lineage.registration.read import taken_of
from crucible_lineage.session import Session
from crucible_lineage.settings import Settings
from crucible_lineage.text.amounts import amount, size_text, time_text
from crucible_lineage.text.masking import masked_text
from crucible_lineage.text.times import utc

_MFID = re.compile(r"(?<![0-9a-z])[0-9a-hjkmnp-tv-z]{26}(?![0-9a-z])")


def rendered(template: str, reader: str | None = None, status: int = 200, **values: object) -> Response:
    """Render the page of a template. `reader` is the name of the signed-in reader."""
    page = _environment().get_template(template).render(reader=reader, **values)
    return HTMLResponse(masked_text(page), status)


@cache
def resource(name: str) -> str:
    """Return a text file of this package."""
    return files("crucible_lineage.web").joinpath(name).read_text(encoding="utf-8")


class _Absent(ChainableUndefined):
    """Render a key that a record lacks as nothing. Raises UndefinedError for an attribute that an object lacks."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        owner = self._undefined_obj
        if is_dataclass(owner) or hasattr(owner, "_fields"):
            raise UndefinedError(f"{type(owner).__name__} has no attribute {self._undefined_name!r}")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("crucible_lineage.web"),
        autoescape=True,
        undefined=_Absent,
        finalize=_one_line,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "amount": amount,
        "block": _block,
        "bytes": lambda size: "unknown" if size is None else size_text(size),
        "duration": time_text,
        "in_json": _in_json,
        "linked": _linked,
        "moment": _minute,
        "taken": taken_of,
        "picture": lambda svg: f"data:image/svg+xml;base64,{b64encode(svg.encode()).decode()}",
        "query": _query,
        "relation": relation_text,
        "segment": lambda text: quote(str(text), safe=""),
        "short": short_id,
    }
    return environment


def _one_line(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _block(text: str) -> Markup:
    """Escape text, and keep its lines."""
    return escape(plain_lines(text))


def _in_json(value: object, most: int = 4000) -> Markup:
    """Return the value as JSON, cut off if it is long."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return _block(text if len(text) <= most else f"{text[:most]}…")


def _minute(text: str | None) -> str:
    """Return a time in UTC, to the minute; other text unchanged."""
    try:
        return utc(text or "").astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text or ""


def _query(values: Mapping[str, object], **changed: object) -> str:
    """Return a query string of these values with some changed; None removes one."""
    present = {name: value for name, value in {**values, **changed}.items() if value not in (None, "")}
    return f"?{urlencode(present)}" if present else "?"


def mfids_in(text: str) -> set[str]:
    """Return the ids of datasets in a text."""
    return set(_MFID.findall(text))


def _linked(text: str) -> Markup:
    """Escape a text, and link each dataset that it names."""
    return Markup(_MFID.sub(r'<a href="/datasets/\g<0>">\g<0></a>', str(escape(plain(text)))))  # noqa: S704 (escaped)


def redacted(text: str, hidden: Collection[str]) -> str:
    """Replace the ids of hidden datasets in a text."""
    return _MFID.sub(lambda match: HIDDEN_NAME if match.group() in hidden else match.group(), text)


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
