"""Values that are kept behind a check sum, so that a damaged one is taken for nothing."""

from __future__ import annotations

import json
import zlib
from typing import Any

SEAL = 8  # characters of the check sum


def sealed(value: object, *key: str) -> str:
    """The value as JSON behind a check sum over it and its key.

    A damaged value is not taken for what it says, nor one that a damaged index finds under another key.
    """
    text = json.dumps(value)
    return f"{_seal(text, key)}{text}"


def unsealed(text: str, *key: str) -> Any:
    """The value that was sealed with this key, or None if it is another one."""
    content = text[SEAL:]
    return json.loads(content) if _seal(content, key) == text[:SEAL] else None


def _seal(text: str, key: tuple[str, ...]) -> str:
    start = zlib.crc32("\0".join(key).encode("utf-8", "surrogatepass"))
    return f"{zlib.crc32(text.encode('utf-8', 'surrogatepass'), start):08x}"
