"""What must be redone when something was wrong: a dataset, a file, code, or an instrument for a time."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime

from crucible_lineage.lineage.graph import LineageGraph, descent
from crucible_lineage.lineage.model import Node
from crucible_lineage.lineage.records import activity_code, generated_files, instruments, moment, provenance, used_files

Start = tuple[str, str]  # what was wrong, and the dataset to redo because of it (the same if that itself was wrong)


@dataclass(frozen=True)
class Impact:
    """The ids of the datasets to redo, nearest to the fault first."""

    ids: tuple[str, ...]
    _starts: Mapping[str, str] = field(repr=False)
    _came_from: Mapping[str, str] = field(repr=False)

    def chain(self, mfid: str) -> tuple[str, ...]:
        """Return one of the shortest paths from the fault to `mfid`, ends included. `mfid` is one of `ids`."""
        chain = [mfid]
        while chain[-1] not in self._starts:
            chain.append(self._came_from[chain[-1]])
        cause = self._starts[chain[-1]]
        return tuple(reversed(chain if cause == chain[-1] else [*chain, cause]))


def impact_of_dataset(graph: LineageGraph, mfid: str) -> Impact:
    """Find all descendants of a dataset or sample. Raises InputError if the graph does not contain it."""
    return _impact(graph, [(mfid, child) for child in graph.children(mfid)])


def impact_of_file(graph: LineageGraph, sha256: str, owners: Collection[str] = ()) -> Impact:
    """Find all descendants of a file, by its SHA-256, through all datasets that have it.

    `owners` are datasets known to have it in addition to those with it in their records. A child whose provenance lists
    the files it used is affected only if this is one of them.
    """
    starts: list[Start] = []
    for node in graph.nodes.values():
        if node.id in owners or sha256 in generated_files(node.record).values():
            starts += [
                (node.id, child) for child in graph.children(node.id) if _may_use(graph.nodes[child], node.id, sha256)
            ]
    affected = {child for _, child in starts}
    users = [node.id for node in graph.nodes.values() if node.id not in affected and _uses(node, sha256)]
    return _impact(graph, starts + [(mfid, mfid) for mfid in users])


def impact_of_code(graph: LineageGraph, fingerprint: str) -> Impact:
    """Find all that code of a fingerprint (64 hex digits, as in records) made, and all descendants."""
    made = (node.id for node in graph.nodes.values() if activity_code(node.record) == fingerprint)
    return _impact(graph, [(mfid, mfid) for mfid in made])


def impact_of_instrument(
    graph: LineageGraph, instrument: str, *, since: datetime | None = None, until: datetime | None = None
) -> Impact:
    """Find all descendants of data that an instrument (name, slug, MFID) took between two moments, both included.

    Datasets that a step made do not count as taken by an instrument, whatever their record says. Those without a time
    do count.
    """
    taken = (mfid for mfid, at in _taken(graph, instrument) if _is_within(at, since, until))
    return _impact(graph, [(mfid, child) for mfid in taken for child in graph.children(mfid)])


def taken_without_time(graph: LineageGraph, instrument: str) -> Iterator[str]:
    """Yield the data of an instrument without a known time."""
    return (mfid for mfid, at in _taken(graph, instrument) if at is None)


def _taken(graph: LineageGraph, instrument: str) -> Iterator[tuple[str, datetime | None]]:
    """Yield the data that an instrument took, with their time."""
    for node in graph.nodes.values():
        if instrument in instruments(node.record) and not node.step:
            yield node.id, moment(node.record)


def _impact(graph: LineageGraph, starts: Iterable[Start]) -> Impact:
    """Collect the datasets to redo from these starts and their descendants, breadth first; never samples."""
    causes: dict[str, str] = {}
    for cause, mfid in starts:
        causes.setdefault(mfid, cause)
    came_from = descent(graph, causes)
    return Impact(tuple(mfid for mfid in came_from if graph.nodes[mfid].kind != "sample"), causes, came_from)


def _uses(node: Node, sha256: str) -> bool:
    return any(sha256 in files.values() for files in used_files(node.record).values())


def _may_use(child: Node, parent: str, sha256: str) -> bool:
    """Return whether a child may have used a file: not if its provenance lists other files of that parent only."""
    if not provenance(child.record):
        return True
    named = used_files(child.record).get(parent)
    return not named or sha256 in named.values()


def _is_within(at: datetime | None, since: datetime | None, until: datetime | None) -> bool:
    return at is None or ((since is None or at >= since) and (until is None or at <= until))
