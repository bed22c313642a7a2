"""Making statements (holds, signatures, certificates), and lifting them. Equal ones are registered once."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from crucible_lineage.condition import parse_condition
from crucible_lineage.core.datasets import visible_dataset
from crucible_lineage.core.slots import SlotClaim
from crucible_lineage.errors import ForbiddenError, InputError
from crucible_lineage.ids import is_mfid, is_orcid
from crucible_lineage.json_types import JsonMapping, mapping, object_of
from crucible_lineage.marks import KEY, is_entry
from crucible_lineage.provenance.record import files_record
from crucible_lineage.refs import MATCHED
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.session import Session
from crucible_lineage.standing.slots import make_current_now
from crucible_lineage.statements.calibrations import (
    NEXT,
    Certificate,
    certificates_of,
    range_text,
)
from crucible_lineage.statements.statements import (
    AWAIT,
    CERTIFY,
    FLAG,
    HOLD,
    KEYWORD,
    KINDS,
    MEASUREMENT,
    REVOKE,
    SIGN,
    UNFINISHED,
    About,
    ActiveStatements,
    Statement,
    owner_of,
    signers_text,
    statement_id,
    why_not_sign,
)
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.masking import masked, masked_text
from crucible_lineage.text.times import utc

if TYPE_CHECKING:
    from crucible_lineage.client.models import Dataset

MOST_CHARACTERS = 120  # of a name
SHORT = {"instrument": "instrument_name"}
LIFTED = ("hold", "flag", "signature", "certificate")  # the kinds that `lift` revokes on a dataset


@dataclass(frozen=True)
class StatementOutcome:
    """A statement in force; `is_new` unless it was in force before.

    Of a signature also how many more each dataset needs, 0 also if it needed none, and `whose`, in words.
    """

    statement: Statement
    is_new: bool
    missing: Mapping[str, int] = field(default_factory=dict)
    whose: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """Return the JSON that commands print."""
        signed = {"lacking": dict(self.missing), "whose": dict(self.whose)} if self.missing else {}
        return {**object_of(self.statement), "new": self.is_new, **signed}


def _in_force_now(session: Session) -> ActiveStatements:
    """Return the statements in force among those visible to this key."""
    session.mirror.sync_statements()
    return session.mirror.in_force()


def _own_id(session: Session) -> str:
    return str(session.agent.get("unique_id") or "")


def project_of(session: Session, mfids: Collection[str], action: str) -> str:
    """Return the project of datasets. Raises InputError, naming the action, if one is missing or they have several."""
    projects = {str(_dataset(session, mfid, action).project_id) for mfid in mfids}
    if len(projects) > 1:
        raise InputError(
            f"{action}: the datasets are in several projects: {', '.join(sorted(projects))}; choose one project"
        )
    return projects.pop()


def _dataset(session: Session, mfid: str, action: str) -> Dataset:
    """Return a dataset of a project. Raises InputError, naming the action, if there is none."""
    found = visible_dataset(session.client, mfid, action)
    if not found.project_id:
        raise InputError(f"{action}: dataset {mfid} belongs to no project")
    return found


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

    Raises InputError if the project does not exist or this account may not register in it.
    """
    session.mirror.sync_statements()
    agent = session.agent
    statement = Statement(
        mfid="",
        project=project,
        verb=verb,
        about=replace(about, datasets=tuple(sorted(set(about.datasets)))),
        by=str(agent.get("unique_id") or agent.get("local_user") or "somebody"),
        when=datetime.now(UTC).isoformat(timespec="milliseconds"),
        why=masked_text(why),
        who=str(agent.get("username") or agent.get("local_user") or ""),
        body=masked(dict(body or {})),
        revokes=tuple(sorted(set(revokes))),
    )
    while equal := session.mirror.statements([mfid := statement_id(statement)]):
        active, existing = session.mirror.in_force(), equal[mfid]
        if existing.fault == UNFINISHED and mfid in active.unvouched:
            break
        if not existing.fault and mfid in active.statements:
            return StatementOutcome(existing, is_new=False)
        statement = replace(statement, again=statement.again + 1)
    statement = replace(statement, mfid=mfid)
    _register(session, statement)
    session.mirror.note_statements([mfid])
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
    body = {**({"flag": flag} if flag else {}), **({"due": due} if due else {})}
    project = project or project_of(session, about.datasets, "hold")
    return state(session, project, FLAG if flag else HOLD, about, why=why, body=body)


