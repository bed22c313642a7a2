"""Plain values in one spelling that keeps types apart: what code refers to when it refers to no code."""

from __future__ import annotations

import hashlib
import operator
import re
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from crucible_lineage.fingerprint.quantities import quantity_of

__all__ = ["CONTAINERS", "NotPlainError", "array_text", "constant_text"]

_LITERALS = (type(None), bool, str, bytes, float, complex, type(Ellipsis), type(NotImplemented))
_GETTERS = (operator.itemgetter, operator.attrgetter, operator.methodcaller)
# Their repr says all that there is to them, in the same words in every Python version.
_TELLING = (date, datetime, time, timedelta, timezone, Decimal, Fraction, UUID, range, slice, *_GETTERS)
CONTAINERS = (list, tuple, dict, set, frozenset, deque, OrderedDict, Counter, types.MappingProxyType)


class NotPlainError(Exception):
    """The value is no plain value."""


def constant_text(value: Any, folder: Path | None = None, opened: Callable[[Path], None] | None = None) -> str:
    """The value in one spelling, the same on every machine. NotPlainError if it is not made of plain values only.

    Paths below `folder`, where the code lies, are told from there; for a file its bytes count, and `opened` is told.
    """
    kind = type(value)
    if kind is str and folder and value.startswith(str(folder)) and (place := _located(Path(value), folder, opened)):
        return f"str:{place}"
    if kind in _LITERALS:
        return f"{kind.__name__}:{value!a}"
    if kind is int:
        return f"int:{value:x}"
    if isinstance(value, PurePath):
        return f"path:{_located(value, folder, opened) or ascii(value.as_posix())}"
    if isinstance(value, re.Pattern):
        return f"pattern:{value.pattern!a} {value.flags}"
    if kind in _TELLING:
        return f"{kind.__name__}:{value!a}"
    if kind in CONTAINERS:
        return f"{kind.__name__}[{_items(value, folder, opened)}]"
    if isinstance(value, type):
        raise NotPlainError("class")
    if (quantity := quantity_of(value)) is not None:
        parts = (quantity.value, quantity.unit, quantity.uncertainty)
        return f"quantity:{','.join(constant_text(part) for part in parts)}"
    try:
        if hasattr(value, "dtype") and hasattr(value, "tobytes"):
            return array_text(value)
    except Exception as error:  # a foreign class may raise whatever it likes when it is asked for an attribute
        raise NotPlainError(kind.__name__) from error
    raise NotPlainError(kind.__name__)


def array_text(value: Any) -> str:
    """A numpy array or scalar. NotPlainError if it holds Python objects, or only looks like an array."""
    try:
        if value.dtype.hasobject:
            raise NotPlainError("array of objects")
        dtype = value.dtype.descr if value.dtype.names else value.dtype.newbyteorder("<").str
        content = value.astype(value.dtype.newbyteorder("<")).tobytes()
        return f"array:{dtype!a} {tuple(value.shape)} {hashlib.sha256(content).hexdigest()}"
    except (AttributeError, NotImplementedError, TypeError, ValueError) as error:  # a foreign class has its own ways
        raise NotPlainError(f"{type(value).__name__} that is no plain array") from error


def _items(value: Any, folder: Path | None, opened: Callable[[Path], None] | None) -> str:
    if isinstance(value, (dict, types.MappingProxyType)):
        pairs = [(constant_text(key), constant_text(item, folder, opened)) for key, item in value.items()]
        return ",".join(f"{key}={item}" for key, item in pairs)
    spelled = [constant_text(item, folder, opened) for item in value]
    return ",".join(sorted(spelled) if isinstance(value, (set, frozenset)) else spelled)


def _located(path: PurePath, folder: Path | None, opened: Callable[[Path], None] | None) -> str:
    """A path below the folder of the code, with the hash of the file that is there; empty for any other path."""
    if folder is None or not path.is_relative_to(folder):
        return ""
    place = Path(path)
    content = ""
    if place.is_file():
        with place.open("rb") as stream:
            content = " " + hashlib.file_digest(stream, "sha256").hexdigest()
        if opened:
            opened(place)
    return ascii(path.relative_to(folder).as_posix()) + content
