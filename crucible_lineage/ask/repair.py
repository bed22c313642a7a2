"""Repair damaged and lost files by intact bytes with the same SHA-256.

They are from this data folder (its cache, its embedded Crucible), from other data folders, from another dataset that
has them, or from rerunning a step. A file counts as repaired when it was read back."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

from crucible_lineage.errors import ForeignCodeError, LineageError
from crucible_lineage.lineage.checks import Finding
from crucible_lineage.machine.checksums import file_sha256
from crucible_lineage.pipeline.job.keeping import ENVIRONMENT_NAME, LOCK_NAME, present_environment
from crucible_lineage.pipeline.plan.fetch import send_again
from crucible_lineage.remake.confine import network_cut
from crucible_lineage.remake.reproduce import remade_files
from crucible_lineage.session import Session
from crucible_lineage.statements.consent import Consent


@dataclass(frozen=True)
class DamagedFile:
    """A file of a dataset that Crucible should have with this hash, but does not.

    After a repair, `source` is where the intact bytes came from, or `error` says why there are none.
    """

    mfid: str
    filename: str
    sha256: str
    finding: Finding | None = field(default=None, compare=False)
    source: str = ""
    error: str = ""
    is_refused: bool = False  # since the code is of others
    json_keys: ClassVar = "mfid filename sha256 source error"


def repair(
    session: Session, damaged: Sequence[DamagedFile], folders: Sequence[Path], consent: Consent
) -> list[DamagedFile]:
    """Send intact bytes for each damaged file, in this order, in which parents come first."""
    repairs = {file: _from_copies(session, file, folders) for file in damaged}
    for mfid in dict.fromkeys(file.mfid for file in repairs.values() if file.error):
        files = [file for file, outcome in repairs.items() if file.mfid == mfid and outcome.error]
        repairs |= _by_rerunning(session, mfid, files, consent)
    return [repairs[file] for file in damaged]


def _from_copies(session: Session, file: DamagedFile, folders: Sequence[Path]) -> DamagedFile:
    errors = []
    with tempfile.TemporaryDirectory(prefix="crucible-lineage-") as folder:
        for source, path in _copies(session, file, folders, Path(folder)):
            try:
                send_again(session.client, file.mfid, file.filename, file.sha256, path)
            except LineageError as error:
                errors.append(f"{error} (intact bytes are in {source})")
            else:
                return replace(file, source=source)
    return replace(file, error="; ".join(errors) or "no copy was found")


def _copies(session: Session, file: DamagedFile, folders: Sequence[Path], scratch: Path) -> Iterator[tuple[str, Path]]:
    """Yield copies with the right bytes, each with its name, the nearest first."""
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
    for name, content in present_environment(session) if file.filename in (ENVIRONMENT_NAME, LOCK_NAME) else ():
        (scratch / name).write_bytes(content)
        if file_sha256(scratch / name) == file.sha256:
            yield "the environment of this Python", scratch / name
    try:
        others = session.client.files.list(sha256_hash=file.sha256)
    except LineageError:  # the service does not look up files by hash
        return
    for other in others:
        if (other.dataset_mfid, other.filename) != (file.mfid, file.filename):
            with suppress(LineageError):
                yield f"dataset {other.dataset_mfid}", session.client.files.download(other, scratch / other.mfid)


def _by_rerunning(
    session: Session, mfid: str, files: Sequence[DamagedFile], consent: Consent
) -> dict[DamagedFile, DamagedFile]:
    """Rerun the step of a dataset, and send the files that have the same bytes as before."""
    done: dict[DamagedFile, DamagedFile] = {}
    how = "" if network_cut() else ", with the network, which nothing here cuts off"
    try:
        with remade_files(session, mfid, consent) as made:
            for file in files:
                if file.sha256 in made:
                    send_again(session.client, mfid, file.filename, file.sha256, made[file.sha256])
                    done[file] = replace(file, source=f"rerunning its step{how}")
                else:
                    done[file] = replace(file, error="no copy was found, and the remade file differs")
    except LineageError as error:
        reason = f"no copy was found, and rerunning its step failed: {error}"
        is_refused = isinstance(error, ForeignCodeError)
        done |= {file: replace(file, error=reason, is_refused=is_refused) for file in files if file not in done}
    return done
