"""The only place that speaks HTTP to Crucible: `CrucibleClient`, and the checksums that its uploads need."""

from crucible_lineage.checksums import FileChecksums, scan_file
from crucible_lineage.client.client import CrucibleClient
from crucible_lineage.client.contents import AddedFile
from crucible_lineage.client.datasets import CreatedDataset
from crucible_lineage.client.outgoing import UploadedFile
from crucible_lineage.client.retry import RetryPolicy
from crucible_lineage.client.session import Timeouts

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
