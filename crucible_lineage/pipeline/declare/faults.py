"""What pydantic finds wrong with a declaration, in our words, at its place, with the nearest allowed word."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from pydantic import BaseModel

from crucible_lineage.errors import Fault, nearest, nearest_word
from crucible_lineage.pipeline.declare.yaml import Document, Location
from crucible_lineage.pipeline.spec.ingestion import FORMS, Ingest
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

OURS = ("path", "digest", "folder", "references")  # fields that are not declared but known
INPUT_KEYS = (*(kind for kind in INPUT_KINDS), "crux")
_NO_SOURCE = ("model_type", "tuple_type", "string_type", "dict_type")
TOP_KEYS = [name for name in (*PipelineSpec.model_fields, "params", "defaults", "include") if name not in OURS]


def faults_of(
    document: Document, errors: Iterable[Mapping[str, Any]], hidden: Collection[Location] = ()
) -> Iterator[Fault]:
    """The faults that pydantic found, one a place; the values at `hidden` places are not shown."""
    errors = list(errors)
    unknown = [place_of(error["loc"]) for error in errors if error["type"] == "extra_forbidden"]
    met: set[tuple[Location, str]] = set()
    for error in errors:
        place = place_of(error["loc"])
        here = [other["type"] for other in errors if place_of(other["loc"]) == place]
        if error["type"] == "string_type" and isinstance(error["input"], list | tuple) and here != ["string_type"]:
            continue  # it was read as a list, too, and what is wrong with that is found there
        if error["type"] == "too_short" and any(place_of(other["loc"])[:-1] == place for other in errors):
            continue  # without what is told of it
        if _is_other_form(error, place) or (error["type"] == "missing" and _is_misspelt(place, unknown)):
            continue
        type_only = "type" if error["type"] in _NO_SOURCE else error["type"] + error["msg"]
        kind = "source" if _is_source(place) else type_only
        if (place, kind) not in met:
            met.add((place, kind))
            yield _fault_of(document, error, hidden)


def _is_misspelt(place: Location, unknown: Iterable[Location]) -> bool:
    """True for a key that is not missing, but there under a name that is told as unknown."""
    beside = [other[-1] for other in unknown if other[:-1] == place[:-1]]
    return any(nearest_word(str(key), [str(place[-1])]) for key in beside)


def _is_other_form(error: Mapping[str, object], place: Location) -> bool:
    """True for a source that pydantic also tried to read in the form in which it was not written."""
    return (
        _is_source(place)
        and len(place) == 4
        and error["type"] in _NO_SOURCE
        and isinstance(error["input"], dict | list)
    )


def _is_source(place: Location) -> bool:
    return len(place) >= 4 and place[0] == "steps" and place[2] == "inputs"


def _fault_of(document: Document, error: Mapping[str, Any], hidden: Collection[Location]) -> Fault:
    raw: tuple[str | int, ...] = error["loc"]
    location = place_of(raw)
    if location[-1:] == ("[key]",):
        location = location[:-1]
    label = ".".join(str(part) for part in location)
    if error["type"] == "extra_forbidden":
        if location[-1] == "from name":
            told = "`from name` is written as the value of a field: `metadata: {NAME: \"from name '(PATTERN)'\"}`"
            return document.fault(location, f"unknown key 'from name'; {told}")
        allowed = _allowed_keys(raw)
        hint = nearest(str(location[-1]), sorted(allowed), "possible here")
        return document.fault(location, f"unknown key {location[-1]!r}; {hint}")
    if error["type"] == "missing":
        return document.fault(location[:-1], f"the key {location[-1]!r} is missing{_within(location[:-1])}")
    message = error["msg"].removeprefix("Value error, ")
    if error["type"] in _NO_SOURCE and _is_source(location):
        message = "a source is written NAME, NAME.OUTPUT, or {from: NAME}, several of them as a list"
    if error["type"] == "too_short" and _is_source(location):
        message = "the list of sources is empty; name at least one"
    if error["type"] == "input_kind" and isinstance(error["input"], dict):
        message += _meant_key(error["input"])
    if error["type"].startswith(("datetime_", "date_")):
        message = "that is not a time; write it as in 2024-05-10T12:00:00Z"
    if error["type"] == "string_type":
        message = _not_quoted(error["input"]) or message
    secret = any(location[: len(place)] == place or place[: len(location)] == location for place in hidden)
    given = "a value from the environment" if secret else _short(_written(error["input"]))
    return document.fault(location, f"{label}: {message} (given: {given})")


def _meant_key(given: Mapping[object, object]) -> str:
    """Return the key of inputs that one of these was meant to be; empty if none is near."""
    wrong = (str(key) for key in given if key not in INPUT_KEYS)
    near = next(filter(None, (nearest_word(key, INPUT_KEYS) for key in wrong)), None)
    return f"; did you mean {near!r}?" if near else ""


def _not_quoted(given: object) -> str:
    """Return how to mend what is no text only because it is not quoted; empty if that is not the reason."""
    if isinstance(given, dict) and len(given) == 1 and next(iter(given.values())) is None:
        text = f"{{{next(iter(given))}}}"
        return f'a text in braces is quoted: "{text}"'
    return "no value; quote a text that begins with # or &" if given is None else ""


def place_of(raw: tuple[str | int, ...]) -> Location:
    """The place in the document: what pydantic names for its own sake is left out."""
    tagged = len(raw) > 2 and raw[0] == "inputs" and raw[2] in INPUT_KINDS
    tags = (
        {2, 5} if tagged and raw[2] == "each" and len(raw) > 4 and isinstance(raw[4], int) else {2} if tagged else set()
    )
    return tuple(
        part
        for index, part in enumerate(raw)
        if index not in tags and not (index > 2 and isinstance(part, str) and _is_name_of_type(raw, index))
    )


def _is_name_of_type(raw: tuple[str | int, ...], index: int) -> bool:
    part = raw[index]
    return (
        (part == "str" and index == len(raw) - 1)
        or part in ("Source", "tuple[Source, ...]", "FileInput", "DatasetInput", *FORMS)
        or str(part).startswith(("dict[", "tuple[", "function-"))
    )


def _within(location: Location) -> str:
    return f" in {'.'.join(str(part) for part in location)}" if location else ""


def _allowed_keys(raw: tuple[str | int, ...]) -> list[str]:
    model: type[BaseModel] = StepSpec
    extra: list[str] = []
    if len(raw) == 1:
        return TOP_KEYS
    if "ingest" in raw[:-1]:
        return list(Ingest.model_fields)
    if raw[0] == "inputs":
        kind = raw[5] if raw[2] == "each" and len(raw) > 5 else raw[2]
        model = FileInput if kind == "each" else INPUT_KINDS.get(str(kind), FileInput)
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


def _written(given: object) -> object:
    """Return the value as the declaration has it, without the folder that was added to it."""
    return {key: value for key, value in given.items() if key != "folder"} if isinstance(given, dict) else given


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
