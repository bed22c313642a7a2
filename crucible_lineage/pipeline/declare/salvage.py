"""What of a faulty declaration can be read all the same, so that one look finds the faults of all of it.

Where pydantic finds a fault, what is at fault is taken out and the rest is read again, until nothing is left to find.
What follows from taking out is no fault of the declaration, and is not told.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError

from crucible_lineage.pipeline.declare.yaml import Location
from crucible_lineage.pipeline.spec.pipeline import ANY_NAME, UNKNOWN_FUNCTION, PipelineSpec

__all__ = ["salvaged"]

Error = Mapping[str, Any]
PLACEHOLDERS = {"pipeline": "pipeline", "project": "project", "inputs": {}, "steps": {}}
MOST_ROUNDS = 50  # each takes something out, and a declaration is not deeper than this


def salvaged(
    declared: Mapping[str, Any], place_of: Callable[[Any], Location]
) -> tuple[PipelineSpec | None, list[Error]]:
    """The pipeline as far as it can be read, None if nothing can be, and the errors; `place_of` reads their `loc`."""
    try:
        return PipelineSpec.model_validate(declared), []
    except ValidationError as error:
        first = error
    errors: list[Error] = [dict(one) for one in first.errors()]
    if not isinstance(declared.get("steps"), dict) or not declared["steps"]:
        return None, errors
    known = {name: declared[name] for name in ("path", "digest")}
    data = copy.deepcopy({name: value for name, value in declared.items() if name not in known})
    taken: set[Location] = set()
    found = list(errors)
    context: dict[str, bool] | None = None
    for _ in range(MOST_ROUNDS):
        before = frozenset(taken)
        for one in found:
            if _is_of_name(one):
                context = ANY_NAME
                continue
            place = place_of(one["loc"])
            if not any(place[: len(part)] == part for part in taken - before):  # not in what has just gone
                _take_out(data, place, one, taken)
        try:
            return PipelineSpec.model_validate({**data, **known}, context=context), errors
        except ValidationError as error:
            found = [dict(one) for one in error.errors()]
            errors += [one for one in found if not _follows(place_of(one["loc"]), taken)]
    return None, errors


def _is_of_name(error: Error) -> bool:
    """True if just the name of something is at fault, which can be read as it is."""
    place = tuple(error["loc"])
    return place[-1:] == ("[key]",) or (place == ("pipeline",) and error["type"] == "value_error")


def _follows(place: Location, taken: set[Location]) -> bool:
    """True for a fault that comes of what was taken out: at that place, or around it."""
    return any(one[: len(place)] == place for one in taken)


def _take_out(data: dict[str, Any], place: Location, error: Error, taken: set[Location]) -> None:
    """Remove the faulty part from the data; a step of which it is not known what it calls stays."""
    if len(place) == 2 and place[0] == "steps" and isinstance(step := data["steps"].get(place[1]), dict):
        _repair_step(step, place, taken)
        return
    if error["type"] == "missing" and len(place) > 1:
        place = place[:-1]
    while len(place) > 1 and (holder := _holder(data, place)) is None:
        place = place[:-1]  # it is taken out already, so what it stood in has to go
    taken.add(place)
    if len(place) <= 1:
        name = str(place[0]) if place else ""
        data.pop(name, None)
        data |= {name: copy.deepcopy(PLACEHOLDERS[name])} if name in PLACEHOLDERS else {}
    elif isinstance(holder, dict):
        del holder[place[-1]]
    else:
        holder[int(place[-1])] = None
        holder[:] = [item for item in holder if item is not None]


def _repair_step(step: dict[str, Any], place: Location, taken: set[Location]) -> None:
    """One way to run it is left. The faults of a step as a whole are these: two ways, none, and keys for commands."""
    for name in ("run", "env", "shell"):
        if step.get("uses") and name in step:
            del step[name]
            taken.add((*place, name))
            return
    for name in ("env", "shell"):
        step.pop(name, None)
    step["uses"] = UNKNOWN_FUNCTION
    taken.add((*place, "uses"))


def _holder(data: object, place: Location) -> Any:
    """The mapping or list that the place is in; None if there is nothing at the place."""
    for part in place[:-1]:
        data = _at(data, part)
    return data if _at(data, place[-1]) is not None else None


def _at(data: object, part: str | int) -> object:
    if isinstance(data, dict):
        return data.get(part)
    return data[part] if isinstance(data, list) and isinstance(part, int) and part < len(data) else None
