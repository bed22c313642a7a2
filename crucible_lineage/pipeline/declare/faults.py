"""What pydantic finds wrong with a declaration, in our words, at its place, with the nearest allowed word."""

from __future__ import annotations

import difflib
from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

from crucible_lineage.errors import Finding
from crucible_lineage.pipeline.declare.yaml import Document, Location
from crucible_lineage.pipeline.spec.inputs import INPUT_KINDS, FileInput
from crucible_lineage.pipeline.spec.pipeline import (
    OutputFields,
    PipelineSpec,
    Publish,
    Runner,
    Schedule,
    Source,
    StepSpec,
    Trigger,
)

__all__ = ["TOP_KEYS", "finding_of"]

OURS = ("path", "digest", "folder", "references")  # fields that are not declared but known
TOP_KEYS = [name for name in (*PipelineSpec.model_fields, "params", "defaults", "include") if name not in OURS]


def finding_of(document: Document, fault: dict[str, Any], hidden: Collection[Location] = ()) -> Finding:
    """A fault that pydantic found; the values at `hidden` places are not shown."""
    raw: tuple[str | int, ...] = fault["loc"]
    location = _location(raw)
    label = ".".join(str(part) for part in location)
    if fault["type"] == "extra_forbidden":
        allowed = _allowed_keys(raw)
        near = difflib.get_close_matches(str(location[-1]), allowed, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else f"; possible here: {', '.join(sorted(allowed))}"
        return document.finding(location, f"unknown key {location[-1]!r}{hint}")
    if fault["type"] == "missing":
        return document.finding(location[:-1], f"the key {location[-1]!r} is missing{_within(location[:-1])}")
    message = fault["msg"].removeprefix("Value error, ")
    secret = any(location[: len(place)] == place or place[: len(location)] == location for place in hidden)
    given = "a value from the environment" if secret else _short(fault["input"])
    return document.finding(location, f"{label}: {message} (given: {given})")


def _location(raw: tuple[str | int, ...]) -> Location:
    """The place in the document: what pydantic names for its own sake is left out."""
    tagged = len(raw) > 2 and raw[0] == "inputs" and raw[2] in INPUT_KINDS
    return tuple(
        part
        for index, part in enumerate(raw)
        if not (tagged and index == 2) and not (index > 2 and isinstance(part, str) and _is_name_of_type(raw, index))
    )


def _is_name_of_type(raw: tuple[str | int, ...], index: int) -> bool:
    part = raw[index]
    return part in ("Source", "tuple[Source, ...]", "FileInput", "DatasetInput") or str(part).startswith(
        ("dict[", "tuple[", "function-")
    )


def _within(location: Location) -> str:
    return f" in {'.'.join(str(part) for part in location)}" if location else ""


def _allowed_keys(raw: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = StepSpec
    extra: list[str] = []
    if len(raw) == 1:
        return TOP_KEYS
    if raw[0] == "inputs":
        model = FileInput if raw[2] == "each" else INPUT_KINDS.get(str(raw[2]), FileInput)
        extra = ["crux"] if model is FileInput else []
    elif raw[0] in ("schedule", "trigger", "runner"):
        sections: dict[str, type[BaseModel]] = {"schedule": Schedule, "trigger": Trigger, "runner": Runner}
        model = sections[str(raw[0])]
    elif "publish" in raw[:-1]:
        model = Publish
    elif "output" in raw[:-1]:
        model = OutputFields
    elif "inputs" in raw[:-1]:
        model = Source
    return [field.alias or name for name, field in model.model_fields.items() if name not in OURS] + extra


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
