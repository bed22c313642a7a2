"""Failures that every machine knows of: pipelines whose last run failed, and results that failed too often.

That a run failed is stated by its data folder until a run of the same pipeline from there ends well; while the same
steps fail, the statement stays as it is, with the time of the first failure. A run that could not start fails without
any step. A result is parked under the id that it would have had: other code, parameters or inputs have another id, and
are tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from crucible_lineage.core.journal import Failure
from crucible_lineage.errors import TRANSIENT, LineageError
from crucible_lineage.session import Session
from crucible_lineage.statements import FAIL, PARK, About, Statement, in_force

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
    import socket

    from crucible_lineage.stating import revoke, state  # an embedded Crucible is told nothing

    where = {"pipeline": pipeline, "folder": session.machine}
    standing = [
        one
        for one in in_force(session.mirror.statements().values()).statements.values()
        if one.verb == FAIL and one.project.casefold() == project.casefold() and where.items() <= one.body.items()
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


def failures(session: Session, project: str | None = None) -> dict[str, Failure]:
    """Return what failed and was not made since, by the id it would have had: here, or parked by any machine.

    As of the last sync of statements. What was parked here and is tried again since, on any machine, is not parked;
    what was made or failed here since, from other code, parameters or inputs, is left out.
    """
    found = session.journal.failures(project)
    for mfid, (one, tried_again) in _parked(session).items():
        here = found.get(mfid)
        if here is None and not tried_again and _is_passed(session, one):
            continue
        if tried_again:
            if here and here.last < tried_again:
                found[mfid] = replace(here, parked=False, failures=0)
        elif project is None or one.project.casefold() == project.casefold():
            found[mfid] = replace(here, parked=True) if here else _failure(one)
    return {mfid: one for mfid, one in found.items() if session.known(mfid) is None}  # may be made elsewhere since


def park(session: Session, project: str) -> None:
    """State at Crucible what is parked here, so that no machine tries it again. Count what is tried again from zero.

    Revoke what another recipe has replaced.
    Raises CrucibleError if it cannot be stated now; the next call does.
    """
    from crucible_lineage.stating import revoke, state

    session.mirror.sync_statements()
    stated = _parked(session)
    here = project.casefold()
    standing = [one for one, again in stated.values() if not again and one.project.casefold() == here]
    revoke(session, [one for one in standing if _is_passed(session, one)], "another recipe has taken its place")
    for mfid, one in failures(session, project).items():
        if one.parked and (mfid not in stated or stated[mfid][1]):
            body = {"result": mfid, "pipeline": one.pipeline, "step": one.step, "failures": one.failures}
            about = About(one.subject) if one.subject else About(project=project)
            state(session, project, PARK, about, why=one.error.partition("\n")[0], body=body)
        elif not one.failures:
            session.journal.forget_failures(mfid)


def unpark(session: Session, mfid: str) -> set[tuple[str, str]]:
    """Try what failed under this id, or about the dataset of this id, again, on all machines.

    Return the projects and pipelines that it is of; empty if nothing has failed so.
    """
    from crucible_lineage.stating import revoke

    session.mirror.sync_statements()
    stated = [one for one, tried_again in _parked(session).values() if not tried_again]
    here = [one for one in stated if mfid in (one.body.get("result"), *one.about.datasets)]
    revoke(session, here, "try it again")
    of = {(one.project, str(one.body.get("pipeline"))) for one in here}
    return session.journal.forget_failures(mfid) | of


def _parked(session: Session) -> dict[str, tuple[Statement, str]]:
    """Return what was parked, by the id of its result, and when it was unparked; empty if it was not."""
    known = session.mirror.statements()
    standing = in_force(known.values())
    revoked = {mfid: one.when for one in standing.statements.values() for mfid in one.revokes}
    found: dict[str, tuple[Statement, str]] = {}
    for one in sorted(known.values(), key=lambda one: one.when):
        result = str(one.body.get("result") or "")
        if one.verb != PARK or not result or not standing.counts(one, one.project):
            continue
        is_parked = one.mfid in standing.statements
        if is_parked or result not in found or found[result][1]:
            found[result] = (one, "" if is_parked else revoked.get(one.mfid, one.when))
    return found


def _is_passed(session: Session, one: Statement) -> bool:
    """Whether its step was made here since, or failed under another id."""
    pipeline, step = str(one.body.get("pipeline") or ""), str(one.body.get("step") or "")
    attempts = session.journal.last_attempts(pipeline, step.partition("[")[0])
    if any(a["step"] == step and a["outcome"] in ("executed", "reused") and a["started"] > one.when for a in attempts):
        return True
    failed = session.journal.failures(one.project).values()
    return any(
        (f.pipeline, f.step) == (pipeline, step) and f.last > one.when for f in failed if f.mfid != one.body["result"]
    )


def _failure(one: Statement) -> Failure:
    body = one.body
    name, pipeline, step = (str(body.get(key) or "") for key in ("result", "pipeline", "step"))
    times = body.get("failures")
    failed = times if isinstance(times, int) else 1
    return Failure(name, one.project, pipeline, step, one.about.datasets, one.why, failed, True, one.when)
