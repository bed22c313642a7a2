"""Files that Crucible lists and has lost: noted where that is found out, and sent again once their bytes are here."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import ChecksumError, InputError, LineageError, NotFoundError, RefusedError
from crucible_lineage.session import Session

if TYPE_CHECKING:  # importing the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.client import CrucibleClient

__all__ = ["LOST", "has_bytes", "note_if_lost", "send_again"]

LOST = (ChecksumError, InputError, NotFoundError, RefusedError)
"""What reading a file raises whose bytes are gone or damaged; other errors say nothing of them."""


def note_if_lost(session: Session, mfid: str, filename: str, error: LineageError) -> None:
    """Note that Crucible has lost a file, if that is what this error of reading it says.

    The next run that plans this result makes it again.
    """
    if isinstance(error, LOST):
        session.mirror.note_lost(mfid, filename)


def send_again(client: CrucibleClient, mfid: str, filename: str, sha256: str, path: Path) -> None:
    """Upload a file's bytes and read them back. Raises InputError if Crucible still gives back other ones.

    A service that trusts its own list is made to take them as a new file.
    """
    uploaded = client.files.upload(mfid, path, filename=filename)
    if has_bytes(client, mfid, filename, sha256):
        return
    client.files.delete(uploaded.file.mfid)
    client.files.upload(mfid, path, filename=filename)
    if not has_bytes(client, mfid, filename, sha256):
        raise InputError(f"what Crucible gives back of {filename} still has other bytes than were sent")


def has_bytes(client: CrucibleClient, mfid: str, filename: str, sha256: str) -> bool:
    """Return whether Crucible gives back the bytes of a file. Reads them."""
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for stored in client.files.list(mfid):
            if stored.filename == filename:
                try:
                    return file_sha256(client.files.download(stored, folder)) == sha256
                except LOST:
                    return False
    return False
