"""Failures stated at Crucible: pipelines whose last run failed, and results that failed too often.

A data folder states that a run failed, and revokes that once a run of the same pipeline from there succeeds. While the
same steps fail, the statement stays, with the time of the first failure. A run that could not start has no failed
steps. A result is parked under the id that it would have had: with other code, parameters or inputs it has another id,
and is tried.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import islice

from crucible_lineage.core.journal import Failure
from crucible_lineage.errors import TRANSIENT, LineageError
from crucible_lineage.session import Session
from crucible_lineage.statements import FAIL, PARK, About, Statement, in_force

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

    def to_json(self) -> dict[str, object]:
        """Return the JSON that commands print."""
        return {**vars(self), "steps": dict(self.steps)}

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
    try:
        _state(session, project, pipeline, why, errors)
    except TRANSIENT:
        return ""
    except LineageError as error:
        return f"the {'failure' if why else 'success'} of the run could not be stated: {error}"
    return ""


def failed_elsewhere(session: Session, project: str | None = None) -> list[FailedRun]:
    """Return the failed last runs of pipelines from other data folders, as of the last sync of statements."""
    active = in_force(session.mirror.statements().values())
    failed = [one for one in active.statements.values() if one.verb == FAIL and active.counts(one, one.project)]
    return [
        _failed_run(one)
        for one in sorted(failed, key=lambda one: one.when)
        if one.body.get("folder") != session.machine
        and (project is None or one.project.casefold() == project.casefold())
    ]


def _state(session: Session, project: str, pipeline: str, why: str, errors: Mapping[str, str]) -> None:
    import socket

    from crucible_lineage.stating import revoke, state  # not needed at an embedded Crucible

    where = {"pipeline": pipeline, "folder": session.machine}
    earlier = [
        one
        for one in in_force(session.mirror.statements().values()).statements.values()
        if one.verb == FAIL and one.project.casefold() == project.casefold() and where.items() <= one.body.items()
    ]
    if not why:
        revoke(session, earlier, "a run has ended well since")
        return
    steps = {name: _short(error) for name, error in islice(sorted(errors.items()), MOST_STEPS)}
    if any(steps.keys() == _steps(one).keys() and (steps or one.why == _short(why)) for one in earlier):
        return
    revoke(session, earlier, "another failure has taken its place")
    body = {**where, "host": socket.gethostname(), "steps": steps, "failed": len(errors)}
    state(session, project, FAIL, About(project=project), why=_short(why), body=body)


def _short(error: str) -> str:
    line = error.partition("\n")[0]
    return line if len(line) <= MOST_CHARACTERS else f"{line[: MOST_CHARACTERS - 3]}..."


def _steps(statement: Statement) -> dict[str, str]:
    steps = statement.body.get("steps")
    return {str(name): str(error) for name, error in steps.items()} if isinstance(steps, Mapping) else {}


def _failed_run(stated: Statement) -> FailedRun:
    pipeline, host = (str(stated.body.get(key) or "") for key in ("pipeline", "host"))
    return FailedRun(
        stated.project,
        pipeline,
        host,
        stated.who or stated.by,
        stated.when,
        stated.why,
        _steps(stated),
    )


def unstarted_text(error: str) -> str:
    """Return in a line why a run could not start."""
    return f"could not start: {error.partition(chr(10))[0]}"


def failures(session: Session, project: str | None = None) -> dict[str, Failure]:
    """Return the results that failed here, or were parked by any machine, and are still missing, by their ids.

    As of the last sync of statements. A result parked here that any machine released is not parked. Results that were
    made or failed here since, from other code, parameters or inputs, are left out.
    """
    failed = session.journal.failures(project)
    for mfid, (parking, released) in _parked(session).items():
        local = failed.get(mfid)
        if local is None and not released and _is_passed(session, parking):
            continue
        if released:
            if local and local.last < released:
                failed[mfid] = replace(local, parked=False, failures=0)
        elif project is None or parking.project.casefold() == project.casefold():
            failed[mfid] = replace(local, parked=True) if local else _failure(parking)
    return {mfid: one for mfid, one in failed.items() if session.known(mfid) is None}  # others may have made it


def park(session: Session, project: str) -> None:
    """State at Crucible which results are parked here, so that no machine tries them again.

    Revoke statements that another recipe has replaced, and count the failures of released results from zero. Raises
    CrucibleError if that is impossible now; the next call does it.
    """
    from crucible_lineage.stating import revoke, state

    session.mirror.sync_statements()
    parked = _parked(session)
    own = project.casefold()
    active = [one for one, released in parked.values() if not released and one.project.casefold() == own]
    revoke(session, [one for one in active if _is_passed(session, one)], "another recipe has taken its place")
    for mfid, failure in failures(session, project).items():
        if failure.parked and (mfid not in parked or parked[mfid][1]):
            fields = {"pipeline": failure.pipeline, "step": failure.step, "failures": failure.failures}
            about = About(failure.subject) if failure.subject else About(project=project)
            why = failure.error.partition("\n")[0]
            state(session, project, PARK, about, why=why, body={"result": mfid, **fields})
        elif not failure.failures:
            session.journal.forget_failures(mfid)


def unpark(session: Session, mfid: str) -> set[tuple[str, str]]:
    """Release what failed under this id, or about the dataset of this id, on all machines.

    Return the projects and pipelines of the released results; empty if nothing has failed.
    """
    from crucible_lineage.stating import revoke

    session.mirror.sync_statements()
    parked = [one for one, released in _parked(session).values() if not released]
    matches = [one for one in parked if mfid in (one.body.get("result"), *one.about.datasets)]
    revoke(session, matches, "try it again")
    return session.journal.forget_failures(mfid) | {(one.project, str(one.body.get("pipeline"))) for one in matches}


def _parked(session: Session) -> dict[str, tuple[Statement, str]]:
    """Return the statements about parked results, by the ids of these, with when each was released, else empty."""
    known = session.mirror.statements()
    active = in_force(known.values())
    revoked = {mfid: one.when for one in active.statements.values() for mfid in one.revokes}
    parked: dict[str, tuple[Statement, str]] = {}
    for one in sorted(known.values(), key=lambda one: one.when):
        result = str(one.body.get("result") or "")
        if one.verb != PARK or not result or not active.counts(one, one.project):
            continue
        is_parked = one.mfid in active.statements
        if is_parked or result not in parked or parked[result][1]:
            parked[result] = (one, "" if is_parked else revoked.get(one.mfid, one.when))
    return parked


def _is_passed(session: Session, stated: Statement) -> bool:
    """Return whether its step has succeeded here since, or failed under another id."""
    pipeline, step = str(stated.body.get("pipeline") or ""), str(stated.body.get("step") or "")
    attempts = session.journal.last_attempts(pipeline, step.partition("[")[0])
    if any(
        a["step"] == step and a["outcome"] in ("executed", "reused") and a["started"] > stated.when for a in attempts
    ):
        return True
    failed = session.journal.failures(stated.project).values()
    return any(
        (f.pipeline, f.step) == (pipeline, step) and f.last > stated.when
        for f in failed
        if f.mfid != stated.body["result"]
    )


def _failure(stated: Statement) -> Failure:
    body = stated.body
    result, pipeline, step = (str(body.get(key) or "") for key in ("result", "pipeline", "step"))
    count = body.get("failures")
    failures = count if isinstance(count, int) else 1
    return Failure(
        result,
        stated.project,
        pipeline,
        step,
        stated.about.datasets,
        stated.why,
        failures,
        True,
        stated.when,
    )
