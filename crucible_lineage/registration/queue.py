"""The queue of a deliverer: which payloads may be sent now, and which are no results of their parents any more.

It asks no service. A deliverer uses it under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from crucible_lineage.core.journal import LACKING, MADE, ResultRow
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.payload import Payload

MOST_TOGETHER = 32  # chosen: payloads that the embedded Crucible gets by one call
DROPPED = "dropped"  # invalid: damaged, or made from bytes that are not those at Crucible; to be made again
DAMAGED = "its files were damaged in the outbox; they were set aside, and the step is rerun"


class DeliveryQueue:
    """Results that wait for delivery, the oldest first. `opened` returns the payload of a row, None if damaged.

    The state of one is MADE, REFUSED or LACKING, whatever an earlier process has met.
    """

    def __init__(self, opened: Callable[[ResultRow], Payload | None]) -> None:
        self.rows: dict[str, ResultRow] = {}
        self.begun: set[str] = set()  # datasets whose registration has begun
        self._opened = opened
        self._where: dict[str, str] = {}  # waiting dataset -> its payload
        self._theirs: dict[str, DatasetRef] = {}  # registered with other bytes or another id than here
        self._void: set[str] = set()  # made here and never delivered

    def admit(self, row: ResultRow, *, from_before: bool, due: float) -> None:
        """Take in a result, unless it is known; one that was made again replaces the earlier one."""
        known = self.rows.get(row.name)
        if known is None or known.made != row.made:
            self._void.difference_update(row.mfids)
            self._where |= dict.fromkeys(row.mfids, row.name)
            self.rows[row.name] = replace(row, from_before=from_before, due=due)

    def blocking(self, row: ResultRow) -> set[str]:
        """Return the parents that wait here as well."""
        return {parent for parent in row.parents if self._where.get(parent, row.name) != row.name}

    def holds_any(self, mfids: Iterable[str]) -> bool:
        """Return whether any of these datasets waits."""
        return not self._where.keys().isdisjoint(mfids)

    def are_under_way(self, mfids: Iterable[str]) -> bool:
        """Return whether all these waiting datasets are being sent."""
        return all(self.rows[self._where[mfid]].is_running for mfid in mfids)

    def free(self) -> Iterator[ResultRow]:
        """Yield the results that may be sent when due: each parent that waits here is begun and being sent."""
        for row in self.rows.values():
            if row.state == MADE and not row.is_running:
                blocking = self.blocking(row)
                if blocking <= self.begun and self.are_under_way(blocking):
                    yield row

    def together(self, first: ResultRow, *, is_embedded: bool) -> list[ResultRow]:
        """Take a free result, with those made since that may be sent with it, parents first.

        Only the embedded Crucible takes several at once.
        """
        found, first.is_running = {first.name: first}, True
        if first.from_before or first.tries or self.blocking(first) or not is_embedded:
            return [first]
        for name, row in self.rows.items():
            is_new = row.state == MADE and not (row.is_running or row.from_before or row.tries)
            if is_new and all(self._where[mfid] in found for mfid in self.blocking(row)):
                found[name], row.is_running = row, True
            if len(found) == MOST_TOGETHER:
                break
        return list(found.values())

    # What is over

    def arrived(self, row: ResultRow, payload: Payload | None, refs: Mapping[str, DatasetRef]) -> bool:
        """Remove a result whose datasets are at Crucible; let those that lacked them be sent again.

        Return whether any of the datasets has other data files or another id there than it was made with.
        """
        datasets = payload.datasets if payload else ()
        sent = {new.mfid: _data(file.ref for file in new.files) for new in datasets}
        theirs = {mfid: ref for mfid, ref in refs.items() if ref.mfid != mfid or _data(ref.files) != sent[mfid]}
        self._theirs |= theirs
        self._leave(row)
        for other in self.rows.values():
            if other.state == LACKING and not other.parents.isdisjoint(row.mfids):
                other.state = MADE
        return bool(theirs)

    def drop(self, row: ResultRow) -> None:
        """Remove a result that is not to be delivered, nor what was made from it."""
        self._leave(row)
        self._void |= set(row.mfids)

    def _leave(self, row: ResultRow) -> None:
        self.rows.pop(row.name, None)
        for mfid in row.mfids:
            self._where.pop(mfid, None)

    def overtaken(self) -> Iterator[tuple[ResultRow, str]]:
        """Drop those that are no results of their parents any more, and yield each with the reason.

        Those being sent are left: they are checked before they are completed.
        """
        is_news = True
        while is_news:
            is_news = False
            for row in list(self.rows.values()):
                if not row.is_running and (reason := self.reason_to_drop(row)):
                    self.drop(row)
                    is_news = True
                    yield row, reason

    def reason_to_drop(self, row: ResultRow, payload: Payload | None = None) -> str:
        """Return why one is not a result of the parents at Crucible; empty if it is, as far as known here."""
        if void := sorted(row.parents & self._void):
            return f"it was made from {void[0]}, which is not a valid result"
        if self._theirs.keys().isdisjoint(row.parents):
            return ""
        if (payload := payload or self._opened(row)) is None:
            return DAMAGED
        for used in (used for new in payload.datasets for used in new.record.used):
            theirs = self._theirs.get(used.mfid)
            if theirs is None:
                continue
            if theirs.mfid != used.mfid:
                return f"it was made from {used.mfid}, which is registered as {theirs.mfid}"
            stored = {file.name: file.sha256 for file in theirs.files}
            if reason := other_bytes(used, stored):
                return reason
        return ""

    def unchecked(self, row: ResultRow, payload: Payload) -> list[Any]:
        """Return what its datasets used of parents about which nothing is known here."""
        known = {*self.blocking(row), *row.mfids, *self._theirs}
        return [used for new in payload.datasets for used in new.record.used if used.files and used.mfid not in known]


def other_bytes(used: Any, stored: Mapping[str, str | None]) -> str:
    """Return why a used dataset is not the one with these files (SHA-256 by name); empty if it may be."""
    for file in used.files or ():
        if file.name not in stored or stored[file.name] not in (file.sha256, None):
            return f"it was made from {file.name} of {used.mfid}, and Crucible now has other bytes of that file"
    return ""


def _data(files: Iterable[FileRef]) -> set[tuple[str, str]]:
    return {(file.name, file.sha256) for file in files if file.is_data}
