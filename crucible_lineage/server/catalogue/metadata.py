"""Scientific metadata: merging, bounds, and the words by which it is found."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterator
from typing import Any

from starlette.exceptions import HTTPException

from crucible_lineage.server.database import now

__all__ = ["merged", "read_metadata", "write_metadata"]

MAX_DOCUMENT_BYTES = 4 << 20  # chosen: a hundred thousand numbers; what is larger belongs into a file
MAX_DEPTH = 100  # chosen: far beyond any instrument's header, far below Python's recursion limit
MAX_INDEXED_CHARACTERS = 200_000  # chosen: search is for words, not for arrays printed as text

_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def merged(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """`old` with `new` merged in: objects merge key by key, anything else is replaced; null is a value."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        result[key] = merged(before, value) if isinstance(before, dict) and isinstance(value, dict) else value
    return result


def read_metadata(db: sqlite3.Connection, resource_id: int) -> dict[str, Any] | None:
    """A resource's metadata, None where none was ever written."""
    row = db.execute("SELECT document FROM metadata WHERE id = ?", (resource_id,)).fetchone()
    return None if row is None else json.loads(row[0])


def write_metadata(db: sqlite3.Connection, resource_id: int, document: dict[str, Any], *, is_new: bool) -> None:
    """`document` becomes the metadata, is found by its words, and counts as a modification of the resource."""
    _check_depth(document)
    try:
        text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        raise HTTPException(422, "Metadata may not hold NaN or infinite numbers; JSON has none") from None
    if len(text.encode()) > MAX_DOCUMENT_BYTES:
        raise HTTPException(413, f"Metadata is larger than {MAX_DOCUMENT_BYTES} bytes")
    words = " ".join(_words(document))[:MAX_INDEXED_CHARACTERS]
    if is_new:
        db.execute("INSERT INTO metadata VALUES (?, ?)", (resource_id, text))
        db.execute("INSERT INTO metadata_words (rowid, words) VALUES (?, ?)", (resource_id, words))
    else:
        db.execute("UPDATE metadata SET document = ? WHERE id = ?", (text, resource_id))
        db.execute("UPDATE metadata_words SET words = ? WHERE rowid = ?", (words, resource_id))
    db.execute("UPDATE resource SET modified = ? WHERE id = ?", (now(), resource_id))


def _check_depth(document: dict[str, Any]) -> None:
    level: list[Any] = [document]
    for _ in range(MAX_DEPTH):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
        if not inner:
            return
        level = inner
    raise HTTPException(422, f"Metadata is nested more than {MAX_DEPTH} levels deep")


def _words(value: Any) -> Iterator[str]:
    """Key names and texts; a name like `laserPower_mW` also as its parts."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if (parts := _CAMEL.sub(" ", key)) != key:
                yield parts
            yield from _words(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _words(inner)
    elif isinstance(value, str):
        yield value
