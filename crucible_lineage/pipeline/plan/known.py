"""Index of a pipeline's datasets for plans and runs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.pipeline.plan.differences import Ingredients, UsedFiles
from crucible_lineage.pipeline.plan.facts import ParentFacts
from crucible_lineage.pipeline.plan.plan import EarlierResult
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.known import KnownResults
from crucible_lineage.session import Session
from crucible_lineage.statements.effects import StatementEffects
from crucible_lineage.statements.statements import AWAIT

if TYPE_CHECKING:  # the client costs a tenth of a second, which planning should not pay
    from crucible_lineage.provenance.schema import StepRecord


class ProjectIndex:
    """Index of one pipeline's datasets in a project; without a pipeline, of all recorded datasets there."""

    def __init__(self, session: Session, project: str, pipeline: str | None) -> None:
        self.session = session
        self.project = project
        self.pipeline = pipeline
        self.is_away = session.is_away  # only the results of earlier syncs are available
        self.results = KnownResults(session.mirror, lambda: session.client, project, pipeline, is_away=self.is_away)
        self.facts = ParentFacts(session, project)
        self._has_begun = False
        self._stated: StatementEffects | None = None
        self._held: dict[str, str] = {}

    def sync(self) -> None:
        """Synchronize the index: one cheap call if nothing changed."""
        self.results.sync()
        self._stated = None

    def refresh_statements(self) -> None:
        """Read statements again when they are next needed."""
        self._stated = None

    def on_hold(self, used: Collection[str], code: str) -> tuple[str, ...]:
        """Return why these datasets or this code must not be used: the holds on them, by whom and why."""
        if self._stated is None:
            self._stated = self.session.stated
        own = [self._held[mfid] for mfid in used if mfid in self._held]
        return tuple(dict.fromkeys(own)) or self._stated.reasons(used, code, self.project)

    def is_candidate(self, mfid: str) -> bool:
        """Return whether a dataset waits for a signature."""
        mirror = self.session.mirror
        if mfid not in mirror.stated(AWAIT).datasets:
            return False
        doubt = self.session.stated.doubts([mfid], self.project).get(mfid)
        return doubt is not None and doubt.source == mfid and doubt.is_candidate

    def note_on_hold(self, mfid: str, reason: str) -> None:
        """Treat a dataset as on hold before the hold can be stated at Crucible."""
        self._held[mfid] = reason

    def begin(self, slots: Collection[str]) -> None:
        """Read what a run needs before anything is made. The project exists now.

        The records of the current results in these slots are read, since the service may be unavailable when they are
        needed. Afterwards, lookups of results that the plan has not looked up make no request: such results would be
        another pipeline's, and are found on registration.
        """
        scope = self.results.scope
        if scope is not None and not self.session.mirror.is_synced(self.project, scope):
            self.sync()
        if not self.session.settings.embedded and not self.is_away:
            self.results.read_ahead({mfid for slot in slots for mfid in self.holding(slot)})
        self._has_begun = True

    def complete(self, mfid: str) -> DatasetRef | None:
        """Return the dataset if it is complete, at Crucible or in the outbox."""
        found = self.results.known(mfid, ask=False) or self.session.outbox.find(mfid)
        return found or self.results.known(mfid, ask=not self._has_begun)

    def is_begun(self, mfid: str) -> bool:
        """Return whether there is an incomplete record under this id."""
        if self._has_begun and not self.results.was_found(mfid):
            return False
        found = self.results.registered_as(mfid)
        return found is not None and found.is_begun

    def current(self, slot: str) -> EarlierResult | None:
        """Return the current result in a slot; the newest, if several declarations have the slot."""
        found = {mfid: self.results.registered_as(mfid) for mfid in self.holding(slot)}
        records = ((mfid, dataset.step_record) for mfid, dataset in found.items() if dataset)
        earlier = [earlier_result(mfid, record, self._names(record)) for mfid, record in records if record]
        return max(earlier, key=lambda result: result.mfid, default=None)

    def is_held(self, slot: str) -> bool:
        """Return whether a slot has a current result."""
        return bool(self.holding(slot))

    def holding(self, slot: str) -> tuple[str, ...]:
        """Return the current results in a slot."""
        return self.results.slots.current(slot, self.project)

    def held(self) -> frozenset[str]:
        """Return all slots with a current result."""
        return frozenset(slot for _, slot in self.results.slots.all_slots())

    def claims(self, slot: str) -> Iterable[SlotClaim]:
        """Return all claims to a slot, past ones included."""
        return self.results.slots.claims(slot, self.project)

    def _names(self, record: StepRecord) -> dict[str, str]:
        """Return the names of parents that are known on this machine."""
        return {mfid: ref.name for mfid, ref in self.session.mirror.known_among(record.parents).items()}


def earlier_result(mfid: str, record: StepRecord, names: Mapping[str, str]) -> EarlierResult:
    """Return a result with its ingredients; `names` are the known names of its parents."""
    code = record.activity.code
    used = tuple(
        UsedFiles(
            role=part.role,
            name=names.get(part.mfid, ""),
            source=part.origin or part.mfid,
            files={file.name: (file.sha256, file.size) for file in part.files or ()},
        )
        for part in record.used
    )
    return EarlierResult(mfid, Ingredients(record.recipe, code.source, code.pieces or {}, used))
