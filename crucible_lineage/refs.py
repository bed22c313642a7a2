"""What the library says about a dataset once it knows it: id, name and files. Frozen values, no I/O."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["DatasetRef", "FileRef", "file_stem"]


@dataclass(frozen=True)
class FileRef:
    """A file of a dataset: name, SHA-256 and size.

    `preview` marks the picture shown as the dataset's thumbnail, `log` what a command printed; both are no data.
    """

    name: str
    sha256: str
    size: int
    preview: bool = False
    log: bool = False

    @property
    def is_data(self) -> bool:
        """True if steps are given this file."""
        return not (self.preview or self.log)

    def to_json(self) -> dict[str, Any]:
        """The form that is stored in provenance records."""
        entry: dict[str, Any] = {"name": self.name, "sha256": self.sha256, "size": self.size}
        return {**entry, **({"preview": True} if self.preview else {}), **({"log": True} if self.log else {})}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> FileRef:
        """The file that such an entry describes."""
        preview, log = bool(entry.get("preview", False)), bool(entry.get("log", False))
        return cls(entry["name"], entry["sha256"], int(entry["size"]), preview, log)


@dataclass(frozen=True)
class DatasetRef:
    """A complete dataset that a step may use, with the samples it was measured on (their MFIDs)."""

    mfid: str
    name: str
    files: tuple[FileRef, ...]
    samples: tuple[str, ...] = ()

    @property
    def data_files(self) -> tuple[FileRef, ...]:
        """The files that steps are given: neither the preview nor a log."""
        return tuple(file for file in self.files if file.is_data)

    def to_json(self) -> dict[str, Any]:
        """The form that is kept in the local store."""
        entry: dict[str, Any] = {"mfid": self.mfid, "name": self.name, "files": [file.to_json() for file in self.files]}
        return {**entry, "samples": list(self.samples)} if self.samples else entry

    @classmethod
    def from_json(cls, entry: Mapping[str, Any]) -> DatasetRef:
        """The dataset that such an entry describes."""
        files = tuple(FileRef.from_json(file) for file in entry["files"])
        return cls(entry["mfid"], entry["name"], files, tuple(entry.get("samples", ())))


def file_stem(name: str) -> str:
    """The name of a step or dataset, as far as it may stand in a file's name anywhere."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", name)[:60]
