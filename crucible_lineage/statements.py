"""Statements about results: holds, flags, signatures. Pure: which of them are in force, and what follows from them.

A statement is a dataset of its own, whose id is derived from what it says. It is never edited; another statement
revokes it. Which statements are in force is a function of the set of all that are known: the order in which they
arrive, and how often, does not matter.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from crucible_lineage.amounts import amount
from crucible_lineage.ids import canonical_json, derive_mfid, has_derived_id
from crucible_lineage.marks import KEY
from crucible_lineage.times import utc

KEYWORD = MEASUREMENT = "statement"
HOLD, FLAG, SIGN, TRUST, REVOKE, CHECK = "hold", "flag", "sign", "trust", "revoke", "check"
CAMPAIGN, PROMOTE = "campaign", "promote"  # other calibrations, tried; and that they count from now on
CERTIFY, DECERTIFY = "certify", "decertify"  # from when until when a calibration is valid
REMAKE, EVICT = "remake", "evict"  # of a result that was made again; whose bytes were let go, as they can be
AWAIT = "await"  # of a result that counts only once it is signed
PARK = "park"  # of a result that failed too often to be tried again
FAIL = "fail"  # of a pipeline whose last run from a data folder failed
EPOCH = utc("1970-01-01T00:00:00")  # of the ids of statements about no dataset and no time

Document = Mapping[str, Any]


@dataclass(frozen=True)
class About:
    """Subject of a statement: datasets; an instrument and a time of measurement; a code fingerprint; a project."""

    datasets: tuple[str, ...] = ()
    instrument: str = ""
    since: str = ""
    until: str = ""
    code: str = ""
    project: str = ""

    @property
    def is_condition(self) -> bool:
        """Whether it is about all datasets that fit, those included that are registered later."""
        return bool(self.instrument or self.code)

    def document(self) -> dict[str, Any]:
        """Return it as JSON, without what is empty."""
        named = {"instrument": self.instrument, "from": self.since, "until": self.until, "code": self.code}
        named["project"] = self.project
        datasets = {"datasets": sorted(self.datasets)} if self.datasets else {}
        return {**datasets, **{key: value for key, value in named.items() if value}}

    @classmethod
    def from_document(cls, said: Document) -> About:
        """Return what the JSON says; parts that are not understood are left out."""
        listed = said.get("datasets")
        datasets = tuple(map(str, listed)) if isinstance(listed, list | tuple) else ()
        names = ("instrument", "from", "until", "code", "project")
        return cls(datasets, *(str(said.get(name) or "") for name in names))

    def __str__(self) -> str:
        if self.instrument:
            span = f" from {self.since}" if self.since else ""
            return f"instrument {self.instrument}{span}" + (f" until {self.until}" if self.until else "")
        return f"code {self.code}" if self.code else ", ".join(self.datasets) or self.project


@dataclass(frozen=True)
class Statement:
    """A statement: what is said, about what, by which account, when and why, and which others it revokes.

    `who` is the name of the account, `owner` the account that registered it, as the service tells: empty where it does
    not. `body` depends on the verb; `again` counts equal statements that were revoked before.
    """

    mfid: str
    project: str
    verb: str
    about: About
    by: str
    when: str
    why: str = ""
    who: str = ""
    body: Document = field(default_factory=dict, hash=False)
    revokes: tuple[str, ...] = ()
    again: int = 0
    owner: str = ""
    signature: str = ""

    @property
    def account(self) -> str:
        """The account that vouches for it."""
        return self.owner or self.by

    @property
    def flag(self) -> str:
        """The name of the flag, empty for other verbs."""
        return str(self.body.get("flag") or "") if self.verb == FLAG else ""

    @property
    def due(self) -> str:
        """The day by which it is to be settled; empty if none was given."""
        return str(self.body.get("due") or "")

    @property
    def said(self) -> str:
        """By whom, since when and why, as messages give it."""
        return f"by {self.who or self.by} since {self.when[:10]}" + (f": {self.why}" if self.why else "")

    def is_about(self, mfid: str, facts: SubjectFacts) -> bool:
        """Return whether it is about this dataset, by its id or because it fits the condition."""
        return mfid in self.about.datasets or (self.about.is_condition and _fits(self.about, facts))

    def recipe(self) -> dict[str, Any]:
        """Return what its id is derived from."""
        return statement_recipe(self)

    @property
    def signed_text(self) -> bytes:
        """Return the signed text: content and time of the statement."""
        return canonical_json({**statement_recipe(self), "when": self.when})

    def to_json(self) -> dict[str, Any]:
        """Return it as commands print it."""
        return {
            "mfid": self.mfid,
            "project": self.project,
            "verb": self.verb,
            "about": self.about.document(),
            "by": self.by,
            "who": self.who or None,
            "when": self.when,
            "why": self.why,
            "body": dict(self.body),
            "revokes": list(self.revokes),
            "signed": bool(self.signature),
        }

    def packed(self) -> str:
        """Return it as one text, for `unpacked`."""
        return json.dumps({**vars(self), "about": self.about.document(), "body": dict(self.body)})

    @classmethod
    def unpacked(cls, text: str) -> Statement:
        """Return the statement that was packed."""
        found = json.loads(text)
        return cls(**{**found, "about": About.from_document(found["about"]), "revokes": tuple(found["revokes"])})


@dataclass(frozen=True)
class Doubt:
    """Reason for doubt: the dataset is on hold itself, or comes from the dataset `source`, which is."""

    source: str
    statement: Statement

    @property
    def is_candidate(self) -> bool:
        """Whether it waits for a signature."""
        return self.statement.verb == AWAIT

    def told(self, mfid: str = "") -> str:
        """Return it in words; of `mfid`, the dataset that is doubtful, only that it comes from the other one."""
        own = f"on hold {self.statement.said}"
        if self.is_candidate:
            by = ", ".join(map(str, self.statement.body.get("by") or ())) or "somebody"
            others = " who has not made it" if self.statement.body.get("not") == "maker" else ""
            own = f"not signed yet: it waits for {by}{others} since {self.statement.when[:10]}"
        return (
            f"comes from {self.source}, which is {own}" if mfid not in ("", self.source) else f"{self.source} is {own}"
        )

    def to_json(self) -> dict[str, object]:
        """Return it as commands print it."""
        return {"source": self.source, "hold": self.statement.mfid, "said": self.told()}


def statement_recipe(one: Statement) -> dict[str, Any]:
    """Return what the id of a statement is derived from: all that it says, but for when, and for the account's name."""
    recipe: dict[str, Any] = {
        "kind": "statement",
        "project": one.project,
        "verb": one.verb,
        "about": one.about.document(),
        "by": one.by,
        "why": one.why,
    }
    optional = {"body": dict(one.body), "revokes": sorted(one.revokes), "again": one.again}
    return recipe | {key: value for key, value in optional.items() if value}


