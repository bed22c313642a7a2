"""Values stored with a checksum, so that damaged ones are ignored."""

from __future__ import annotations

import json
import zlib
from typing import Any

SEAL = 8  # characters of the checksum


def sealed(value: object, *key: str) -> str:
    """Return the value as JSON after a checksum over it and its key.

    The checksum reveals a damaged value, and one that a damaged index finds under another key.
    """
    text = json.dumps(value)
    return f"{_seal(text, key)}{text}"


def unsealed(text: str, *key: str) -> Any:
    """Return the value that was sealed with this key, or None if the checksum differs."""
    content = text[SEAL:]
    return json.loads(content) if _seal(content, key) == text[:SEAL] else None


def _seal(text: str, key: tuple[str, ...]) -> str:
    start = zlib.crc32("\0".join(key).encode("utf-8", "surrogatepass"))
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass'), start):08x}"
