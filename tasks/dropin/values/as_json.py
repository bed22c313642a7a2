"""Values as JSON, with the classes that JSON does not have beside it: numbers of NumPy, tuples, dates, models."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from crucible_lineage.tasks.dropin.values.kinds import is_plain, kind_of

MOST_LEVELS = 50  # of lists and dicts in each other
MOST_CLASSES = 1000  # in one list or dict; with more the value is stored, and not read again
SCALARS = (datetime, date, time, timedelta, Decimal, UUID, complex)
OTHER = "other"  # a class that is not read again

Classes = Any
"""None where JSON gives the value back, the name of a class, or a list of what the container is and its items."""


class NotJsonError(Exception):
    """JSON cannot hold the value."""


def spelled(value: object, level: int = 0) -> tuple[Any, Classes]:
    """Return the value as JSON and the classes that `read_spelled` needs. Raises UnspelledError if there is no JSON."""
    if is_plain(value):
        return value, None
    if level > MOST_LEVELS:
        raise NotJsonError
    if isinstance(value, Enum):
        return _by_pydantic(value)
    if isinstance(value, float):
        return _float(value)
    if isinstance(value, (str, int)):
        plain = str.__str__(value) if isinstance(value, str) else int(value)
        return plain, _number_class(value) or OTHER
    if isinstance(value, Mapping):
        return _mapping(value, level)
    if isinstance(value, (list, tuple, set, frozenset)):
        return _items(value, level)
    if (name := _number_class(value)) is not None:
        return value.item(), name  # type: ignore[attr-defined]
    kind = kind_of(value)
    if isinstance(value, SCALARS) or (kind is not None and kind.name in ("model", "dataclass")):
        return _by_pydantic(value)
    raise NotJsonError


def read_spelled(plain: Any, classes: Classes) -> Any:
    """Return the value that was spelled. Raises what its class raises if that does not accept the JSON."""
    if classes is None:
        return plain
    if isinstance(classes, str):
        return _read_one(plain, classes)
    name, inside = classes
    if name == "dict":
        return dict(zip(plain, _read_items(list(plain.values()), inside), strict=True))
    if name == "pairs":
        return dict(_read_items(plain, inside))
    made: Any = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]
    return made(_read_items(plain, inside))


def load_class(name: str, plain: Any) -> Any:
    """Return a value of the class `module.name`, from JSON as bytes or as parsed."""
    from pydantic import TypeAdapter

    module, _, qualname = name.rpartition(".")
    found: Any = importlib.import_module(module)
    for part in qualname.split("."):
        found = getattr(found, part)
    adapter = TypeAdapter(found)
    return adapter.validate_json(plain) if isinstance(plain, bytes) else adapter.validate_python(plain)


def _float(value: float) -> tuple[Any, Classes]:
    name = _number_class(value) or ("float" if type(value) is float else OTHER)
    plain = float(value)
    return (plain, name) if math.isfinite(plain) else (str(plain), name)


def _number_class(value: object) -> str | None:
    """Return the class of a NumPy number that JSON gives back digit by digit."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    return f"numpy.{value.dtype.name}" if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 else None


def _mapping(value: Mapping[Any, Any], level: int) -> tuple[Any, Classes]:
    """Spell as an object; as pairs if keys are not texts."""
    if all(type(key) is str for key in value):
        found = [spelled(item, level + 1) for item in value.values()]
        inside = _classes([classes for _, classes in found])
        plain: Any = dict(zip(value, [plain for plain, _ in found], strict=True))
        return plain, ["dict", inside] if type(value) is dict else OTHER
    pairs, inside = _items(list(value.items()), level)
    return pairs, ["pairs", inside[1]] if type(value) is dict else OTHER


def _items(value: Any, level: int) -> tuple[Any, Classes]:
    if hasattr(value, "_asdict"):  # a tuple whose places have names
        return _mapping(value._asdict(), level)[0], OTHER
    items = value
    if isinstance(value, (set, frozenset)):
        try:
            items = sorted(value)
        except TypeError:
            items = sorted(value, key=repr)
    found = [spelled(item, level + 1) for item in items]
    name = type(value).__name__ if type(value) in (list, tuple, set, frozenset) else ""
    inside = _classes([classes for _, classes in found])
    return [plain for plain, _ in found], [name, inside] if name else OTHER


def _classes(found: list[Classes]) -> Classes:
    """Return nothing, one class for all items, or one for each."""
    if not found or all(one == found[0] for one in found):
        return {"each": found[0]} if found and found[0] is not None else None
    return found if len(found) <= MOST_CLASSES else {"each": OTHER}


def _by_pydantic(value: object) -> tuple[Any, Classes]:
    from pydantic_core import to_json

    try:
        plain = json.loads(to_json(value, inf_nan_mode="strings", fallback=_number))
    except Exception as error:  # whatever a class of the user raises
        raise NotJsonError from error
    return plain, f"{type(value).__module__}.{type(value).__qualname__}"


def _number(value: Any) -> Any:
    if _number_class(value) is None:
        raise NotJsonError
    return value.item()


def _read_items(plain: list[Any], inside: Classes) -> list[Any]:
    each = [inside["each"]] * len(plain) if isinstance(inside, dict) else inside or [None] * len(plain)
    return [read_spelled(item, classes) for item, classes in zip(plain, each, strict=True)]


def _read_one(plain: Any, name: str) -> Any:
    if name == OTHER:
        raise NotJsonError
    if name == "float":
        return float(plain)
    if name.startswith("numpy."):
        import numpy

        return numpy.dtype(name.removeprefix("numpy.")).type(plain)
    return load_class(name, plain)
