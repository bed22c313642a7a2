"""httpx without what it imports with itself and we do not use: its command line (rich, pygments), and HTTP/2.

Either costs as much as the rest of it. Whoever speaks HTTP/2 in this process still can: it is imported then.
"""

from __future__ import annotations

import sys

__all__: list[str] = []

UNUSED = ("httpx._main", "httpcore._sync.http2", "httpcore._async.http2")

if "httpx" not in sys.modules:
    unused = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]  # what cannot be imported, httpx does without
    try:
        import httpx  # noqa: F401
    finally:
        for name in unused:
            sys.modules.pop(name, None)
