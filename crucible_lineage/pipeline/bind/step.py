"""Declarations of steps: parameters from the records of inputs, and the locations of faults."""

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
    """A field of the record of the measured or selected data behind a role."""

    role: str
    name: str


def parent_params(step: StepSpec) -> dict[str, ParentField]:
    """Return the parameters of a step that come from records, by name."""
    fields = {name: _read(value) for name, value in step.params.items() if isinstance(value, str)}
    return {name: field for name, field in fields.items() if field and field.role in step.inputs}


def parent_fault(step: StepSpec, value: object) -> str | None:
    """Return the fault of a parameter that comes from a record; None for a valid one or a plain value."""
    field = _read(value)
    if field is None:
        return None
    if field.role not in step.inputs:
        return f"the step has no input {field.role!r}; {nearest(field.role, step.inputs, 'it has')}"
    return None if is_field(field.name) else unknown_field(field.name)


def _read(value: object) -> ParentField | None:
    """Return the field that a text names, if it looks like one; other braces are passed to the function."""
    match = _FORM.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        return None
    is_reference = is_field(match[2]) or match[2].startswith("metadata")
    return ParentField(match[1], match[2]) if is_reference else None


def label_of(swept: Mapping[str, object]) -> str:
    """Return the label of a combination of swept parameters."""
    return ",".join(
        f"{param}={value if isinstance(value, str) else json.dumps(value)}" for param, value in swept.items()
    )


def location_in_step(step: StepSpec, location: Location, swept: Mapping[str, object]) -> Location:
    """Return where in the step's declaration a fault of its function or command is, for these swept parameters."""
    if not location:
        return ("uses",) if step.uses else ("run",)
    name = str(location[1]) if len(location) > 1 else ""
    if location[0] != "params" or name not in swept or step.matrix is None:
        return location
    if not isinstance(step.matrix, dict):
        return ("matrix", list(step.matrix).index(dict(swept)), name)
    return ("matrix", name, list(step.matrix[name]).index(swept[name])) if location[2:] else ("matrix", name)


def position_in_file(fault: Fault) -> tuple[bool, int, int]:
    """Sort key of faults: by position in the file; those without a position last."""
    return fault.line is None, fault.line or 0, fault.column or 0


def names_in(value: object) -> Iterator[str]:
    """Yield the names of sources anywhere in a step's declaration."""
    if isinstance(value, str):
        yield value.partition(".")[0]
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from names_in(part) if key not in ("uses", "run", "params") else ()
    elif isinstance(value, list):
        for part in value:
            yield from names_in(part)


def without_values(message: str, step: StepSpec) -> str:
    """Return the message without values from the environment."""
    for value in (step.params[name] for name in step.references):
        message = message.replace(repr(value), "a value from the environment")
        if isinstance(value, str) and len(value) > 3:  # a validator of the user may quote it
            message = message.replace(value, "a value from the environment")
    return message


def output_fault(source: Source, outputs: tuple[str, ...] | None, *, is_input: bool) -> str | None:
    """Return the fault of a source's output, or None. `outputs` are those of the step, None if unknown."""
    if is_input and source.output is not None:
        return f"{source.source!r} is an input of the pipeline; it has no output {source.output!r}"
    if outputs is None:
        return None
    if source.output is None and len(outputs) > 1:
        example = f"{source.source}.{outputs[0]}"
        return f"{source.source!r} has the outputs {', '.join(outputs)}; name one of them, as in {example}"
    if source.output is not None and source.output not in outputs:
        return f"{source.source!r} has no output {source.output!r}; it has: {', '.join(outputs)}"
    return None


def collects(source: Source, shape: str | None) -> bool:
    """Return whether a source passes all its instances as one list."""
    if source.group_by or source.is_partner:
        return not source.is_partner
    return source.collect if source.collect is not None else shape == "files"
