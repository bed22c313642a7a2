"""Differences between two results of a step, in words with old and new values: the causes of a rerun."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from crucible_lineage.json_types import JsonMapping
from crucible_lineage.provenance.recipe import UsedDataset
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.text.amounts import amount, change_text

MOST_LINES = 20
MOST_NAMED = 5
UNKNOWN = -1  # a size that a recipe does not have
_ABSENT = object()
_INTEGER = re.compile(r"-?[0-9a-f]+")


@dataclass(frozen=True)
class Ingredients:
    """What the result `mfid` was made from; `pieces` has a text, value or hash for each piece of code, if recorded."""

    recipe: JsonMapping
    source: str = ""
    pieces: Mapping[str, str] = field(default_factory=dict)
    used: tuple[UsedDataset, ...] = ()
    mfid: str = ""


def differences(earlier: Ingredients, now: Ingredients) -> list[str]:
    """Return the differences, one sentence each: code, packages, parameters, inputs."""
    before, after = earlier.recipe, now.recipe
    causes = list(_code_differences(earlier, now)) if before["code"] != after["code"] else []
    packages, others = after.get("packages", {}), before.get("packages", {})
    for name in sorted({*packages, *others}):
        if others.get(name) != packages.get(name):
            causes.append(f"package {name} changed: {others.get(name)} -> {packages.get(name)}")
    old_salt, new_salt = before.get("salt", _ABSENT), after.get("salt", _ABSENT)
    if old_salt != new_salt:
        causes.append(f"the salt changed: {change_text(old_salt, new_salt, _shown)}")
    for name in sorted({*before["params"], *after["params"]}):
        old, new = before["params"].get(name, _ABSENT), after["params"].get(name, _ABSENT)
        if old != new:
            causes.append(f"parameter {name} changed: {change_text(old, new, _shown)}")
    for role in sorted({*before["inputs"], *after["inputs"]}):
        old_entries, new_entries = before["inputs"].get(role, []), after["inputs"].get(role, [])
        if old_entries != new_entries:
            causes.append(_input_difference(role, earlier, now))
    return [*causes, *_fact_differences(before, after)]


def file_changes(before: Iterable[FileRef], after: Iterable[FileRef]) -> str:
    """Describe which files of a parent changed, with hash and size; empty if none did."""
    was, now = ({file.name: file for file in files} for files in (before, after))
    pairs = [(name, was.get(name), now.get(name)) for name in sorted({*was, *now})]
    changed = [(name, old, new) for name, old, new in pairs if not old or not new or old.sha256 != new.sha256]
    shown = []
    for name, old, new in changed[:MOST_NAMED]:
        if not old or not new:
            shown.append(f"{name} is {'new' if new else 'gone'}")
            continue
        is_resized = UNKNOWN not in (old.size, new.size) and old.size != new.size
        size = f", size {old.size} -> {new.size}" if is_resized else ""
        shown.append(f"{name} changed: sha {old.sha256[:8]} -> {new.sha256[:8]}{size}")
    return "; ".join(shown) + (f" and {len(changed) - MOST_NAMED} more" if len(changed) > MOST_NAMED else "")


def code_diff(earlier: Ingredients, now: Ingredients) -> tuple[str, ...]:
    """Return a short unified diff of the code: the step's function, then the code that it uses."""
    lines = _diff(earlier.source, now.source)
    for name in sorted({*earlier.pieces, *now.pieces}):
        old, new = earlier.pieces.get(name, ""), now.pieces.get(name, "")
        if _is_text(old) and _is_text(new) and (changes := _diff(old, new)):
            lines += [f"{name}:", *changes]
    if not lines and earlier.source and now.source and not (earlier.pieces and now.pieces):
        return ("the function itself is the same; something that it uses changed (a helper, a class, a constant)",)
    if len(lines) > MOST_LINES:
        return (*lines[:MOST_LINES], f"... and {len(lines) - MOST_LINES} more lines")
    return tuple(lines)


