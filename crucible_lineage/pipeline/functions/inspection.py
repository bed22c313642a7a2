"""Inspections: what is known about steps before they run, as plain data that can be cached."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage import __version__
from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import Fault, InputError
from crucible_lineage.ids import CODE_TAG, RECIPE_TAGS, canonical_json
from crucible_lineage.provenance.recipe import StepCode

if TYPE_CHECKING:  # workers do without declarations
    from crucible_lineage.pipeline.spec.inputs import DatasetFields

BOUND = "bound/2"  # counts changes of how declarations are bound
# Version of the rules of inspection. Inspections under other rules are not used: they would give other ids.
RULES = " ".join(
    (__version__, BOUND, CODE_TAG.decode().strip(), RECIPE_TAGS[2].decode().strip(), sys.version.split()[0])
)
_TUPLES = ("required", "outputs", "not_covered", "reached_packages", "keywords", "files")


def with_reads(inspection: Inspection, files: Mapping[str, Path]) -> Inspection:
    """Add the files that a step reads, by name: their bytes become part of its fingerprint.

    Raises InputError if one is missing.
    """
    if not files:
        return inspection
    missing = [path for path in files.values() if not path.is_file()]
    if missing:
        raise InputError("", [Fault(f"reads: there is no file {path}", location=("reads",)) for path in missing])
    read = {name: file_sha256(path) for name, path in files.items()}
    code = canonical_json([inspection.fingerprint, read])
    return replace(
        inspection,
        fingerprint=hashlib.sha256(b"crucible-lineage/reads/1\n" + code).hexdigest(),
        pieces={**inspection.pieces, **{f"file {name}": f"# {sha256}" for name, sha256 in read.items()}},
        files=tuple(dict.fromkeys((*inspection.files, *map(str, files.values())))),
    )


@dataclass(frozen=True)
class Inspection:
    """A step as it is now, with the parameters that it would be given."""

    uses: str
    step: str
    roles: Mapping[str, str]  # role -> shape, see step.InputRole
    required: tuple[str, ...]
    outputs: tuple[str, ...]
    params: Mapping[str, object]
    fingerprint: str
    not_covered: tuple[str, ...] = ()
    packages: Mapping[str, str] = field(default_factory=dict)  # those listed by the step: part of the identity
    reached_packages: tuple[str, ...] = ()
    source: str = ""
    measurement: str | None = None
    data_type: str | None = None
    thumbnail: str | None = None
    keywords: tuple[str, ...] = ()
    pieces: Mapping[str, str] = field(default_factory=dict)  # what the function uses, readable: text, value or hash
    files: tuple[str, ...] = ()  # the source files that it depends on
    facts: str = ""  # the parameter for facts about its parents; empty without one
    keepable: bool = False  # False if it depends on more: listed packages, programs, secrets

    @property
    def code(self) -> StepCode:
        """The part that enters the recipe."""
        return StepCode(self.step, self.fingerprint, self.packages)

    def described(self, output: DatasetFields) -> dict[str, object]:
        """Return the descriptive fields of its results: those of the step, and the declared ones, which win."""
        own = {"measurement": self.measurement, "data_type": self.data_type}
        return {name: value for name, value in own.items() if value is not None} | output.descriptive

    @classmethod
    def from_json(cls, stored: object) -> Inspection | None:
        """Return an inspection from JSON; None unless it has exactly the fields of this version."""
        if (
            not isinstance(stored, dict)
            or stored.keys() != _NAMES
            or not all(isinstance(stored[n], list) for n in _TUPLES)
        ):
            return None
        return cls(**{**stored, **{name: tuple(stored[name]) for name in _TUPLES}})


_NAMES = {item.name for item in fields(Inspection)}