def statement_id(one: Statement) -> str:
    """Return the id of a statement, which sorts beside the youngest dataset that it is about."""
    named = [mfid for mfid in (*one.about.datasets, *one.revokes) if mfid]
    source: str | datetime = max(named) if named else utc(one.about.since) if one.about.since else EPOCH
    return derive_mfid(statement_recipe(one), source)


def statement_in(record: Document) -> Statement | None:
    """Return the statement that a complete dataset is; None of other datasets, and where its id is not that of it.

    `record` is that of Crucible, with settled metadata.
    """
    written = _mapping(_mapping(record.get("scientific_metadata")).get(KEY))
    recipe, activity = written.get("recipe"), written.get("activity")
    if not isinstance(recipe, Mapping) or not isinstance(activity, Mapping) or recipe.get("kind") != "statement":
        return None
    if not _is_complete(written):
        return None
    mfid, project = str(record.get("unique_id")), str(record.get("project_id") or "")
    if project.casefold() != str(recipe.get("project")).casefold():
        return None
    if has_derived_id(mfid) and derive_mfid(dict(recipe), mfid) != mfid:
        return None
    revokes, again = recipe.get("revokes"), recipe.get("again")
    agent = _mapping(written.get("agent"))
    return Statement(
        mfid=mfid,
        project=project,
        verb=str(recipe.get("verb")),
        about=About.from_document(_mapping(recipe.get("about"))),
        by=str(recipe.get("by")),
        when=str(activity.get("when")),
        why=str(recipe.get("why") or ""),
        who=str(agent.get("username") or agent.get("local_user") or ""),
        body=dict(_mapping(recipe.get("body"))),
        revokes=tuple(map(str, revokes)) if isinstance(revokes, list | tuple) else (),
        again=again if isinstance(again, int) else 0,
        owner=_owner(record),
        signature=str(activity.get("signature") or ""),
    )


