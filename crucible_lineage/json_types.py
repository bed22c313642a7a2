"""Types of JSON objects: datasets as Crucible returns them, metadata, parameters, provenance records, jobs."""

from collections.abc import Mapping
from typing import Any, TypeAlias

JsonMapping: TypeAlias = Mapping[str, Any]  # only read
JsonObject: TypeAlias = dict[str, Any]  # built, or changed
