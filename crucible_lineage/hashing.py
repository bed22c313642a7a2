"""A file's hash, and the stamp that says whether a hash taken before still holds."""

from __future__ import annotations

from pathlib import Path

from crucible_lineage.checksums import scan_file

__all__ = ["FileStamp", "file_sha256", "stamp"]

FileStamp = tuple[int, int, int]  # size in bytes, modification time in ns, inode


def stamp(path: Path) -> FileStamp:
    """Size, modification time and inode: while these stand, a hash taken before is trusted."""
    info = path.stat()
    return info.st_size, info.st_mtime_ns, info.st_ino


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's bytes, as 64 lowercase hex digits. FileChangedError if the file changes meanwhile."""
    return scan_file(path).sha256