def _code_differences(earlier: Ingredients, now: Ingredients) -> Iterable[str]:
    """Yield which functions, classes or constants changed; only the hashes if the code was not recorded."""
    changed = sorted(
        name for name in {*earlier.pieces, *now.pieces} if earlier.pieces.get(name) != now.pieces.get(name)
    )
    itself = bool(earlier.source and now.source and earlier.source != now.source)
    if not itself and not (earlier.pieces and now.pieces and changed):
        yield f"the code changed: {earlier.recipe['code'][:12]} -> {now.recipe['code'][:12]}"
        return
    if itself:
        yield f"the code of the step itself changed: {earlier.recipe['code'][:12]} -> {now.recipe['code'][:12]}"
    if not (earlier.pieces and now.pieces):
        return
    for name in changed[:MOST_NAMED]:
        old, new = earlier.pieces.get(name), now.pieces.get(name)
        if old is None or new is None:
            yield f"{name} is {'used' if old is None else 'not used'} now"
        elif _is_text(old) or _is_text(new):
            yield f"function {name} changed"
        elif old.startswith("#") or new.startswith("#"):
            yield f"{name} changed"
        else:
            yield f"constant {name} changed: {_constant(old)} -> {_constant(new)}"
    if len(changed) > MOST_NAMED:
        yield f"{amount(len(changed) - MOST_NAMED, 'other piece')} of code changed (functions, classes, constants)"


def _constant(piece: str) -> str:
    """Format a constant. Records have integers in hexadecimal; no other number has that form."""
    return str(int(piece, 16)) if _INTEGER.fullmatch(piece) else piece


def _is_text(piece: str) -> bool:
    """Return whether a piece is the text of a function, not a value or a hash."""
    return "\n" in piece


def _diff(old: str, new: str) -> list[str]:
    if not old or not new:
        return []
    import difflib  # only where a text differs

    return list(difflib.unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=1))[2:]


def _shown(value: object) -> str:
    return "not given" if value is _ABSENT else repr(value)


def _input_difference(role: str, earlier: Ingredients, now: Ingredients) -> str:
    old, new = (made.recipe["inputs"].get(role, []) for made in (earlier, now))
    if len(old) == len(new) == 1:
        before, after = (_used(made, role) for made in (earlier, now))
        former, present = before.dataset.name, after.dataset.name
        if _source(old[0]) != _source(new[0]) and former and present and former != present:
            return f"input {role} is {present} instead of {former}"
        if changes := file_changes(before.files, after.files):
            return f"input {role}: {changes}"
        return f"input {role} comes from other data: {_source(old[0])} -> {_source(new[0])}"
    before_all, after_all = {_source(entry) for entry in old}, {_source(entry) for entry in new}
    removed, added = len(before_all - after_all), len(after_all - before_all)
    if removed or added:
        return f"input {role} has {amount(len(new), 'dataset')}: {added} new, {removed} gone"
    pairs = zip(old, new, strict=False)
    files = [name for was, is_ in pairs for name in is_["files"] if was["files"].get(name) != is_["files"][name]]
    named = f": {', '.join(files[:MOST_NAMED])} changed" if files else ""
    return f"input {role} has the same datasets in another order or with other files{named}"


def _fact_differences(before: JsonMapping, after: JsonMapping) -> Iterable[str]:
    """Yield the changed facts about parents with the same data; other parents are reported elsewhere."""
    if ("facts" in before) != ("facts" in after):
        yield f"the step is {'given facts about its parents now' if 'facts' in after else 'no longer given facts'}"
        return
    changes = [
        f"{fact} of {_shown(new['name'] if fact != 'name' else old['name'])} (input {role}) changed: {change}"
        for role, entries in after.get("facts", {}).items()
        if list(map(_source, before["inputs"].get(role, []))) == list(map(_source, after["inputs"][role]))
        for old, new in zip(before["facts"][role], entries, strict=True)
        for fact, change in _changed_facts(old, new)
    ]
    yield from changes[:MOST_NAMED]
    if len(changes) > MOST_NAMED:
        yield f"{len(changes) - MOST_NAMED} other facts about its parents changed"


def _changed_facts(old: JsonMapping, new: JsonMapping, prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield each fact that differs, as (name, old and new value); nested ones by their path."""
    for name in dict.fromkeys([*old, *new]):
        was, now = old.get(name, _ABSENT), new.get(name, _ABSENT)
        if was == now:
            continue
        parts = [{} if value is _ABSENT else value for value in (was, now)]
        if all(isinstance(part, Mapping) for part in parts) and any(parts):
            yield from _changed_facts(parts[0], parts[1], f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", change_text(was, now, _shown)


def _used(made: Ingredients, role: str) -> UsedDataset:
    """Return the only parent in a role; from the recipe if nothing more is known."""
    recorded = next((parent for parent in made.used if parent.role == role), None)
    if recorded is not None:
        return recorded
    (entry,) = made.recipe["inputs"][role]
    files = tuple(FileRef(name, sha256, UNKNOWN) for name, sha256 in entry["files"].items())
    return UsedDataset(role, DatasetRef(_source(entry), "", files), files)


def _source(entry: Mapping[str, object]) -> str:
    return str(entry.get("origin") or entry.get("mfid"))