def lift(session: Session, mfids: Collection[str], why: str = "", *, kind: str = "") -> list[Statement]:
    """Revoke these statements, and the holds, flags, certificates and signatures about these datasets. Return them.

    Raises InputError if there is none, or if there are several kinds about a dataset and `kind` names none.
    """
    active, verbs = _in_force_now(session), {KINDS[revoking] for revoking in ([kind] if kind else LIFTED)}
    lifted: dict[str, Statement] = {}
    for mfid in mfids:
        if not (found := _statements_on(session, active, mfid, verbs)):
            sought = kind or ", ".join(LIFTED)
            raise InputError(f"lift {mfid}: there is no {sought} in force on it; see `crucible-lineage statements`")
        if len({statement.verb for statement in found}) > 1:
            choices = "; ".join(f"{statement.mfid} ({statement.kind} {statement.attribution})" for statement in found)
            raise InputError(f"lift {mfid}: name one of its statements, or their --kind: {choices}")
        waiting = (statement for statement in found if statement.verb == AWAIT)
        if reason := next(filter(None, (why_not_sign(statement, _own_id(session)) for statement in waiting)), ""):
            raise InputError(f"lift {mfid}: {reason}, nor lifts that it waits for signatures")
        lifted |= {statement.mfid: statement for statement in found}
    return revoke(session, lifted.values(), why)


def _statements_on(session: Session, active: ActiveStatements, mfid: str, verbs: Collection[str]) -> list[Statement]:
    """Return the statement with this id, or those of these verbs about a dataset that count in its project."""
    if named := active.statements.get(mfid) or active.unvouched.get(mfid):
        return [named]
    project, stated = project_of(session, [mfid], "lift"), active.statements.values()
    about = (statement for statement in stated if mfid in statement.about.datasets and statement.verb in verbs)
    return [statement for statement in about if active.counts(statement, project)]


def revoke(session: Session, statements: Iterable[Statement], why: str) -> list[Statement]:
    """Revoke statements, with one statement per project. Return them, grouped by project."""
    projects: dict[str, list[Statement]] = {}
    for statement in statements:
        projects.setdefault(statement.project, []).append(statement)
    for project, revoked in projects.items():
        state(session, project, REVOKE, About(), why=why, revokes=[statement.mfid for statement in revoked])
    return [statement for revoked in projects.values() for statement in revoked]


def _register(session: Session, statement: Statement) -> None:
    from crucible_lineage.registration.register import register_output

    name = f"{statement.verb}: {statement.why or statement.about}"
    fields = {
        "project_id": statement.project,
        "dataset_name": name if len(name) <= MOST_CHARACTERS else f"{name[: MOST_CHARACTERS - 3]}...",
        "measurement": MEASUREMENT,
        "data_type": statement.verb,
    }
    session.ensure_project(statement.project)
    act = {"kind": "statement", "when": statement.when}
    record = files_record(statement.recipe(), (), session.agent, activity=act)
    new = NewDataset(statement.mfid, fields, record, {}, (), keywords=(KEYWORD,), ingest=False)
    register_output(session.client, new.without_secrets(), session.machine)


def sign(session: Session, mfids: Collection[str], why: str = "", *, project: str = "") -> StatementOutcome:
    """Sign datasets. Those that have all their signatures then become current.

    Raises InputError if one is missing, if they lie in several projects, or if one waits for signatures and this
    account's does not count.
    """
    project = project or project_of(session, mfids, "sign")
    active, account = _in_force_now(session), _own_id(session)
    waiting = (statement for statement in active.statements.values() if statement.verb == AWAIT)
    awaited = [(mfid, statement) for statement in waiting for mfid in mfids if mfid in statement.about.datasets]
    own = Statement("", project, SIGN, About(), account, "", "")
    for mfid, statement in awaited:
        counts = active.counts(own, statement.project)
        if (
            reason := why_not_sign(statement, account)
            if counts
            else f"statements of {project} do not count in {statement.project}"
        ):
            missing, whose = _missing(active, statement)
            needed = f"; {amount(missing, 'signature')} needed, of {whose}" if missing else ""
            raise InputError(f"sign {mfid}: a signature of this account does not count, {reason}{needed}")
    signed = state(session, project, SIGN, About(tuple(mfids)), why=why)
    active, left = _in_force_now(session), dict.fromkeys(mfids, (0, ""))
    for mfid, statement in awaited:
        left[mfid] = max(left[mfid], _missing(active, statement))
    for mfid, statement in awaited if signed.is_new else ():
        if not left[mfid][0]:
            with suppress(ForbiddenError):  # the next run of its pipeline makes it current
                slots = {key: SlotClaim.from_json(claim) for key, claim in mapping(statement.body.get("slots")).items()}
                make_current_now(session.mirror, session.client, statement.project, mfid, slots)
    whose_by = {mfid: whose for mfid, (missing, whose) in left.items() if missing}
    return replace(signed, missing={mfid: missing for mfid, (missing, _) in left.items()}, whose=whose_by)


