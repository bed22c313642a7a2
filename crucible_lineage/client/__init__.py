"""The only package that speaks HTTP to Crucible: `CrucibleClient`, and the checksums for its uploads."""

import crucible_lineage.client.http.lean_httpx  # noqa: F401  # isort: skip  # before anything else imports httpx
from crucible_lineage.checksums import FileChecksums, scan_file
from crucible_lineage.client.client import CrucibleClient
from crucible_lineage.client.dataset.contents import AddedFile
from crucible_lineage.client.dataset.datasets import CreatedDataset
from crucible_lineage.client.http.connection import Timeouts
from crucible_lineage.client.http.retry import RetryPolicy
from crucible_lineage.client.transfer.outgoing import UploadedFile

__all__ = [
    "AddedFile",
    "CreatedDataset",
    "CrucibleClient",
    "FileChecksums",
    "RetryPolicy",
    "Timeouts",
    "UploadedFile",
    "scan_file",
]
