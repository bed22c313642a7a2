"""What differs between two datasets, or two runs, and between all that they come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from crucible_lineage.amounts import amount
from crucible_lineage.errors import InputError
from crucible_lineage.lineage import Difference, LineageGraph, diff
from crucible_lineage.lineage.records import recorded_run, run_ids
from crucible_lineage.queries.difference_text import difference_lines
from crucible_lineage.queries.graph.fetch import fetch_lineage, fetch_projects, named_projects, with_whole_records
from crucible_lineage.session import Session

__all__ = ["Compared", "compare_datasets", "compare_runs"]


@dataclass(frozen=True, repr=False)
class Compared:
    """Two lineages and what differs; as text, a line for each difference."""

    old: LineageGraph
    new: LineageGraph
    difference: Difference

    def __repr__(self) -> str:
        found = self.difference
        counts = (amount(len(found.results), "returned value"), amount(len(found.changed), "cause"))
        return f"<difference: {', '.join(counts)}>" if found else "<no difference>"

    def _repr_html_(self) -> str:
        return f"<pre>{escape(str(self))}</pre>"

    def __str__(self) -> str:
        return "\n".join(difference_lines(self.old, self.new, self.difference))


def compare_datasets(session: Session, old: str, new: str) -> Compared:
    """Compare two datasets and all that they come from. InputError if one is not there."""
    before = fetch_lineage(session, old)
    after = before if new in before else fetch_lineage(session, new)
    earlier = with_whole_records(session, before.derivations().around(old, direction="ancestors"))
    later = with_whole_records(session, after.derivations().around(new, direction="ancestors"))
    return Compared(earlier, later, diff(earlier, later, {old: new}))


def compare_runs(session: Session, old: str, new: str, projects: Sequence[str]) -> Compared:
    """Compare what two runs made or reused, with the parents.

    A run is known by its id, or by that of its Prefect flow run. InputError if no dataset of the projects is of it.
    """
    graph = fetch_projects(session, projects).graph
    earlier, later = (with_whole_records(session, _of_run(session, graph, run, projects)) for run in (old, new))
    return Compared(earlier, later, diff(earlier, later))


def _of_run(session: Session, graph: LineageGraph, run: str, projects: Sequence[str]) -> LineageGraph:
    """Return what a run made, or relied on by its record or this data folder, with the parents."""
    made = {node.id for node in graph.nodes.values() if run in run_ids(node.record)}
    for node in graph.nodes.values():
        if recorded_run(node.record) == run:
            made |= set(graph.children(node.id))
    remembered = (mfid for _, _, datasets in session.journal.run_steps(run) for mfid in datasets.values())
    made |= {mfid for mfid in remembered if mfid in graph}
    if not made:
        raise InputError(
            f"find run {run}: no dataset of {named_projects(projects)} says that this run made it, and no run of "
            "that id is remembered in this data folder"
        )
    derivations = graph.derivations()
    return derivations.subgraph(made.union(*(derivations.parents(mfid) for mfid in made)))
