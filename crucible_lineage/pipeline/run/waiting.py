"""Which steps of a run wait for which parents, and which may begin."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

__all__ = ["WaitingSteps"]


class WaitingSteps:
    """The steps that are to be made: each may begin when the last parent that it waits for is done."""

    def __init__(self) -> None:
        self._parents: dict[str, set[str]] = {}
        self._children: dict[str, list[str]] = {}
        self._ready: list[str] = []

    def __bool__(self) -> bool:
        """True if anything was to be made."""
        return bool(self._parents)

    def __iter__(self) -> Iterator[str]:
        """What was to be made, in the order in which it was named."""
        return iter(self._parents)

    def wait(self, name: str, parents: Iterable[str]) -> None:
        """The step waits for these; without any it may begin."""
        self._parents[name] = set(parents)
        for parent in self._parents[name]:
            self._children.setdefault(parent, []).append(name)
        if not self._parents[name]:
            self._ready.append(name)

    def done(self, parent: str) -> None:
        """Nothing waits for this one any more."""
        for name in self._children.get(parent, ()):
            self._parents[name].discard(parent)
            if not self._parents[name]:
                self._ready.append(name)

    def take_ready(self) -> list[str]:
        """What may begin; each is given once."""
        ready, self._ready = self._ready, []
        return ready
