"""Frozen dataclasses that are quick to define: `__init__` is compiled for each, and the other methods are shared.

The standard decorator compiles six methods of each, and a command defines over a hundred classes: an eighth of its CPU.
"""

from __future__ import annotations

import dataclasses
from dataclasses import MISSING, FrozenInstanceError, field, fields, is_dataclass, replace
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NoReturn

__all__ = ["dataclass", "field", "fields", "is_dataclass", "replace"]


def _frozen(kind: Any) -> type:
    """Make a class a frozen dataclass; the methods that it defines stay."""
    dataclasses.dataclass(init=False, repr=False, eq=False)(kind)
    kind.__init__ = _init(kind)
    kind._compared = attrgetter(*([part.name for part in fields(kind) if part.compare] or ["__class__"]))
    for name, method in vars(_Methods).items():
        if callable(method) and vars(kind).get(name) is None:
            setattr(kind, name, method)
    return kind  # type: ignore[no-any-return]


def _init(kind: Any) -> Any:
    """Compile `__init__` with a parameter for each field."""
    known: dict[str, Any] = {"_set": object.__setattr__, "_MISSING": MISSING}
    head, body = ["self"], [" pass"]
    for part in fields(kind):
        name, value = part.name, part.name
        if part.default_factory is not MISSING:
            known[f"_{name}"] = part.default_factory
            head.append(f"{name}=_MISSING")
            value = f"_{name}() if {name} is _MISSING else {name}"
        else:
            known[f"_{name}"] = part.default
            head.append(name if part.default is MISSING else f"{name}=_{name}")
        body.append(f" _set(self, {name!r}, {value})")
    exec("\n".join([f"def __init__({', '.join(head)}):", *body]), known)  # noqa: S102 (names of fields)
    known["__init__"].__qualname__ = f"{kind.__qualname__}.__init__"
    return known["__init__"]


class _Methods:
    """The methods that all of them have."""

    _compared: Any

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> NoReturn:
        raise FrozenInstanceError(f"cannot delete field {name!r}")

    def __repr__(self) -> str:
        shown = (f"{part.name}={getattr(self, part.name)!r}" for part in fields(self) if part.repr)  # type: ignore[arg-type]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return self._compared(self) == other._compared(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._compared(self))


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    def dataclass(kind=None, /, **options):
        """Make a class a dataclass, as the standard decorator does with these options."""
        make = _frozen if options == {"frozen": True} else partial(dataclasses.dataclass, **options)
        return make if kind is None else make(kind)
