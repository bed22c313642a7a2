"""Statements about results, such as holds, flags and signatures: which are in force, and what follows. Pure.

A statement is a dataset of its own, whose id is derived from its content. It is never edited; another statement
revokes it. Which statements are in force is a function of the set of known ones: the order in which they arrive, and
how often, does not matter.

The content names the author, who vouches for it while

- its content gives its id (metadata can be changed by other members),
- its registration is finished,
- it lies in the project that it names (a dataset can be moved),
- the account that Crucible says registered it is the author's (a dataset can be handed over).

Any other statement counts for nobody: it signs, certifies, trusts, revokes and lifts nothing. A hold still
blocks, since nobody may release what it holds without a name. Names of people in a record are decoration.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import ClassVar, NamedTuple, Protocol

from crucible_lineage.errors import InputError
from crucible_lineage.ids import derive_mfid, has_derived_id
from crucible_lineage.json_types import JsonMapping, JsonObject, mapping, texts
from crucible_lineage.marks import KEY, is_complete
from crucible_lineage.text.times import utc

KEYWORD = MEASUREMENT = LABEL = "statement"  # the last is the kind of recipe
CHANGED = "its content was changed at Crucible after it was made"
UNFINISHED = "its registration was not finished; the same command again finishes it"
HOLD, FLAG, SIGN, TRUST, REVOKE = "hold", "flag", "sign", "trust", "revoke"
CERTIFY = "certify"  # when a calibration is valid
AWAIT = "await"  # a result counts only once it is signed
FAIL = "fail"  # the last run of a pipeline from a data folder failed
HARMLESS = (FLAG, SIGN, REVOKE, CERTIFY, FAIL)  # release nothing if their content is lost
KINDS = {  # of statements that people make, as commands and pages name them
    "hold": HOLD,
    "flag": FLAG,
    "signature": SIGN,
    "certificate": CERTIFY,
    "trust": TRUST,
}
_OF_SUBJECT = {**{name: name for name in ("instrument", "code", "project", "until")}, "from": "since"}  # by JSON key
EPOCH = utc("1970-01-01T00:00:00")  # time in the ids of statements about no dataset and no time


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
        """Whether it is about all datasets that match, including future ones."""
        return bool(self.instrument or self.code)

    def to_json(self) -> JsonObject:
        """Return it as JSON, without empty parts."""
        datasets = {"datasets": sorted(self.datasets)} if self.datasets else {}
        return datasets | {key: value for key, name in _OF_SUBJECT.items() if (value := getattr(self, name))}

    @classmethod
    def from_json(cls, document: JsonMapping) -> About:
        """Return the subject in such JSON. Unreadable parts are ignored."""
        named = {name: str(document.get(key) or "") for key, name in _OF_SUBJECT.items()}
        return cls(texts(document.get("datasets")), **named)

    def __str__(self) -> str:
        if self.instrument:
            span = f" from {self.since}" if self.since else ""
            return f"instrument {self.instrument}{span}" + (f" until {self.until}" if self.until else "")
        return f"code {self.code}" if self.code else ", ".join(self.datasets) or self.project


@dataclass(frozen=True)
class Statement:
    """A statement: verb, subject, account, time and reason, and the statements that it revokes.

    `who` is a name for the account that anybody may have written. `body` depends on the verb; `again` counts equal
    statements that were revoked before. With a `fault`, nobody vouches for it.
    """

    mfid: str
    project: str
    verb: str
    about: About
    by: str
    when: str
    why: str
    who: str = ""
    body: JsonMapping = field(default_factory=dict, hash=False)
    revokes: tuple[str, ...] = ()
    again: int = 0
    fault: str = ""
    json_keys: ClassVar = "mfid project verb about by who when why body revokes fault"

    @property
    def account(self) -> str:
        """The account that vouches for it; empty if none does."""
        return "" if self.fault else self.by

    @property
    def blocks(self) -> bool:
        """Whether it holds something, though nobody vouches for it."""
        return self.verb in (HOLD, AWAIT) or self.blocks_project

    @property
    def blocks_project(self) -> bool:
        """Whether its content is lost, and may have been a hold on anything in its project."""
        return self.fault == CHANGED and self.verb not in HARMLESS

    @property
    def kind(self) -> str:
        """The noun for its verb, as commands and pages name it."""
        return next((kind for kind, verb in KINDS.items() if verb == self.verb), self.verb)

    @property
    def flag(self) -> str:
        """The name of the flag, empty for other verbs."""
        return str(self.body.get("flag") or "") if self.verb == FLAG else ""

    @property
    def needed(self) -> int:
        """How many signatures a result waits for, and how many accounts revoke that; else 1."""
        count = self.body.get("count")
        return count if self.verb == AWAIT and isinstance(count, int) else 1

    @property
    def excluded(self) -> tuple[str, ...]:
        """The accounts that made a result, if its signatures are to be those of others."""
        return texts(self.body.get("makers")) if self.body.get("not") == "maker" else ()

    @property
    def due(self) -> str:
        """The day by which it is to be settled; empty if there is none."""
        return str(self.body.get("due") or "")

    @property
    def attribution(self) -> str:
        """Who made it, since when and why, as messages show it."""
        text = f"by {self.who or self.by} since {self.when[:10]}" + (f": {self.why}" if self.why else "")
        return f"{text} ({self.warning})" if self.fault else text

    @property
    def warning(self) -> str:
        """The message that nobody vouches for it."""
        effect = "blocks until it is lifted" if self.blocks else "has no effect"
        return f"nobody vouches for statement {self.mfid}, which {effect}: {self.fault}"

    def __str__(self) -> str:
        return str(self.about) or ", ".join(self.revokes)

    def is_about(self, mfid: str, facts: SubjectFacts) -> bool:
        """Return whether it is about this dataset, by id or by condition."""
        is_condition = self.about.is_condition or self.blocks_project
        return mfid in self.about.datasets or (is_condition and _fits(self.about, facts))

    def recipe(self) -> JsonObject:
        """Return the document from which its id is derived: its content without time and account name."""
        recipe: JsonObject = {
            "kind": "statement",
            "project": self.project,
            "verb": self.verb,
            "about": self.about.to_json(),
            "by": self.by,
            "why": self.why,
        }
        optional = {"body": dict(self.body), "revokes": sorted(self.revokes), "again": self.again}
        return recipe | {key: value for key, value in optional.items() if value}

    def packed(self) -> str:
        """Return it as one text for `unpacked`."""
        return json.dumps({**vars(self), "about": self.about.to_json(), "body": dict(self.body)})

    @classmethod
    def unpacked(cls, text: str) -> Statement:
        """Return the statement in a text of `packed`."""
        fields = json.loads(text)
        return cls(**{**fields, "about": About.from_json(fields["about"]), "revokes": tuple(fields["revokes"])})


@dataclass(frozen=True)
class Doubt:
    """Reason for doubt: the dataset `source` is on hold, which is the doubtful one or an ancestor."""

    source: str
    statement: Statement

    @property
    def is_candidate(self) -> bool:
        """Whether it waits for a signature."""
        return self.statement.verb == AWAIT

    def is_of_candidate(self, mfid: str) -> bool:
        """Return whether the dataset itself waits for a signature."""
        return self.is_candidate and self.source == mfid

    def message(self, mfid: str = "") -> str:
        """Return the reason in words, for the doubtful dataset `mfid` if it is given."""
        own = f"on hold {self.statement.attribution}"
        if self.is_candidate:
            own = f"not signed yet: it waits for {signers_text(self.statement)} since {self.statement.when[:10]}"
        return (
            f"comes from {self.source}, which is {own}" if mfid not in ("", self.source) else f"{self.source} is {own}"
        )

    def to_json(self) -> dict[str, object]:
        """Return the JSON that commands print."""
        return {"source": self.source, "hold": self.statement.mfid, "said": self.message()}


def statement_id(statement: Statement) -> str:
    """Return the id of a statement, which sorts beside its youngest dataset."""
    named = [mfid for mfid in (*statement.about.datasets, *statement.revokes) if mfid]
    source: str | datetime = max(named) if named else utc(statement.about.since) if statement.about.since else EPOCH
    return derive_mfid(statement.recipe(), source)


def statement_in(record: JsonMapping, *, is_listed: bool = False) -> Statement | None:
    """Return the statement in a dataset, with the reason if nobody vouches for it; None for other datasets.

    `record` is Crucible's record with settled metadata, `is_listed` whether it has the keyword of statements, which
    nobody can remove. The content that an id does not seal is lost.
    """
    metadata, mfid, project = record.get("scientific_metadata"), str(record.get("unique_id")), record.get("project_id")
    stored = mapping(mapping(metadata).get(KEY))
    recipe, agent = mapping(stored.get("recipe")), mapping(stored.get("agent"))
    is_labelled = record.get("measurement") == LABEL or (is_listed and has_derived_id(mfid))
    if metadata is None or not (is_labelled or recipe.get("kind") == LABEL):
        return None
    author, fault = str(recipe.get("by")), _fault(record, stored, recipe)
    if not is_labelled if fault == CHANGED else recipe.get("kind") != LABEL:
        return None
    if fault == CHANGED:
        lost = {"verb": record.get("data_type"), "about": {"project": project}, "why": record.get("dataset_name")}
        recipe, author = lost, owner_of(record)
    again = recipe.get("again")
    return Statement(
        mfid=mfid,
        project=str(project or ""),
        verb=str(recipe.get("verb")),
        about=About.from_json(mapping(recipe.get("about"))),
        by=author,
        when=str(mapping(stored.get("activity")).get("when") or record.get("creation_time") or EPOCH.isoformat()),
        why=str(recipe.get("why") or ""),
        who=str(agent.get("username") or agent.get("local_user") or ""),
        body=dict(mapping(recipe.get("body"))),
        revokes=texts(recipe.get("revokes")),
        again=again if isinstance(again, int) else 0,
        fault=fault,
    )


def _fault(record: JsonMapping, stored: JsonMapping, recipe: JsonMapping) -> str:
    """Return why nobody vouches for a statement; empty if its author does."""
    mfid, owner, author = str(record.get("unique_id")), owner_of(record), str(recipe.get("by"))
    try:
        is_sealed = has_derived_id(mfid) and derive_mfid(dict(recipe), mfid) == mfid
    except (InputError, TypeError, ValueError):  # it is no recipe
        is_sealed = False
    if not is_sealed:
        return CHANGED
    if str(record.get("project_id") or "").casefold() != str(recipe.get("project")).casefold():
        return f"it was moved here from project {recipe.get('project')}"
    if owner != author:
        return f"its author is {author}, and at Crucible it belongs to {owner or 'nobody'}"
    return "" if is_complete(stored) else UNFINISHED


def owner_of(record: JsonMapping) -> str:
    """Return the account that a dataset belongs to, as Crucible says."""
    return str(record.get("owner_orcid") or "")


class Attributed(Protocol):
    """Something that belongs to a project, and that an account vouches for."""

    @property
    def project(self) -> str:
        """The project."""

    @property
    def account(self) -> str:
        """The account."""


@dataclass(frozen=True)
class ActiveStatements:
    """Statements in force by id, and for each project the other projects and accounts whose statements count there.

    Ids of projects are in small letters. `unvouched` are those that nobody vouches for and nobody revoked; those of
    them that block are in force.
    """

    statements: Mapping[str, Statement]
    trusted: Mapping[str, frozenset[str]]
    unvouched: Mapping[str, Statement] = field(default_factory=dict)

    def counts(self, statement: Attributed, project: str) -> bool:
        """Return whether a statement counts for the datasets of a project: it is from there, or trusted there."""
        return _counts(statement, project, self.trusted)

    def signers(self, awaited: Statement) -> set[str]:
        """Return the accounts whose signatures an awaiting result needs and has. Each counts once."""
        return {
            statement.account
            for mfid in awaited.about.datasets
            for statement in self._signatures.datasets.get(mfid, ())
            if self.counts(statement, awaited.project) and not why_not_sign(awaited, statement.account)
        }

    def is_candidate(self, statement: Statement) -> bool:
        """Return whether it says that results wait for signatures, and they do not have them all."""
        return statement.verb == AWAIT and len(self.signers(statement)) < statement.needed

    @cached_property
    def holds(self) -> StatementIndex:
        """The holds, by subject."""
        return StatementIndex.from_active(self, HOLD)

    @cached_property
    def flags(self) -> StatementIndex:
        """The flags, by subject."""
        return StatementIndex.from_active(self, FLAG)

    @cached_property
    def _signatures(self) -> StatementIndex:
        return StatementIndex.from_active(self, SIGN)


def in_force(statements: Iterable[Statement]) -> ActiveStatements:
    """Return the statements in force: those that are not revoked by another one in force that counts there."""
    by_id: dict[str, Statement] = {}
    for statement in statements:  # equal ids have equal contents, except for what nobody vouches for
        by_id[statement.mfid] = max(
            by_id.get(statement.mfid, statement), statement, key=lambda same: (not same.fault, same.when)
        )
    trusted: dict[str, frozenset[str]] = {}
    for statement in _not_revoked(by_id, {}).values():
        if statement.verb == TRUST and not statement.fault:
            project, names = statement.project.casefold(), map(str, statement.body.get("whose") or ())
            trusted[project] = trusted.get(project, frozenset()) | {name.casefold() for name in names}
    left = _not_revoked(by_id, trusted)
    active = {mfid: statement for mfid, statement in left.items() if not statement.fault or statement.blocks}
    return ActiveStatements(active, trusted, {mfid: statement for mfid, statement in left.items() if statement.fault})


def _counts(statement: Attributed, project: str, trusted: Mapping[str, frozenset[str]]) -> bool:
    own = statement.project.casefold()
    if own == project.casefold():
        return True
    others = trusted.get(project.casefold())
    return others is not None and (own in others or statement.account.casefold() in others)


def _not_revoked(every: Mapping[str, Statement], trusted: Mapping[str, frozenset[str]]) -> dict[str, Statement]:
    """Return the statements that are not revoked. Statements that revoke one another all count.

    That a result waits for signatures is revoked by as many accounts as may sign it and are needed.
    """
    revokers: dict[str, list[Statement]] = {}
    for statement in every.values():
        for other in (every[mfid] for mfid in statement.revokes if statement.account and mfid in every):
            is_barred = other.verb == AWAIT and why_not_sign(other, statement.account)
            if not is_barred and _counts(statement, other.project, trusted):
                revokers.setdefault(other.mfid, []).append(statement)
    is_active = dict.fromkeys(every.keys() - revokers.keys(), True)
    while left := revokers.keys() - is_active.keys():
        decided = {}
        for mfid in left:
            known = [statement for statement in revokers[mfid] if statement.mfid in is_active]
            if len({statement.account for statement in known if is_active[statement.mfid]}) >= every[mfid].needed:
                decided[mfid] = False
            elif len(known) == len(revokers[mfid]):
                decided[mfid] = True
        if not decided:
            break
        is_active |= decided
    return {mfid: statement for mfid, statement in every.items() if is_active.get(mfid, True)}


def why_not_sign(awaited: Statement, account: str) -> str:
    """Return why the signature of an account does not count for an awaiting result, nor revokes that it waits."""
    if account in awaited.excluded:
        return "the maker of a result does not sign it"
    by = texts(awaited.body.get("by"))
    return f"it waits for {signers_text(awaited)}" if by and account not in by else ""


def signers_text(awaited: Statement, signed: Collection[str] = ()) -> str:
    """Return in words whose signatures an awaiting result waits for, without those who `signed`."""
    by, names = texts(awaited.body.get("by")), mapping(awaited.body.get("names"))
    left = ", ".join(str(names.get(signer, signer)) for signer in by if signer not in (*signed, *awaited.excluded))
    return left if by else "any member" + (" but its maker" if awaited.excluded else "")


class SubjectFacts(NamedTuple):
    """Facts that decide which statements are about a dataset: project, parents, measurement and code."""

    project: str
    parents: Collection[str] = ()
    instrument: str = ""
    taken: str = ""
    code: str = ""


@dataclass(frozen=True)
class StatementIndex:
    """Statements in force of one verb, by dataset, and those about all data that meet a condition."""

    datasets: Mapping[str, Sequence[Statement]] = field(default_factory=dict)
    conditions: Sequence[Statement] = ()
    trusted: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.datasets or self.conditions)

    @classmethod
    def from_active(cls, active: ActiveStatements, verb: str) -> StatementIndex:
        """Return the index of a verb's statements. Results that wait for a signature count as on hold.

        So does a whole project, if the content of what may have been a hold in it is lost.
        """
        datasets: dict[str, list[Statement]] = {}
        conditions: list[Statement] = []
        for statement in sorted(active.statements.values(), key=lambda statement: (statement.when, statement.mfid)):
            is_held = verb == HOLD and (statement.blocks_project or active.is_candidate(statement))
            if statement.verb != verb and not is_held:
                continue
            for mfid in statement.about.datasets:
                datasets.setdefault(mfid, []).append(statement)
            if statement.about.is_condition or statement.blocks_project:
                conditions.append(statement)
        return cls(datasets, conditions, active.trusted)

    def on(self, mfid: str, facts: SubjectFacts, viewer: str) -> tuple[Statement, ...]:
        """Return the statements about this dataset itself that count in its project, or in the project `viewer`."""
        found = [*self.datasets.get(mfid, ()), *(one for one in self.conditions if _fits(one.about, facts))]
        projects = facts.project, viewer
        return tuple(one for one in found if any(_counts(one, project, self.trusted) for project in projects))

    def on_code(self, code: str, project: str) -> tuple[Statement, ...]:
        """Return the statements about this code that count in a project."""
        found = (one for one in self.conditions if one.about.code and code.startswith(one.about.code))
        return tuple(one for one in found if _counts(one, project, self.trusted))


def _fits(about: About, facts: SubjectFacts) -> bool:
    """Return whether a dataset matches a condition. An unknown time of measurement matches any range."""
    if about.project:
        return facts.project.casefold() == about.project.casefold()
    if about.code:
        return facts.code.startswith(about.code)
    if not facts.instrument or facts.instrument.casefold() != about.instrument.casefold():
        return False
    if not facts.taken or not (about.since or about.until):
        return True
    taken = utc(facts.taken)
    return (not about.since or utc(about.since) <= taken) and (not about.until or taken < utc(about.until))


def at_fault(facts: Mapping[str, SubjectFacts], index: StatementIndex, viewer: str) -> dict[str, str]:
    """Return the nearest dataset that statements are about, for each of these datasets that is or comes from one.

    {dataset: itself or an ancestor}, of datasets given with all their ancestors.
    """
    named = sorted(mfid for mfid, own in facts.items() if index.on(mfid, own, viewer))
    if not named:
        return {}
    import networkx  # takes a tenth of a second, which plans without a hold need not pay

    below = networkx.DiGraph((parent, mfid) for mfid, own in facts.items() for parent in own.parents)
    below.add_edges_from(("", mfid) for mfid in named)
    source: dict[str, str] = {}
    for parent, child in networkx.bfs_edges(below, ""):
        source[child] = source.get(parent, child)
    return source
