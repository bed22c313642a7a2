"""What makes a data folder an embedded Crucible: its lasting identity, its local key, and where things lie in it."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

__all__ = ["DataFolder", "instance_id", "open_folder"]


@dataclass(frozen=True)
class DataFolder:
    """The places inside a data folder."""

    root: Path

    @property
    def database(self) -> Path:
        return self.root / "crucible.db"

    @property
    def identity(self) -> Path:
        return self.root / "instance_id"

    @property
    def local_key(self) -> Path:
        """The key of the local user, in plain text and readable by that user alone; the database holds its hash."""
        return self.root / "api_key"

    @property
    def lock(self) -> Path:
        return self.root / ".lock"

    @property
    def contents(self) -> Path:
        return self.root / "contents"

    @property
    def uploads(self) -> Path:
        return self.root / "uploads"

    @property
    def workers(self) -> Path:
        return self.root / "workers"


def instance_id(data_dir: Path | str) -> str | None:
    """The random identity that a data folder got when it was first used, None where no server was ever started."""
    try:
        return DataFolder(Path(data_dir)).identity.read_text(encoding="ascii").strip() or None
    except FileNotFoundError:
        return None


def open_folder(data_dir: Path | str) -> DataFolder:
    """The data folder, made and furnished if it is new. Safe when several processes do it at once."""
    folder = DataFolder(Path(data_dir).expanduser().resolve())
    folder.root.mkdir(mode=0o700, parents=True, exist_ok=True)
    with FileLock(folder.lock):
        for place in (folder.contents, folder.uploads, folder.workers):
            place.mkdir(exist_ok=True)
        if not folder.local_key.exists():
            _write_once(folder.local_key, "local-" + secrets.token_urlsafe(32))
        if not folder.identity.exists():
            _write_once(folder.identity, secrets.token_hex(16))
    return folder


def _write_once(path: Path, text: str) -> None:
    """Write a small file, whole or not at all, for its owner's eyes only."""
    draft = path.with_name(path.name + ".new")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
