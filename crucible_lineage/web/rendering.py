"""Render pages from templates. Every value is escaped, and parents hidden from the reader are not shown.

Control characters for terminals or text direction are spelled out.
"""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Collection, Mapping
from dataclasses import is_dataclass
from datetime import UTC
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import ChainableUndefined, Environment, PackageLoader, UndefinedError
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from crucible_lineage.lineage.labels import HIDDEN_NAME, plain, plain_lines, short_id
from crucible_lineage.refs import relation_text
from crucible_lineage.registration.read import taken_of
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
