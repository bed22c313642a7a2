"""What lies in the folder that a step was to write into: plain files with names that any system takes, or an error."""

from __future__ import annotations

import os
import shutil
import stat
from pathlib import Path

from crucible_lineage.disk import draft_beside
from crucible_lineage.errors import StepError
from crucible_lineage.refs import name_fault

__all__ = ["MOST_NAME_BYTES", "written_files"]

MOST_NAME_BYTES = 200  # chosen: file systems take 255, and programs add endings
# A file with holes is read as if they were full of zeros; one that is nearly all hole was never meant to be kept.
_SPARSE_BYTES, _SPARSE_RATIO = 1 << 30, 1000
_KINDS = {
    stat.S_IFLNK: "a link",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def written_files(step: str, folder: Path) -> list[Path]:
    """The files, by name. StepError names what is none, or cannot be registered; no link is followed."""

    def refuse(what: str) -> StepError:
        return StepError(f"step {step!r} {what}", step=step)

    if not folder.is_dir() or folder.is_symlink():
        what = "a link" if folder.is_symlink() else "something else" if folder.exists() else "nothing"
        raise refuse(f"replaced its folder {folder.name!r} by {what}; let it write into the folder that it is given")
    paths = []
    for entry in sorted(os.scandir(folder), key=lambda entry: entry.name):
        state = entry.stat(follow_symlinks=False)
        if fault := name_fault(entry.name, MOST_NAME_BYTES):
            raise refuse(f"wrote a file {entry.name!r}, whose name {fault}; let it use a plain name")
        if stat.S_ISDIR(state.st_mode):
            if inside := next((path for path in sorted(Path(entry.path).rglob("*")) if not path.is_dir()), None):
                where = inside.relative_to(folder)
                raise refuse(f"wrote {where} into a subfolder; Crucible's files have plain names")
            continue
        if not stat.S_ISREG(state.st_mode):
            kind = _KINDS.get(stat.S_IFMT(state.st_mode), "no file")
            raise refuse(f"left {kind} {entry.name!r} where its files go; let it write, or copy, a file")
        on_disk = getattr(state, "st_blocks", state.st_size) * 512
        if state.st_size > _SPARSE_BYTES and on_disk * _SPARSE_RATIO < state.st_size:
            size = f"{state.st_size / 1e9:.1f} GB"
            raise refuse(
                f"wrote {entry.name!r}, which claims {size} and has {on_disk} bytes on disk; let it write no holes"
            )
        if state.st_nlink > 1:
            _take_apart(Path(entry.path))
        paths.append(folder / entry.name)
    return paths


def _take_apart(path: Path) -> None:
    """The file shares its bytes with no other name, under which they might be changed."""
    copy = draft_beside(path, ".own")
    shutil.copyfile(path, copy)
    shutil.copystat(path, copy)
    copy.replace(path)
