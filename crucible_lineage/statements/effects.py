"""Effects of statements on datasets: which are on hold, or derived from a dataset on hold, and in which words."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property

from crucible_lineage.core.mirror import Mirror
from crucible_lineage.core.tables import Summary
from crucible_lineage.errors import CrucibleError, OnHoldError
from crucible_lineage.json_types import object_of
from crucible_lineage.refs import DatasetRef
from crucible_lineage.statements.calibrations import Span, certificates_of, validity_text
from crucible_lineage.statements.statements import (
    CERTIFY,
    HOLD,
    ActiveStatements,
    Doubt,
    Statement,
    SubjectFacts,
    at_fault,
)


@dataclass(frozen=True)
class AppliedStatement:
    """A statement seen from a project: whether it is in force, whether it counts there, and what revoked it.

    `spans` are the remaining ranges of a certificate. One that nobody vouches for `is_unvouched` until it is revoked.
    """

    statement: Statement
    in_force: bool
    counts: bool
    revoked_by: Statement | None = None
    spans: tuple[Span, ...] = ()
    is_unvouched: bool = False

    @property
    def text(self) -> str:
        """The statement in words."""
        statement = self.statement
        content = f"flag {statement.flag}" if statement.flag else validity_text(statement, self.spans) or statement.verb
        if self.is_unvouched and not self.in_force:
            return f"{content} {statement.attribution}"
        if self.in_force:
            content += " (replaced)" if statement.verb == CERTIFY and not self.spans else ""
            elsewhere = "" if self.counts else f" (of project {statement.project}, does not count here)"
            return f"{content} {statement.attribution}{elsewhere}"
        by = self.revoked_by
        return f"{content} {statement.attribution}; lifted" + (f" by {by.who or by.by} on {by.when[:10]}" if by else "")

    def to_json(self) -> dict[str, object]:
        """Return the statement as commands print it."""
        revoked_by = self.revoked_by.mfid if self.revoked_by and not self.in_force else None
        return {
            **object_of(self.statement),
            "in_force": self.in_force,
            "counts": self.counts,
            "revoked_by": revoked_by,
        }


class StatementEffects:
    """The effects of statements on the datasets of a Crucible, as of the moment of construction.

    While the service `is_away`, only what was read before is used. `waiting` returns a dataset that waits here for
    delivery.
    """

    def __init__(
        self, mirror: Mirror, waiting: Callable[[str], DatasetRef | None] = lambda _: None, *, is_away: bool = False
    ) -> None:
        self.mirror = mirror
        self._is_away = is_away
        self._waiting = waiting
        self._read_facts: dict[str, SubjectFacts] = {}

    @cached_property
    def _active(self) -> ActiveStatements:
        return self.mirror.in_force()

    @property
    def holds_any(self) -> bool:
        """Whether anything is on hold."""
        return bool(self._active.holds)

    def doubts(
        self, mfids: Collection[str], viewer: str, summaries: Mapping[str, Summary] | None = None
    ) -> dict[str, Doubt]:
        """Return the reasons for doubt about the doubtful ones among these datasets, as the project `viewer` sees them.

        `summaries` were read already. Nothing is read while nothing is on hold.
        """
        index = self._active.holds
        if not index or not mfids:
            return {}
        facts = self._facts(mfids, summaries or {}, viewer)
        found = at_fault(facts, index, viewer)
        sources = {mfid: found[mfid] for mfid in mfids if mfid in found}
        held = {source: index.on(source, facts[source], viewer)[0] for source in set(sources.values())}
        return {mfid: Doubt(source, held[source]) for mfid, source in sources.items()}

    def reasons(self, used: Collection[str], code: str, project: str) -> tuple[str, ...]:
        """Return what prevents making results from these datasets by this code: the holds, by whom and why."""
        reasons = [doubt.message() for doubt in self.doubts(used, project).values()]
        if found := self._active.holds.on_code(code, project):
            reasons.append(f"code {code[:12]} is on hold {found[0].attribution}")
        return tuple(dict.fromkeys(reasons))

    def require_free(self, used: Collection[str], code: str, project: str) -> None:
        """Raise OnHoldError if a hold prevents making results from these datasets by this code."""
        if reasons := self.reasons(used, code, project):
            raise OnHoldError(f"blocked: {'; '.join(reasons)}")

    def flags(
        self, mfids: Collection[str], viewer: str, summaries: Mapping[str, Summary]
    ) -> dict[str, tuple[str, ...]]:
        """Return the names of the flags of those datasets that have any. Flags are not inherited."""
        index = self._active.flags
        if not index:
            return {}
        found = {}
        for mfid in mfids:
            if mfid in summaries and (flags := index.on(mfid, summaries[mfid].facts, viewer)):
                found[mfid] = tuple(dict.fromkeys(statement.flag for statement in flags))
        return found

    def about(self, mfid: str, viewer: str, summary: Summary) -> tuple[AppliedStatement, ...]:
        """Return the statements about a dataset, by its id or by a condition, oldest first, including revoked ones.

        Of one that nobody vouches for, return itself, too.
        """
        applied_statements = self.all(viewer)
        own = {mfid for applied in applied_statements if applied.is_unvouched and applied.statement.mfid == mfid}
        return tuple(
            applied
            for applied in applied_statements
            if applied.statement.mfid in own or applied.statement.is_about(mfid, summary.facts)
        )

    def all(self, viewer: str | None) -> list[AppliedStatement]:
        """Return all statements, oldest first, with whether they are in force and count in the project `viewer`.

        Without a viewer, each counts in its own project.
        """
        statements, active = self.mirror.statements(), self.mirror.in_force()
        revoked = {mfid: statement for statement in active.statements.values() for mfid in statement.revokes}
        spans = {certificate.statement: certificate.spans for certificate in certificates_of(active)}
        listed = sorted(statements.values(), key=lambda statement: (statement.when, statement.mfid))
        return [
            AppliedStatement(
                statement,
                statement.mfid in active.statements,
                viewer is None or active.counts(statement, viewer),
                revoked.get(statement.mfid),
                spans.get(statement.mfid, ()),
                statement.mfid in active.unvouched,
            )
            for statement in listed
        ]

    def unvouched(self, project: str) -> list[Statement]:
        """Return the statements that would count in a project, but that nobody vouches for."""
        return [stated for stated in self._active.unvouched.values() if self._active.counts(stated, project)]

    def holds(self, project: str | None = None) -> list[Statement]:
        """Return the known holds in force of a project, or of all, oldest first."""
        held = (statement for statement in self._active.statements.values() if statement.verb == HOLD)
        found = [stated for stated in held if project is None or stated.project.casefold() == project.casefold()]
        return sorted(found, key=lambda statement: (statement.when, statement.mfid))

    def _facts(self, mfids: Iterable[str], summaries: Mapping[str, Summary], viewer: str) -> dict[str, SubjectFacts]:
        """Return the facts of these datasets and of all their ancestors."""
        found: dict[str, SubjectFacts] = {}
        visited: set[str] = set()
        generation = set(mfids)
        while generation:
            visited |= generation
            facts = {mfid: self._read_facts[mfid] for mfid in generation if mfid in self._read_facts}
            facts |= {mfid: summaries[mfid].facts for mfid in generation - facts.keys() if mfid in summaries}
            refs = {mfid: ref for mfid in generation - facts.keys() if (ref := self._waiting(mfid))}
            facts |= {mfid: _facts_of(ref, viewer) for mfid, ref in refs.items()}
            read = self._read(generation - facts.keys(), viewer)
            self._read_facts |= read
            facts |= read
            found |= facts
            generation = {parent for each in facts.values() for parent in each.parents} - visited
        return found

    def _read(self, mfids: Collection[str], viewer: str) -> dict[str, SubjectFacts]:
        if not mfids:
            return {}
        refs = self.mirror.known_among(mfids) if self._is_away else {}
        try:
            read = self.mirror.summaries(mfids, ask=not self._is_away)
        except CrucibleError:  # the service is away now: use what this machine made
            refs = self.mirror.known_among(mfids)
            if len(refs) < len(mfids):
                raise
            read = {}
        facts = {mfid: _facts_of(ref, viewer) for mfid, ref in refs.items()}
        return facts | {mfid: summary.facts for mfid, summary in read.items()}


def _facts_of(ref: DatasetRef, project: str) -> SubjectFacts:
    return SubjectFacts(project, (*ref.parents, *ref.equals), taken=ref.taken)