def _mapping(found: object) -> Mapping[str, Any]:
    """Return what is found, if it is a mapping; else an empty one."""
    return found if isinstance(found, Mapping) else {}


def _owner(record: Document) -> str:
    owner = record.get("owner")
    if isinstance(owner, Mapping):
        return str(owner.get("unique_id") or "")
    return str(record.get("owner_orcid") or "")


def _is_complete(written: Document) -> bool:
    if written.get("status") != "complete":
        return False
    completed = written.get("completed")
    return "registrar" not in written or (isinstance(completed, Mapping) and written["registrar"] in completed)


class Attributed(Protocol):
    """What lies in a project, and is vouched for by an account."""

    @property
    def project(self) -> str:
        """The project that it lies in."""

    @property
    def account(self) -> str:
        """The account."""


@dataclass(frozen=True)
class ActiveStatements:
    """The statements that are in force, by id; and of each project whose statements count there beside its own.

    These are ids of projects in small letters, and ids of accounts.
    """

    statements: Mapping[str, Statement]
    trusted: Mapping[str, frozenset[str]]

    def counts(self, one: Attributed, project: str) -> bool:
        """Return whether a statement counts for the datasets of a project: one that lies there, or is trusted there."""
        return _counts(one, project, self.trusted)


def in_force(statements: Iterable[Statement]) -> ActiveStatements:
    """Return which statements are in force: those that no other one revokes which is in force and counts there."""
    known: dict[str, Statement] = {}
    for one in statements:  # of one id there is one content; only the account that registered it may be unknown
        known[one.mfid] = max(known.get(one.mfid, one), one, key=lambda same: (same.owner, same.when))
    trusts = {mfid: one for mfid, one in known.items() if one.verb == TRUST}
    trusted: dict[str, frozenset[str]] = {}
    for one in _standing(known, trusts, {}).values():
        whose = {name.casefold() for name in map(str, one.body.get("whose") or ())}
        trusted[one.project.casefold()] = trusted.get(one.project.casefold(), frozenset()) | whose
    return ActiveStatements(_standing(known, known, trusted), trusted)


def _counts(one: Attributed, project: str, trusted: Mapping[str, frozenset[str]]) -> bool:
    own = one.project.casefold()
    if own == project.casefold():
        return True
    there = trusted.get(project.casefold())
    return there is not None and (own in there or one.account.casefold() in there)


def _standing(
    known: Mapping[str, Statement], wanted: Mapping[str, Statement], trusted: Mapping[str, frozenset[str]]
) -> dict[str, Statement]:
    """Return those of the wanted statements that stand. Statements that revoke one another all stand."""
    revoked_by: dict[str, list[str]] = {}
    for one in known.values():
        for mfid in one.revokes:
            if mfid in known and _counts(one, known[mfid].project, trusted):
                revoked_by.setdefault(mfid, []).append(one.mfid)
    stands = {mfid: True for mfid in known if mfid not in revoked_by}
    left = list(revoked_by)
    while left:
        undecided = []
        for mfid in left:
            answers = [stands.get(other) for other in revoked_by[mfid]]
            if True in answers:
                stands[mfid] = False
            elif None not in answers:
                stands[mfid] = True
            else:
                undecided.append(mfid)
        if len(undecided) == len(left):
            break
        left = undecided
    return {mfid: one for mfid, one in wanted.items() if stands.get(mfid, True)}


def signatures_of(found: ActiveStatements) -> dict[str, list[Statement]]:
    """Return the signatures in force, by dataset."""
    signed: dict[str, list[Statement]] = {}
    for one in found.statements.values():
        for mfid in one.about.datasets if one.verb == SIGN else ():
            signed.setdefault(mfid, []).append(one)
    return signed


def signatures_lacking(found: ActiveStatements, awaited: Statement, signed: Mapping[str, Collection[Statement]]) -> int:
    """Return how many signatures a result lacks that waits for some. Each account counts once."""
    body = awaited.body
    by = {str(one).casefold() for one in body.get("by") or ()}
    accounts = {
        one.account
        for mfid in awaited.about.datasets
        for one in signed.get(mfid, ())
        if found.counts(one, awaited.project)
        and (not by or one.account.casefold() in by or one.who.casefold() in by)
        and not (body.get("not") == "maker" and one.account == body.get("maker"))
    }
    return max(0, int(body.get("count") or 1) - len(accounts))


