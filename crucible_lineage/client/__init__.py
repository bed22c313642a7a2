"""The only package that speaks HTTP to Crucible: `CrucibleClient`, and the checksums for its uploads."""

import sys

# Without two imports that nothing here uses, its command line and HTTP/2, httpx takes half the time to import.
if "httpx" not in sys.modules:
    _unused = [name for name in ("httpx._main", "httpcore._sync.http2", "httpcore._async.http2")
               if name not in sys.modules]  # fmt: skip
    sys.modules.update(dict.fromkeys(_unused))  # type: ignore[arg-type]  # httpx works if these fail to import
    try:
        import httpcore  # noqa: F401  (httpx imports it for its first client only)
        import httpx  # noqa: F401
    finally:
        for _name in _unused:
            sys.modules.pop(_name, None)

from crucible_lineage.client.client import CrucibleClient
from crucible_lineage.client.connection import RetryPolicy
from crucible_lineage.client.contents import AddedFile
from crucible_lineage.client.datasets import CreatedDataset
from crucible_lineage.client.uploads import UploadedFile
from crucible_lineage.machine.checksums import FileChecksums, scan_file

__all__ = [
    "AddedFile",
    "CreatedDataset",
    "CrucibleClient",
    "FileChecksums",
    "RetryPolicy",
    "UploadedFile",
    "scan_file",
]
