"""The MFID that a measured file names itself: an instrument that uploads first can write into it what dataset it is of.

The key is `crucible_mfid`: an attribute of the root of an HDF5 file (NeXus too), else in the first 64 KiB, as a
line of a text header (`# crucible_mfid: ...`), a key of JSON, a text chunk of PNG, or a description in a TIFF.
"""

from __future__ import annotations

import re
from pathlib import Path

from crucible_lineage.ids import is_mfid

__all__ = ["MFID_KEY", "mfid_in"]

MFID_KEY = "crucible_mfid"
LOOKED_AT_BYTES = 1 << 16
HDF5 = b"\x89HDF\r\n\x1a\n"
_NAMED = re.compile(MFID_KEY.encode() + rb"[\"']?[\s:=,\0]{1,8}[\"']?([0-9a-hjkmnp-tv-z]{26})(?![0-9A-Za-z])")


def mfid_in(path: Path) -> str | None:
    """The MFID that the file names; None if it names none."""
    with path.open("rb") as file:
        head = file.read(LOOKED_AT_BYTES)
    if head.startswith(HDF5):
        return _in_hdf5(path)
    found = _NAMED.search(head)
    return found[1].decode() if found else None


def _in_hdf5(path: Path) -> str | None:
    try:
        import h5py  # the ingestors' extra; who has none registers the file without
    except ImportError:
        return None
    try:
        with h5py.File(path, "r") as file:
            value = file.attrs.get(MFID_KEY)
    except OSError:  # it is damaged, which the step that reads it tells
        return None
    text = value.decode("ascii", "replace") if isinstance(value, bytes) else value
    return str(text) if is_mfid(text) else None
