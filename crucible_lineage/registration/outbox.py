"""The outbox: results that are made and not yet at Crucible, each a row of the journal and a payload in a folder.

    outbox/WHOSE/STEP/               a payload; WHOSE is a hash of service and account, STEP the least of its MFIDs
    outbox/WHOSE/.aside-STEP-TOKEN/  one that was damaged while it waited, until somebody frees it by name

From the moment on that the folder stands under its name, no crash and no outage costs the work. The folders are the
truth: rows that are missing are made from them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from crucible_lineage.core.journal import (
    DELIVERED,
    FAILED,
    LACKING,
    MADE,
    REFUSED,
    SENDING,
    Journal,
    ResultRow,
)
from crucible_lineage.disk import private_folder
from crucible_lineage.provenance.recipe import origin_of
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.new_dataset import NewDataset
from crucible_lineage.registration.payload import (
    DamageError,
    Label,
    Payload,
    damaged_files,
    read_payload,
    write_payload,
)

RESULT = "result.json"
ASIDE, WHY = ".aside-", "why.json"
MOST_OPEN = 100  # chosen: payloads in memory, 17 kB each; of more that wait it has the labels, and reads them back


@dataclass(frozen=True)
class WaitingResult:
    """A result that waits: since when, how often it was sent, and the last error.

    `account` is the only one that delivers it, `run` the run that made it.
    """

    mfids: tuple[str, ...]
    step: str
    project: str
    since: str
    tries: int = 0
    error: str = ""
    refused: bool = False
    account: str = ""
    run: str = ""

    @classmethod
    def of(cls, row: ResultRow) -> WaitingResult:
        """The result that a row of the journal describes."""
        mfids = tuple(row.outputs.values())
        return cls(mfids, row.step, row.project, row.made, row.tries, row.error, row.refused, row.account, row.run)

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
            "account": self.account or None,
            "run_id": self.run or None,
        }


@dataclass(frozen=True)
class SetAside:
    """A payload that was damaged while it waited: where it lies, what is wrong with it, and what it is of."""

    name: str
    folder: Path
    error: str
    step: str = ""
    project: str = ""

    def to_json(self) -> dict[str, Any]:
        """The form that is printed."""
        told = {"name": self.name, "folder": str(self.folder), "error": self.error}
        return {**told, "step": self.step or None, "project": self.project or None}


class Outbox:
    """The outbox for one Crucible in a data folder. Thread-safe; other processes may put and take as well.

    However many payloads wait, only a few are kept in memory whole: `opened` gives one whose label is known.
    With `durable` a payload has reached the disk when `put` returns, so that it outlasts a power cut, too. Without, it
    outlasts the death of any process; its seal shows what a power cut left half written.
    """

    def __init__(self, data: Path, journal: Journal, *, durable: bool) -> None:
        self.journal = journal
        self.durable = durable
        self._root = data / "outbox"
        self._lock = threading.Lock()
        self._known: dict[str, Label] = {}
        self._open: dict[str, Payload] = {}
        self._refs: dict[str, tuple[str, DatasetRef]] = {}
        self._is_read = False

    @property
    def folder(self) -> Path:
        """The folder of this account's payloads for this service."""
        service, account = self.journal.service, self.journal.account
        return self._root / _digest(f"{service}\n{account}" if account else service)

    def put(
        self, step: str, project: str, datasets: Sequence[NewDataset], kept: Mapping[str, Path], run: str = ""
    ) -> Payload:
        """Keep the outputs of a step until they are delivered. `kept` are their files by SHA-256."""
        private_folder(self._root)
        name = min(new.mfid for new in datasets)
        now = datetime.now(UTC).isoformat()
        payload = Payload(private_folder(self.folder) / name, step, project, now, tuple(datasets), run)
        payload = write_payload(payload, kept, durable=self.durable)
        self._note_made(payload)
        with self._lock:
            self._take_in(payload)
        return payload

    def find(self, mfid: str) -> DatasetRef | None:
        """The dataset that waits here under this id, as steps may use it."""
        self._read()
        with self._lock:
            found = self._refs.get(mfid)
        return found[1] if found else None

    def look(self, name: str) -> Label | None:
        """The label of the payload whose least id is this one, also if another process has just put it there."""
        with self._lock:
            known = self._known.get(name)
        folder = self.folder / name
        if known is None and (folder / RESULT).exists() and (found := self._read_back(folder)):
            with self._lock:
                self._take_in(found)
            return found.label
        return known

    def opened(self, label: Label) -> Payload | None:
        """Return the payload as it lies there; None if it is gone, or damaged, and then it is set aside."""
        with self._lock:
            found = self._open.get(label.name)
        return found if found and found.made == label.made else self._read_back(label.folder)

    def names_of(self, mfids: Iterable[str]) -> list[str]:
        """The names of the payloads in which these datasets wait, as far as they do."""
        with self._lock:
            return sorted({found[0] for mfid in mfids if (found := self._refs.get(mfid))})

    def dataset(self, mfid: str) -> NewDataset | None:
        """The dataset that is to be registered under this id."""
        self._read()
        with self._lock:
            found = self._refs.get(mfid)
            label = self._known.get(found[0]) if found else None
        payload = self.opened(label) if label else None
        return next((new for new in payload.datasets if new.mfid == mfid), None) if payload else None

    def file(self, mfid: str, sha256: str) -> Path | None:
        """A file of a dataset that waits here."""
        with self._lock:
            found = self._refs.get(mfid)
            folder = self._known[found[0]].folder if found else None
        path = folder / sha256 if folder else None
        return path if path is not None and path.exists() else None

    def all(self, *, again: bool = False) -> list[Label]:
        """Return the labels of what waits, oldest first; with `again`, as other processes have changed it meanwhile."""
        self._read(again=again)
        with self._lock:
            return sorted(self._known.values(), key=lambda payload: (payload.made, payload.name))

    @property
    def is_empty(self) -> bool:
        """True if nothing waits, as far as this process has seen."""
        self._read()
        return not self._known

    def waits(self, label: Label) -> bool:
        """True if it is still there; another process may have delivered it."""
        return (label.folder / RESULT).exists()

    def waiting(self) -> list[WaitingResult]:
        """The results that wait here, of all accounts, oldest first."""
        self._read(again=True)
        return [WaitingResult.of(row) for row in self.journal.waiting()]

    def checked(self, label: Label) -> Payload | None:
        """Return the payload if each of its files has the bytes of its hash; None if not, and then it is set aside."""
        if (found := self.opened(label)) is None:
            return None
        payload, wrong = damaged_files(found)
        if wrong:
            self._set_aside(payload.folder, f"the bytes of {', '.join(wrong)} are not those that the step wrote")
            return None
        return payload

    def sending(self, label: Label) -> None:
        """Note that the payload is being sent."""
        self.journal.move_waiting(label.name, SENDING)

    def delivered(self, label: Label) -> None:
        """Note that its datasets are at Crucible, and remove the payload."""
        self.journal.move_waiting(label.name, DELIVERED, error=None)
        self._remove(label)

    def dropped(self, label: Label, state: str, why: str) -> None:
        """Note that the payload is no result (OVERTAKEN, or FAILED), and remove it."""
        self.journal.move_waiting(label.name, state, error=why)
        self._remove(label)

    def failed(self, label: Label, error: str, *, refused: bool = False, not_before: float = 0.0) -> None:
        """Note why the payload could not be delivered; `refused` if sending the same again does not help."""
        self.journal.note_failure(label.name, REFUSED if refused else MADE, error, not_before)

    def lacks(self, label: Label, error: str) -> None:
        """Note that Crucible does not have what the payload was made of."""
        self.journal.move_waiting(label.name, LACKING, error=error)

    def set_aside(self) -> list[SetAside]:
        """The payloads of all accounts and services that were found damaged, and that nobody has freed yet."""
        return [_set_aside(folder) for folder in sorted(self._root.glob(f"*/{ASIDE}*"))]

    def free(self, name: str) -> bool:
        """Remove what was set aside under this name (an MFID). False if there is nothing."""
        found = [one for one in self.set_aside() if one.name == name]
        for one in found:
            shutil.rmtree(one.folder)
        return bool(found)

    def _note_made(self, payload: Payload) -> None:
        self.journal.note_made(payload.run, payload.project, payload.step, payload.outputs, payload.made)

    def _remove(self, label: Label) -> None:
        gone = label.folder.with_name(f".gone-{label.name}-{secrets.token_hex(4)}")
        with suppress(FileNotFoundError):
            label.folder.replace(gone)
        with self._lock:
            self._forget(label.name)
        shutil.rmtree(gone, ignore_errors=True)

    def _read(self, *, again: bool = False) -> None:
        """Bring memory, rows and folders together."""
        with self._lock:
            if self._is_read and not again:
                return
            self._is_read = True
            there = self._folders()
            for name in self._known.keys() - there.keys():
                self._forget(name)
            new = [there[name] for name in sorted(there.keys() - self._known.keys())]
        rows = {row.name for row in self.journal.waiting()} if there or (again and self._root.exists()) else set()
        for folder in new:
            if (payload := self._read_back(folder)) is not None:
                if payload.name not in rows:
                    self._note_made(payload)
                with self._lock:
                    self._take_in(payload)
        for name in rows - there.keys():
            if not (self.folder / name).exists():  # nor was it put there since
                self.journal.move_waiting(name, FAILED, error="its payload was removed from the outbox manually")

    def _folders(self) -> dict[str, Path]:
        """{name: folder} of what waits for this account."""
        if not self._root.is_dir():  # most runs: nobody need be asked which account this is
            return {}
        found = {folder.name: folder for folder in _whole(self.folder)}
        shared = self._root / _digest(self.journal.service)  # where revision afca017 kept those of all accounts
        if shared != self.folder:
            for folder in _whole(shared):
                with suppress(OSError, DamageError):  # whoever it is of sets it aside
                    if read_payload(folder).account in ("", self.journal.account):
                        found[folder.name] = folder
        return found

    def _read_back(self, folder: Path) -> Payload | None:
        """A payload as it lies there; None if it was delivered just now, or is damaged, and then it is set aside."""
        try:
            return read_payload(folder)
        except FileNotFoundError:
            if folder.exists():
                self._set_aside(folder, f"it has no {RESULT}")
            return None
        except (DamageError, OSError) as error:
            self._set_aside(folder, str(error))
            return None

    def _set_aside(self, folder: Path, error: str) -> None:
        name = folder.name
        row = next((one for one in self.journal.waiting() if one.name == name), None)
        aside = folder.with_name(f"{ASIDE}{name}-{secrets.token_hex(4)}")
        with suppress(OSError):
            folder.replace(aside)
            told = {"error": error, "step": row.step if row else "", "project": row.project if row else ""}
            (aside / WHY).write_text(json.dumps(told), encoding="utf-8")
        said = f"its payload was damaged while it waited: {error}; the next run makes it again"
        self.journal.move_waiting(name, FAILED, error=said)
        with self._lock:
            self._forget(name)

    def _take_in(self, payload: Payload) -> None:
        self._known[payload.name] = payload.label
        self._open.pop(payload.name, None)
        if len(self._open) < MOST_OPEN:
            self._open[payload.name] = payload
        for new in payload.datasets:
            files = tuple(file.ref for file in new.files)
            samples = tuple(sorted(set(new.samples)))
            origin = origin_of(new.record.recipe)
            ref = DatasetRef(new.mfid, new.name, files, samples, origin, new.parents, taken=new.taken)
            self._refs[new.mfid] = (payload.name, ref)

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        if (label := self._known.pop(name, None)) is not None:
            for mfid in label.mfids:
                self._refs.pop(mfid, None)


def _whole(folder: Path) -> Iterator[Path]:
    try:
        yield from (path for path in folder.iterdir() if not path.name.startswith("."))
    except FileNotFoundError:
        return


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _set_aside(folder: Path) -> SetAside:
    name = folder.name.removeprefix(ASIDE).rpartition("-")[0]
    try:
        told = json.loads((folder / WHY).read_text(encoding="utf-8"))
        return SetAside(name, folder, str(told["error"]), str(told["step"]), str(told["project"]))
    except (OSError, ValueError, KeyError, TypeError):
        return SetAside(name, folder, "it was not whole")
