"""Optional libraries: what to install where one is missing."""

from __future__ import annotations

from crucible_lineage.errors import InputError

__all__ = ["missing_library"]


def missing_library(what: str, library: str, extra: str) -> InputError:
    """The error to raise where `library` cannot be imported."""
    return InputError(f"write {what}: the library {library} is missing; pip install 'crucible-lineage[{extra}]'")
