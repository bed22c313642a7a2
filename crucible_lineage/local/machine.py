"""The id of a data folder, which distinguishes its registrations from those of others."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from crucible_lineage.disk import private_file, private_folder


def machine_id(data: Path) -> str:
    """Return the id of this data folder. Locks keep registrations within it apart."""
    path = data / "registrar"
    if not path.exists():
        draft = private_file(private_folder(data) / f".registrar-{secrets.token_hex(4)}")
        draft.write_text(secrets.token_hex(8), encoding="utf-8")
        try:
            os.link(draft, path)
        except OSError:  # another process was faster, or the file system has no links
            if not path.exists():
                draft.replace(path)
        draft.unlink(missing_ok=True)
    return path.read_text(encoding="utf-8")
