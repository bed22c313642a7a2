"""Conversion between Python values and the wire: paths, query strings, JSON, records."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TypeVar
from urllib.parse import quote

from pydantic import ValidationError

from crucible_lineage.client.models import ReceivedModel, SentModel
from crucible_lineage.errors import InputError, ServerError
from crucible_lineage.ids import is_mfid

Params = Mapping[str, object]
Record = TypeVar("Record", bound=ReceivedModel)
Request = TypeVar("Request", bound=SentModel)


def segment(value: str, kind: str = "dataset") -> str:
    """Return `value` if it is an MFID and so safe in a path. Raises InputError that names the `kind` if not."""
    if is_mfid(value):
        return value
    raise InputError(
        f"not the MFID of a {kind}: {value!r}\nan MFID has 26 symbols: digits and a to z without i, l, o, u"
    )


def quoted(value: object) -> str:
    """Quote any text as one path segment."""
    return quote(str(value), safe="")


def json_bytes(body: Mapping[str, object]) -> bytes:
    """Return compact JSON. Raises InputError that names the first value without a JSON form."""
    try:
        return json.dumps(body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as cause:
        raise InputError(f"cannot be written as JSON: {_fault(body) or cause}\nnothing was sent") from cause


def to_send(model: type[Request], value: Request | Mapping[str, object]) -> Request:
    """Return `value` as a record to send. Raises InputError that names the wrong or unknown fields."""
    if isinstance(value, model):
        return value
    try:
        return model.model_validate(value)
    except ValidationError as cause:
        faults = cause.errors(include_url=False, include_input=False)
        lines = [f"{'.'.join(str(part) for part in fault['loc'])}: {fault['msg']}" for fault in faults]
        raise InputError(f"not a {model.__name__}; nothing was sent\n" + "\n".join(lines)) from cause


def parse(model: type[Record], value: object, action: str) -> Record:
    """Return `value` as a record. Raises ServerError if the answer is not as documented."""
    try:
        return model.model_validate(value)
    except ValidationError as cause:
        first = cause.errors(include_url=False, include_input=False)[0]
        location = ".".join(str(part) for part in first["loc"]) or "the answer"
        raise ServerError(
            f"could not {action}: Crucible's answer is not a {model.__name__} ({location}: {first['msg']})"
        ) from cause


def parse_all(model: type[Record], value: object, action: str) -> list[Record]:
    """Return the records of an array, or of the `items` of an envelope."""
    items = value.get("items") if isinstance(value, dict) else value
    if items is None:
        return []
    if not isinstance(items, list):
        raise ServerError(f"could not {action}: Crucible's answer is not a list")
    return [parse(model, item, action) for item in items]


def _fault(value: object, path: str = "") -> str | None:
    """Return the path of the first value without a JSON form, and the value; None if there is none."""
    if isinstance(value, Mapping):
        inner = ((f"{path}.{key}".lstrip("."), item) for key, item in value.items())
    elif isinstance(value, list | tuple):
        inner = ((f"{path}[{index}]", item) for index, item in enumerate(value))
    else:
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            return f"{path or 'the value'} is {value!r} ({type(value).__name__})"
        return None
    return next((fault for location, item in inner if (fault := _fault(item, location))), None)
