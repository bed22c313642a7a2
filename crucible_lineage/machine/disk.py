"""Private files and folders, whatever the umask; files replaced at once; plain messages for errors of the disk."""

from __future__ import annotations

import errno
import os
import secrets
import stat
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from crucible_lineage.errors import StorageError

LONGEST_NAME = 200  # bytes of a name, so that an ending fits into the 255 of file systems
OWNER_FOLDER, OWNER_FILE = 0o700, 0o600
_OTHERS = stat.S_IRWXG | stat.S_IRWXO
_ELSEWHERE = "name another data folder with --data or CRUCIBLE_LINEAGE_DATA"
_REASONS = {
    errno.ENOSPC: "the disk is full; free some space, then run the same command again",
    errno.EDQUOT: "this account's share of the disk is used up; free some space, then run the same command again",
    errno.EFBIG: "a file may not become that large here (see `ulimit -f`, and what the file system allows)",
    errno.EROFS: f"the file system is read-only; mount it for writing, or {_ELSEWHERE}",
    errno.EACCES: f"this account may not write there; have it allowed, or {_ELSEWHERE}",
    errno.EPERM: f"this account may not write there; have it allowed, or {_ELSEWHERE}",
    errno.EIO: f"the disk fails; check it before anything else, and {_ELSEWHERE}",
    errno.ENOTDIR: f"there is a file where a folder should be; move it away, or {_ELSEWHERE}",
    errno.EEXIST: f"there is a file where a folder should be; move it away, or {_ELSEWHERE}",
}


def private_folder(path: Path) -> Path:
    """Make a folder that only its owner can read, unless it exists. Raises StorageError if that is impossible.

    An existing folder keeps its permissions: a person may have chosen it, with other files in it.
    """
    try:
        if not path.is_dir():  # usually it exists, and each step checks this several times
            path.parent.mkdir(parents=True, exist_ok=True)
            path.mkdir(OWNER_FOLDER, exist_ok=True)
    except OSError as error:
        no_folder = f"{path}: no folder can be made there ({error.strerror}); {_ELSEWHERE}"
        raise storage_error(error, path) or StorageError(no_folder) from error
    return path


def private_file(path: Path, content: bytes = b"") -> Path:
    """Make a file with this content if it does not exist, and let only its owner read it. Its folder has to exist.

    An existing file is never opened: closing it would end SQLite's locks on it in this process. Raises StorageError if
    the file cannot be made.
    """
    try:
        if not path.exists():
            _create(path, content)
        if os.name == "posix" and path.stat().st_mode & _OTHERS:
            with suppress(PermissionError):  # files of another owner stay as they are
                path.chmod(OWNER_FILE)
    except OSError as error:
        raise storage_error(error, path) or error from error
    return path


def storage_error(error: OSError, path: Path | str | None = None) -> StorageError | None:
    """Return a StorageError in one line if the disk caused the error, else None."""
    reason = _REASONS.get(error.errno or 0)
    target = path or error.filename
    return StorageError(f"{target}: {reason}") if reason and target else StorageError(reason) if reason else None


def flush(path: Path) -> None:
    """Make a file's bytes, or the names in a folder, durable. Windows and some file systems cannot flush folders."""
    is_folder = path.is_dir()
    if is_folder and os.name == "nt":
        return
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not is_folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def is_being_written(path: Path) -> bool | None:
    """Return whether a process of this machine has the file open for writing; None if the system does not say."""
    if sys.platform == "win32":
        try:
            path.rename(path)  # refused while somebody has the file open
        except PermissionError as error:
            return True if error.winerror == 32 else None  # a sharing violation; a read-only folder tells nothing
        return False
    import fcntl

    if not hasattr(fcntl, "F_SETLEASE"):
        return None
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return None
    try:  # Linux grants a read lease only while nobody can write
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        fcntl.fcntl(handle, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    except BlockingIOError:
        return True
    except OSError:  # a file system or an owner without leases
        return None
    finally:
        os.close(handle)
    return False


def draft_beside(path: Path, ending: str) -> Path:
    """Return the hidden file beside `path` for the bytes that will replace it; a very long name is its checksum."""
    name = path.name if len(os.fsencode(path.name)) <= LONGEST_NAME else f"{zlib.crc32(os.fsencode(path.name)):08x}"
    return path.with_name(f".{name}{ending}")


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield the path of a draft that replaces `path` if the block succeeds: the file is complete or unchanged."""
    draft = draft_beside(path, f"-{secrets.token_hex(4)}.part")
    try:
        yield draft
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def _create(path: Path, content: bytes) -> None:
    """Make a file, unless another process was faster. A new name ensures that nobody has it open yet."""
    draft = draft_beside(path, f"-{secrets.token_hex(4)}")
    try:
        with open(os.open(draft, os.O_RDWR | os.O_CREAT | os.O_EXCL, OWNER_FILE), "wb") as file:  # noqa: PTH123
            file.write(content)
        try:
            os.link(draft, path)
        except FileExistsError:
            return
        except OSError:  # a file system without links
            if not path.exists():
                draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
