"""Types of JSON objects: datasets as Crucible returns them, metadata, parameters, provenance records, jobs."""

from collections.abc import Mapping
from typing import Any, TypeAlias

JsonMapping: TypeAlias = Mapping[str, Any]  # only read
JsonObject: TypeAlias = dict[str, Any]  # built, or changed


def mapping(value: object) -> JsonMapping:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
