"""What is known of a step before it runs, as plain data, so that it can be kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crucible_lineage.provenance.recipe import Code

__all__ = ["Inspection"]


@dataclass(frozen=True)
class Inspection:
    """A step as it stands now, with the parameters it would be given."""

    uses: str
    step: str
    roles: Mapping[str, str]  # role -> shape, see step.InputRole
    required: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, Any]
    fingerprint: str
    not_covered: tuple[str, ...]
    packages: Mapping[str, str]  # those that the step lists: part of the identity
    reached_packages: tuple[str, ...]
    source: str
    measurement: str | None
    data_type: str | None
    thumbnail: str | None
    keywords: tuple[str, ...]
    files: tuple[str, ...] = ()  # the source files that it rests on
    keepable: bool = False  # False if it rests on more than these: packages that are listed, programs, a secret

    @property
    def code(self) -> Code:
        """What enters the recipe."""
        return Code(self.step, self.fingerprint, self.packages)

    @classmethod
    def from_json(cls, kept: Mapping[str, Any]) -> Inspection:
        """The inspection that was kept as JSON."""
        tuples = ("required", "outputs", "not_covered", "reached_packages", "keywords", "files")
        return cls(**{**kept, **{name: tuple(kept[name]) for name in tuples}})
