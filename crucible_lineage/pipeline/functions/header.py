"""What a function of the user's own reads from a measured file: fields of its record, and metadata.

    inputs:
      spectra: {file: "*.txt", each: true, header: mysteps:header}

    def header(path: Path) -> dict: ...

Names of fields of the record are taken as these, all else as metadata. What it read is kept by the file's hash, as long
as its code is what it was. Instead of a function, INGESTED stands for the ingestors of the embedded Crucible, run here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.store import Store
from crucible_lineage.errors import InputError
from crucible_lineage.fingerprint.contained import EndedError, contained
from crucible_lineage.fingerprint.values import ValueFaultError, plain_value
from crucible_lineage.fingerprint.walk import code_fingerprint
from crucible_lineage.ids import canonical_json
from crucible_lineage.marks import is_own
from crucible_lineage.pipeline.functions.inspect import find_function
from crucible_lineage.pipeline.functions.inspection import RULES

__all__ = ["HEADER_FIELDS", "INGESTED", "header_function", "read_header"]

INGESTED = "ingested"
_INGESTORS = "crucible_lineage.server.ingest.header:read"

HEADER_FIELDS = ("timestamp", "measurement", "data_type", "session_name", "instrument_name", "instrument_id")


def header_function(uses: str, folder: Path) -> Any:
    """The function that is meant. InputError if there is none."""
    return find_function(_INGESTORS if uses == INGESTED else uses, folder)


def read_header(uses: str, folder: Path, path: Path, sha256: str, store: Store) -> dict[str, Any]:
    """{field: value, "metadata": {name: value}}. InputError if there is no such function, or with what failed in it."""
    asked = hashlib.sha256(canonical_json(["header", uses, str(folder), sha256, path.name])).hexdigest()
    kept = store.inspection(asked, RULES)
    if kept is None:
        function = header_function(uses, folder)
        kept = _read(function, uses, path)
        files = () if uses == INGESTED else code_fingerprint(function).files  # RULES tells our versions apart
        store.keep_inspection(asked, RULES, files, kept)
    fields = dict(kept)
    if "timestamp" in fields:
        fields["timestamp"] = datetime.fromisoformat(fields["timestamp"])
    return fields


def _read(function: Callable[[Path], object], uses: str, path: Path) -> dict[str, Any]:
    try:
        with contained():
            found = function(path)
    except EndedError as error:
        raise InputError(f"{uses} cannot read {path.name}: it ends its process ({error}); let it return") from error
    except Exception as error:
        raise InputError(f"{uses} cannot read {path.name}: {type(error).__name__}: {error}") from error
    if not isinstance(found, Mapping):
        raise InputError(f"{uses} gives a {type(found).__name__} for {path.name}; let it return a mapping")
    try:
        plain = plain_value(dict(found), "")
    except ValueFaultError as fault:
        raise InputError(f"{uses}: the value {fault.path.removeprefix('.')!r} for {path.name} {fault.reason}") from None
    if uses == INGESTED:  # whatever a file says, a parser writes nothing there
        plain = {name: value for name, value in plain.items() if not is_own(name)}
    if ours := [name for name in plain if is_own(name)]:
        raise InputError(
            f"{uses} gives {ours[0]!r} for {path.name}, which is kept for what is recorded; name it otherwise"
        )
    fields = {name: value for name, value in plain.items() if name in HEADER_FIELDS and value is not None}
    if "timestamp" in fields:
        fields["timestamp"] = _moment(uses, path, fields["timestamp"])
    return {**fields, "metadata": {name: value for name, value in plain.items() if name not in HEADER_FIELDS}}


def _moment(uses: str, path: Path, value: object) -> str:
    try:
        moment = datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        told = f"{uses} gives the timestamp {value!r} for {path.name}"
        raise InputError(f"{told}; write a time with its zone, as 2024-05-01T12:00:00+02:00")
    return moment.isoformat()
