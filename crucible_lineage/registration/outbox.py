"""The outbox: results that are made and not yet at Crucible, each a folder that is there whole or not at all.

    outbox/CRUCIBLE/STEP/result.json     what is to be registered, of all outputs of one step; the last error beside it
    outbox/CRUCIBLE/STEP/SHA256          the files, so that no tidying of the cache takes them away: small ones copied,
                                         large ones linked

`CRUCIBLE` is a hash of which service they are for, `STEP` the least id among the outputs. From the moment on that the
folder stands under its name, no crash and no outage costs the work. It is no part of the local store: what that
remembers can be asked for again, and this cannot.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.disk import private_folder
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.made import RESULT, Made, placed, read_back, to_json
from crucible_lineage.registration.new_dataset import NewDataset

__all__ = ["Outbox", "Waiting"]

TROUBLE = "error.json"
COPIED_BYTES = 1 << 20  # chosen: copying so few costs what linking does, and nobody else has the copy to write to


@dataclass(frozen=True)
class Waiting:
    """What `status` tells of a result that waits: since when, how often it was tried, and the last error."""

    mfids: tuple[str, ...]
    step: str
    project: str
    since: str
    tries: int = 0
    error: str = ""
    refused: bool = False

    def to_json(self) -> dict[str, Any]:
        """The form that is printed."""
        return {
            "mfids": list(self.mfids),
            "step": self.step,
            "project": self.project,
            "since": self.since,
            "tries": self.tries,
            "error": self.error or None,
            "refused": self.refused,
        }


class Outbox:
    """The outbox for one Crucible in a data folder. Thread-safe; other processes may put and take as well.

    With `durable` what is put has reached the disk when `put` returns, so that it outlasts a power cut, too. Without,
    it outlasts the death of any process; what a power cut leaves half there is not taken for whole.
    """

    def __init__(self, data: Path, instance: str, *, durable: bool) -> None:
        self.folder = data / "outbox" / hashlib.sha256(instance.encode()).hexdigest()[:16]
        self.durable = durable
        self._lock = threading.Lock()
        self._known: dict[str, Made] = {}
        self._refs: dict[str, tuple[str, DatasetRef]] = {}
        self._is_read = False

    def put(self, step: str, project: str, datasets: Sequence[NewDataset], kept: Mapping[str, Path]) -> Made:
        """The outputs of a step, to be delivered. `kept` are their files by SHA-256, which are linked, or copied."""
        name = min(new.mfid for new in datasets)
        private_folder(self.folder.parent)
        draft = private_folder(self.folder) / f".{name}-{secrets.token_hex(4)}"
        draft.mkdir(mode=0o700)
        made = Made(self.folder / name, step, project, datetime.now(UTC).isoformat(), tuple(datasets))
        files = {file.ref.sha256: file for new in datasets for file in new.files if file.elsewhere is None}
        for sha256, file in files.items():
            _linked(kept[sha256], draft / sha256, file.checksums.mtime_ns)
            self._flush(draft / sha256)
        (draft / RESULT).write_bytes(json.dumps(to_json(made), ensure_ascii=False).encode())
        self._flush(draft / RESULT)
        try:
            draft.replace(made.folder)
        except OSError:  # what an earlier attempt left there, and nobody has delivered
            shutil.rmtree(made.folder, ignore_errors=True)
            draft.replace(made.folder)
        self._flush(self.folder)
        with self._lock:
            return self._take_in(placed(made))

    def find(self, mfid: str) -> DatasetRef | None:
        """The dataset that waits here under this id, as steps may use it."""
        self._read()
        with self._lock:
            found = self._refs.get(mfid)
        return found[1] if found else None

    def look(self, name: str) -> Made | None:
        """What waits under this least id of its outputs; what another process has put there is found from now on."""
        with self._lock:
            is_new = name not in self._known and (self.folder / name / RESULT).exists()
            if is_new and (made := read_back(self.folder / name)) is not None:
                self._take_in(made)
            return self._known.get(name)

    def names_of(self, mfids: Iterable[str]) -> list[str]:
        """Of those among these datasets that wait here, the least ids among the outputs that they are of."""
        with self._lock:
            return sorted({found[0] for mfid in mfids if (found := self._refs.get(mfid))})

    def dataset(self, mfid: str) -> NewDataset | None:
        """What is to be registered under this id."""
        self._read()
        with self._lock:
            found = self._refs.get(mfid)
            made = self._known.get(found[0]) if found else None
        return next((new for new in made.datasets if new.mfid == mfid), None) if made else None

    def file(self, mfid: str, sha256: str) -> Path | None:
        """A file of a dataset that waits here."""
        with self._lock:
            found = self._refs.get(mfid)
        path = self.folder / found[0] / sha256 if found else None
        return path if path is not None and path.exists() else None

    def all(self, *, again: bool = False) -> list[Made]:
        """What waits, the oldest first; with `again`, what other processes have put and taken meanwhile is seen."""
        self._read(again=again)
        with self._lock:
            return sorted(self._known.values(), key=lambda made: (made.made, made.name))

    def waits(self, made: Made) -> bool:
        """True if it is still there; another process may have delivered it."""
        return (made.folder / RESULT).exists()

    def delivered(self, made: Made) -> None:
        """It is at Crucible, and waits no more."""
        gone = made.folder.with_name(f".gone-{made.name}-{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            made.folder.replace(gone)
        with self._lock:
            self._forget(made.name)
        shutil.rmtree(gone, ignore_errors=True)

    def failed(self, made: Made, error: str, *, refused: bool = False) -> None:
        """It could not be delivered, for this reason; `refused` if trying again does not help."""
        before = _trouble(made.folder)
        told = {"tries": before.get("tries", 0) + 1, "error": error, "refused": refused}
        draft = made.folder / f".{TROUBLE}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):  # it was delivered by another process meanwhile
            draft.write_text(json.dumps(told), encoding="utf-8")
            draft.replace(made.folder / TROUBLE)

    def waiting(self) -> list[Waiting]:
        """What to tell of all that waits."""
        return [
            Waiting(made.mfids, made.step, made.project, made.made, **_trouble(made.folder))
            for made in self.all(again=True)
        ]

    def _read(self, *, again: bool = False) -> None:
        with self._lock:
            if self._is_read and not again:
                return
            self._is_read = True
            there = set(_names(self.folder))
            for name in self._known.keys() - there:
                self._forget(name)
            for name in there - self._known.keys():
                if (made := read_back(self.folder / name)) is not None:
                    self._take_in(made)

    def _take_in(self, made: Made) -> Made:
        self._known[made.name] = made
        for new in made.datasets:
            files = tuple(file.ref for file in new.files)
            samples = tuple(sorted(set(new.samples)))
            origin = origin_of(new.record.recipe)
            ref = DatasetRef(new.mfid, new.name, files, samples, origin, new.parents, taken=new.taken)
            self._refs[new.mfid] = (made.name, ref)
        return made

    def _forget(self, name: str) -> None:
        if (made := self._known.pop(name, None)) is not None:
            for new in made.datasets:
                self._refs.pop(new.mfid, None)

    def _flush(self, path: Path) -> None:
        if not self.durable or (os.name == "nt" and path.is_dir()):
            return
        handle = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _names(folder: Path) -> Iterator[str]:
    try:
        yield from (path.name for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return


def _linked(source: Path, target: Path, mtime_ns: int) -> None:
    """The file under another name, or a copy of it; its time is that of the bytes that were hashed."""
    found = source.stat()
    if found.st_size > COPIED_BYTES and found.st_mtime_ns == mtime_ns:
        with suppress(OSError):  # a file system without links, or another one
            target.hardlink_to(source)
            return
    shutil.copyfile(source, target)
    os.utime(target, ns=(found.st_atime_ns, mtime_ns))


def _trouble(folder: Path) -> dict[str, Any]:
    try:
        told = json.loads((folder / TROUBLE).read_text(encoding="utf-8"))
        return {"tries": int(told["tries"]), "error": str(told["error"]), "refused": bool(told["refused"])}
    except (OSError, ValueError, KeyError, TypeError):
        return {}
