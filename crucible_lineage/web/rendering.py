"""Pages from templates: every value is escaped, and what would steer a terminal or the direction of text is spelled."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import ChainableUndefined, Environment, PackageLoader
from markupsafe import Markup, escape
from starlette.responses import HTMLResponse, Response

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.lineage.labels import plain, short_id
from crucible_lineage.times import taken, utc

__all__ = ["rendered", "resource"]


def rendered(template: str, reader: str | None = None, status: int = 200, **values: object) -> Response:
    """The page of a template. `reader` is the name of who has signed in."""
    return HTMLResponse(_environment().get_template(template).render(reader=reader, **values), status)


@cache
def resource(name: str) -> str:
    """A text file of this package."""
    return files("crucible_lineage.web").joinpath(name).read_text(encoding="utf-8")


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("crucible_lineage.web"),
        autoescape=True,
        undefined=ChainableUndefined,
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
        "moment": _minute,
        "taken": _taken,
        "query": _query,
        "segment": lambda text: quote(str(text), safe=""),
        "short": short_id,
    }
    return environment


def _one_line(value: object) -> object:
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _block(text: str) -> Markup:
    """Text whose lines stay lines."""
    return Markup("\n").join(escape(plain(line)) for line in text.split("\n"))


def _in_json(value: object, most: int = 4000) -> Markup:
    """The value as JSON, its beginning if it is long."""
    text = json.dumps(value, indent=1, ensure_ascii=False, default=str)
    return _block(text if len(text) <= most else f"{text[:most]}…")


def _minute(text: str | None) -> str:
    """A time of day to the minute, in UTC; what is none stays as it is."""
    try:
        return utc(text or "").astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
    except ValueError:
        return text or ""


def _taken(record: Any) -> str:
    """When the data of a dataset were taken; empty where nobody said it."""
    known = taken({"timestamp": record.timestamp, "creation_time": record.creation_time})
    return known.isoformat() if known else ""


def _query(values: Mapping[str, object], **changed: object) -> str:
    """A query string of these values with some changed; None takes one out."""
    present = {name: value for name, value in {**values, **changed}.items() if value not in (None, "")}
    return f"?{urlencode(present)}" if present else "?"
