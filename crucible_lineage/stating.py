"""Making statements: each is registered once, whoever makes it and however often. Revoking them, and signing."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
    signatures_lacking,
    signatures_of,
    statement_id,
)

MOST_CHARACTERS = 120  # of a name


@dataclass(frozen=True)
class StatementOutcome:
    """A statement that is in force now; `is_new` unless it was before."""

    statement: Statement
    is_new: bool

    def to_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        return {**self.statement.to_json(), "new": self.is_new}


def known_statements(session: Session) -> tuple[dict[str, Statement], ActiveStatements]:
    """Return all statements that this key may see, and those that are in force."""
    session.mirror.sync_statements()
    known = session.mirror.statements()
    return known, in_force(known.values())


def project_of(session: Session, mfids: Collection[str], what: str) -> str:
    """Return the project that datasets lie in. Raises InputError if one is not there, or they lie in several."""
    projects = set()
    for mfid in mfids:
        try:
            project = session.client.datasets.get(mfid).project_id
        except (ForbiddenError, NotFoundError) as error:
            raise InputError(f"{what}: dataset {mfid} does not exist, or is not visible to this key") from error
        if not project:
            raise InputError(f"{what}: dataset {mfid} belongs to no project")
        projects.add(project)
    if len(projects) > 1:
        raise InputError(f"{what}: the datasets lie in several projects: {', '.join(sorted(projects))}; name one each")
    return projects.pop()


def state(
    session: Session,
    project: str,
    verb: str,
    about: About,
    *,
    why: str = "",
    body: Mapping[str, Any] | None = None,
    revokes: Iterable[str] = (),
) -> StatementOutcome:
    """Register a statement in a project, unless the same is in force already.

    It is signed with an ssh key, where one is configured. Raises InputError if this account may not register in the
    project, there is none, or the key cannot be used.
    """
    session.mirror.sync_statements()
    agent = session.agent
    one = Statement(
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
    while there := session.mirror.statements([mfid := statement_id(one)]):
        if mfid in in_force(session.mirror.statements().values()).statements:
            return StatementOutcome(there[mfid], is_new=False)
        one = replace(one, again=one.again + 1)
    one = replace(one, mfid=mfid)
    _register(session, one)
    session.mirror.sync_statements()
    return StatementOutcome(session.mirror.statements([mfid]).get(mfid, one), is_new=True)


def lift(session: Session, about: About, why: str, *, project: str, flag: str = "") -> list[Statement]:
    """Revoke the holds in force that are about just this, or the flags of that name. Returns them.

    Raises InputError if there is none.
    """
    _, standing = known_statements(session)
    verb = FLAG if flag else HOLD
    found = [
        one
        for one in standing.statements.values()
        if one.verb == verb and one.flag == flag and _is_about(one.about, about) and standing.counts(one, project)
    ]
    if not found:
        what = f"flag {flag!r}" if flag else "hold"
        raise InputError(f"unhold {about}: there is no {what} in force on it; see `crucible-lineage statements`")
    return revoke(session, found, why)


def revoke(session: Session, statements: Iterable[Statement], why: str) -> list[Statement]:
    """Revoke statements, by one statement for each project in which some lie. Returns them, in order."""
    projects: dict[str, list[Statement]] = {}
    for one in statements:
        projects.setdefault(one.project, []).append(one)
    for project, some in projects.items():
        state(session, project, REVOKE, About(), why=why, revokes=[one.mfid for one in some])
    return [one for some in projects.values() for one in some]


def _is_about(said: About, wanted: About) -> bool:
    """Whether a statement names the dataset, or is about just the same condition."""
    if wanted.datasets:
        return bool(set(wanted.datasets) & set(said.datasets))
    if wanted.instrument and not (wanted.since or wanted.until):
        return said.instrument.casefold() == wanted.instrument.casefold()
    return said == wanted


def _register(session: Session, one: Statement) -> None:
    # A plan registers nothing, and has to start fast.
    from crucible_lineage.provenance.record import statement_record
    from crucible_lineage.registration.new_dataset import NewDataset
    from crucible_lineage.registration.register import register_output

    name = f"{one.verb}: {one.why or one.about}"
    fields = {
        "project_id": one.project,
        "dataset_name": name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 3]}...",
        "measurement": MEASUREMENT,
        "data_type": one.verb,
    }
    session.ensure_project(one.project)
    record = statement_record(one.recipe(), session.agent, one.when, signature_of(one.signed_text))
    new = NewDataset(one.mfid, fields, record, {}, (), keywords=(KEYWORD,), ingest=False)
    register_output(session.client, new, session.machine)


@dataclass(frozen=True)
class SignatureOutcome:
    """A signature, and for each dataset how many more it needs; 0 too where it needed none."""

    stating: StatementOutcome
    lacking: Mapping[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return it as `sign --json` prints it."""
        return {**self.stating.to_json(), "lacking": dict(self.lacking)}