def promoted_in(found: ActiveStatements) -> dict[str, str]:
    """Return the campaigns that are promoted, each with the moment since when: the latest, if it was twice."""
    promoted: dict[str, str] = {}
    for one in sorted(found.statements.values(), key=lambda one: (one.when, one.mfid)):
        campaign = found.statements.get(str(one.body.get("campaign"))) if one.verb == PROMOTE else None
        if campaign is not None and campaign.verb == CAMPAIGN and found.counts(one, campaign.project):
            promoted[campaign.mfid] = str(one.body.get("since") or one.when)
    return promoted


class CheckResult(NamedTuple):
    """The verdict of a check on a dataset: the condition as it was declared, whether it held, and its values."""

    that: str
    passed: bool
    values: Mapping[str, Any]


def verdicts_in(found: ActiveStatements) -> dict[str, dict[str, CheckResult]]:
    """Return the latest verdicts in force: {dataset: {PIPELINE/STEP/CHECK: verdict}}."""
    verdicts: dict[str, dict[str, CheckResult]] = {}
    for one in sorted(found.statements.values(), key=lambda one: (one.when, one.mfid)):
        if one.verb != CHECK:
            continue
        place, conditions = str(one.body.get("of") or ""), one.body.get("checks")
        for mfid, told in (one.body.get("verdicts") or {}).items():
            for name, verdict in told.items():
                that = str(conditions.get(name) or "") if isinstance(conditions, Mapping) else ""
                values = verdict.get("values") or {}
                verdicts.setdefault(mfid, {})[f"{place}/{name}"] = CheckResult(
                    that, bool(verdict.get("passed")), values
                )
    return verdicts


class ReproductionCount(NamedTuple):
    """How often a result was made again: with the same outcome elsewhere than where it was made, and with another one.

    `last` is when it was the same last, as a day.
    """

    times: int = 0
    people: int = 0
    architectures: int = 0
    last: str = ""
    differed: int = 0

    def told(self) -> str:
        """Return it in words; empty if there is nothing to say."""
        parts = []
        if self.times:
            people, machines = amount(self.people, "person", "people"), amount(self.architectures, "architecture")
            parts.append(f"remade {amount(self.times, 'time')} by {people} on {machines}, last {self.last}")
        if self.differed:
            parts.append(f"made again otherwise {amount(self.differed, 'time')}")
        return "; ".join(parts)


SAME = ("identical", "numbers within tolerance", "picture alike")  # verdicts by which a result was made again


def remade_in(found: ActiveStatements) -> dict[str, ReproductionCount]:
    """Return how often results were made again. The machine on which one was made counts for nothing."""
    same: dict[str, list[Statement]] = {}
    other: dict[str, int] = {}
    for one in found.statements.values():
        if one.verb != REMAKE:
            continue
        for mfid in one.about.datasets:
            if one.body.get("verdict") not in SAME:
                other[mfid] = other.get(mfid, 0) + 1
            elif not one.body.get("own"):
                same.setdefault(mfid, []).append(one)
    return {
        mfid: ReproductionCount(
            len(some := same.get(mfid, [])),
            len({one.account for one in some}),
            len({str(one.body.get("architecture") or "") for one in some}),
            max((one.when[:10] for one in some), default=""),
            other.get(mfid, 0),
        )
        for mfid in {*same, *other}
    }


class SubjectFacts(NamedTuple):
    """What decides whether statements concern a dataset: where it lies, how it was measured and made, and of what."""

    project: str
    parents: Collection[str] = ()
    instrument: str = ""
    taken: str = ""
    code: str = ""


class Mention(NamedTuple):
    """A statement in force, as indexes have it: its id, its project, and who vouches for it."""

    mfid: str
    project: str
    account: str
    note: str = ""


