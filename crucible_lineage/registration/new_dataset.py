"""A dataset to be registered: its fields, provenance, links, and files on disk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import FileChecksums
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.refs import DatasetRef, FileRef, utf8_name

if TYPE_CHECKING:  # pydantic, which planning should not pay
    from crucible_lineage.provenance.schema import FilesRecord, StepRecord


@dataclass(frozen=True)
class ExternalLocation:
    """The location of a file that Crucible records but does not store: the kind of storage, and the address in it."""

    storage: str
    address: str


@dataclass(frozen=True)
class LocalFile:
    """A file on disk with its name in the dataset and its checksums, so that they are computed only once.

    A file that stays `elsewhere` is recorded, not sent.
    """

    path: Path
    ref: FileRef
    checksums: FileChecksums
    elsewhere: ExternalLocation | None = None

    @classmethod
    def of(cls, path: Path, checksums: FileChecksums, *, preview: bool = False) -> LocalFile:
        """Return the file under its own name; bytes that are not UTF-8 are escaped."""
        return cls(path, FileRef(utf8_name(path.name), checksums.sha256, checksums.size, preview), checksums)


@dataclass(frozen=True)
class NewDataset:
    """A dataset to be registered.

    `fields` are those of Crucible's dataset record (project_id, dataset_name, measurement ...), `record` is the
    provenance record, `metadata` the scientific metadata beside it, `slots` are those that it is to fill.
    """

    mfid: str
    fields: JsonMapping
    record: StepRecord | FilesRecord
    metadata: JsonMapping
    files: tuple[LocalFile, ...]
    keywords: tuple[str, ...] = ()
    slots: Mapping[str, SlotClaim] = field(default_factory=dict)
    parents: tuple[str, ...] = ()
    samples: tuple[str, ...] = ()
    ingest: bool = True
    ingestor: str | None = None
    ingestion_timeout_s: float = 600.0
    waits_for_ingestion: bool = False

    @property
    def name(self) -> str:
        """The dataset's name."""
        return str(self.fields["dataset_name"])

    @property
    def taken(self) -> str:
        """The time when the data were measured; empty if unknown."""
        return str(self.fields.get("timestamp") or "")

    def ref(self, mfid: str) -> DatasetRef:
        """Return the dataset for use by steps, under the id that it has."""
        files = tuple(file.ref for file in self.files)
        samples, origin = tuple(sorted(set(self.samples))), origin_of(self.record.recipe)
        return DatasetRef(mfid, self.name, files, samples, origin, self.parents, taken=self.taken)
