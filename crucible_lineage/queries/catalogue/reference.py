"""Which dataset, run or project is meant: by its whole id, a part of it that is unique, or its name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from crucible_lineage.amounts import amount
from crucible_lineage.core.slots import CURRENT, INCOMPLETE, RAW
from crucible_lineage.core.summary import Summary
from crucible_lineage.errors import MOST_NEAR, ForbiddenError, InputError, NotFoundError, nearest, shortened
from crucible_lineage.ids import is_mfid
from crucible_lineage.pipeline.declare.load import project_in
from crucible_lineage.queries.graph.state import entries_of
from crucible_lineage.session import Session

LEAST = 4  # characters of an id that are taken for the beginning of it
MOST_NAMED = 8  # candidates that a message lists
MOST_PROJECTS = 20  # that are looked through where none is named
ABBREVIATED = re.compile(r"([0-9a-hjkmnp-tv-z]{2,})(?:…|\.{2,3})([0-9a-hjkmnp-tv-z]{2,})")  # as lists print ids


def find_mfid(session: Session, text: str, projects: Sequence[str] = ()) -> str:
    """The id of the dataset that is meant: `text` is its id, the beginning of it, its id with the middle left out as
    pictures and lists print it, or its name.

    Looked through are the projects, or all that this key sees. A name may be that of several datasets of which one
    holds now: that one is meant. InputError if nothing fits, or more than one dataset does, which are named.
    """
    if is_mfid(text):
        return text
    among = _summaries(session, projects or visible_projects(session), text)
    found = _fitting(text.strip(), among, session.mirror.promoted())
    if len(found) == 1:
        return found[0]
    if not found:
        near = nearest(text, sorted({one.name for one in among.values()}), most=MOST_NEAR)
        raise InputError(f"dataset {text!r}: no dataset has this name or an ID starting with it; {near}")
    in_several = len({among[mfid].status.project for mfid in found}) > 1
    where = {mfid: f" in {among[mfid].status.project}" if in_several else "" for mfid in found}
    there = [f"{mfid} ({among[mfid].name}{where[mfid]})" for mfid in found]
    raise InputError(
        f"dataset {text!r}: matches {amount(len(found), 'dataset')}; choose one: {shortened(there, MOST_NAMED)}"
    )


def find_project(session: Session, project: str | None) -> str:
    """Return the project; where none is named the only one that this key sees, or the one that this folder's pipelines
    name. InputError if there are several, or none.
    """
    if project is not None:
        return project
    there = visible_projects(session)
    if len(there) == 1:
        return there[0]
    if (declared := project_in(Path.cwd())) in there and declared is not None:
        return declared
    if not there:
        raise InputError(f"no project is visible to this key ({session.settings.describe()})")
    raise InputError(
        f"{amount(len(there), 'project')} are visible; name one with --project: {shortened(there, MOST_NAMED)}"
    )


def find_run(run: str, known: Iterable[str]) -> str:
    """The id among those that is meant by it, or by its beginning. InputError if none or several are."""
    among = sorted(set(known))
    found = [one for one in among if one == run] or [one for one in among if len(run) >= LEAST and one.startswith(run)]
    if len(found) == 1:
        return found[0]
    if found:
        raise InputError(
            f"run {run!r}: matches {amount(len(found), 'run')}; choose one: {shortened(found, MOST_NAMED)}"
        )
    raise InputError(f"run {run!r}: no run has this ID, or an ID starting with it; `runs` lists the runs")


def visible_projects(session: Session) -> list[str]:
    """The projects that this key sees, by name."""
    return sorted(project.project_id for project in session.client.projects.iter())


def _summaries(session: Session, projects: Sequence[str], text: str) -> Mapping[str, Summary]:
    if len(projects) > MOST_PROJECTS:
        known = {pipeline["project"] for pipeline in session.journal.pipelines()}
        worked_on = [project for project in projects if project in known]
        if not worked_on:
            raise InputError(
                f"dataset {text!r}: this is not a whole id, and this key sees {len(projects)} projects; give the 26 "
                "characters of the id, or --project where the command has it"
            )
        projects = worked_on
    found: dict[str, Summary] = {}
    for project in projects:
        with suppress(ForbiddenError, NotFoundError):
            found |= session.mirror.snapshot(project).summaries
    return found


def _fitting(text: str, among: Mapping[str, Summary], promoted: Mapping[str, str]) -> list[str]:
    for found in (_by_id(text, among), _by_name(text, among, promoted), _by_name(text, among, promoted, exact=False)):
        if found:
            return found
    return []


def _by_id(text: str, among: Mapping[str, Summary]) -> list[str]:
    if abbreviated := ABBREVIATED.fullmatch(text):
        head, tail = abbreviated.groups()
        return [mfid for mfid in among if mfid.startswith(head) and mfid.endswith(tail)]
    return [mfid for mfid in among if mfid.startswith(text)] if len(text) >= LEAST else []


def _by_name(text: str, among: Mapping[str, Summary], promoted: Mapping[str, str], *, exact: bool = True) -> list[str]:
    """Those of that name; of several the one that holds now, if it is one. Records of runs have names, too."""
    wanted = text if exact else text.casefold()
    found = [one for one in among.values() if (one.name if exact else one.name.casefold()) == wanted]
    if len(found) < 2:
        return [one.mfid for one in found]
    entries = entries_of(found, among.values(), promoted)
    for states in ((CURRENT, RAW), (INCOMPLETE,)):
        holding = [entry.mfid for entry in entries if entry.state in states]
        if len(holding) == 1:
            return holding
    return [one.mfid for one in found]
