"""Making, revoking and signing statements. Equal statements are registered once."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from crucible_lineage.core.slots import SlotClaim, hold, later_than
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.session import Session
from crucible_lineage.statements import (
    AWAIT,
    FLAG,
    HOLD,
    KEYWORD,
    MEASUREMENT,
    REVOKE,
    SIGN,
    About,
    ActiveStatements,
    Statement,
    in_force,
    missing_signatures,
    signatures_of,
    statement_id,
)

MOST_CHARACTERS = 120  # of a name


@dataclass(frozen=True)
class StatementOutcome:
    """A statement in force; `is_new` unless it was in force before."""

    statement: Statement
    is_new: bool

    def to_json(self) -> dict[str, object]:
        """Return the JSON that commands print."""
        return {**self.statement.to_json(), "new": self.is_new}


def known_statements(session: Session) -> tuple[dict[str, Statement], ActiveStatements]:
    """Return all statements visible to this key, and those in force."""
    session.mirror.sync_statements()
    known = session.mirror.statements()
    return known, in_force(known.values())


def project_of(session: Session, mfids: Collection[str], action: str) -> str:
    """Return the project of datasets. Raises InputError, naming the action, if one is missing or they have several."""
    projects = set()
    for mfid in mfids:
        try:
            project = session.client.datasets.get(mfid).project_id
        except (ForbiddenError, NotFoundError) as error:
            raise InputError(f"{action}: dataset {mfid} does not exist, or is not visible to this key") from error
        if not project:
            raise InputError(f"{action}: dataset {mfid} belongs to no project")
        projects.add(project)
    if len(projects) > 1:
        raise InputError(
            f"{action}: the datasets are in several projects: {', '.join(sorted(projects))}; choose one project"
        )
    return projects.pop()


def state(
    session: Session,
    project: str,
    verb: str,
    about: About,
    *,
    why: str = "",
    body: Mapping[str, object] | None = None,
    revokes: Iterable[str] = (),
) -> StatementOutcome:
    """Register a statement in a project, unless an equal one is in force.

    It is signed if an ssh key is configured. Raises InputError if the project does not exist or this account may not
    register in it, or if the key cannot be used.
    """
    session.mirror.sync_statements()
    agent = session.agent
    statement = Statement(
        mfid="",
        project=project,
        verb=verb,
        about=replace(about, datasets=tuple(sorted(set(about.datasets)))),
        by=str(agent.get("unique_id") or agent.get("local_user") or "somebody"),
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        why=why,
        who=str(agent.get("username") or agent.get("local_user") or ""),
        body=dict(body or {}),
        revokes=tuple(sorted(set(revokes))),
    )
    while equal := session.mirror.statements([mfid := statement_id(statement)]):
        if mfid in in_force(session.mirror.statements().values()).statements:
            return StatementOutcome(equal[mfid], is_new=False)
        statement = replace(statement, again=statement.again + 1)
    statement = replace(statement, mfid=mfid)
    _register(session, statement)
    session.mirror.sync_statements()
    return StatementOutcome(session.mirror.statements([mfid]).get(mfid, statement), is_new=True)


def put_on_hold(
    session: Session, about: About, why: str, *, project: str = "", flag: str = "", due: str = ""
) -> StatementOutcome:
    """State a hold, or a flag of that name, in a project, by default that of the datasets.

    `due` is the day from which `status` warns about it. Raises InputError without a reason, and as `state` does.
    """
    if not why.strip():
        raise InputError("hold: give the reason")
    flag = flag.strip()
    body = {"flag": flag} if flag else {}
    body |= {"due": due} if due else {}
    project = project or project_of(session, about.datasets, "hold")
    return state(session, project, FLAG if flag else HOLD, about, why=why, body=body)


def lift(session: Session, about: About, why: str, *, project: str = "", flag: str = "") -> list[Statement]:
    """Revoke the holds, or the flags of that name, with this subject. Return them.

    They count in the project, by default that of the datasets. Raises InputError if none is in force.
    """
    project, flag = project or project_of(session, about.datasets, "unhold"), flag.strip()
    _, active = known_statements(session)
    verb = FLAG if flag else HOLD
    matches = [
        one
        for one in active.statements.values()
        if one.verb == verb and one.flag == flag and _is_about(one.about, about) and active.counts(one, project)
    ]
    if not matches:
        kind = f"flag {flag!r}" if flag else "hold"
        raise InputError(f"unhold {about}: there is no {kind} in force on it; see `crucible-lineage statements`")
    return revoke(session, matches, why)


def revoke(session: Session, statements: Iterable[Statement], why: str) -> list[Statement]:
    """Revoke statements, with one statement per project. Return them, grouped by project."""
    projects: dict[str, list[Statement]] = {}
    for one in statements:
        projects.setdefault(one.project, []).append(one)
    for project, revoked in projects.items():
        state(session, project, REVOKE, About(), why=why, revokes=[one.mfid for one in revoked])
    return [one for revoked in projects.values() for one in revoked]


def _is_about(subject: About, requested: About) -> bool:
    """Return whether a statement's subject names one of the requested datasets, or is the same condition."""
    if requested.datasets:
        return bool(set(requested.datasets) & set(subject.datasets))
    if requested.instrument and not (requested.since or requested.until):
        return subject.instrument.casefold() == requested.instrument.casefold()
    return subject == requested


