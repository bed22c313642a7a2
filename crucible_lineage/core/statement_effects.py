"""What statements say of datasets: which are on hold or come from what is, and in which words that is told."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from crucible_lineage.calibrations import validity_text
from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.summary import Summary
from crucible_lineage.errors import CrucibleError, OnHoldError
from crucible_lineage.refs import DatasetRef
from crucible_lineage.statements import (
    EVICT,
    FLAG,
    HOLD,
    Doubt,
    Statement,
    StatementIndex,
    SubjectFacts,
    at_fault,
    in_force,
)


@dataclass(frozen=True)
class AppliedStatement:
    """A statement as a project hears it: whether it is in force, whether it counts there, and what revoked it."""

    statement: Statement
    in_force: bool
    counts: bool
    revoked_by: Statement | None = None

    @property
    def told(self) -> str:
        """Return it in words."""
        one = self.statement
        what = f"flag {one.flag}" if one.flag else validity_text(one) or one.verb
        if self.in_force:
            return f"{what} {one.attribution}" + (
                "" if self.counts else f" (of project {one.project}, does not count here)"
            )
        by = self.revoked_by
        return f"{what} {one.attribution}; lifted" + (f" by {by.who or by.by} on {by.when[:10]}" if by else "")

    def to_json(self) -> dict[str, object]:
        """Return it as commands print it."""
        revoked_by = self.revoked_by.mfid if self.revoked_by and not self.in_force else None
        return {
            **self.statement.to_json(),
            "in_force": self.in_force,
            "counts": self.counts,
            "revoked_by": revoked_by,
        }


class StatementEffects:
    """What statements say of the datasets of a Crucible, as of the moment when it is made.

    Where the service `is_away`, only what was read before is known. `waiting` gives a dataset that waits here to be
    delivered.
    """

    def __init__(
        self, mirror: Mirror, waiting: Callable[[str], DatasetRef | None] = lambda _: None, *, is_away: bool = False
    ) -> None:
        self.mirror = mirror
        self._is_away = is_away
        self._waiting = waiting
        self._read_facts: dict[str, SubjectFacts] = {}

    @cached_property
    def _holds(self) -> StatementIndex:
        return self.mirror.stated(HOLD)

    @cached_property
    def _flags(self) -> StatementIndex:
        return self.mirror.stated(FLAG)

    @property
    def says_any(self) -> bool:
        """Whether anything is on hold, or has a flag."""
        return bool(self._holds or self._flags)

    @property
    def holds_any(self) -> bool:
        """Whether anything is on hold."""
        return bool(self._holds)

    def doubts(
        self, mfids: Collection[str], viewer: str, known: Mapping[str, Summary] | None = None
    ) -> dict[str, Doubt]:
        """Return why datasets are doubtful, for those of these that are. `viewer` is the project that asks.

        `known` are datasets that were read already. Nothing is read while nothing is on hold.
        """
        index = self._holds
        if not index or not mfids:
            return {}
        facts = self._facts(mfids, known or {}, viewer)
        sources = at_fault(mfids, facts.get, index, viewer)
        mentions = {one: index.on(one, facts[one], viewer)[0] for one in set(sources.values())}
        statements = self.mirror.statements({one.mfid for one in mentions.values()})
        return {mfid: Doubt(source, statements[mentions[source].mfid]) for mfid, source in sources.items()}

    def reasons(self, used: Collection[str], code: str, project: str) -> tuple[str, ...]:
        """Return why nothing may be made of these datasets by this code: what of it is on hold, by whom and why."""
        if not self.holds_any:
            return ()
        told = [doubt.message() for doubt in self.doubts(used, project).values()]
        found = self._holds.on_code(code, project)
        if found and (hold := self.mirror.statements([found[0].mfid]).get(found[0].mfid)):
            told.append(f"code {code[:12]} is on hold {hold.attribution}")
        return tuple(dict.fromkeys(told))

    def require_free(self, used: Collection[str], code: str, project: str) -> None:
        """Raise OnHoldError if nothing may be made of these datasets by this code."""
        if reasons := self.reasons(used, code, project):
            raise OnHoldError(f"blocked: {'; '.join(reasons)}")

    def flags(self, mfids: Collection[str], viewer: str, known: Mapping[str, Summary]) -> dict[str, tuple[str, ...]]:
        """Return the names of the flags of datasets, for those of these that have any. Flags are not inherited.

        `known` are the datasets, as they were read.
        """
        index = self._flags
        if not index:
            return {}
        found = {}
        for mfid in mfids:
            if mfid in known and (said := index.on(mfid, known[mfid].facts, viewer)):
                found[mfid] = tuple(dict.fromkeys(one.note for one in said))
        return found

    def about(self, mfid: str, viewer: str, known: Summary) -> tuple[AppliedStatement, ...]:
        """Return the statements about a dataset, by its id or by a condition, the oldest first: revoked ones, too."""
        return tuple(one for one in self.all(viewer) if one.statement.is_about(mfid, known.facts))

    def all(self, viewer: str | None) -> list[AppliedStatement]:
        """Return all statements, the oldest first, with whether they are in force and count in a project.

        Without one, each is taken to count where it lies.
        """
        statements = self.mirror.statements()
        standing = in_force(statements.values())
        revoked = {mfid: one for one in standing.statements.values() for mfid in one.revokes}
        listed = sorted(statements.values(), key=lambda one: (one.when, one.mfid))
        return [
            AppliedStatement(
                one,
                one.mfid in standing.statements,
                viewer is None or standing.counts(one, viewer),
                revoked.get(one.mfid),
            )
            for one in listed
        ]

    def holds(self, project: str | None = None) -> list[Statement]:
        """Return the holds in force that lie in a project, or all, the oldest first: as far as they are known here."""
        found = [one.statement for one in self.all(None) if one.in_force and one.statement.verb == HOLD]
        return [one for one in found if project is None or one.project.casefold() == project.casefold()]

    def evicted(self) -> dict[str, set[str]]:
        """Return of which files the bytes were let go, since they can be made again: {MFID: SHA-256 of each}."""
        found: dict[str, set[str]] = {}
        for one in in_force(self.mirror.statements().values()).statements.values():
            if one.verb == EVICT:
                for mfid in one.about.datasets:
                    found.setdefault(mfid, set()).update(map(str, one.body.get("files") or ()))
        return found

    def _facts(self, mfids: Iterable[str], known: Mapping[str, Summary], viewer: str) -> dict[str, SubjectFacts]:
        """Return what is known of these datasets and all that they come from."""
        found: dict[str, SubjectFacts] = {}
        asked: set[str] = set()
        waiting = set(mfids)
        while waiting:
            asked |= waiting
            here = {mfid: self._read_facts[mfid] for mfid in waiting if mfid in self._read_facts}
            here |= {mfid: known[mfid].facts for mfid in waiting - here.keys() if mfid in known}
            refs = {mfid: ref for mfid in waiting - here.keys() if (ref := self._waiting(mfid))}
            here |= {mfid: _facts_of(ref, viewer) for mfid, ref in refs.items()}
            read = self._read(waiting - here.keys(), viewer)
            self._read_facts |= read
            here |= read
            found |= here
            waiting = {parent for facts in here.values() for parent in facts.parents} - asked
        return found

    def _read(self, mfids: Collection[str], viewer: str) -> dict[str, SubjectFacts]:
        if not mfids:
            return {}
        refs = self.mirror.known_among(mfids) if self._is_away else {}
        try:
            read = self.mirror.summaries(mfids, ask=not self._is_away)
        except CrucibleError:  # the service is away by now: what this machine made is known here
            refs = self.mirror.known_among(mfids)
            if len(refs) < len(mfids):
                raise
            read = {}
        known = {mfid: _facts_of(ref, viewer) for mfid, ref in refs.items()}
        return known | {mfid: one.facts for mfid, one in read.items()}


def _facts_of(ref: DatasetRef, project: str) -> SubjectFacts:
    return SubjectFacts(project, (*ref.parents, *ref.equals), taken=ref.taken)