def sign(session: Session, mfids: Collection[str], why: str = "", *, project: str = "") -> SignatureOutcome:
    """Sign datasets. What has all its signatures then, is current from now on.

    Raises InputError if one is not there, or they lie in several projects.
    """
    where = project or project_of(session, mfids, "sign")
    stating = state(session, where, SIGN, About(tuple(mfids)), why=why)
    known, standing = known_statements(session)
    signed = signatures_of(standing)
    awaited = [one for one in known.values() if one.verb == AWAIT and one.mfid in standing.statements]
    lacking = dict.fromkeys(mfids, 0)
    for one in awaited:
        for mfid in set(one.about.datasets) & lacking.keys():
            lacking[mfid] = max(lacking[mfid], signatures_lacking(standing, one, signed))
            if not lacking[mfid] and stating.is_new:
                with suppress(ForbiddenError):  # the next run of its pipeline does
                    _make_current(session, mfid, one)
    return SignatureOutcome(stating, lacking)


def _make_current(session: Session, mfid: str, awaited: Statement) -> None:
    """Let a result that was signed hold in the slots that it was made for."""
    said = awaited.body.get("slots")
    slots = {key: SlotClaim.from_json(one) for key, one in said.items()} if isinstance(said, Mapping) else {}
    if slots:
        since = later_than(datetime.now(UTC), [one.since for one in slots.values()])
        now = {key: replace(one, since=since) for key, one in slots.items()}
        hold(session.mirror, session.client, awaited.project, mfid, now)


KEY_VARIABLE = "CRUCIBLE_LINEAGE_SIGNING_KEY"
NAMESPACE = "crucible-lineage"
LIMIT_S = 60.0  # an agent may ask for a touch of a hardware key


def signature_of(text: bytes) -> str:
    """Return the signature of a text by the configured key; empty if there is none. Raises InputError if that fails."""
    key = os.environ.get(KEY_VARIABLE)
    if not key:
        return ""
    done = _run("-Y", "sign", "-f", str(Path(key).expanduser()), "-n", NAMESPACE, given=text)
    if done.returncode or not done.stdout.startswith(b"-----BEGIN SSH SIGNATURE-----"):
        said = done.stderr.decode(errors="replace").strip() or f"ssh-keygen ended with {done.returncode}"
        raise InputError(f"sign with the key {key} ({KEY_VARIABLE}): {said}")
    return done.stdout.decode()


def signer_of(text: bytes, signature: str, allowed: Path) -> str:
    """Return who of the file of allowed signers has signed a text; empty if nobody of them has."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "signature"
        path.write_text(signature, encoding="ascii", errors="replace")
        found = _run("-Y", "find-principals", "-f", str(allowed), "-s", str(path))
        for name in found.stdout.decode(errors="replace").split("\n"):
            if not name:
                continue
            given = ("-f", str(allowed), "-I", name, "-n", NAMESPACE, "-s", str(path))
            if not _run("-Y", "verify", *given, given=text).returncode:
                return name
    return ""


def _run(*arguments: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    command = ["ssh-keygen", *arguments]
    try:
        return subprocess.run(command, input=given, capture_output=True, timeout=LIMIT_S, check=False)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(f"ssh-keygen {' '.join(arguments[:2])}: {error}") from error
