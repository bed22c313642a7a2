"""Parameters of a step in one spelling, so that equal values give equal ids."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from typing import Any

from crucible_lineage.errors import InputError

__all__ = ["canonical_params", "canonical_value"]


def canonical_params(params: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters as plain JSON values. InputError names the parameter that has no stable spelling."""
    return {name: canonical_value(value, name) for name, value in params.items()}


def canonical_value(value: Any, name: str) -> Any:
    """`value` as JSON: numbers, text, lists and objects; `name` is told in the error when it cannot be."""
    if value is None or (isinstance(value, (bool, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return canonical_value(value.value, name)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise InputError(f"parameter {name!r} is {value}, which equals nothing, not even itself; give a number")
        return float(value)
    if isinstance(value, Mapping):
        return {_key(key, name): canonical_value(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((canonical_value(item, name) for item in value), key=repr)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
        return [canonical_value(item, f"{name}[{index}]") for index, item in enumerate(value)]
    return _of_known_type(value, name)


def _of_known_type(value: Any, name: str) -> Any:
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, (date, Decimal)):
        return str(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if hasattr(value, "get_secret_value"):
        raise InputError(
            f"parameter {name!r} is a secret; its value may not enter an id or a record, so take it from a block or "
            "the environment inside the step"
        )
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return canonical_value({field.name: getattr(value, field.name) for field in dataclasses.fields(value)}, name)
    if hasattr(value, "model_dump"):
        return canonical_value(dict(value), name)
    if hasattr(value, "tolist") and hasattr(value, "dtype"):  # numpy's scalars and arrays
        return canonical_value(value.tolist(), name)
    raise InputError(
        f"parameter {name!r} is a {type(value).__module__}.{type(value).__qualname__}, which has no stable spelling; "
        "give numbers, text, lists or mappings of them"
    )


def _key(key: Any, name: str) -> str:
    if not isinstance(key, str):
        raise InputError(f"parameter {name!r} has a key {key!r} that is not text")
    return key