@dataclass(frozen=True)
class StatementIndex:
    """The statements in force of one verb, by what they are about. `note` of a flag is its name."""

    datasets: Mapping[str, tuple[Mention, ...]] = field(default_factory=dict)
    conditions: tuple[tuple[About, Mention], ...] = ()
    trusted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.datasets or self.conditions)

    @classmethod
    def of(cls, found: ActiveStatements, verb: str) -> StatementIndex:
        """Return the index of the statements of this verb; holds are those too that wait for a signature."""
        datasets: dict[str, tuple[Mention, ...]] = {}
        conditions: list[tuple[About, Mention]] = []
        signed = signatures_of(found) if verb == HOLD else {}
        for one in sorted(found.statements.values(), key=lambda one: (one.when, one.mfid)):
            is_candidate = verb == HOLD and one.verb == AWAIT and signatures_lacking(found, one, signed) > 0
            if one.verb != verb and not is_candidate:
                continue
            said = Mention(one.mfid, one.project, one.account, one.flag)
            for mfid in one.about.datasets:
                datasets[mfid] = (*datasets.get(mfid, ()), said)
            if one.about.is_condition:
                conditions.append((one.about, said))
        return cls(datasets, tuple(conditions), found.trusted)

    def to_json(self) -> Any:
        """Return it as JSON."""
        conditions = [[about.document(), *said] for about, said in self.conditions]
        return [self.datasets, conditions, {project: sorted(whose) for project, whose in self.trusted.items()}]

    @classmethod
    def from_json(cls, found: Any) -> StatementIndex:
        """Return the index of which this is the JSON."""
        datasets, conditions, trusted = found
        return cls(
            datasets,  # tuples are made of what is looked at
            tuple((About.from_document(about), Mention(*said)) for about, *said in conditions),
            {project: frozenset(whose) for project, whose in trusted.items()},
        )

    def on(self, mfid: str, facts: SubjectFacts, viewer: str) -> tuple[Mention, ...]:
        """Return the statements that are about this dataset itself and count for its project, or that of who asks."""
        listed: Iterable[Mention] = (Mention(*one) for one in self.datasets.get(mfid, ()))
        fitting = (said for about, said in self.conditions if _fits(about, facts)) if self.conditions else ()
        return tuple(one for one in (*listed, *fitting) if self._counts(one, facts.project, viewer))

    def on_code(self, code: str, project: str) -> tuple[Mention, ...]:
        """Return the statements about this code that count in a project."""
        found = (said for about, said in self.conditions if about.code and code.startswith(about.code))
        return tuple(one for one in found if self._counts(one, project, project))

    def _counts(self, one: Mention, project: str, viewer: str) -> bool:
        own, account = one.project.casefold(), one.account.casefold()
        for where in {project.casefold(), viewer.casefold()}:
            there = self.trusted.get(where)
            if own == where or (there is not None and (own in there or account in there)):
                return True
        return False


def _fits(about: About, facts: SubjectFacts) -> bool:
    """Whether a dataset fits a condition; of an unknown time of measurement it may, and so does."""
    if about.code:
        return bool(facts.code) and facts.code.startswith(about.code)
    if not facts.instrument or facts.instrument.casefold() != about.instrument.casefold():
        return False
    if not facts.taken or not (about.since or about.until):
        return True
    taken = utc(facts.taken)
    return (not about.since or utc(about.since) <= taken) and (not about.until or taken < utc(about.until))


def at_fault(
    wanted: Collection[str], facts_of: Callable[[str], SubjectFacts | None], index: StatementIndex, viewer: str
) -> dict[str, str]:
    """Return the nearest dataset that the statements are about, for each of these that comes from one or is one.

    {dataset: itself or an ancestor}. The way up ends at a dataset of which `facts_of` knows nothing.
    """
    children: dict[str, list[str]] = {}
    known: dict[str, SubjectFacts] = {}
    seen, waiting = set(wanted), list(wanted)
    while waiting:
        mfid = waiting.pop()
        if (facts := facts_of(mfid)) is None:
            continue
        known[mfid] = facts
        for parent in facts.parents:
            children.setdefault(parent, []).append(mfid)
        new = set(facts.parents) - seen
        seen |= new
        waiting += new
    reached = sorted(mfid for mfid, facts in known.items() if index.on(mfid, facts, viewer))
    source = {mfid: mfid for mfid in reached}
    for mfid in reached:  # it grows while it is walked: the nearest come first
        for child in children.get(mfid, ()):
            if child not in source:
                source[child] = source[mfid]
                reached.append(child)
    return {mfid: source[mfid] for mfid in wanted if mfid in source}
