"""References in declarations: `${params.NAME}` and `${env.NAME}`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError, nearest
from crucible_lineage.json_types import JsonMapping

if TYPE_CHECKING:  # resolving variables does not need the YAML reader
    from crucible_lineage.pipeline.declare.yaml import Location

_REFERENCE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def from_environment(value: object, allowed: Iterable[str], whose: str) -> Any:
    """Resolve references to the environment in a value. Raises InputError if a variable is not set."""
    faults: list[str] = []
    variables = Variables({}, tuple(allowed), os.environ, lambda _, message: faults.append(message))
    resolved = variables.resolve(value, ())
    if faults:
        raise InputError(f"{whose}: {faults[0]}")
    return resolved


def referenced(text: str) -> list[str]:
    """Return the environment variables that a text refers to."""
    found = (name for dollar, name in _REFERENCE.findall(text) if not dollar)
    return [name.removeprefix("env.") for name in found if name.startswith("env.")]


@dataclass
class Variables:
    """Values of references. `report` is called with the location and message of every fault.

    `allowed` are the variables of `environ` that may be read. `secret_locations` are those with a value from
    `environ`, which must not be shown. `used` are the params that were referred to. With `escaped`, `$${` is kept for
    a later pass.
    """

    params: JsonMapping
    allowed: tuple[str, ...]
    environ: Mapping[str, str]
    report: Callable[[Location, str], None]
    escaped: bool = False
    secret_locations: set[Location] = field(default_factory=set)
    used: set[str] = field(default_factory=set)

    def resolve(self, value: object, location: Location) -> Any:
        """Return the value with all references resolved; a text that is just one keeps the type of its value."""
        if isinstance(value, dict):
            return {key: self.resolve(part, (*location, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.resolve(part, (*location, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        match = _REFERENCE.fullmatch(value)
        if match and not match[1]:
            return self._value(match[2], location)
        return _REFERENCE.sub(lambda match: self._text(match, location), value)

    def _text(self, match: re.Match[str], location: Location) -> str:
        if match[1]:
            return match[0] if self.escaped else f"${{{match[2]}}}"
        return str(self._value(match[2], location))

    def _value(self, reference: str, location: Location) -> object:
        kind, _, name = reference.partition(".")
        if kind == "params" and name in self.params:
            self.used.add(name)
            return self.params[name]
        if kind == "env" and name in self.allowed:
            self.secret_locations.add(location)
            if name not in self.environ:
                self.report(location, f"the environment variable {name} is not set")
            return self.environ.get(name, "")
        self.report(location, self._fault(kind, name, reference))
        return ""

    def _fault(self, kind: str, name: str, reference: str) -> str:
        if kind == "env" and name:
            return f"${{{reference}}}: name the variable first, as in `env: [{name}]` at the top"
        if kind == "params" and name:
            return f"${{{reference}}}: `params:` at the top has no {name!r}; {nearest(name, self.params)}"
        return (
            f"${{{reference}}} stands for nothing; write ${{params.NAME}} or ${{env.NAME}}, or $${{ for the text itself"
        )
