"""Pydantic's errors about a declaration as faults: reworded, with location and the nearest allowed word."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import get_args

from pydantic import BaseModel

from crucible_lineage.errors import Fault, nearest, nearest_word
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.pipeline.declare.inputs import INPUT_KINDS, FileInput
from crucible_lineage.pipeline.declare.pipeline import PipelineSpec, StepSpec
from crucible_lineage.pipeline.declare.yaml import Document, Location
from crucible_lineage.refs import NOT_SET

INTERNAL_FIELDS = ("path", "digest", "folder", "references")  # fields that are set by the reader, not declared
_NO_SOURCE = ("model_type", "tuple_type", "string_type", "dict_type")
_TYPE = re.compile(r"Source|FileInput|DatasetInput|(dict\[|tuple\[|function-).*")
TOP_KEYS = [name for name in (*PipelineSpec.model_fields, "params") if name not in INTERNAL_FIELDS]


def faults_of(document: Document, errors: Iterable[JsonMapping], hidden: Collection[Location] = ()) -> Iterator[Fault]:
    """Yield the faults that pydantic found, without repetitions; values at `hidden` locations are not shown."""
    errors = list(errors)
    unknown = [location_of(error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    reported: set[tuple[Location, str]] = set()
    for error in errors:
        location = location_of(error["loc"])
        types = [other["type"] for other in errors if location_of(other["loc"]) == location]
        if error["type"] == "string_type" and isinstance(error["input"], list | tuple) and types != ["string_type"]:
            continue  # also read as a list, whose faults are reported instead
        others = (location_of(other["loc"]) for other in errors)
        if error["type"] == "too_short" and any(other[:-1][: len(location)] == location for other in others):
            continue  # its items have faults of their own
        is_form = error["type"] in _NO_SOURCE
        if is_form and _is_source(location) and len(location) == 4 and isinstance(error["input"], dict | list):
            continue  # about the form (text, mapping, list) that a source was not written in
        siblings = [str(other[-1]) for other in unknown if other[:-1] == location[:-1]]
        if error["type"] == "missing" and any(nearest_word(key, [str(location[-1])]) for key in siblings):
            continue  # present under a misspelt name, which is reported as unknown
        type_only = "type" if is_form else error["type"] + error["msg"]
        kind = "source" if _is_source(location) else type_only
        if (location, kind) not in reported:
            reported.add((location, kind))
            yield _fault_of(document, error, hidden)


def _is_source(location: Location) -> bool:
    return len(location) >= 4 and location[0] == "steps" and location[2] == "inputs"


def _fault_of(document: Document, error: JsonMapping, hidden: Collection[Location]) -> Fault:
    raw: tuple[str | int, ...] = error["loc"]
    location = location_of(raw)
    if location[-1:] == ("[key]",):
        location = location[:-1]
    label = ".".join(map(str, location))
    if error["type"] == "extra_forbidden":
        if location[-1] == "from name":
            advice = "`from name` is written as the value of a field: `metadata: {NAME: \"from name '(PATTERN)'\"}`"
            return document.fault(location, f"unknown key 'from name'; {advice}")
        allowed = _allowed_keys(raw)
        is_format = location[-1] == "data_format"
        reason = "Crucible reads it from the files" if is_format else NOT_SET.get(str(location[-1]))
        hint = reason or nearest(str(location[-1]), sorted(allowed), "possible here")
        return document.fault(location, f"unknown key {location[-1]!r}; {hint}")
    if error["type"] == "missing":
        within = f" in {'.'.join(map(str, location[:-1]))}" if location[:-1] else ""
        return document.fault(location[:-1], f"the key {location[-1]!r} is missing{within}")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in _NO_SOURCE and _is_source(location):
        message = "write a source as NAME, NAME.OUTPUT or {from: NAME}, and several as a list"
    if error["type"] == "too_short" and _is_source(location):
        message = "the list of sources is empty; name at least one"
    if error["type"] == "input_kind" and isinstance(error["input"], dict):
        wrong = (str(key) for key in error["input"] if key not in INPUT_KINDS)
        near = next(filter(None, (nearest_word(key, INPUT_KINDS) for key in wrong)), None)
        message += f"; did you mean {near!r}?" if near else ""
    if error["type"].startswith(("datetime_", "date_")):
        message = "that is not a time; write it as in 2024-05-10T12:00:00Z"
    secret = any(location[: len(other)] == other or other[: len(location)] == location for other in hidden)
    given = error["input"]
    given = {key: part for key, part in given.items() if key != "folder"} if isinstance(given, dict) else given
    shown = "a value from the environment" if secret else repr(given)
    return document.fault(location, f"{label}: {message} (given: {shown if len(shown) <= 60 else f'{shown[:57]}...'})")


def location_of(raw: tuple[str | int, ...]) -> Location:
    """Return the location in the document: pydantic's, without its tags and type names."""
    tagged = len(raw) > 2 and raw[0] == "inputs" and raw[2] in INPUT_KINDS
    tags = (
        {2, 5} if tagged and raw[2] == "each" and len(raw) > 4 and isinstance(raw[4], int) else {2} if tagged else set()
    )
    types = {index for index, part in enumerate(raw) if index > 2 and isinstance(part, str) and _TYPE.fullmatch(part)}
    types |= {len(raw) - 1} if len(raw) > 3 and raw[-1] == "str" else set()
    return tuple(part for index, part in enumerate(raw) if index not in tags | types)


def _allowed_keys(raw: tuple[str | int, ...]) -> list[str]:
    """Return the keys that are possible at pydantic's location of an unknown one."""
    if len(raw) == 1:
        return TOP_KEYS
    if raw[0] == "inputs":
        kind = raw[5] if raw[2] == "each" and len(raw) > 5 else raw[2]
        model: type[BaseModel] = FileInput if kind == "each" else INPUT_KINDS.get(str(kind), FileInput)
    else:
        model = StepSpec if raw[0] == "steps" else PipelineSpec
    for part in raw[2:-1] if raw[0] == "steps" else raw[3:-1] if raw[0] == "inputs" else raw[:-1]:
        fields = (field for name, field in model.model_fields.items() if part in (name, field.alias))
        model = next((nested for field in fields for nested in _models_in(field.annotation)), model)
    return [field.alias or name for name, field in model.model_fields.items() if name not in INTERNAL_FIELDS]


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from _models_in(part)
