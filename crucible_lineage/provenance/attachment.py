"""Long provenance records: what does not fit is kept in a file of the dataset, whose hash stays in the record.

Crucible hands out the records of a whole project at once, so each must stay small. Of a long one the metadata keep who,
when and what it came from; the recipe and the lists of files are in the file, and if that is not enough, also the list
of what was used. Who needs these asks for the whole record; who draws a lineage need not.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from crucible_lineage.errors import ChecksumError
from crucible_lineage.ids import canonical_json

if TYPE_CHECKING:  # pydantic, which planning should not pay
    from crucible_lineage.provenance.schema import ProvenanceRecord

T = TypeVar("T", bound="ProvenanceRecord")

__all__ = ["ATTACHED_NAME", "MAX_RECORD_BYTES", "compact", "expand"]

ATTACHED_NAME = "crucible-lineage-provenance.json"
MAX_RECORD_BYTES = 256 << 10  # chosen: a thousand records of a project's list stay within what one answer can carry
MOVED = ("recipe", "used", "generated")


def compact(record: T, limit_bytes: int = MAX_RECORD_BYTES) -> tuple[T, bytes | None]:
    """The record as it goes into the metadata, and the content of ATTACHED_NAME if it needs one.

    `record` is whole. The same record always gives the same bytes.
    """
    document = record.document()
    if _size(document) <= limit_bytes:
        return record, None
    content = canonical_json({name: document[name] for name in MOVED})
    short: dict[str, Any] = {name: value for name, value in document.items() if name not in MOVED}
    short["used"] = [{"role": entry["role"], "mfid": entry["mfid"]} for entry in document["used"]]
    short["attached"] = {
        "name": ATTACHED_NAME,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "recipe_sha256": record.recipe_sha256,
        "used": len(document["used"]),
        "generated": len(document["generated"]),
    }
    if _size(short) > limit_bytes:
        short["used"] = []
    return type(record).model_validate(short), content


def expand(record: T, content: bytes) -> T:
    """The record with what its attached file holds; it still names the file. ChecksumError if the file was changed."""
    attached = record.attached
    if attached is None or hashlib.sha256(content).hexdigest() != attached.sha256:
        name = attached.name if attached else ATTACHED_NAME
        raise ChecksumError(f"{name} holds other bytes than the provenance record says")
    return type(record).model_validate({**record.document(), **json.loads(content)})


def _size(document: Mapping[str, object]) -> int:
    return len(json.dumps(document, ensure_ascii=False).encode())
