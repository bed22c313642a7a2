"""What a result is called: the declared template filled in, or a name that does not grow with the chain."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any

from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.times import taken

__all__ = ["FieldsOf", "dataset_name", "without_step"]

FieldsOf = Callable[[str], Mapping[str, Any]]  # the fields of a dataset's record, by MFID
_COUNT = re.compile(r" and \d+ more$")  # what a default name says of a list


def dataset_name(job: Job, output: str, results: Mapping[str, object], fields_of: FieldsOf) -> tuple[str, str]:
    """Return the child's name: the declared template, or what it is about with the step's name and what was swept.

    What it is about is its group, or the data of its first input.

    Beside it a note, where the template asks for what is not there and the default name stands for it. `results` is
    what the step returned for the output. `fields_of` is asked only if the template names a field of a parent's record.
    """
    template = job.spec.output.dataset_name
    step = job.name.partition("[")[0]
    suffix = step if len(job.inspection.outputs) == 1 else f"{step}.{output}"
    default = f"{job.group or _subject(job)} ({', '.join(filter(None, (suffix, job.label)))})"
    if template is None:
        return default, ""
    parents: dict[str, list[UsedDataset]] = {}
    for part in job.used:
        parents.setdefault(part.role, []).append(part)
    try:
        filled = template.format(
            **{role: _Parent(parts, fields_of) for role, parts in parents.items()},
            output=output,
            step=step,
            params=SimpleNamespace(**job.inspection.params),
            results=_Values(results),
        )
    except (KeyError, AttributeError, IndexError, ValueError, TypeError) as error:
        return default, f"it got the name {default!r}, since {template!r} cannot be filled in: {error}"
    return filled, ""


def without_step(name: str) -> str:
    """A default name without the step at its end, whose variant may have brackets of its own: `a (fit, f(x))`."""
    depth = 0
    for at in range(len(name) - 1, 0, -1):
        depth += {")": 1, "(": -1}.get(name[at], 0)
        if depth == 0:
            return name[: at - 1] if name[at - 1 : at + 1] == " (" else name
    return name


def _subject(job: Job) -> str:
    """The name of what its first input is about; how many more there are."""
    first = job.used[0]
    others = len({part.dataset.mfid for part in job.used if part.role == first.role}) - 1
    name = without_step(first.dataset.name) if first.dataset.parents else first.dataset.name
    if not others:
        return name
    return f"{_COUNT.sub('', name) if first.dataset.parents else name} and {others} more"


class _Parent:
    """What a name template may say of the parents in a role."""

    def __init__(self, parts: list[UsedDataset], fields_of: FieldsOf) -> None:
        self._first = parts[0].dataset
        self._fields_of = fields_of
        self.dataset_name = self._first.name
        self.mfid = self._first.mfid
        self.count = len(parts)

    def __getattr__(self, name: str) -> Any:
        fields = self._fields_of(self._first.mfid)
        if name == "metadata":
            return _Values(fields.get("scientific_metadata") or {})
        if name == "timestamp":
            return self._first.taken or (fields[name] if taken(fields) else "time not known")
        if fields.get(name) is None:
            raise AttributeError(f"{self._first.name} has no {name}")
        return fields[name]


class _Values:
    """Nested values by their names."""

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __getattr__(self, name: str) -> Any:
        if name not in self._values:
            raise AttributeError(f"there is no {name!r}; there is: {', '.join(map(str, self._values)) or 'nothing'}")
        found = self._values[name]
        return _Values(found) if isinstance(found, Mapping) else found
