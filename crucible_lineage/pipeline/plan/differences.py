"""What differs between two recipes of one step, in words and with the old and the new value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

__all__ = ["code_diff", "differences"]

MOST_LINES = 20
_ABSENT = object()


def differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What differs, one sentence each: code, packages, parameters, inputs."""
    causes = []
    if earlier["code"] != now["code"]:
        causes.append(f"the code changed: {earlier['code'][:12]} -> {now['code'][:12]}")
    packages, others = now.get("packages", {}), earlier.get("packages", {})
    for name in sorted({*packages, *others}):
        if others.get(name) != packages.get(name):
            causes.append(f"package {name} changed: {others.get(name)} -> {packages.get(name)}")
    for name in sorted({*earlier["params"], *now["params"]}):
        old, new = earlier["params"].get(name, _ABSENT), now["params"].get(name, _ABSENT)
        if old != new:
            causes.append(f"parameter {name} changed: {_shown(old)} -> {_shown(new)}")
    for role in sorted({*earlier["inputs"], *now["inputs"]}):
        old_entries, new_entries = earlier["inputs"].get(role, []), now["inputs"].get(role, [])
        if old_entries != new_entries:
            causes.append(_input_difference(role, old_entries, new_entries))
    return causes


def code_diff(earlier: str, now: str) -> tuple[str, ...]:
    """The lines in which two texts of a function differ, as a short unified diff.

    If the function itself is the same, something that it uses is not, and that is said.
    """
    if not earlier or not now:
        return ()
    lines = list(difflib.unified_diff(earlier.splitlines(), now.splitlines(), lineterm="", n=1))[2:]
    if not lines:
        return ("the function itself is the same; something that it uses changed (a helper, a class, a constant)",)
    if len(lines) > MOST_LINES:
        return (*lines[:MOST_LINES], f"... and {len(lines) - MOST_LINES} lines more")
    return tuple(lines)


def _shown(value: Any) -> str:
    return "not given" if value is _ABSENT else repr(value)


def _input_difference(role: str, old: list[Mapping[str, Any]], new: list[Mapping[str, Any]]) -> str:
    if len(old) == len(new) == 1:
        if old[0]["mfid"] != new[0]["mfid"]:
            return f"input {role} is another dataset: {old[0]['mfid']} -> {new[0]['mfid']}"
        names = sorted({*old[0]["files"], *new[0]["files"]})
        changed = [name for name in names if old[0]["files"].get(name) != new[0]["files"].get(name)]
        return f"input {role} has other files: {', '.join(changed)}"
    before, after = {entry["mfid"] for entry in old}, {entry["mfid"] for entry in new}
    if before == after:
        return f"input {role} has the same datasets in another order or with other files"
    return f"input {role} has {len(after)} datasets: {len(after - before)} new, {len(before - after)} gone"
