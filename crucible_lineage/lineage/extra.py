"""Optional libraries: what to install where one is missing."""

from __future__ import annotations

from importlib.util import find_spec

from crucible_lineage.errors import InputError

__all__ = ["missing_library", "require_library"]


def require_library(what: str, library: str, extra: str) -> None:
    """Raise InputError if a library is not installed, before any work is done that needs it in the end."""
    if find_spec(library) is None:
        raise missing_library(what, library, extra)


def missing_library(what: str, library: str, extra: str) -> InputError:
    """The error to raise where `library` cannot be imported."""
    return InputError(f"write {what}: the library {library} is missing; pip install 'crucible-lineage[{extra}]'")
