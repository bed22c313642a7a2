"""Values as JSON, with notes of the classes that JSON lacks: NumPy numbers, tuples, dates, models."""

from __future__ import annotations

import importlib
import json
import math
import sys
from collections.abc import Mapping
from enum import Enum
from typing import Any

from crucible_lineage.tasks.dropin.values.kinds import SCALARS, is_plain, kind_of

MOST_LEVELS = 50  # of nested lists and dicts
MOST_CLASSES = 1000  # in one list or dict; with more, the value is stored but cannot be read back
OTHER = "other"  # a class that cannot be read back

Classes = Any
"""None if JSON returns an equal value, the name of a class, or a list of the container's kind and its items'."""


class NotJsonError(Exception):
    """Raised if JSON cannot represent the value."""


def spelled(value: object, level: int = 0) -> tuple[Any, Classes]:
    """Return the value as JSON and the classes that `read_spelled` needs. Raises NotJsonError if there is no JSON."""
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
    """Return the value from its JSON. Raises whatever its class raises if it rejects the JSON."""
    if classes is None:
        return plain
    if isinstance(classes, str):
        return _read_one(plain, classes)
    name, item_classes = classes
    if name == "dict":
        return dict(zip(plain, _read_items(list(plain.values()), item_classes), strict=True))
    if name == "pairs":
        return dict(_read_items(plain, item_classes))
    container: Any = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}[name]
    return container(_read_items(plain, item_classes))


def load_class(name: str, plain: Any) -> Any:
    """Return a value of the class `module.name` from JSON, as bytes or parsed."""
    from pydantic import TypeAdapter

    module, _, qualname = name.rpartition(".")
    cls: Any = importlib.import_module(module)
    for part in qualname.split("."):
        cls = getattr(cls, part)
    adapter = TypeAdapter(cls)
    return adapter.validate_json(plain) if isinstance(plain, bytes) else adapter.validate_python(plain)


def _float(value: float) -> tuple[Any, Classes]:
    name = _number_class(value) or ("float" if type(value) is float else OTHER)
    plain = float(value)
    return (plain, name) if math.isfinite(plain) else (str(plain), name)


def _number_class(value: object) -> str | None:
    """Return the class of a NumPy number that JSON represents exactly; None for other values."""
    numpy = sys.modules.get("numpy")
    if numpy is None or not isinstance(value, numpy.generic):
        return None
    return f"numpy.{value.dtype.name}" if value.dtype.kind in "biuf" and value.dtype.itemsize <= 8 else None


def _mapping(value: Mapping[Any, Any], level: int) -> tuple[Any, Classes]:
    """Return a mapping as a JSON object, or as pairs if keys are not strings."""
    if all(type(key) is str for key in value):
        items = [spelled(item, level + 1) for item in value.values()]
        item_classes = _classes([classes for _, classes in items])
        plain: Any = dict(zip(value, [plain for plain, _ in items], strict=True))
        return plain, ["dict", item_classes] if type(value) is dict else OTHER
    pairs, item_classes = _items(list(value.items()), level)
    return pairs, ["pairs", item_classes[1]] if type(value) is dict else OTHER


def _items(value: Any, level: int) -> tuple[Any, Classes]:
    if hasattr(value, "_asdict"):  # a named tuple
        return _mapping(value._asdict(), level)[0], OTHER
    items = value
    if isinstance(value, (set, frozenset)):
        try:
            items = sorted(value)
        except TypeError:
            items = sorted(value, key=repr)
    spellings = [spelled(item, level + 1) for item in items]
    name = type(value).__name__ if type(value) in (list, tuple, set, frozenset) else ""
    item_classes = _classes([classes for _, classes in spellings])
    return [plain for plain, _ in spellings], [name, item_classes] if name else OTHER


def _classes(classes: list[Classes]) -> Classes:
    """Return None, one class for all items, or one for each."""
    if not classes or all(other == classes[0] for other in classes):
        return {"each": classes[0]} if classes and classes[0] is not None else None
    return classes if len(classes) <= MOST_CLASSES else {"each": OTHER}


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


def _read_items(plain: list[Any], item_classes: Classes) -> list[Any]:
    each = (
        [item_classes["each"]] * len(plain) if isinstance(item_classes, dict) else item_classes or [None] * len(plain)
    )
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
