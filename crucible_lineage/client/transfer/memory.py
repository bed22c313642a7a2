"""Uploads that were begun, remembered in small files, so that another process can go on with them."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from crucible_lineage.client.transfer.outgoing import Outgoing
from crucible_lineage.disk import private_folder

__all__ = ["Begun", "UploadMemory"]


@dataclass(frozen=True)
class Begun:
    """A signed upload that may be unfinished. Which parts arrived, the service knows; `replaces` is a file's MFID."""

    upload_id: str
    part_size: int
    replaces: str | None = None


class UploadMemory:
    """One file in `folder` for each upload that is under way; without a folder nothing is remembered."""

    def __init__(self, folder: Path | None, api_url: str) -> None:
        self._folder = folder
        self._api_url = api_url

    @property
    def lasts(self) -> bool:
        """True if what is kept here can be read by another process."""
        return self._folder is not None

    def recall(self, outgoing: Outgoing) -> Begun | None:
        """The upload of this content to this place that was begun before, if there was one."""
        path = self._path(outgoing)
        if path is None:
            return None
        try:
            return Begun(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):  # absent, or not written by this version: begin anew
            return None

    def keep(self, outgoing: Outgoing, begun: Begun) -> None:
        """The upload can be recalled from now on."""
        path = self._path(outgoing)
        if path is None:
            return
        private_folder(path.parent)
        aside = path.with_suffix(f".{os.getpid()}")
        aside.write_text(json.dumps(asdict(begun)), encoding="utf-8")
        aside.replace(path)

    def forget(self, outgoing: Outgoing) -> None:
        """The upload is finished, or gone."""
        path = self._path(outgoing)
        if path is not None:
            path.unlink(missing_ok=True)

    def _path(self, outgoing: Outgoing) -> Path | None:
        if self._folder is None:
            return None
        place = [self._api_url, outgoing.dataset_mfid, outgoing.filename, outgoing.checksums.sha256]
        return self._folder / f"upload-{hashlib.sha256(json.dumps(place).encode()).hexdigest()[:32]}.json"
