"""How keywords are written: as they are, or without `:` where a service does not take it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

from crucible_lineage.errors import RefusedError
from crucible_lineage.service import COLONS, ServiceProfile

__all__ = ["Keywords"]

OWN = ("pipeline", "recipe")  # what stands before the colon of keywords that this package gives

T = TypeVar("T")
Spell = Callable[[str], str]


class Keywords:
    """The keywords of one service, which is tried with a colon as long as nobody knows whether it takes one."""

    def __init__(self, service: ServiceProfile) -> None:
        self._service = service

    def spell(self, word: str) -> str:
        """Return a keyword as this service is sent it."""
        return _plain(word) if self._service.holds(COLONS) is False else word

    def read(self, word: str) -> str:
        """Return a keyword as it was given, from what this service answers."""
        before, _, rest = word.partition("_")
        return f"{before}:{rest}" if rest and before in OWN and self._service.holds(COLONS) is False else word

    def is_to_be_tried(self, words: Collection[str]) -> bool:
        """Return whether it is not known if these keywords are taken as they are."""
        return self._service.holds(COLONS) is None and any(":" in word for word in words)

    def tried(self, words: Collection[str], ask: Callable[[Spell], T], *, writes: bool = False) -> T:
        """Return what `ask` gives, which spells these keywords; in both ways if it is not known which is taken."""
        if not self.is_to_be_tried(words):
            return ask(self.spell)
        try:
            answer = ask(str)
        except RefusedError as refusal:
            try:
                answer = ask(_plain)
            except RefusedError:
                raise refusal from None
            self._service.note(COLONS, False, str(refusal))
            return answer
        if writes:
            self._service.note(COLONS, True, f"took {next(word for word in words if ':' in word)!r}")
        return answer


def _plain(word: str) -> str:
    return word.replace(":", "_")
