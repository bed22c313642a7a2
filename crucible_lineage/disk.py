"""Private files and folders, whatever the umask; plain messages for errors of the disk."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import zlib
from contextlib import suppress
from pathlib import Path

from crucible_lineage.errors import StorageError

LONGEST_KEPT = 200  # bytes of a name, so that an ending fits into the 255 of file systems
OWNER_FOLDER, OWNER_FILE = 0o700, 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ELSEWHERE = "name another data folder with --data or CRUCIBLE_LINEAGE_DATA"
_SAID = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again",
    errno.EDQUOT: "this account's share of the disk is used up; free some space, then run the same command again",
    errno.EFBIG: "a file may not become that large here (see `ulimit -f`, and what the file system allows)",
    errno.EROFS: f"the file system is read-only; mount it for writing, or {_ELSEWHERE}",
    errno.EACCES: f"this account may not write there; have it allowed, or {_ELSEWHERE}",
    errno.EPERM: f"this account may not write there; have it allowed, or {_ELSEWHERE}",
    errno.EIO: f"the disk fails; look at it before anything else, and {_ELSEWHERE}",
    errno.ENOTDIR: f"there is a file where a folder should be; move it away, or {_ELSEWHERE}",
    errno.EEXIST: f"there is a file where a folder should be; move it away, or {_ELSEWHERE}",
}


def private_folder(path: Path) -> Path:
    """The folder is there; if it was not, nobody but its owner can look into it. StorageError if it cannot be made.

    One that is there stays as open as it is: it may be one that a person has chosen, with more in it than ours.
    """
    try:
        if not path.is_dir():  # mostly it is there, and this is asked several times for each step
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(OWNER_FOLDER, exist_ok=True)
    except OSError as error:
        no_folder = f"{path}: no folder can be made there ({error.strerror}); {_ELSEWHERE}"
        raise storage_error(error, path) or StorageError(no_folder) from error
    return path


def private_file(path: Path) -> Path:
    """The file is there, and only its owner can read it. Its folder has to exist. StorageError if it cannot be made.

    An existing file is never opened: closing it again would end the locks that SQLite has on it in this process.
    """
    try:
        if not path.exists():
            _create(path)
        _close_to_others(path)
    except OSError as error:
        raise storage_error(error, path) or error from error
    return path


def storage_error(error: OSError, path: Path | str | None = None) -> StorageError | None:
    """Return the error, in one line, if the disk refused something; None if it was not about a disk."""
    said = _SAID.get(error.errno or 0)
    place = path or error.filename
    return StorageError(f"{place}: {said}") if said and place else StorageError(said) if said else None


def draft_beside(path: Path, ending: str) -> Path:
    """Return the hidden file beside `path` with this ending, where its next bytes are written.

    A name that may be as long as the system allows is shortened, to a checksum of itself.
    """
    name = path.name if len(os.fsencode(path.name)) <= LONGEST_KEPT else f"{zlib.crc32(os.fsencode(path.name)):08x}"
    return path.with_name(f".{name}{ending}")


def _create(path: Path) -> None:
    """An empty file, unless another process was faster: made under another name, so that nobody has it open yet."""
    draft = draft_beside(path, f"-{secrets.token_hex(4)}")
    os.close(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_FILE))
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    except OSError:  # a file system without links
        if not path.exists():
            draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)


def _close_to_others(path: Path) -> None:
    """A file that an earlier version, or somebody by hand, has left open is closed; another owner's is left to them."""
    if os.name == "posix" and path.stat().st_mode & _OTHERS:
        with suppress(PermissionError):
            path.chmod(OWNER_FILE)
