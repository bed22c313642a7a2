"""Compare two datasets or two runs, including their ancestors."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer
from crucible_lineage.ask.lineages import fetch_lineage, fetch_projects, named_projects, with_whole_records
from crucible_lineage.ask.names import find_mfid, visible_projects
from crucible_lineage.ask.question import BEFORE, Projects, argument, question
from crucible_lineage.ask.runs import find_run
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.compare import Change, Difference, diff
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import detail, nodes_text, plain, short_id, title
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.records import used_mfids
from crucible_lineage.lineage.text import shown_edges
from crucible_lineage.refs import DERIVED, relation_text
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount, change_text


@dataclass(frozen=True, repr=False)
class LineageComparison(Answer):
    """Two lineages and their differences; as text, a line for each difference."""

    old: LineageGraph
    new: LineageGraph
    difference: Difference
    json_keys: ClassVar = (
        "same results=difference.results added=difference.added removed=difference.removed "
        "changed=difference.changed added_links removed_links"
    )

    def __repr__(self) -> str:
        found = self.difference
        counts = (amount(len(found.results), "returned value"), amount(len(found.changed), "cause"))
        return f"<difference: {', '.join(counts)}>" if found else "<no difference>"

    def lines(self) -> Iterator[str]:
        yield from self._results()
        yield from self._causes()
        if not self.difference:
            yield f"no difference, in {nodes_text(len(self.old))}"

    def page_lines(self) -> Iterator[str]:
        yield from self._causes()
        yield from self._results() if self.difference else self.lines()

    def _results(self) -> Iterator[str]:
        for ends, results in changes_by_dataset(self.difference.results):
            yield f"results   {self._changed(*ends)}"
            yield from (f"  {result_text(change)}" for change in results)

    def _causes(self) -> Iterator[str]:
        found = self.difference
        yield from (f"removed   {_described(node)}" for node in found.removed)
        yield from (f"added     {_described(node)}" for node in found.added)
        for ends, changes in changes_by_dataset(found.changed):
            yield from (f"changed   {self._changed(*ends)}", *(f"  {self._change(change)}" for change in changes))
        yield from (f"unlinked  {_link(self.old, edge)}" for edge in found.removed_edges)
        yield from (f"linked    {_link(self.new, edge)}" for edge in found.added_edges)

    @property
    def hidden(self) -> set[str]:  # type: ignore[override]
        """The datasets in records that this key cannot see."""
        return {
            mfid
            for graph in (self.old, self.new)
            for node in graph.nodes.values()
            for mfid in used_mfids(node.record)
            if mfid not in graph or mfid in graph.hidden
        }

    def _changed(self, before: str, after: str) -> str:
        new = plain(self.new.label(after))
        return new if before == after else f"{plain(self.old.label(before))} -> {new}"

    def _change(self, change: Change) -> str:
        if not change.field.startswith("inputs."):
            return plain(f"{change.field}: {change_text(change.old, change.new, _value)}")
        before, after = (  # the successors of inputs are only in the new lineage
            ", ".join((self.new if mfid in self.new else self.old).label(mfid) for mfid in value or ()) or "nothing"
            for value in (change.old, change.new)
        )
        return plain(f"{change.field}: {before} -> {after}")

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.difference

    @property
    def added_links(self) -> list[Edge]:
        """The links that only the new lineage has."""
        return shown_edges(self.new, self.difference.added_edges)

    @property
    def removed_links(self) -> list[Edge]:
        """The links that only the old lineage has."""
        return shown_edges(self.old, self.difference.removed_edges)


@question("diff", announced=BEFORE)
def compare(
    session: Session, old: Annotated[str, argument()], new: Annotated[str, argument()], *, projects: Projects = ()
) -> LineageComparison:
    """Show the differences between the datasets OLD and NEW, including their ancestors: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that differs.

    OLD and NEW may also be two runs, named by the id, or its beginning, of a run or a Prefect flow run.
    """
    try:
        datasets = find_mfid(session, old, projects), find_mfid(session, new, projects)
    except InputError as no_dataset:
        try:
            return compare_runs(session, old, new, projects or visible_projects(session))
        except InputError as no_run:
            raise InputError(f"{no_dataset}\n{no_run}") from no_run
    return compare_datasets(session, *datasets)


def compare_datasets(session: Session, old: str, new: str) -> LineageComparison:
    """Compare two datasets and their ancestors. Raises InputError if one does not exist."""
    before = fetch_lineage(session, old)
    after = before if new in before else fetch_lineage(session, new)
    earlier = with_whole_records(session, before.derivations().around(old, direction="ancestors"))
    later = with_whole_records(session, after.derivations().around(new, direction="ancestors"))
    return LineageComparison(earlier, later, diff(earlier, later, {old: new}))


def compare_runs(session: Session, old: str, new: str, projects: Sequence[str]) -> LineageComparison:
    """Compare what two runs of these projects made or reused, with the parents.

    Runs are named as for `find_run`. Raises InputError if there is no such run, or it has no visible dataset.
    """
    copies = {project: session.mirror.snapshot(project) for project in projects}
    runs = [find_run(session, run, copies) for run in (old, new)]
    for run in runs:
        if not run.datasets:
            raise InputError(
                f"compare run {run.run_id}: {named_projects(projects)} has no dataset that it made or used"
            )
    relied = runs[0].datasets | runs[1].datasets
    graph = fetch_projects(session, [project for project, copy in copies.items() if relied & copy.records.keys()])
    earlier, later = (with_whole_records(session, graph.with_parents(run.datasets)) for run in runs)
    return LineageComparison(earlier, later, diff(earlier, later))


MOST_VALUE = 60  # characters of a value that a step returned


def changes_by_dataset(changes: Iterable[Change]) -> Iterator[tuple[tuple[str, str], list[Change]]]:
    """Yield the changes of each pair of datasets, with their ids."""
    for ends, group in groupby(changes, key=lambda change: (change.old_id, change.new_id)):
        yield ends, list(group)


def result_text(change: Change) -> str:
    """Return a returned value that differs, in words."""
    by = "" if change.by is None else f" ({change.by:+.6g})"
    return plain(f"{change.field}: {change_text(change.old, change.new, _shown)}{by}")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    text = "nothing" if value is None else text
    return text if len(text) <= MOST_VALUE else f"{text[:MOST_VALUE]}…"


def _value(value: object) -> str:
    if value in (None, ""):
        return "nothing"
    if not isinstance(value, str):
        return repr(value)
    return f"{value[:12]}…" if len(value) == 64 and value.isalnum() else value  # a SHA-256


def _described(node: Node) -> str:
    mfid = "" if node.kind == "hidden" else short_id(node.id)
    return "  ".join(filter(None, (title(node), mfid, detail(node))))


def _link(graph: LineageGraph, edge: Edge) -> str:
    ends = f"{graph.label(edge.source)} -> {graph.label(edge.target)}"
    return plain(f"{ends}  {relation_text(edge.relationship) or DERIVED}")
