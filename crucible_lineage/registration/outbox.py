"""The outbox: results made and not yet at Crucible, each a row of the journal and a payload in a folder.

    outbox/OWNER/STEP/               a payload; OWNER is a hash of service and account, STEP the least of its MFIDs
    outbox/OWNER/.aside-STEP-TOKEN/  a payload that was damaged while it waited, until somebody frees it by name

Once the folder has its name, no crash and no outage costs the work. The folders are the truth: missing rows are
restored from them.
"""

from __future__ import annotations

import hashlib
import json
import secrets
import shutil
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.core.folders import ASIDE
from crucible_lineage.core.journal import DELIVERED, FAILED, MADE, REFUSED, Journal, ResultRow
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import (
    RESULT,
    DamageError,
    NewDataset,
    Payload,
    damaged_files,
    read_payload,
    write_payload,
)

REASON = "why.json"
MAX_OPEN = 100  # chosen: payloads in memory, 17 kB each; of the others only the rows are


@dataclass(frozen=True)
class SetAside:
    """A payload that was damaged while it waited: its folder, the damage, and its step and project."""

    name: str
    folder: Path
    error: str
    step: str = ""
    project: str = ""


class Outbox:
    """The outbox for one Crucible in a data folder. Thread-safe; other processes may add and remove payloads.

    Memory holds the rows of all payloads, and only a few payloads; `opened` returns the payload of a row.
    With `durable`, a payload is on the disk when `put` returns, and survives a power cut. Without, it survives the
    death of any process, and its seal reveals what a power cut left half written.
    """

    def __init__(self, data: Path, journal: Journal, *, durable: bool) -> None:
        self.journal = journal
        self.durable = durable
        self._root = data / "outbox"
        self._lock = threading.Lock()
        self._known: dict[str, ResultRow] = {}
        self._open: dict[str, Payload] = {}
        self._refs: dict[str, tuple[str, DatasetRef]] = {}
        self._is_read = False

    @property
    def folder(self) -> Path:
        """The folder of this account's payloads for this service."""
        service, account = self.journal.service, self.journal.account
        owner = f"{service}\n{account}" if account else service
        return self._root / hashlib.sha256(owner.encode()).hexdigest()[:16]

    def place(self) -> Path:
        """Return the folder of the payloads, which is made if necessary."""
        private_folder(self._root)
        return private_folder(self.folder)

    @contextmanager
    def draft(self) -> Iterator[Path]:
        """Make a folder for this block, beside those of the payloads; `put` may make it one of them."""
        folder = self.place() / f".new-{secrets.token_hex(8)}"
        folder.mkdir(mode=0o700)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def put(
        self,
        step: str,
        project: str,
        datasets: Sequence[NewDataset],
        run: str = "",
        draft: Path | None = None,
    ) -> Payload:
        """Store the outputs of a step until they are delivered. Their files are moved if they lie in a `draft`; with
        it, what another process has put there under the same id stays.
        """
        name = min(new.mfid for new in datasets)
        now = datetime.now(UTC).isoformat()
        safe = tuple(new.without_secrets() for new in datasets)
        place = draft.parent if draft else self.place()
        payload = Payload(place / name, step, project, now, safe, run)
        payload = write_payload(payload, durable=self.durable, draft=draft)
        self._take_in(payload, is_new=True)
        return payload

    def find(self, mfid: str) -> DatasetRef | None:
        """Return the waiting dataset with this id, for use by steps."""
        self._read()
        entry = self._refs.get(mfid)
        return entry[1] if entry else None

    def row(self, name: str) -> ResultRow | None:
        """Return the row of the payload with this least id, even if another process has just added it."""
        known, folder = self._known.get(name), self.folder / name
        if known is None and (folder / RESULT).exists() and (payload := self._read_back(folder)):
            return self._take_in(payload)
        return known

    def opened(self, row: ResultRow) -> Payload | None:
        """Return the payload from its folder; None if it is gone, or damaged, which sets it aside."""
        payload = self._open.get(row.name)
        return payload if payload and payload.made == row.made else self._read_back(self.folder / row.name)

    def dataset(self, mfid: str) -> NewDataset | None:
        """Return the waiting dataset with this id, as it is to be registered."""
        payload = self.opened(row) if (row := self._row_of(mfid)) else None
        return next((new for new in payload.datasets if new.mfid == mfid), None) if payload else None

    def file(self, mfid: str, sha256: str) -> Path | None:
        """Return the path of a file of a waiting dataset."""
        path = self.folder / row.name / sha256 if (row := self._row_of(mfid)) else None
        return path if path is not None and path.exists() else None

    def _row_of(self, mfid: str) -> ResultRow | None:
        self._read()
        entry = self._refs.get(mfid)
        return self._known.get(entry[0]) if entry else None

    def all(self, *, again: bool = False) -> list[ResultRow]:
        """Return the rows of all payloads, oldest first; with `again`, including changes by other processes."""
        self._read(again=again)
        with self._lock:
            return sorted(self._known.values(), key=lambda row: (row.made, row.name))

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits, as far as this process has seen."""
        self._read()
        return not self._known

    def waits(self, name: str) -> bool:
        """Return whether the payload still waits; another process may have delivered it."""
        return (self.folder / name / RESULT).exists()

    def waiting(self) -> list[ResultRow]:
        """Return the results that wait for this account as the journal has them, oldest first."""
        self._read(again=True)
        return self.journal.waiting()

    def checked(self, row: ResultRow) -> Payload | None:
        """Return the payload if all its files match their hashes; else set it aside and return None."""
        if (found := self.opened(row)) is None:
            return None
        payload, wrong = damaged_files(found)
        if wrong:
            self._set_aside(payload.folder, f"the bytes of {', '.join(wrong)} are not those that the step wrote")
            return None
        return payload

    def delivered(self, *names: str) -> None:
        """Record that the datasets of these payloads are at Crucible, and remove them."""
        self.journal.move_waiting(names, DELIVERED, error=None)
        for name in names:
            self._remove(name)

    def dropped(self, name: str, state: str, reason: str) -> None:
        """Record that the payload is invalid (OVERTAKEN or FAILED), and remove it."""
        self.journal.move_waiting(name, state, error=reason)
        self._remove(name)

    def failed(self, name: str, error: str, *, refused: bool = False) -> None:
        """Record why the payload could not be delivered; `refused` if sending it again unchanged is useless."""
        self.journal.move_waiting(name, REFUSED if refused else MADE, is_try=True, error=error)

    def set_aside(self) -> list[SetAside]:
        """Return the damaged payloads of all accounts and services that nobody has freed yet."""
        return [_set_aside(folder) for folder in sorted(self._root.glob(f"*/{ASIDE}*"))]

    def free(self, name: str) -> bool:
        """Remove what was set aside under this name (an MFID). Return False if there is nothing."""
        damaged = [payload for payload in self.set_aside() if payload.name == name]
        for payload in damaged:
            shutil.rmtree(payload.folder)
        return bool(damaged)

    def _remove(self, name: str) -> None:
        removed = self.folder / f".gone-{name}-{secrets.token_hex(4)}"
        with suppress(FileNotFoundError):
            (self.folder / name).replace(removed)
        with self._lock:
            self._forget(name)
        shutil.rmtree(removed, ignore_errors=True)

    def _read(self, *, again: bool = False) -> None:
        """Reconcile memory, rows and folders."""
        with self._lock:
            if self._is_read and not again:
                return
            self._is_read = True
            folders = self._folders()
            for name in self._known.keys() - folders.keys():
                self._forget(name)
            new = [folders[name] for name in sorted(folders.keys() - self._known.keys())]
        rows = {row.name for row in self.journal.waiting()} if folders or (again and self._root.exists()) else set()
        for folder in new:
            if (payload := self._read_back(folder)) is not None:
                self._take_in(payload, is_new=payload.name not in rows)
        for name in rows - folders.keys():
            if not (self.folder / name).exists():  # nor was it added since
                self.journal.move_waiting(name, FAILED, error="its payload was removed from the outbox manually")

    def _folders(self) -> dict[str, Path]:
        """Return {name: folder} of this account's payloads."""
        if not self._root.is_dir():  # most runs: the account need not be known
            return {}
        try:
            return {path.name: path for path in self.folder.iterdir() if not path.name.startswith(".")}
        except FileNotFoundError:
            return {}

    def _read_back(self, folder: Path) -> Payload | None:
        """Read a payload; None if it was just delivered, or is damaged, which sets it aside."""
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
        row = next((row for row in self.journal.waiting() if row.name == name), None)
        aside = folder.with_name(f"{ASIDE}{name}-{secrets.token_hex(4)}")
        with suppress(OSError):
            folder.replace(aside)
            reason = {"error": error, "step": row.step if row else "", "project": row.project if row else ""}
            (aside / REASON).write_text(json.dumps(reason), encoding="utf-8")
        message = f"its payload was damaged while it waited: {error}; the next run makes it again"
        self.journal.move_waiting(name, FAILED, error=message)
        with self._lock:
            self._forget(name)

    def _take_in(self, payload: Payload, *, is_new: bool = False) -> ResultRow:
        """Keep a payload in memory, one that is new to the journal there as well. Return its row."""
        row = payload.row(self.journal.account)
        if is_new:
            self.journal.note_made(row)
        with self._lock:
            self._known[row.name] = row
            self._open.pop(row.name, None)
            if len(self._open) < MAX_OPEN:
                self._open[row.name] = payload
            for new in payload.datasets:
                self._refs[new.mfid] = (row.name, new.ref(new.mfid))
        return row

    def _forget(self, name: str) -> None:
        self._open.pop(name, None)
        if (row := self._known.pop(name, None)) is not None:
            for mfid in row.mfids:
                self._refs.pop(mfid, None)


def _set_aside(folder: Path) -> SetAside:
    name = folder.name.removeprefix(ASIDE).rpartition("-")[0]
    try:
        reason = json.loads((folder / REASON).read_text(encoding="utf-8"))
        return SetAside(name, folder, str(reason["error"]), str(reason["step"]), str(reason["project"]))
    except (OSError, ValueError, KeyError, TypeError):
        return SetAside(name, folder, "it was incomplete")
