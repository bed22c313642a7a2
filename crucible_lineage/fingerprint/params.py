"""Parameters of a step in one spelling, so that equal values give equal ids."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.walk import code_fingerprint
from crucible_lineage.ids import canonical_json
from crucible_lineage.step import Step

__all__ = ["canonical_params", "canonical_value", "secret_digest"]

SECRET_TAG = b"crucible-lineage/secret/1\n"
# 16 MB and some 50 ms for each guess at a secret; chosen so that planning does not become slow.
_SCRYPT_COST = {"n": 1 << 14, "r": 8, "p": 1}


def canonical_params(params: Mapping[str, Any], step: Step[..., Any] | None = None) -> dict[str, Any]:
    """The parameters as plain JSON values; of those that the step declares secret only a digest.

    InputError names the parameter that has no stable spelling.
    """
    secrets = {spec.name for spec in step.parameters if spec.secret} if step else set()
    home = step.function.__module__ if step else None
    return {
        name: secret_digest(value, name, step.name) if step and name in secrets else canonical_value(value, name, home)
        for name, value in params.items()
    }


def canonical_value(value: Any, name: str, home: str | None = None, *, reveal: bool = False) -> Any:
    """`value` as JSON: numbers, text, lists and objects; `name` is told in the error when it cannot be.

    A function becomes the fingerprint of its code, seen from the module `home`. A secret is refused, unless `reveal`
    says that the result goes no further than into a digest.
    """
    inside = functools.partial(canonical_value, home=home, reveal=reveal)
    if isinstance(value, Enum):
        return inside(value.value, name)
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return _finite(value, name)
    if isinstance(value, Mapping):
        return {_key(key, name): inside(item, f"{name}.{key}") for key, item in value.items()}
    if isinstance(value, AbstractSet):
        return sorted((inside(item, name) for item in value), key=canonical_json)
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, range)):
        return [inside(item, f"{name}[{index}]") for index, item in enumerate(value)]
    return _of_known_type(value, name, home, reveal)


def secret_digest(value: Any, name: str, step: str) -> dict[str, str] | None:
    """What stands for a secret in ids and records: a slow digest, so that it shows a change but is hard to guess from.

    The same on every machine; another one for the same secret in another step or parameter. docs/identity.md says why.
    """
    if value is None:
        return None
    content = canonical_json(canonical_value(value, name, reveal=True))
    salt = SECRET_TAG + canonical_json([step, name])
    return {"secret": hashlib.scrypt(content, salt=salt, dklen=16, **_SCRYPT_COST).hex()}


def _of_known_type(value: Any, name: str, home: str | None, reveal: bool) -> Any:
    inside = functools.partial(canonical_value, home=home, reveal=reveal)
    if isinstance(value, (bytes, bytearray)):
        return {"bytes": bytes(value).hex()}
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat() if value.tzinfo else value.isoformat()
    if isinstance(value, (date, time, timedelta, Decimal, Fraction, UUID)):
        return str(value)
    if isinstance(value, PurePath):
        return value.as_posix()
    if isinstance(value, (type, functools.partial)) or (callable(value) and hasattr(value, "__name__")):
        return {"code": code_fingerprint(value, home=home).digest}
    if hasattr(value, "get_secret_value"):
        if reveal:
            return inside(value.get_secret_value(), name)
        raise InputError(
            f"parameter {name!r} is or holds a secret, whose value may not enter an id or a record; name the "
            f"parameter in @step(secrets=[{name.partition('.')[0]!r}]), or take the secret from a block or the "
            "environment inside the step"
        )
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
        return inside(fields, name)
    if hasattr(value, "model_dump"):
        return inside(dict(value), name)
    if hasattr(value, "tolist") and hasattr(value, "dtype") and (plain := value.tolist()) is not value:  # numpy
        return inside(plain, name)
    raise InputError(
        f"parameter {name!r} is a {type(value).__module__}.{type(value).__qualname__}, which has no stable spelling; "
        "give numbers, text, lists or mappings of them"
    )


def _finite(value: float, name: str) -> float:
    if math.isfinite(value):
        return float(value)
    what = "equals nothing, not even itself" if math.isnan(value) else "is no number that JSON can tell"
    raise InputError(f"parameter {name!r} is {value}, which {what}; give a finite number, or null for none")


def _key(key: Any, name: str) -> str:
    plain = key.value if isinstance(key, Enum) else key
    if not isinstance(plain, str):
        raise InputError(f"parameter {name!r} has a key {key!r} that is not text")
    return str.__str__(plain)