def _register(session: Session, statement: Statement) -> None:
    # Imported here, since a plan registers nothing and has to start fast.
    from crucible_lineage.provenance.record import statement_record
    from crucible_lineage.registration.payload import NewDataset
    from crucible_lineage.registration.register import register_output

    name = f"{statement.verb}: {statement.why or statement.about}"
    fields = {
        "project_id": statement.project,
        "dataset_name": name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 3]}...",
        "measurement": MEASUREMENT,
        "data_type": statement.verb,
    }
    session.ensure_project(statement.project)
    record = statement_record(statement.recipe(), session.agent, statement.when, signature_of(statement.signed_text))
    new = NewDataset(statement.mfid, fields, record, {}, (), keywords=(KEYWORD,), ingest=False)
    register_output(session.client, new, session.machine)


@dataclass(frozen=True)
class SignatureOutcome:
    """A signature, and for each dataset how many more it needs, 0 also if it needed none."""

    stating: StatementOutcome
    missing: Mapping[str, int]

    def to_json(self) -> dict[str, object]:
        """Return the JSON that `sign --json` prints."""
        return {**self.stating.to_json(), "lacking": dict(self.missing)}


def sign(session: Session, mfids: Collection[str], why: str = "", *, project: str = "") -> SignatureOutcome:
    """Sign datasets. Those that have all their signatures then become current.

    Raises InputError if one is missing, or if they lie in several projects.
    """
    project = project or project_of(session, mfids, "sign")
    stating = state(session, project, SIGN, About(tuple(mfids)), why=why)
    known, active = known_statements(session)
    signed = signatures_of(active)
    awaited = [one for one in known.values() if one.verb == AWAIT and one.mfid in active.statements]
    missing = dict.fromkeys(mfids, 0)
    for one in awaited:
        for mfid in set(one.about.datasets) & missing.keys():
            missing[mfid] = max(missing[mfid], missing_signatures(active, one, signed))
            if not missing[mfid] and stating.is_new:
                with suppress(ForbiddenError):  # the next run of its pipeline makes it current
                    _make_current(session, mfid, one)
    return SignatureOutcome(stating, missing)


def _make_current(session: Session, mfid: str, awaited: Statement) -> None:
    """Make a signed result current in the slots that it was made for."""
    stored = awaited.body.get("slots")
    slots = {key: SlotClaim.from_json(claim) for key, claim in stored.items()} if isinstance(stored, Mapping) else {}
    if slots:
        since = later_than(datetime.now(UTC), [claim.since for claim in slots.values()])
        now = {key: replace(claim, since=since) for key, claim in slots.items()}
        hold(session.mirror, session.client, awaited.project, mfid, now)


KEY_VARIABLE = "CRUCIBLE_LINEAGE_SIGNING_KEY"
NAMESPACE = "crucible-lineage"
LIMIT_S = 60.0  # an agent may wait for a touch of a hardware key


def signature_of(text: bytes) -> str:
    """Return the signature of a text by the configured key, empty without one. Raises InputError if signing fails."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return ""
    result = _run("-Y", "sign", "-f", str(Path(key).expanduser()), "-n", NAMESPACE, data=text)
    if result.returncode or not result.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        message = result.stderr.decode(errors="replace").strip() or f"ssh-keygen ended with {result.returncode}"
        raise InputError(f"sign with the key {key} ({KEY_VARIABLE}): {message}")
    return result.stdout.decode()


def signer_of(text: bytes, signature: str, allowed: Path) -> str:
    """Return the principal in the file of allowed signers who signed a text; empty if none did."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signature"
        path.write_text(signature, encoding="ascii", errors="replace")
        principals = _run("-Y", "find-principals", "-f", str(allowed), "-s", str(path))
        for name in principals.stdout.decode(errors="replace").split("\n"):
            if not name:
                continue
            options = ("-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", str(path))
            if not _run("-Y", "verify", *options, data=text).returncode:
                return name
    return ""


def _run(*arguments: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", *arguments]
    try:
        return subprocess.run(command, input=data, capture_output=True, timeout=LIMIT_S, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"ssh-keygen {' '.join(arguments[:2])}: {error}") from error