def _missing(active: ActiveStatements, awaited: Statement) -> tuple[int, str]:
    """Return how many signatures an awaiting result needs, and whose, in words."""
    signed = active.signers(awaited)
    return max(0, awaited.needed - len(signed)), signers_text(awaited, signed)


def makers_of(session: Session, mfid: str) -> list[str]:
    """Return the accounts that made a result: that in its record, and that which Crucible says registered it."""
    record = session.mirror.records([mfid]).get(mfid) or session.mirror.read([mfid]).get(mfid)
    if record is None:  # it waits here for delivery
        return [_own_id(session)]
    agent = mapping(mapping(mapping(record["scientific_metadata"]).get(KEY)).get("agent"))
    return sorted({owner_of(record), str(agent.get("unique_id") or "")} - {""})


def account_ids(session: Session, project: str, names: Iterable[str]) -> dict[str, str]:
    """Return the ids of the accounts in a project that people call by these names or ids: {id: name}.

    Raises InputError for a name that no member has.
    """
    unknown = {name: name for name in names if not (is_orcid(name) or is_mfid(name))}
    found = {name: name for name in names if name not in unknown}
    if unknown:
        lead = session.client.projects.get(project).lead
        people = (*session.client.projects.members(project), lead)
        ids = {person.username: person.unique_id for person in people if person and person.username}
        if missing := unknown.keys() - ids.keys():
            raise InputError(
                f"project {project}: no member is called {', '.join(sorted(missing))}; "
                f"its members are {', '.join(sorted(ids)) or 'unknown'}"
            )
        found |= {ids[name]: name for name in unknown}
    return found


def certify(
    session: Session,
    dataset: str,
    fields: JsonMapping,
    since: str,
    until: str = "",
    *,
    kind: str = "",
    where: str = "",
    why: str = "",
    project: str = "",
    replaced: bool | Collection[str] = False,
    declared_by: str = "",
) -> StatementOutcome:
    """State that a dataset is a valid calibration of the data with these fields from one moment until another one.

    `until` is empty for no end, or `next`: until the next certificate of the same data begins. An overlap with another
    certificate is refused, unless that is `replaced`: True for all, or the ids of their statements. `declared_by` is
    the pipeline and step that declares it. Raises InputError for invalid arguments, and if the dataset does not exist.
    """
    span = validity(fields, since, until, where)
    record = _dataset(session, dataset, "certify")
    kind, project = kind or record.measurement or "", project or str(record.project_id)
    if not kind:
        raise InputError(f"certify {dataset}: it has no measurement; name the kind of calibration with --kind")
    if not declared_by:  # else the values are those of data
        _require_name_in_data(session, project, str(mapping(span["for"]).get("instrument_name") or ""))
    active = _in_force_now(session)
    body = {"kind": kind, **span, **({"place": declared_by} if declared_by else {})}
    new = Statement("", project, CERTIFY, About((dataset,)), _own_id(session), "", why, body=body)
    own, same = _among(active, new)
    before = [
        certificate
        for certificate in same
        if (certificate.dataset, certificate.since, certificate.until) == (own.dataset, own.since, own.until)
    ]
    for certificate in before:
        if certificate.spans == own.spans:
            return StatementOutcome(active.statements[certificate.statement], is_new=False)
    conflicts = [certificate for certificate in same if any(map(certificate.overlaps, own.spans))]
    left = [conflict for conflict in conflicts if replaced is not True and conflict.statement not in (replaced or ())]
    _require_replaceable(active, new, own, conflicts, left)
    if over := sorted({conflict.statement for conflict in (*conflicts, *before)}):
        body["over"] = over
    return state(session, project, CERTIFY, About((dataset,)), why=why, body=body)


