"""Types of JSON objects: datasets as Crucible returns them, metadata, parameters, provenance records, jobs."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from operator import attrgetter
from typing import Any, TypeAlias

JsonMapping: TypeAlias = Mapping[str, Any]  # only read
JsonObject: TypeAlias = dict[str, Any]  # built, or changed


def mapping(value: object) -> JsonMapping:
    """Return `value` if it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}


def text(value: object) -> str:
    """Return `value` if it is a string, else an empty one."""
    return value if isinstance(value, str) else ""


def texts(value: object) -> tuple[str, ...]:
    """Return the items of a list as strings; none of what is no list."""
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()


def json_keys(kind: type) -> Mapping[str, str]:
    """Return the keys of a dataclass in JSON with their attributes: those in its `json_keys`, by default its fields.

    A key is the attribute's name, or KEY=ATTRIBUTE.
    """
    keys = getattr(kind, "json_keys", "").split() or [field.name for field in fields(kind)]
    return {key: attribute or key for key, _, attribute in (key.partition("=") for key in keys)}


def json_of(value: Any) -> Any:
    """Return a value as JSON: a dataclass by its keys, where an optional text (empty by default) is null if empty."""
    if value is None or isinstance(value, str | int | float):
        return value
    if hasattr(value, "to_json"):
        return value.to_json()
    if is_dataclass(value):
        return object_of(value)
    if hasattr(value, "_asdict"):
        return json_of(value._asdict())
    if isinstance(value, Mapping):
        return {key: json_of(part) for key, part in value.items()}
    return [json_of(part) for part in value] if isinstance(value, list | tuple | set | frozenset) else str(value)


def object_of(value: Any) -> JsonObject:
    """Return a dataclass as a JSON object by its keys."""
    optional = {field.name for field in fields(value) if field.default == ""}
    found = ((key, name, attrgetter(name)(value)) for key, name in json_keys(type(value)).items())
    return {key: None if part == "" and name in optional else json_of(part) for key, name, part in found}
