"""Values of a dataset's record that are read from the names of its files: `power_mW: from name '(\\d+)mW'`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from crucible_lineage.errors import InputError

__all__ = ["from_name_fault", "is_from_name", "read_from_names"]

_FORM = re.compile(r"from name\s+(['\"])(?P<pattern>.+)\1", re.DOTALL)
_WHOLE, _DECIMAL = re.compile(r"[+-]?\d+"), re.compile(r"[+-]?(\d+\.\d*|\.\d+)")


def is_from_name(value: object) -> bool:
    """True if the value is to be read from the name of a file."""
    return isinstance(value, str) and _FORM.fullmatch(value.strip()) is not None


def from_name_fault(value: object) -> str | None:
    """Return the fault of a value that is taken from names; None without one, or for a plain value."""
    if not isinstance(value, str) or not value.startswith("from name"):
        return None
    found = _FORM.fullmatch(value.strip())
    if found is None:
        return r"write the pattern in quotes, as in from name '(\d+)mW'"
    try:
        groups = re.compile(found["pattern"]).groups
    except re.error as error:
        return f"'{found['pattern']}' is no regular expression: {error}"
    return f"'{found['pattern']}' has {groups} groups; the value is the one in round brackets" if groups > 1 else None


def read_from_names(fields: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    """The fields with what the names of the files say: text, and numbers in metadata.

    `names` are paths as they are declared. A pattern with a `/` is looked for in the whole path, any other one in the
    file's own name. InputError if a name does not fit, or if the names of several files say different things.
    """
    filled = {name: _read(name, value, names) if is_from_name(value) else value for name, value in fields.items()}
    metadata = {
        name: _number(_read(f"metadata.{name}", value, names)) if is_from_name(value) else value
        for name, value in (fields.get("metadata") or {}).items()
    }
    return {**filled, **({"metadata": metadata} if "metadata" in fields else {})}


def _read(field: str, value: str, names: Sequence[str]) -> str:
    pattern = _FORM.fullmatch(value.strip())["pattern"]  # type: ignore[index]  # the caller has looked
    said: dict[str, str] = {}
    for name in names:
        looked_at = name if "/" in pattern else name.rpartition("/")[2]
        found = re.search(pattern, looked_at)
        if found is None:
            raise InputError(f"{looked_at!r} does not fit '{pattern}', from which its {field} is read")
        said.setdefault(found[found.re.groups], looked_at)
    if len(said) != 1:
        shown = ", ".join(f"{text!r} ({name})" for text, name in said.items())
        raise InputError(f"the names of one dataset's files give several values for {field}: {shown}")
    return next(iter(said))


def _number(text: str) -> int | float | str:
    """`05` is 5, `2.50` is 2.5, and anything else the text itself."""
    if _WHOLE.fullmatch(text):
        return int(text)
    return float(text) if _DECIMAL.fullmatch(text) else text
