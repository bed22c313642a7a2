"""The declaration of a step: parameters from the records of its inputs, and where its faults stand."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crucible_lineage.errors import Fault, nearest
from crucible_lineage.pipeline.bind.dimensions import is_field, unknown_field
from crucible_lineage.pipeline.spec.pipeline import Source, StepSpec

if TYPE_CHECKING:
    from crucible_lineage.pipeline.declare.yaml import Location

_FORM = re.compile(r"\{([A-Za-z][A-Za-z0-9_-]*)\.([\w.-]+)\}")


@dataclass(frozen=True)
class ParentField:
    """A field of the record of the measured or selected data that a role leads back to."""

    role: str
    name: str


def from_parents(step: StepSpec) -> dict[str, ParentField]:
    """The parameters of a step that are taken from records, by name."""
    found = {name: _read(value) for name, value in step.params.items() if isinstance(value, str)}
    return {name: one for name, one in found.items() if one and one.role in step.inputs}


def parent_fault(step: StepSpec, value: object) -> str | None:
    """Return the fault of a parameter that is taken from a record; None without one, or for a plain value."""
    found = _read(value)
    if found is None:
        return None
    if found.role not in step.inputs:
        return f"the step has no input {found.role!r}; {nearest(found.role, step.inputs, 'it has')}"
    return None if is_field(found.name) else unknown_field(found.name)


def _read(value: object) -> ParentField | None:
    """The field that a text names, if it looks like one: other braces are the function's own affair."""
    found = _FORM.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    looks_so = is_field(found[2]) or found[2].startswith("metadata")
    return ParentField(found[1], found[2]) if looks_so else None


def label_of(swept: Mapping[str, object]) -> str:
    """Return the label of a combination of swept parameters."""
    return ",".join(
        f"{param}={value if isinstance(value, str) else json.dumps(value)}" for param, value in swept.items()
    )


def place_in_step(step: StepSpec, place: Location, swept: Mapping[str, object]) -> Location:
    """Where in the declaration of the step a fault of its function or command stands, with these swept parameters."""
    if not place:
        return ("uses",) if step.uses else ("run",)
    name = str(place[1]) if len(place) > 1 else ""
    if place[0] != "params" or name not in swept or step.matrix is None:
        return place
    if not isinstance(step.matrix, dict):
        return ("matrix", list(step.matrix).index(dict(swept)), name)
    return ("matrix", name, list(step.matrix[name]).index(swept[name])) if place[2:] else ("matrix", name)


def place_in_file(fault: Fault) -> tuple[bool, int, int]:
    """Faults of one file by where they stand in it, those of others after them."""
    return fault.line is None, fault.line or 0, fault.column or 0


def names_in(value: object) -> Iterator[str]:
    """The names of sources that a step's declaration mentions, wherever it does."""
    if isinstance(value, str):
        yield value.partition(".")[0]
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from names_in(part) if key not in ("uses", "run", "params") else ()
    elif isinstance(value, list):
        for part in value:
            yield from names_in(part)


def without_values(message: str, step: StepSpec) -> str:
    """The message without values that came from the environment."""
    for value in (step.params[name] for name in step.references):
        message = message.replace(repr(value), "a value from the environment")
        if isinstance(value, str) and len(value) > 3:  # as a validator of the user's own may tell it
            message = message.replace(value, "a value from the environment")
    return message


def output_fault(source: Source, outputs: tuple[str, ...] | None, *, is_input: bool) -> str | None:
    """Return the fault of the output that is taken; `outputs` are those there are, None if that is not known."""
    if is_input and source.output is not None:
        return f"{source.source!r} is an input of the pipeline; it has no output {source.output!r}"
    if outputs is None:
        return None
    if source.output is None and len(outputs) > 1:
        chosen = f"{source.source}.{outputs[0]}"
        return f"{source.source!r} has the outputs {', '.join(outputs)}; name one of them, as in {chosen}"
    if source.output is not None and source.output not in outputs:
        return f"{source.source!r} has no output {source.output!r}; it has: {', '.join(outputs)}"
    return None


def collects(source: Source, shape: str | None) -> bool:
    """True if all instances of the source are given as one list."""
    if source.group_by or source.is_partner:
        return not source.is_partner
    return source.collect if source.collect is not None else shape == "files"
