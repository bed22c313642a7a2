"""Steps that failed too often to be tried again: parked by one machine, for all.

Failures are counted in the journal of each machine. When one parks a result, it states so at Crucible, under the id
that the result would have had: other code, parameters or inputs have another id, and are tried.
"""

from __future__ import annotations

from dataclasses import replace

from crucible_lineage.core.journal import Failure
from crucible_lineage.session import Session
from crucible_lineage.statements import PARK, About, Statement, in_force
from crucible_lineage.stating import revoke, state

__all__ = ["failures", "park", "unpark"]


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
    session.mirror.sync_statements()
    stated = _parked(session)
    standing = [one for one, tried_again in stated.values() if not tried_again and one.project == project]
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
