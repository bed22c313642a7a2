"""What a task says of its effects while it runs: data that it used, what it wrote, and how its result is described."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

__all__ = ["Effects", "current_effects", "saying"]

_current: ContextVar[Effects | None] = ContextVar("effects", default=None)


@dataclass
class Effects:
    """What one call has said so far."""

    used: list[object] = field(default_factory=list)
    paths: list[Path] = field(default_factory=list)
    addresses: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    fields: dict[str, Any] = field(default_factory=dict)

    def described(self, before: Mapping[str, Any]) -> dict[str, Any]:
        """The description of a task with what the call has said."""
        return {**before, **self.fields, "metadata": {**before["metadata"], **self.metadata}}


def current_effects() -> Effects | None:
    """Those of the call that this code is part of; None where nothing is recorded."""
    return _current.get()


@contextmanager
def saying(effects: Effects | None) -> Iterator[None]:
    """Attribute what is said in this block to that call."""
    if effects is None:
        yield
        return
    token = _current.set(effects)
    try:
        yield
    finally:
        _current.reset(token)