def _require_name_in_data(session: Session, project: str, instrument: str) -> None:
    """Raise InputError if data of a project name an instrument of the same letters, but none spells it so."""
    names = {summary.instrument for summary in session.mirror.snapshot(project).summaries.values()}
    near = [name for name in sorted(names) if name.casefold() == instrument.casefold()]
    if near and instrument not in near:
        raise InputError(f"certify: no data are of instrument {instrument!r}; name it as they do: {near[0]!r}")


def _require_replaceable(
    active: ActiveStatements, new: Statement, own: Certificate, conflicts: list[Certificate], left: list[Certificate]
) -> None:
    """Raise InputError if a conflict is `left`, or lies in a project where the new certificate does not count."""
    if left:
        raise InputError(_refusal(own, left))
    for other in conflicts:
        if not active.counts(new, other.project):
            raise InputError(
                f"certify in project {new.project}: {other.dataset} is certified in project {other.project}, "
                f"where statements of {new.project} do not count. Nothing was stated; state it there, "
                f"with --project {other.project}"
            )


def certificates_as_of(session: Session, project: str, kind: str | None = None, as_of: str = "") -> list[Certificate]:
    """Return the certificates that count in a project, with `as_of` by the statements made until then."""
    if not session.is_away:
        session.mirror.sync_statements()
    return session.mirror.certificates(project, kind, time_given("--as-of", as_of, is_end=True) if as_of else None)


def time_given(option: str, text: str, *, is_end: bool = False) -> datetime:
    """Return the time that an option names: of a date its beginning in UTC, or its end. InputError for other texts."""
    try:
        found = utc(text)
    except ValueError as error:
        raise InputError(f"{option} {text!r} is not a time; write 2026-03-01 or 2026-03-01T09:30:00+01:00") from error
    is_date = len(text.strip()) <= len("2024-05-10")
    return found + timedelta(days=1, microseconds=-1) if is_end and is_date else found


def moment(option: str, text: str) -> str:
    """Return the time that an option names in ISO 8601, in UTC."""
    return time_given(option, text).astimezone(UTC).isoformat()


def validity(fields: JsonMapping, since: str, until: str, where: str = "") -> dict[str, object]:
    """Return the part of a certificate's body that gives its data and its range, checked."""
    named = {_named(name): value for name, value in fields.items()}
    if not named:
        raise InputError("certify: name the data, as in --for instrument='Raman 1'")
    body: dict[str, object] = {"for": dict(sorted(named.items())), "from": moment("--from", since)}
    if where:
        for name in parse_condition(where).names:
            _named(name)
        body["where"] = where.strip()
    if until:
        body["until"] = until if until == NEXT else moment("--until", until)
        if until != NEXT and utc(str(body["from"])) >= utc(str(body["until"])):
            raise InputError(f"certify: --from {since} is not before --until {until}")
    return body


def _named(name: str) -> str:
    full = SHORT.get(name.strip(), name.strip())
    if full not in MATCHED and not is_entry(full):
        raise InputError(
            f"certify: data have no field {name!r}; use one of {', '.join((*SHORT, *MATCHED))} or metadata.NAME"
        )
    return full


def _among(active: ActiveStatements, new: Statement) -> tuple[Certificate, list[Certificate]]:
    """Return the new certificate, and the others of the same data in its project, as they would be with it."""
    both = ActiveStatements({**active.statements, new.mfid: new}, active.trusted)
    found = certificates_of(both)
    own = next(certificate for certificate in found if not certificate.statement)
    return own, [
        certificate
        for certificate in found
        if certificate.statement and certificate.key == own.key and both.counts(certificate, new.project)
    ]


def _refusal(own: Certificate, conflicts: list[Certificate]) -> str:
    named = "; ".join(
        f"{conflict.dataset} is {', '.join(map(range_text, conflict.spans))} ({conflict.attribution})"
        for conflict in conflicts[:3]
    )
    more = f"; and {amount(len(conflicts) - 3, 'certificate')} more" if len(conflicts) > 3 else ""
    return (
        f"certify {own.dataset} {range_text(own.declared)}: "
        f"another {own.kind} of {own.scope} is certified in that time: "
        f"{named}{more}. Nothing was stated; --replace ends the others for that time, --until shortens this one"
    )
