"""Long provenance records: what does not fit is kept in a file of the dataset, whose hash stays in the record.

A record that is too long loses its recipe, its list of generated files and the file lists of what was used; if that
is not enough, also the list of what was used. Who needs these asks for the whole record; who draws a lineage need not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import ChecksumError
from crucible_lineage.ids import canonical_json

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["ATTACHED_NAME", "MAX_RECORD_BYTES", "compact_record", "expand_record", "recipe_sha256", "whole_record"]

ATTACHED_NAME = "crucible-lineage-provenance.json"
MAX_RECORD_BYTES = 256 << 10  # chosen: a thousand records of a project's list stay within what one answer can carry
MOVED = ("recipe", "used", "generated")

Record = Mapping[str, Any]


def compact_record(record: Record, limit_bytes: int = MAX_RECORD_BYTES) -> tuple[dict[str, Any], bytes | None]:
    """The record as it goes into the metadata, and the content of ATTACHED_NAME if it needs one.

    `record` is whole. The same record always gives the same bytes.
    """
    if _size(record) <= limit_bytes:
        return dict(record), None
    content = canonical_json({name: record[name] for name in MOVED})
    short: dict[str, Any] = {name: value for name, value in record.items() if name not in MOVED}
    short["used"] = [{"role": entry["role"], "mfid": entry["mfid"]} for entry in record["used"]]
    short["attached"] = {
        "name": ATTACHED_NAME,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "recipe_sha256": recipe_sha256(record),
        "used": len(record["used"]),
        "generated": len(record["generated"]),
    }
    if _size(short) > limit_bytes:
        short["used"] = []
    return short, content


def expand_record(record: Record, content: bytes) -> dict[str, Any]:
    """The record with what its attached file holds; it still names the file. ChecksumError if the file was changed."""
    attached = record["attached"]
    if hashlib.sha256(content).hexdigest() != attached["sha256"]:
        raise ChecksumError(f"{attached['name']} holds other bytes than the provenance record says")
    return {**record, **json.loads(content)}


def recipe_sha256(record: Record) -> str:
    """A hash of the record's recipe, which is known without the attached file."""
    if "recipe" not in record:
        return str(record["attached"]["recipe_sha256"])
    return hashlib.sha256(canonical_json(record["recipe"])).hexdigest()


def whole_record(client: CrucibleClient, mfid: str, record: Record) -> Record:
    """The record of a dataset with all its parts; asks Crucible only where a part is in the attached file.

    ChecksumError if that file is not there or holds other bytes.
    """
    if "recipe" in record:
        return record
    name = record["attached"]["name"]
    for file in client.files.list(mfid):
        if file.filename == name:
            return expand_record(record, client.files.download_bytes(file))
    raise ChecksumError(f"dataset {mfid} has no file {name}, which holds a part of its provenance record")


def _size(record: Record) -> int:
    return len(json.dumps(record, ensure_ascii=False).encode())
