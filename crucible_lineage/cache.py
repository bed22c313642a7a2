"""A content-addressed cache of files: each stored once under its SHA-256, shared by processes, never half-written."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from crucible_lineage.errors import ChecksumError
from crucible_lineage.hashing import file_sha256

__all__ = ["FileCache"]


class FileCache:
    """Files by their SHA-256, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, sha256: str) -> Path:
        """Where the file with this hash lies, or would lie."""
        return self.folder / sha256[:2] / sha256

    def add(self, source: Path, sha256: str) -> Path:
        """The cached copy of a file whose hash is known; ChecksumError if its bytes are others by now."""
        return self.get(sha256, lambda target: shutil.copyfile(source, target))

    def get(self, sha256: str, fetch: Callable[[Path], object]) -> Path:
        """The cached file with this hash; `fetch` writes it to the path that it is given if it is not there yet."""
        target = self.path(sha256)
        if target.exists():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".part-")
        os.close(handle)
        part = Path(name)
        try:
            fetch(part)
            if (arrived := file_sha256(part)) != sha256:
                raise ChecksumError(f"a file with SHA-256 {sha256} was asked for, {arrived} came; it was not kept")
            part.chmod(0o444)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return target

    def evict(self, sha256: str) -> None:
        """The file with this hash is fetched again when it is next asked for."""
        self.path(sha256).unlink(missing_ok=True)

    def place(self, sha256: str, target: Path) -> None:
        """The cached file also stands at `target`: a hard link, or a copy where links are not possible."""
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            target.hardlink_to(self.path(sha256))
        except OSError:
            shutil.copyfile(self.path(sha256), target)
