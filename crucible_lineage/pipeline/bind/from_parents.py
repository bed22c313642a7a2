"""Parameters that take what the records of a step's inputs say: `params: {power: "{spectra.metadata.power_mW}"}`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from crucible_lineage.errors import nearest
from crucible_lineage.pipeline.bind.dimensions import is_field, unknown_field
from crucible_lineage.pipeline.spec.pipeline import StepSpec

__all__ = ["ParentField", "from_parents", "parent_fault"]

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
