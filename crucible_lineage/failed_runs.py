"""Pipelines whose last run failed: stated at Crucible by each data folder, so that every machine knows.

A statement stands until a run of the same pipeline from the same data folder ends well; while the same steps fail, it
stays as it is, with the time of the first failure. A run that could not start fails without any step.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from crucible_lineage.errors import TRANSIENT, LineageError
from crucible_lineage.session import Session
from crucible_lineage.statements import FAIL, About, Statement, in_force
from crucible_lineage.stating import revoke, state

__all__ = ["FailedRun", "failed_elsewhere", "state_run", "unstarted_text"]

MOST_STEPS = 20  # chosen: named in a statement; the rest is counted
MOST_CHARACTERS = 300  # of an error


@dataclass(frozen=True)
class FailedRun:
    """The last run of a pipeline from another data folder, which failed: who ran it, where, since when, and why."""

    project: str
    pipeline: str
    host: str
    who: str
    since: str
    why: str
    steps: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        return {**vars(self), "steps": dict(self.steps)}

    @property
    def told(self) -> str:
        """Return it in words."""
        return f"the last run on {self.host or 'another machine'} by {self.who} failed: {self.why}"


def state_run(session: Session, project: str, pipeline: str, why: str, errors: Mapping[str, str]) -> str:
    """State that the last run of a pipeline from here failed, by its steps' `errors`; revoke that if `why` is empty.

    Return why that could not be stated; empty where it was, and where the service is away, when the next run does. An
    embedded Crucible is told nothing: all of its runs are in the journal.
    """
    if session.settings.embedded:
        return ""
    try:
        _state(session, project, pipeline, why, errors)
    except TRANSIENT:
        return ""
    except LineageError as error:
        return f"that the run failed is not stated: {error}" if why else f"that it ended well is not stated: {error}"
    return ""


def failed_elsewhere(session: Session, project: str | None = None) -> list[FailedRun]:
    """Return the pipelines whose last run from another data folder failed, as of the last sync of statements."""
    known = session.mirror.statements()
    standing = in_force(known.values())
    found = [one for one in standing.statements.values() if one.verb == FAIL and standing.counts(one, one.project)]
    return [
        _failed_run(one)
        for one in sorted(found, key=lambda one: one.when)
        if one.body.get("folder") != session.machine
        and (project is None or one.project.casefold() == project.casefold())
    ]


def _state(session: Session, project: str, pipeline: str, why: str, errors: Mapping[str, str]) -> None:
    where = {"pipeline": pipeline, "folder": session.machine}
    standing = [
        one
        for one in in_force(session.mirror.statements().values()).statements.values()
        if one.verb == FAIL and one.project == project and where.items() <= one.body.items()
    ]
    if not why:
        revoke(session, standing, "a run has ended well since")
        return
    steps = {name: _short(error) for name, error in islice(sorted(errors.items()), MOST_STEPS)}
    if any(steps.keys() == _steps(one).keys() and (steps or one.why == _short(why)) for one in standing):
        return
    revoke(session, standing, "another failure has taken its place")  # for good: this one is revoked in its turn
    body = {**where, "host": socket.gethostname(), "steps": steps, "failed": len(errors)}
    state(session, project, FAIL, About(project=project), why=_short(why), body=body)


def _short(error: str) -> str:
    line = error.partition("\n")[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 3]}..."


def _steps(one: Statement) -> dict[str, str]:
    steps = one.body.get("steps")
    return {str(name): str(error) for name, error in steps.items()} if isinstance(steps, Mapping) else {}


def _failed_run(one: Statement) -> FailedRun:
    pipeline, host = (str(one.body.get(key) or "") for key in ("pipeline", "host"))
    return FailedRun(one.project, pipeline, host, one.who or one.by, one.when, one.why, _steps(one))


def unstarted_text(error: str) -> str:
    """Say in a line why a run could not start."""
    return f"could not start: {error.partition(chr(10))[0]}"
