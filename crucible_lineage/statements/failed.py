"""Failures: pipelines whose last run failed, stated at Crucible, and results that failed here.

A data folder states that a run failed, and revokes that once a run of the same pipeline from there succeeds. While the
same steps fail, the statement stays, with the time of the first failure. A run that could not start has no failed
steps.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice

from crucible_lineage.core.journal import Failure
from crucible_lineage.errors import TRANSIENT, LineageError
from crucible_lineage.session import Session
from crucible_lineage.statements.statements import FAIL, About, Statement
from crucible_lineage.statements.stating import revoke, state

MOST_STEPS = 20  # chosen: named in a statement; the others are counted
MOST_CHARACTERS = 300  # of an error


@dataclass(frozen=True)
class FailedRun:
    """The failed last run of a pipeline from another data folder: who ran it, where, since when, and why it failed."""

    project: str
    pipeline: str
    host: str
    who: str
    since: str
    why: str
    steps: Mapping[str, str] = field(default_factory=dict)

    @property
    def message(self) -> str:
        """The failure in a line."""
        return f"the last run on {self.host or 'another machine'} by {self.who} failed: {self.why}"


def state_run(session: Session, project: str, pipeline: str, why: str, errors: Mapping[str, str]) -> str:
    """State that the last run of a pipeline from here failed, with its steps' `errors`; revoke that if `why` is empty.

    Return the reason if that was impossible; empty if it succeeded, or if the service is away, since the next run does
    it. Nothing is stated at an embedded Crucible: the journal has all of its runs.
    """
    if session.settings.embedded:
        return ""
    import socket

    where = {"pipeline": pipeline, "folder": session.machine}
    steps = {name: _short(error) for name, error in islice(sorted(errors.items()), MOST_STEPS)}
    try:
        earlier = [
            statement for statement in _stated_failures(session, project) if where.items() <= statement.body.items()
        ]
        if not why:
            revoke(session, earlier, "a run has ended well since")
        elif not any(steps.keys() == _steps(same).keys() and (steps or same.why == _short(why)) for same in earlier):
            revoke(session, earlier, "another failure has taken its place")
            body = {**where, "host": socket.gethostname(), "steps": steps, "failed": len(errors)}
            state(session, project, FAIL, About(project=project), why=_short(why), body=body)
    except TRANSIENT:
        return ""
    except LineageError as error:
        return f"the {'failure' if why else 'success'} of the run could not be stated: {error}"
    return ""


def failed_elsewhere(session: Session, project: str | None = None) -> list[FailedRun]:
    """Return the failed last runs of pipelines from other data folders, as of the last sync of statements."""
    return [
        FailedRun(
            statement.project,
            str(statement.body.get("pipeline") or ""),
            str(statement.body.get("host") or ""),
            statement.who or statement.by,
            statement.when,
            statement.why,
            _steps(statement),
        )
        for statement in sorted(_stated_failures(session, project), key=lambda statement: statement.when)
        if statement.body.get("folder") != session.machine
    ]


def _stated_failures(session: Session, project: str | None) -> Iterator[Statement]:
    """Yield the statements in force of failed runs in a project, or in all."""
    for statement in session.mirror.in_force().statements.values():
        if statement.verb == FAIL and (project is None or statement.project.casefold() == project.casefold()):
            yield statement


def _short(error: str) -> str:
    line = error.partition("\n")[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 3]}..."


def _steps(statement: Statement) -> dict[str, str]:
    steps = statement.body.get("steps")
    return {str(name): str(error) for name, error in steps.items()} if isinstance(steps, Mapping) else {}


def failures(session: Session, project: str | None = None) -> dict[str, Failure]:
    """Return the results that failed here and are still missing, by the ids that they would have had."""
    failed = session.journal.failures(project)
    return {mfid: failure for mfid, failure in failed.items() if session.known(mfid) is None}  # others may have made it
