"""Results of a flow while the service is unreachable: kept in the outbox and delivered later.

The first unanswered request is waited for as usual; for a while after it, results are kept without a request.
"""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.errors import TRANSIENT, CrucibleError
from crucible_lineage.pipeline.declare.inputs import FileInput
from crucible_lineage.pipeline.job.delivering import ONE_CALL_S, deliver_all
from crucible_lineage.pipeline.plan.files import RawFiles, find_raw, new_raw, register_raw
from crucible_lineage.provenance.environment import agent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.register import nothing
from crucible_lineage.session import Session

if TYPE_CHECKING:
    from crucible_lineage.registration.payload import NewDataset

RETRY_AFTER_S = 30.0  # chosen: results are kept without a request for this time after one was not answered


class Undelivered:
    """Results of one flow run that are not yet in Crucible. Thread-safe."""

    def __init__(self, session: Session, run_id: str) -> None:
        self.session = session
        self.run_id = run_id
        self.reason = ""
        self._away_until = 0.0
        self._kept: list[str] = []
        self._lock = threading.Lock()

    def is_away(self) -> bool:
        """Return whether the service recently failed to answer."""
        return time.monotonic() < self._away_until

    def look(self, project: str) -> None:
        """Check whether the service answers, before the flow begins.

        Raises UnreachableError if it does not, and the owner of this key is not known from an earlier request.
        """
        if self.session.settings.embedded:
            return
        try:
            with self.session.connect(at_most_s=ONE_CALL_S) as client:
                client.projects.find(project)
            _ = self.session.account  # stored, so that the owner of waiting results is known while the service is away
        except TRANSIENT as error:
            self.session.set_agent(agent({"unique_id": self.session.account}))
            self.note_away(error)

    def note_away(self, error: CrucibleError) -> None:
        """Note that the service did not answer: keep results for a while."""
        self.reason = str(error).partition("\n")[0]
        self._away_until = time.monotonic() + RETRY_AFTER_S

    def register(self, step: str, new: NewDataset, register: Callable[[], DatasetRef]) -> DatasetRef:
        """Register a dataset, or keep it until that is possible. Children of kept datasets are kept, too."""
        if not self.is_away() and not self.session.outbox.names_of(new.parents):
            try:
                return register()
            except TRANSIENT as error:
                self.note_away(error)
        return self.keep(step, new)

    def raw(self, raw: RawFiles, declared: FileInput, name: str, note: str | None, *, is_new: bool) -> DatasetRef:
        """Find (unless it `is_new`), register or keep the dataset of files that no step made."""
        parents = [parent.mfid for parent in raw.parents]
        if not self.is_away() and not self.session.outbox.names_of(parents):
            try:
                known = None if is_new else find_raw(raw, self.session)
                dataset = known or register_raw(raw, declared, name, self.session, note)
                self._remember(raw, dataset)
                return dataset
            except TRANSIENT as error:
                self.note_away(error)
        if (remembered := self._remembered(raw)) is not None:
            return remembered
        for label in self.session.outbox.all():
            payload = self.session.outbox.opened(label)
            for new in payload.datasets if payload else ():
                if new.record.recipe == raw.recipe and (waiting := self.session.outbox.find(new.mfid)) is not None:
                    return waiting
        return self.keep(name, new_raw(raw, declared, name, self.session, note))

    def _remember(self, raw: RawFiles, dataset: DatasetRef) -> None:
        """Note the dataset of files, for their children while the service is unreachable."""
        if not self.session.settings.embedded:
            path = self._raw_path(raw)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(dataset.to_json()), encoding="utf-8")

    def _remembered(self, raw: RawFiles) -> DatasetRef | None:
        try:
            return DatasetRef.from_json(json.loads(self._raw_path(raw).read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError):
            return None

    def _raw_path(self, raw: RawFiles) -> Path:
        service = hashlib.sha256(str(self.session.settings.api_url).encode()).hexdigest()[:16]
        return self.session.settings.data / "flows" / "raw" / service / raw.recipe_sha256[:32]

    def keep(self, step: str, new: NewDataset) -> DatasetRef:
        """Keep a dataset in the outbox. Its id is final, so children can refer to it."""
        paths = {file.ref.sha256: file.path for file in new.files}
        self.session.outbox.put(step, str(new.fields["project_id"]), [new], paths, self.run_id)
        with self._lock:
            self._kept.append(new.mfid)
        dataset = self.session.outbox.find(new.mfid)
        assert dataset is not None  # just put there
        return dataset

    def is_kept(self, mfid: str) -> bool:
        """Return whether this run has kept the dataset in the outbox."""
        return mfid in self._kept

    def deliver(self, patience_s: float) -> None:
        """Deliver the outbox, including results of earlier runs, if the service answers."""
        deliver_all(self.session, patience_s, lambda reason: setattr(self, "reason", reason), nothing)

    def left(self) -> list[str]:
        """Return the results of this run that wait in the outbox."""
        waiting = {mfid for item in self.session.outbox.waiting() for mfid in item.mfids} if self._kept else set()
        return [mfid for mfid in self._kept if mfid in waiting]
