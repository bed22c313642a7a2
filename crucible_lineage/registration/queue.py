"""The queue of a deliverer: which payloads may be sent now, and which are no results of their parents any more.

It asks no service. A deliverer uses it under its lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from crucible_lineage.core.journal import LACKING, MADE
from crucible_lineage.refs import DatasetRef, FileRef
from crucible_lineage.registration.delivery import Delivery
from crucible_lineage.registration.payload import Payload

MOST_TOGETHER = 32  # chosen: payloads that the embedded Crucible gets by one call
DAMAGED = "its files were damaged in the outbox; they were set aside, and the step is rerun"


class DeliveryQueue:
    """Payloads that wait for delivery, the oldest first. `opened` returns the payload of a label, None if damaged."""

    def __init__(self, opened: Callable[[Payload], Payload | None]) -> None:
        self.entries: dict[str, Delivery] = {}
        self.begun: set[str] = set()  # datasets whose registration has begun
        self._opened = opened
        self._where: dict[str, str] = {}  # waiting dataset -> its payload
        self._theirs: dict[str, DatasetRef] = {}  # registered with other bytes or another id than here
        self._void: set[str] = set()  # made here and never delivered

    def admit(self, label: Payload, *, from_before: bool, due: float) -> None:
        """Take in a payload, unless it is known; one that was made again replaces the earlier one."""
        known = self.entries.get(label.name)
        if known is None or known.payload.made != label.made:
            self._void.difference_update(label.mfids)
            self._where |= dict.fromkeys(label.mfids, label.name)
            self.entries[label.name] = Delivery(label, from_before, due)

    def blocking(self, label: Payload) -> set[str]:
        """Return the parents that wait here as well."""
        return {parent for parent in label.parents if self._where.get(parent, label.name) != label.name}

    def are_under_way(self, mfids: Iterable[str]) -> bool:
        """Return whether all these waiting datasets are being sent."""
        return all(self.entries[self._where[mfid]].is_running for mfid in mfids)

    def free(self) -> Iterator[Delivery]:
        """Yield the payloads that may be sent when due: each parent that waits here is begun and being sent."""
        for entry in self.entries.values():
            if entry.state == MADE and not entry.is_running:
                blocking = self.blocking(entry.payload)
                if blocking <= self.begun and self.are_under_way(blocking):
                    yield entry

    def together(self, first: Delivery, *, is_embedded: bool) -> list[Delivery]:
        """Take a free payload, with those made since that may be sent with it, parents first.

        Only the embedded Crucible takes several at once.
        """
        found, first.is_running = {first.payload.name: first}, True
        if first.from_before or first.failures or self.blocking(first.payload) or not is_embedded:
            return [first]
        for name, entry in self.entries.items():
            is_new = entry.state == MADE and not (entry.is_running or entry.from_before or entry.failures)
            if is_new and all(self._where[mfid] in found for mfid in self.blocking(entry.payload)):
                found[name], entry.is_running = entry, True
            if len(found) == MOST_TOGETHER:
                break
        return list(found.values())

    # What is over

    def arrived(self, payload: Payload, refs: Mapping[str, DatasetRef]) -> bool:
        """Remove a payload whose datasets are at Crucible; let those that lacked them be sent again.

        Return whether any of the datasets has other data files or another id there than it was made with.
        """
        sent = {new.mfid: _data(file.ref for file in new.files) for new in payload.datasets}
        theirs = {mfid: ref for mfid, ref in refs.items() if ref.mfid != mfid or _data(ref.files) != sent[mfid]}
        self._theirs |= theirs
        self._leave(payload)
        for other in self.entries.values():
            if other.state == LACKING and not other.payload.parents.isdisjoint(payload.mfids):
                other.state = MADE
        return bool(theirs)

    def drop(self, payload: Payload) -> None:
        """Remove a payload that is not to be delivered, nor what was made from it."""
        self._leave(payload)
        self._void |= set(payload.mfids)

    def _leave(self, payload: Payload) -> None:
        self.entries.pop(payload.name, None)
        for mfid in payload.mfids:
            self._where.pop(mfid, None)

    def overtaken(self) -> Iterator[tuple[Delivery, str]]:
        """Drop the payloads that are no results of their parents any more, and yield each with the reason.

        Those being sent are left: they are checked before they are completed.
        """
        is_news = True
        while is_news:
            is_news = False
            for entry in list(self.entries.values()):
                if not entry.is_running and (reason := self.reason_to_drop(entry)):
                    self.drop(entry.payload)
                    is_news = True
                    yield entry, reason

    def reason_to_drop(self, entry: Delivery) -> str:
        """Return why a payload is not a result of the parents at Crucible; empty if it is, as far as known here."""
        if void := sorted(entry.payload.parents & self._void):
            return f"it was made from {void[0]}, which is not a valid result"
        if self._theirs.keys().isdisjoint(entry.payload.parents):
            return ""
        payload = entry.payload if entry.payload.datasets else self._opened(entry.payload)
        if payload is None:
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

    def unchecked(self, payload: Payload) -> list[Any]:
        """Return what its datasets used of parents about which nothing is known here."""
        known = {*self.blocking(payload), *payload.mfids, *self._theirs}
        return [used for new in payload.datasets for used in new.record.used if used.files and used.mfid not in known]


def other_bytes(used: Any, stored: Mapping[str, str | None]) -> str:
    """Return why a used dataset is not the one with these files (SHA-256 by name); empty if it may be."""
    for file in used.files or ():
        if file.name not in stored or stored[file.name] not in (file.sha256, None):
            return f"it was made from {file.name} of {used.mfid}, and Crucible now has other bytes of that file"
    return ""


def _data(files: Iterable[FileRef]) -> set[tuple[str, str]]:
    return {(file.name, file.sha256) for file in files if file.is_data}
