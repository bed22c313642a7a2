"""Find a dataset or project by its id, a unique part of it, or its name; and deleted ones, in Crucible's own list."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from crucible_lineage.core.tables import Snapshot, Summary
from crucible_lineage.errors import (
    MOST_NEAR,
    ForbiddenError,
    InputError,
    NotFoundError,
    RefusedError,
    nearest,
    shortened,
)
from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.model import CURRENT, DOUBTFUL, INCOMPLETE, RAW
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import standings
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import time_shown

if TYPE_CHECKING:
    from crucible_lineage.client.models import DeletedRecord

LEAST = 4  # characters of a beginning of an id
MOST_NAMED = 8  # candidates in a message
MOST_PROJECTS = 20  # searched if none is named
ABBREVIATED = re.compile(r"([0-9a-hjkmnp-tv-z]{2,})(?:…|\.{2,3})([0-9a-hjkmnp-tv-z]{2,})")  # as lists print ids


def find_mfid(session: Session, text: str, projects: Sequence[str] = ()) -> str:
    """Return the id of a dataset. `text` is its id, the beginning of it, its id with the middle omitted as pictures and
    lists print it, or its name.

    The projects are searched, or all that this key can see. Of several datasets with a name, the only current one is
    returned. Raises InputError if nothing matches, or several datasets do, which it names.
    """
    if is_mfid(text):
        return text
    copies = _copies(session, projects or visible_projects(session), text)
    summaries = {mfid: summary for copy in copies.values() for mfid, summary in copy.summaries.items()}
    found = _matching(session, text.strip(), summaries, copies)
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(text, sorted({summary.name for summary in summaries.values()}), most=MOST_NEAR)
        raise InputError(f"dataset {text!r}: no dataset has this name or an ID starting with it; {near}")
    in_several = len({summaries[mfid].status.project for mfid in found}) > 1
    location = {mfid: f" in {summaries[mfid].status.project}" if in_several else "" for mfid in found}
    swept = {mfid: f", {summaries[mfid].swept}" if summaries[mfid].swept else "" for mfid in found}
    candidates = [f"{mfid} ({summaries[mfid].name}{swept[mfid]}{location[mfid]})" for mfid in found]
    raise InputError(
        f"dataset {text!r}: matches {amount(len(found), 'dataset')}; choose one: {shortened(candidates, MOST_NAMED)}"
    )


def find_project(session: Session, project: str | None) -> str:
    """Return the project, by default the only one that this key can see, or the one that this folder's pipelines name.

    Raises InputError if there are several, or none.
    """
    if project is not None:
        return project
    visible = visible_projects(session)
    if len(visible) == 1:
        return visible[0]
    from crucible_lineage.pipeline.declare.load import project_in  # imports pydantic, which few commands need here

    if (declared := project_in(Path.cwd())) in visible and declared is not None:
        return declared
    if not visible:
        raise InputError(f"this key can see no project ({session.settings.describe()})")
    raise InputError(
        f"this key can see {amount(len(visible), 'project')}; name one with --project: {shortened(visible, MOST_NAMED)}"
    )


def shared_name(files: Sequence[Path]) -> str:
    """Return what it means that several files declare a pipeline of one name. Copies have the same file name."""
    if len({file.name for file in files}) == 1:
        return "copies of one file share their results: those of the newest run are current; if not meant, rename one"
    return "the results of both files are current side by side; if they are two pipelines, rename one"


def visible_projects(session: Session) -> list[str]:
    """Return the projects that this key can see, sorted by name."""
    return sorted(project.project_id for project in session.client.projects.iter())


def _copies(session: Session, projects: Sequence[str], text: str) -> dict[str, Snapshot]:
    if len(projects) > MOST_PROJECTS:
        run_here = {pipeline["project"] for pipeline in session.journal.pipelines()}
        used = [project for project in projects if project in run_here]
        if not used:
            raise InputError(
                f"dataset {text!r}: this is not a complete id, and this key can see {len(projects)} projects; give the "
                "26 characters of the id, or --project if the command has it"
            )
        projects = used
    found: dict[str, Snapshot] = {}
    for project in projects:
        with suppress(ForbiddenError, NotFoundError):
            found[project] = session.mirror.snapshot(project)
    return found


def _matching(session: Session, text: str, among: Mapping[str, Summary], copies: Mapping[str, Snapshot]) -> list[str]:
    """Return the datasets of that id or name; of several with the name, only the current one, if there is one."""
    abbreviated = ABBREVIATED.fullmatch(text)
    head, tail = abbreviated.groups() if abbreviated else (text, "")
    found = [mfid for mfid in among if mfid.startswith(head) and mfid.endswith(tail)]
    if found and (abbreviated or len(text) >= LEAST):
        return found
    found = [mfid for mfid, summary in among.items() if summary.name == text]  # runs' records count, too
    found = found or [mfid for mfid, summary in among.items() if summary.name.casefold() == text.casefold()]
    return _current_of(session, found, copies) if len(found) > 1 else found


def _current_of(session: Session, mfids: list[str], copies: Mapping[str, Snapshot]) -> list[str]:
    """Return the only current one of these datasets, else the only incomplete one, else all."""
    stands: dict[str, str] = {}
    for project, copy in copies.items():
        own = [mfid for mfid in mfids if mfid in copy.summaries]
        stands |= {mfid: standing.state for mfid, standing in standings(session, project, copy=copy, among=own).items()}
    for states in ((CURRENT, RAW, DOUBTFUL), (INCOMPLETE,)):
        current = [mfid for mfid in mfids if stands[mfid] in states]
        if len(current) == 1:
            return current
    return mfids


NOT_LISTED = (ForbiddenError, NotFoundError, RefusedError)  # for this key, or by this service


@dataclass(frozen=True)
class Deletion:
    """A deleted dataset, or one with a pending or approved request for deletion."""

    mfid: str
    name: str = ""
    project: str = ""
    state: str = "was deleted"
    time: str = ""
    reason: str = ""

    @property
    def text(self) -> str:
        """One line with the state, the time and the reason."""
        at = f" on {time_shown(self.time)}" if self.time else ""
        named = f" ({self.name})" if self.name else ""
        return f"dataset {self.mfid}{named} {self.state}{at}{f': {self.reason}' if self.reason else ''}"


def deletion_of(session: Session, mfid: str) -> Deletion | None:
    """Return the deletion of a dataset, if this key can see it."""
    try:
        found = [record for record in session.client.deletions.deleted(resource_id=mfid) if record.resource_id == mfid]
    except NOT_LISTED:
        return None
    if not found:
        return None
    name, time, reason = (text or "" for text in (found[0].resource_name, found[0].deleted_at, found[0].reason))
    return Deletion(mfid, name, project_of_deleted(found[0]), time=time, reason=reason)


def project_of_deleted(record: DeletedRecord) -> str:
    """Return the project of a deleted dataset; empty if Crucible does not say."""
    return str((record.model_extra or {}).get("project_id") or "")
