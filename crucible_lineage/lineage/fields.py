"""The fields of datasets: one view for selections, matches, groups, certificates, tables and lists.

A name is one of Crucible (`instrument_name`), `metadata.NAME`, `results.NAME` of what the step returned, `params.NAME`,
or `step` and `pipeline`, under each name by which a result was declared. What a result lacks is that of its data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from crucible_lineage.json_types import JsonMapping, JsonObject, mapping
from crucible_lineage.lineage.records import given_metadata, inherited_fields, provenance, returned_values
from crucible_lineage.refs import MATCHED
from crucible_lineage.text.amounts import distinct
from crucible_lineage.text.times import measured_at


def fields_of(record: JsonMapping) -> JsonObject:
    """Return the own fields of a dataset, by its record with metadata; `timestamp` only if somebody stated it."""
    moment, inherited = measured_at(record), inherited_fields(record)
    known = {name: record.get(name) for name in MATCHED if name not in inherited}
    plain = {name: value for name, value in known.items() if value not in (None, "")}
    return {
        **plain,
        **({"timestamp": moment.isoformat()} if moment else {}),
        "metadata": given_metadata(record),
        "results": returned_values(record),
        "params": mapping(mapping(provenance(record).get("recipe")).get("params")),
    }


def value_of(fields: JsonMapping, name: str) -> object:
    """Return the value of a field such as `instrument_name` or `metadata.laser_nm`; None if it is absent.

    A name with points is a key as a whole, or leads into nested mappings.
    """
    if name in fields:
        return fields[name]
    head, _, rest = name.partition(".")
    inner = fields.get(head)
    return value_of(inner, rest) if rest and isinstance(inner, Mapping) else None


def values_of(name: str, own: JsonMapping, behind: Iterable[JsonMapping]) -> list[object]:
    """Return the value of a field of a dataset, or if it lacks it, the distinct ones of the data behind it.

    The last one is None if some of these lack it, too.
    """
    if (value := value_of(own, name)) is not None:
        return [value]
    found = [value_of(fields, name) for fields in behind]
    return [*distinct(found), *([None] if any(value is None for value in found) else [])]


def shared(fields: Iterable[JsonMapping]) -> JsonObject:
    """Return the fields in which data agree, nested ones too."""
    found = list(fields)
    agreed: JsonObject = {}
    for name in dict.fromkeys(name for each in found for name in each):
        values = [each.get(name) for each in found]
        if all(isinstance(value, Mapping) for value in values):
            agreed[name] = shared(values)  # type: ignore[arg-type]  # all are mappings
        elif len(distinct(values)) == 1 and None not in values:
            agreed[name] = values[0]
    return agreed
