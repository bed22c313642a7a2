"""Results of a flow while the service is away: kept in the outbox, and delivered when it is back.

The first call that nobody answers is waited for as any other; for a while after it results are kept without asking.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from crucible_lineage.errors import TRANSIENT, CrucibleError
from crucible_lineage.pipeline.inputs.existing import RawFiles, find_raw
from crucible_lineage.pipeline.inputs.register import new_raw, register_raw
from crucible_lineage.pipeline.job.delivering import ONE_CALL_S, deliver_all
from crucible_lineage.pipeline.spec.inputs import FileInput
from crucible_lineage.provenance.environment import agent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.registration.new_dataset import NewDataset

ASKED_AGAIN_S = 30.0  # chosen: so long results are kept without asking, once the service did not answer


class Undelivered:
    """What one run of a flow has made and Crucible has not. Threads may share it."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.session = session
        self.run_id = run_id
        self.reason = ""
        self._away_until = 0.0
        self._kept: list[str] = []
        self._lock = threading.Lock()

    def is_away(self) -> bool:
        """Whether the service did not answer a moment ago."""
        return time.monotonic() < self._away_until

    def look(self, project: str) -> None:
        """Whether the service is there, before the flow begins.

        UnreachableError if it is away, and nobody knows yet whose results these are: it was never asked with this key.
        """
        if self.session.settings.embedded:
            return
        try:
            with self.session.connect(at_most_s=ONE_CALL_S) as client:
                client.projects.find(project)
            _ = self.session.account  # noted, so that it is known whose results wait when the service is away
        except TRANSIENT as error:
            self.session.set_agent(agent({"unique_id": self.session.account}))
            self.note_away(error)

    def note_away(self, error: CrucibleError) -> None:
        """The service did not answer: results are kept for a while."""
        self.reason = str(error).partition("\n")[0]
        self._away_until = time.monotonic() + ASKED_AGAIN_S

    def registered(self, step: str, new: NewDataset, register: Callable[[], DatasetRef]) -> DatasetRef:
        """The dataset, registered, or kept until it can be. What is made of kept ones is kept, too."""
        if not self.is_away() and not self.session.outbox.names_of(new.parents):
            try:
                return register()
            except TRANSIENT as error:
                self.note_away(error)
        return self.keep(step, new)

    def raw(self, raw: RawFiles, declared: FileInput, name: str, note: str | None, *, is_new: bool) -> DatasetRef:
        """The dataset of files that no step made: found (unless it `is_new`), registered, or kept."""
        parents = [parent.mfid for parent in raw.parents]
        if not self.is_away() and not self.session.outbox.names_of(parents):
            try:
                known = None if is_new else find_raw(raw, self.session)
                found = known or register_raw(raw, declared, name, self.session, note)
                self._remember(raw, found)
                return found
            except TRANSIENT as error:
                self.note_away(error)
        if (remembered := self._remembered(raw)) is not None:
            return remembered
        for label in self.session.outbox.all():
            payload = self.session.outbox.opened(label)
            for one in payload.datasets if payload else ():
                if one.record.recipe == raw.recipe and (waits := self.session.outbox.find(one.mfid)) is not None:
                    return waits
        return self.keep(name, new_raw(raw, declared, name, self.session, note))

    def _remember(self, raw: RawFiles, dataset: DatasetRef) -> None:
        """Files that the service has: what is made of them while it is away is made of that dataset."""
        if not self.session.settings.embedded:
            path = self._place(raw)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dataset.to_json()), encoding="utf-8")

    def _remembered(self, raw: RawFiles) -> DatasetRef | None:
        try:
            return DatasetRef.from_json(json.loads(self._place(raw).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            return None

    def _place(self, raw: RawFiles) -> Path:
        service = hashlib.sha256(str(self.session.settings.api_url).encode()).hexdigest()[:16]
        return self.session.settings.data / "flows" / "raw" / service / raw.recipe_sha256[:32]

    def keep(self, step: str, new: NewDataset) -> DatasetRef:
        """Keep a dataset in the outbox; the id stands, and others may be made of it."""
        kept = {file.ref.sha256: file.path for file in new.files}
        self.session.outbox.put(step, str(new.fields["project_id"]), [new], kept, self.run_id)
        with self._lock:
            self._kept.append(new.mfid)
        found = self.session.outbox.find(new.mfid)
        assert found is not None  # just put there
        return found

    def is_kept(self, mfid: str) -> bool:
        """Whether the dataset waits, as far as this run has kept it."""
        return mfid in self._kept

    def deliver(self, patience_s: float) -> None:
        """Deliver what waits here, from earlier runs too, if the service answers."""
        deliver_all(self.session, patience_s, lambda reason: setattr(self, "reason", reason), _quiet)

    def left(self) -> list[str]:
        """The results of this run that wait."""
        waiting = {mfid for one in self.session.outbox.waiting() for mfid in one.mfids} if self._kept else set()
        return [mfid for mfid in self._kept if mfid in waiting]


def _quiet(*_: Any) -> None:
    """Progress that nobody watches."""
