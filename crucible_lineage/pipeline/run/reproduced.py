"""Comparison of two results of one recipe: which numbers differ, and by how much."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TypeGuard

from crucible_lineage.amounts import amount, change_text
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.labels import value_text
from crucible_lineage.lineage.records import returned_values
from crucible_lineage.provenance.record import read_record
from crucible_lineage.refs import FileRef
from crucible_lineage.registration.read import whole_record
from crucible_lineage.session import Session

NOT_DETERMINISTIC = "the step is not deterministic: the same code, parameters and inputs gave other results"
MAX_NAMED = 8  # numbers, and files


def moved(session: Session, before: str, after: str) -> list[str]:
    """Return the differences between two results of one recipe: returned numbers, then files; empty if there are none.

    Raises CrucibleError if one of them cannot be read.
    """
    records = fetch_datasets(session.client, [before, after]).found
    if len(records) < 2:
        return []
    was, now = (dict(_flat(returned_values(records[mfid]))) for mfid in (before, after))
    values = [name for name in dict.fromkeys([*was, *now]) if not _is_same(was.get(name), now.get(name))]
    lines = [_value_line(name, was.get(name), now.get(name)) for name in values[:MAX_NAMED]]
    if len(values) > MAX_NAMED:
        lines.append(f"and {len(values) - MAX_NAMED} values more")
    old, new = (_data_files(session, mfid, records[mfid]) for mfid in (before, after))
    names = [name for name in sorted({*old, *new}) if _sha256(old, name) != _sha256(new, name)]
    lines += [_file_line(name, old.get(name), new.get(name)) for name in names[:MAX_NAMED]]
    return [*lines, *([f"and {amount(len(names) - MAX_NAMED, 'more file')}"] if len(names) > MAX_NAMED else [])]


def _flat(value: object, path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values within mappings and lists with their paths."""
    if isinstance(value, Mapping) and value:
        for name, part in value.items():
            yield from _flat(part, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list) and value:
        for number, part in enumerate(value):
            yield from _flat(part, f"{path}[{number}]")
    else:
        yield path, value


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_same(one: object, other: object) -> bool:
    return bool(one == other) or (_is_number(one) and _is_number(other) and math.isnan(one) and math.isnan(other))


def _value_line(name: str, was: object, now: object) -> str:
    line = f"{name} {change_text(was, now, value_text)}"
    if not (_is_number(was) and _is_number(now)):
        return line
    percent = f", {abs((now - was) / was) * 100:.2g} %" if was else ""
    return f"{line}, by {now - was:+.3g}{percent}"


def _data_files(session: Session, mfid: str, record: JsonMapping) -> dict[str, FileRef]:
    provenance = read_record(record.get("scientific_metadata"))
    if provenance is None:
        return {}
    provenance = whole_record(session.client, mfid, provenance)
    return {file.name: file for file in provenance.files if file.is_data}


def _sha256(files: Mapping[str, FileRef], name: str) -> str:
    return files[name].sha256 if name in files else ""


def _file_line(name: str, was: FileRef | None, now: FileRef | None) -> str:
    if was is None or now is None:
        return f"file {name} is {'new' if was is None else 'gone'}"
    return f"file {name} has other bytes"
