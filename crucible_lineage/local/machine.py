"""The id of a data folder, which distinguishes its registrations from those of others."""

from __future__ import annotations

import secrets
from pathlib import Path

from crucible_lineage.disk import private_file, private_folder


def machine_id(data: Path) -> str:
    """Return the id of this data folder. Locks keep registrations within it apart."""
    path = data / "registrar"
    if not path.exists():
        private_folder(data)
        private_file(path, secrets.token_hex(8).encode())
    return path.read_text(encoding="utf-8")
