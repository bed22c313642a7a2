"""Values as plain JSON, by one rule for parameters and returned values. docs/identity.md describes it for users.

Quantities of foreign libraries (astropy, pint, uncertainties) are a number or array, its unit and its uncertainty. They
are recognised by their attributes, so that none of these libraries is imported or needed.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from crucible_lineage.ids import canonical_json
from crucible_lineage.json_types import JsonObject

MOST_LEVELS = 90  # of nested lists and mappings; Crucible accepts a hundred, including the document around them

Other = Callable[[Any, str], Any]


# Attributes for value, uncertainty and unit.
_FORMS = (
    ("nominal_value", "std_dev", None),  # uncertainties: no unit
    ("magnitude", None, "units"),  # pint
    ("value", None, "unit"),  # astropy
)


class ValueFaultError(ValueError):
    """A value without a form in JSON: its `path`, and the `reason` with what to give instead."""

    def __init__(self, path: str, reason: str) -> None:
        self.path = path
        self.reason = reason
        super().__init__(f"{path} {reason}")


def plain_value(value: object, path: str, other: Other | None = None, *, level: int = 0) -> Any:
    """Return `value` as plain JSON, by `other` where it has no such form. Raises ValueFaultError with its path."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, Enum):
        return plain_value(value.value, path, other, level=level)
    if isinstance(value, str):
        return _text(str.__str__(value), path)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        reason = f"is {float(value)}, which JSON cannot represent; give a finite number, or null for none"
        raise ValueFaultError(path, reason)
    if level > MOST_LEVELS:
        raise ValueFaultError(path, f"has more than {MOST_LEVELS} levels, or contains itself; give less")
    if isinstance(value, Mapping):
        return _mapping(value, path, other, level)
    if isinstance(value, AbstractSet):
        return sorted((plain_value(item, path, other, level=level + 1) for item in value), key=canonical_json)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, range, memoryview)):
        items = enumerate(value)
        return [plain_value(item, f"{path}[{index}]", other, level=level + 1) for index, item in items]
    return _of_known_type(value, path, other, level)


def _mapping(value: Mapping[object, object], path: str, other: Other | None, level: int) -> JsonObject:
    plain: JsonObject = {}
    for key, item in value.items():
        name = _key(key, path)
        if name in plain:
            raise ValueFaultError(path, f"has two keys that both are {name!r} as text; give them different names")
        plain[name] = plain_value(item, f"{path}.{name}", other, level=level + 1)
    return plain


def _key(key: object, path: str) -> str:
    """Return a key as text: numbers, dates and similar as in JSON."""
    try:
        plain = plain_value(key, f"{path}: a key")
    except ValueFaultError:
        plain = {}
    if isinstance(plain, str):
        return plain
    if isinstance(plain, (list, dict)):
        raise ValueFaultError(path, f"has a key {key!r} that is neither text nor a number; give text")
    return json.dumps(plain)


def _of_python(value: Any, path: str) -> Any:
    """Return a value of Python's own types, each with one form in JSON; None for other types."""
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, datetime) and value == value:  # not equal to itself: NaT of pandas
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, (date, time, timedelta, Decimal, Fraction, UUID)) and value == value:
        return str(value)
    return _text(value.as_posix(), path) if isinstance(value, PurePath) else None


def _of_known_type(value: Any, path: str, other: Other | None, level: int) -> Any:
    """Return a value by its type, a dataclass, a model or an array by its contents; ValueFaultError for other types."""
    if (plain := _of_python(value, path)) is not None:
        return plain
    if (quantity := quantity_of(value)) is not None:
        return plain_value(quantity, path, other, level=level + 1)
    if other is not None and (converted := other(value, path)) is not None:
        return converted
    if hasattr(value, "get_secret_value"):
        raise ValueFaultError(path, "is or contains a secret, which must not be recorded; leave it out")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return plain_value(fields, path, other, level=level + 1)
    if hasattr(value, "model_dump") and not isinstance(value, type):  # pydantic
        return plain_value(dict(value), path, other, level=level + 1)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy and pandas
        moments = getattr(value.dtype, "kind", "") in ("m", "M")
        content = value.astype(str) if moments else value  # else times become bare counts
        if type(plain := content.tolist()) is not type(value) and not (moments and "NaT" in str(plain)):
            return plain_value(plain, path, other, level=level + 1)
    raise ValueFaultError(
        path,
        f"is a {type(value).__module__}.{type(value).__qualname__}, which has no stable spelling; "
        "give numbers, text, lists or mappings of them",
    )


def _text(value: str, path: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ValueFaultError(path, f"is {value!r}, which is not valid Unicode text") from None
    return value


def quantity_of(value: Any) -> JsonObject | None:
    """Return the value of a quantity, its unit (empty for a pure number), and its uncertainty if it has one.

    None for other values.
    """
    kind = type(value)
    if isinstance(value, type) or kind.__module__.partition(".")[0] in ("builtins", "numpy", "pandas"):
        return None
    form = next((form for form in _FORMS if all(hasattr(kind, part) for part in form if part)), None)
    if form is None:
        return None
    number, uncertainty, unit = (getattr(value, part) if part else None for part in form)
    if unit is None and uncertainty is None:
        return None
    inner = quantity_of(number)  # a measurement of pint contains a number with its uncertainty
    if inner is not None:
        number, uncertainty = inner["value"], inner.get("uncertainty")
    if not (isinstance(number, int | float | complex) or hasattr(number, "dtype")):
        return None
    entry = {"value": number, "unit": "" if unit is None else str(unit)}
    return entry if uncertainty is None else {**entry, "uncertainty": uncertainty}
