"""httpx without two imports that we do not use: its command line (rich, pygments), and HTTP/2.

Each takes as long to import as the rest of httpx. A program in this process can still use HTTP/2, which is then
imported.
"""

from __future__ import annotations

import sys

__all__: list[str] = []

UNUSED = ("httpx._main", "httpcore._sync.http2", "httpcore._async.http2")

if "httpx" not in sys.modules:
    unused = [name for name in UNUSED if name not in sys.modules]
    sys.modules.update(dict.fromkeys(unused))  # type: ignore[arg-type]  # httpx works without modules that fail to import
    try:
        import httpx  # noqa: F401
    finally:
        for name in unused:
            sys.modules.pop(name, None)
