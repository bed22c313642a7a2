"""What names in a declaration mean for an instance of a step: `{spectra.metadata.power_mW}`, `{params.degree}`.

`{ROLE.FIELD}` is what the measured or selected data behind a role share, wherever it stands: in parameters, in the name
of a result and in what else `output` says. What they do not say may stand in the record of the parent itself; that is
known once it is made, and only a name waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from string import Formatter
from typing import Any

from crucible_lineage.pipeline.bind.dimensions import is_field
from crucible_lineage.pipeline.bind.model import BoundStep
from crucible_lineage.pipeline.inputs.inputs import InputItem
from crucible_lineage.pipeline.spec.inputs import value_of
from crucible_lineage.pipeline.spec.pipeline import OF_PARENT, TEMPLATED, is_template

__all__ = ["Scope"]

_WHOLE = re.compile(r"\{([^{}!:]+)\}")


@dataclass(frozen=True)
class Scope:
    """The data behind each role of an instance, and its parameters; `direct` are roles given just these data."""

    step: str
    behind: Mapping[str, Sequence[InputItem]]
    direct: frozenset[str]
    params: Mapping[str, Any]

    def value(self, role: str, name: str) -> tuple[Any, str]:
        """Return the value that the data behind a role share in a field; or None, and why they do not."""
        items = self.behind.get(role, ())
        lacking = next((item for item in items if value_of(item.fields, name) is None), None)
        if lacking is not None:
            return None, f"{lacking.label} has none"
        values = {str(value): value for item in items if (value := value_of(item.fields, name)) is not None}
        if len(values) != 1:
            return None, f"they differ: {', '.join(values)}; group by {name}" if values else "there are no data"
        return next(iter(values.values())), ""

    def output(self, step: BoundStep) -> tuple[BoundStep, str, str]:
        """The step with what its `output` says filled in; what is wrong with it, and what is noted of its name."""
        declared = step.spec.output
        filled: dict[str, Any] = {}
        for field in TEMPLATED:
            value = getattr(declared, field)
            if is_template(value):
                filled[field], fault = self._text(value)
                if fault:
                    return step, f"output {field} is {value!r}, and {fault}", ""
        metadata = {}
        for key, value in declared.metadata.items():
            if is_template(value):
                metadata[key], fault = self._value(value)
                if fault:
                    return step, f"output metadata {key!r} is {value!r}, and {fault}", ""
        if metadata:
            filled["metadata"] = {**declared.metadata, **metadata}
        note = ""
        if declared.dataset_name:
            name, fault = self._name(declared.dataset_name)
            filled["dataset_name"] = declared.dataset_name if fault else name
            note = f"default name, since {declared.dataset_name!r} cannot be filled in: {fault}" if fault else ""
        if all(getattr(declared, field) == value for field, value in filled.items()):
            return step, "", note
        spec = step.spec.model_copy(update={"output": declared.model_copy(update=filled)})
        return replace(step, spec=spec), "", note

    def _value(self, template: str) -> tuple[Any, str]:
        """The value that a template stands for: that of its one field, with its type, or a text."""
        if whole := _WHOLE.fullmatch(template):
            return self._field(whole[1])
        return self._text(template)

    def _text(self, template: str) -> tuple[str, str]:
        parts = []
        for literal, name, spec, conversion in Formatter().parse(template):
            parts.append(literal)
            if name is not None:
                value, fault = self._field(name)
                if not fault:
                    value, fault = _formatted(value, spec, conversion)
                if fault:
                    return "", fault
                parts.append(value)
        return "".join(parts), ""

    def _field(self, name: str) -> tuple[Any, str]:
        if name == "step":
            return self.step, ""
        head, _, rest = name.partition(".")
        if head == "params":
            return (self.params[rest], "") if rest in self.params else (None, f"there is no parameter {rest!r}")
        value, fault = self.value(head, rest)
        return value, f"{{{name}}}: {fault}" if fault else ""

    def _name(self, template: str) -> tuple[str, str]:
        """The template with what the data behind the roles say; or why it cannot be filled in, as far as is known."""
        parts = []
        for literal, name, spec, conversion in Formatter().parse(template):
            parts.append(literal.replace("{", "{{").replace("}", "}}"))
            if name is None:
                continue
            role, _, field = name.partition(".")
            left = f"{{{name}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}}}"
            if role in self.behind and field not in OF_PARENT and is_field(field):
                value, fault = self.value(role, field)
                if fault and role in self.direct:
                    return "", f"{{{name}}}: {fault}"
                if not fault:
                    text, fault = _formatted(value, spec, conversion)
                    if fault:
                        return "", fault
                    left = text.replace("{", "{{").replace("}", "}}")
            parts.append(left)
        return "".join(parts), ""


def _formatted(value: object, spec: str | None, conversion: str | None) -> tuple[str, str]:
    try:
        converted = Formatter().convert_field(value, conversion)
        return format(converted, spec or ""), ""
    except (ValueError, TypeError) as error:
        return "", f"{value!r} cannot be written as {spec!r}: {error}"
