"""`${params.NAME}` and `${env.NAME}` in a declaration: what they stand for, and where they may not stand."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import InputError, nearest

if TYPE_CHECKING:  # who only looks variables up does not need the reader
    from crucible_lineage.pipeline.declare.yaml import Location

_REFERENCE = re.compile(r"\$(\$)?\{([^{}]*)\}")


def from_environment(value: object, allowed: Iterable[str], whose: str) -> Any:
    """The value with its references to the environment filled in. InputError if one of them is not set."""
    faults: list[str] = []
    filled = Variables({}, tuple(allowed), os.environ, lambda _, message: faults.append(message)).filled(value, ())
    if faults:
        raise InputError(f"{whose}: {faults[0]}")
    return filled


def referenced(text: str) -> list[str]:
    """The variables of the environment that a text refers to."""
    found = (name for dollar, name in _REFERENCE.findall(text) if not dollar)
    return [name.removeprefix("env.") for name in found if name.startswith("env.")]


@dataclass
class Variables:
    """The values that references stand for. `find` is told of every fault, with its place.

    `allowed` are the variables of `environ` that may be read; `secret_places` are the places that took a value from it:
    it is not to be shown. `taken` are the params that were referred to. With `escaped`, `$${` is left for whoever fills
    in the rest.
    """

    params: Mapping[str, Any]
    allowed: tuple[str, ...]
    environ: Mapping[str, str]
    find: Callable[[Location, str], None]
    escaped: bool = False
    secret_places: set[Location] = field(default_factory=set)
    taken: set[str] = field(default_factory=set)

    def filled(self, value: object, location: Location) -> Any:
        """The value with all references in it filled in; text that is just one reference becomes what it stands for."""
        if isinstance(value, dict):
            return {key: self.filled(part, (*location, key)) for key, part in value.items()}
        if isinstance(value, list):
            return [self.filled(part, (*location, index)) for index, part in enumerate(value)]
        if not isinstance(value, str) or "${" not in value:
            return value
        whole = _REFERENCE.fullmatch(value)
        if whole and not whole[1]:
            return self._value(whole[2], location)
        return _REFERENCE.sub(lambda found: self._text(found, location), value)

    def _text(self, found: re.Match[str], location: Location) -> str:
        if found[1]:
            return found[0] if self.escaped else f"${{{found[2]}}}"
        return str(self._value(found[2], location))

    def _value(self, reference: str, location: Location) -> object:
        kind, _, name = reference.partition(".")
        if kind == "params" and name in self.params:
            self.taken.add(name)
            return self.params[name]
        if kind == "env" and name in self.allowed:
            self.secret_places.add(location)
            if name not in self.environ:
                self.find(location, f"the environment variable {name} is not set")
            return self.environ.get(name, "")
        self.find(location, self._fault(kind, name, reference))
        return ""

    def _fault(self, kind: str, name: str, reference: str) -> str:
        if kind == "env" and name:
            return f"${{{reference}}}: name the variable first, as in `env: [{name}]` at the top"
        if kind == "params" and name:
            return f"${{{reference}}}: `params:` at the top has no {name!r}; {nearest(name, self.params)}"
        return (
            f"${{{reference}}} stands for nothing; write ${{params.NAME}} or ${{env.NAME}}, or $${{ for the text itself"
        )
