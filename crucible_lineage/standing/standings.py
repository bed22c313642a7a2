"""Where each dataset stands: raw, current, candidate, doubtful, superseded, incomplete or withdrawn, and why.

One function answers this for lists, tables, pages, pictures, plans and selections: from the slots and replacements of
the whole project, and from the statements in force.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from crucible_lineage.core.tables import EVERYTHING, Snapshot, Summary, summary_of
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.json_types import JsonMapping
from crucible_lineage.lineage.model import CANDIDATE, CURRENT, DOUBTFUL, RAW, WITHDRAWN
from crucible_lineage.lineage.records import is_withdrawn
from crucible_lineage.marks import CORRECTIONS_KEY
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import Currency, currency_of
from crucible_lineage.statements.statements import Doubt

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset


@dataclass(frozen=True)
class Standing:
    """A dataset and where it stands. If it is superseded, also its successors and the time.

    `doubt` is the statement for which it is doubtful, even if it is superseded; `flags` are the names of flags in
    force.
    """

    summary: Summary
    state: str
    superseded_by: tuple[str, ...] = ()
    since: str = ""
    doubt: Doubt | None = None
    flags: tuple[str, ...] = ()

    @property
    def mfid(self) -> str:
        """The id of the dataset."""
        return self.summary.mfid

    @property
    def is_usable(self) -> bool:
        """Whether it is current or measured, and not in doubt."""
        return self.state in (CURRENT, RAW)

    @property
    def origin(self) -> str:
        """The pipeline and step that made it, with what was swept; else its measurement."""
        swept = f" [{self.summary.swept}]" if self.summary.swept else ""
        made = "/".join(filter(None, (self.summary.pipeline, self.summary.step)))
        return f"{made}{swept}" if made else self.summary.measurement


def standings(
    session: Session, project: str, *, copy: Snapshot | None = None, among: Iterable[str] | None = None
) -> dict[str, Standing]:
    """Return where the datasets of a project stand now, or some of them; of all projects for EVERYTHING.

    They are in the order of lists. `copy` is the project's, if it was read already. Raises InputError if there is no
    such project.
    """
    copy = copy or session.mirror.snapshot(project)
    selected = copy.summaries.values() if among is None else [copy.summaries[mfid] for mfid in among]
    return _standings(session, selected, currency_of(copy), copy.summaries, project)


def standing_of(session: Session, found: Dataset) -> Standing:
    """Return where a dataset stands that was read with its metadata and links."""
    return standings_of(session, [found])[0]


def standings_of(session: Session, found: Sequence[Dataset]) -> list[Standing]:
    """Return where datasets stand that were read with their metadata and links, in their order.

    Any other dataset of its project may have replaced one.
    """
    session.mirror.sync_statements()
    records = {dataset.unique_id: dataset.model_dump() for dataset in found}
    found_standings = standings_of_records(session, records, {})
    return [found_standings[mfid] for mfid in records]


def standings_of_records(
    session: Session,
    records: Mapping[str, JsonMapping],
    linked: Mapping[str, Collection[str]],
    copies: Sequence[Snapshot] | None = None,
) -> dict[str, Standing]:
    """Return where the datasets with these records stand, each as its own project sees it; `linked` are more parents.

    `copies` are those of the projects of datasets that another one may have replaced, which are read otherwise.
    """
    own = {mfid: _with_parents(summary_of(record), linked.get(mfid, ())) for mfid, record in records.items()}
    present = {mfid: summary for mfid, summary in own.items() if not is_withdrawn(records[mfid])}
    projects = (summary.status.project for mfid, summary in present.items() if may_be_replaced(records[mfid]))
    copies = visible_copies(session, sorted(set(filter(None, projects)))) if copies is None else copies
    everything = {mfid: summary for copy in copies for mfid, summary in copy.summaries.items()} | present
    currency = currency_of(*copies, beside=[summary.status for summary in present.values()])
    withdrawn = {mfid: Standing(summary, WITHDRAWN) for mfid, summary in own.items() if mfid not in present}
    return withdrawn | _standings(session, present.values(), currency, everything, EVERYTHING)


def _with_parents(summary: Summary, linked: Collection[str]) -> Summary:
    return replace(summary, parents=tuple(dict.fromkeys((*summary.parents, *linked)))) if linked else summary


def _standings(
    session: Session, selected: Iterable[Summary], currency: Currency, summaries: Mapping[str, Summary], viewer: str
) -> dict[str, Standing]:
    """Return where these datasets stand, as a project sees it; for EVERYTHING, each as its own project does."""
    selected, effects = list(selected), session.effects
    viewers: dict[str, list[str]] = {}
    for summary in selected:
        viewers.setdefault(viewer or summary.status.project, []).append(summary.mfid)
    doubts: dict[str, Doubt] = {}
    flags: dict[str, tuple[str, ...]] = {}
    for project, mfids in viewers.items():
        doubts |= effects.doubts(mfids, project, summaries)
        flags |= effects.flags(mfids, project, summaries)
    found = {}
    for summary in selected:
        mfid, by, project = summary.mfid, currency.superseded_by(summary.mfid), viewer or summary.status.project
        shared = (currency.slots(other).get(key) for other in by for key in summary.status.slots)
        since = max((claim.since for claim in shared if claim), default="")
        doubt, state = doubts.get(mfid), _state(mfid, currency, doubts.get(mfid))
        found[mfid] = Standing(summary, state, by, since, doubt, flags.get(mfid, ()))
    return found


def _state(mfid: str, currency: Currency, doubt: Doubt | None) -> str:
    state = currency.state(mfid)
    if doubt is None or state not in (CURRENT, RAW):
        return state
    return CANDIDATE if doubt.is_of_candidate(mfid) else DOUBTFUL


def visible_copies(session: Session, projects: Iterable[str]) -> list[Snapshot]:
    """Return copies of the projects, without those of which this key can only see single datasets."""
    copies = []
    for project in projects:
        with suppress(ForbiddenError, InputError, NotFoundError):
            copies.append(session.mirror.snapshot(project))
    return copies


def may_be_replaced(record: JsonMapping) -> bool:
    """Return whether another dataset may replace this one: it is a result, or its metadata note corrections."""
    return summary_of(record).status.derived or CORRECTIONS_KEY in (record.get("scientific_metadata") or {})
