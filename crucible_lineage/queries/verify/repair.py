"""Repair of files at Crucible whose bytes are damaged or lost: good bytes of the same SHA-256 are sent again.

They come from this data folder (its cache, its embedded Crucible), from other data folders, from another dataset that
has them, or from making a result again. What arrived is read back before a file counts as repaired.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from crucible_lineage.checksums import file_sha256
from crucible_lineage.errors import LineageError
from crucible_lineage.lineage import Finding
from crucible_lineage.pipeline.files.fetch import send_again
from crucible_lineage.session import Session

Remade = Callable[[str, Session], AbstractContextManager[Mapping[str, Path]]]
"""The files of a result made again, by SHA-256. LineageError if that cannot be."""


@dataclass(frozen=True)
class DamagedFile:
    """A file of a dataset that Crucible should have with this hash, and has not."""

    mfid: str
    filename: str
    sha256: str
    finding: Finding | None = field(default=None, compare=False)

    def to_json(self) -> dict[str, str]:
        """The entry in `verify --json`."""
        return {"mfid": self.mfid, "filename": self.filename, "sha256": self.sha256}


@dataclass(frozen=True)
class Repair:
    """What became of a damaged file: where good bytes came from, or why it is as it was."""

    file: DamagedFile
    source: str = ""
    error: str = ""

    def to_json(self) -> dict[str, str | None]:
        """The entry in `verify --repair --json`."""
        return {**self.file.to_json(), "source": self.source or None, "error": self.error or None}


def repair(session: Session, damaged: Sequence[DamagedFile], folders: Sequence[Path], remade: Remade) -> list[Repair]:
    """Send good bytes for each damaged file, in this order: parents come before what was made from them."""
    done = {file: _from_copies(session, file, folders) for file in damaged}
    for mfid in dict.fromkeys(file.mfid for file, one in done.items() if one.error):
        files = [file for file, one in done.items() if file.mfid == mfid and one.error]
        done |= _by_making(session, mfid, files, remade)
    return [done[file] for file in damaged]


def _from_copies(session: Session, file: DamagedFile, folders: Sequence[Path]) -> Repair:
    errors = []
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for source, path in _copies(session, file, folders, Path(folder)):
            try:
                _send(session, file, path)
            except LineageError as error:
                errors.append(f"{error} (good bytes are in {source})")
            else:
                return Repair(file, source)
    return Repair(file, error="; ".join(errors) or "no copy was found")


def _copies(session: Session, file: DamagedFile, folders: Sequence[Path], scratch: Path) -> Iterator[tuple[str, Path]]:
    """Copies with the right bytes, and what to call each: the nearest first."""
    if session.cache.holds(file.sha256):
        yield "this data folder's cache", session.cache.path(file.sha256)
    head, tail = file.sha256[:2], file.sha256[2:]
    for folder in (session.settings.data, *folders):
        for path in (
            folder / "cache" / head / file.sha256,
            folder / "crucible" / "contents" / head / tail,
            folder / "contents" / head / tail,
            *folder.glob(f"outbox/*/*/{file.sha256}"),
        ):
            if path.is_file() and file_sha256(path) == file.sha256:
                yield str(path), path
    try:
        others = session.client.files.list(sha256_hash=file.sha256)
    except LineageError:  # a service that looks up no files by their hash
        return
    for other in others:
        if (other.dataset_mfid, other.filename) != (file.mfid, file.filename):
            with suppress(LineageError):
                yield f"dataset {other.dataset_mfid}", session.client.files.download(other, scratch / other.mfid)


def _by_making(session: Session, mfid: str, files: Sequence[DamagedFile], remade: Remade) -> dict[DamagedFile, Repair]:
    """Send what the step of a dataset writes when it is called once more, where that is the same again."""
    done: dict[DamagedFile, Repair] = {}
    try:
        with remade(mfid, session) as made:
            for file in files:
                if file.sha256 in made:
                    _send(session, file, made[file.sha256])
                    done[file] = Repair(file, "making it again")
                else:
                    done[file] = Repair(file, error="no copy was found, and the remade file differs")
    except LineageError as error:
        reason = f"no copy was found, and making it again failed: {error}"
        done |= {file: Repair(file, error=reason) for file in files if file not in done}
    return done


def _send(session: Session, file: DamagedFile, path: Path) -> None:
    send_again(session.client, file.mfid, file.filename, file.sha256, path)
    session.mirror.note_whole(file.mfid, file.filename)
