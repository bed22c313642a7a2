"""Differences between two lineages, and what must be redone when a dataset, a file, code or an instrument was wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any, ClassVar

import networkx

from crucible_lineage.json_types import JsonObject, mapping, text
from crucible_lineage.lineage.graph import LineageGraph, generations
from crucible_lineage.lineage.model import INCOMPLETE, WITHDRAWN, Edge, Node
from crucible_lineage.lineage.records import (
    activity_code,
    equal_parents,
    flattened,
    generated_files,
    instruments,
    provenance,
    returned_values,
    slot_keys,
    used_files,
    used_roles,
)
from crucible_lineage.text.times import is_same_value, measured_at

Slot = str | tuple[str, ...]
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Change:
    """One field of a dataset that differs; `old_id` and `new_id` differ if one dataset replaced another."""

    old_id: str
    new_id: str
    field: str
    old: Any
    new: Any
    json_keys: ClassVar = "old_mfid=old_id new_mfid=new_id field old new change=by"

    @property
    def by(self) -> float | None:
        """Increase of a number; None for other values."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (self.old, self.new)):
            return None
        return float(self.new - self.old)


@dataclass(frozen=True)
class Difference:
    """Differences between two lineages, falsy if none; `results` are values returned by steps, `changed` the rest."""

    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    changed: tuple[Change, ...]
    added_edges: tuple[Edge, ...]
    removed_edges: tuple[Edge, ...]
    results: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed, self.added_edges, self.removed_edges, self.results))


def diff(old: LineageGraph, new: LineageGraph, counterparts: Mapping[str, str] = NONE) -> Difference:
    """Compare two lineages.

    Datasets are paired by id, then by `counterparts` ({old id: new id}). Of the others, a new one is paired with the
    old one that it supersedes, or that is in the same slot, or else with the only one that the same step made under the
    same name: a rerun with another parameter then reads as a changed parameter, not as two unrelated datasets. Parents
    that only have equal bytes to a used one are ignored, unless the other lineage contains them. Changes are listed
    from the roots down, so that causes come before their effects.
    """
    named = {*counterparts, *counterparts.values()}
    old, new = _without_equals(old, named.union(new.nodes)), _without_equals(new, named.union(old.nodes))
    successor = _successors(old, new, counterparts)
    paired = set(successor.values())
    generation_of = {mfid: number for number, generation in enumerate(generations(old.nx)) for mfid in generation}
    ordered = sorted(successor, key=lambda mfid: generation_of.get(mfid, len(generation_of)))
    pairs = [(old.nodes[mfid], new.nodes[successor[mfid]]) for mfid in ordered]
    changes = (change for before, after in pairs for change in _changes(before, after, successor))
    results = (change for before, after in reversed(pairs) for change in returned_changes(before, after))
    moved = {(successor.get(s, s), successor.get(t, t)): edge for (s, t), edge in old.edges.items()}
    return Difference(
        added=tuple(node for mfid, node in new.nodes.items() if mfid not in paired),
        removed=tuple(node for mfid, node in old.nodes.items() if mfid not in successor),
        changed=tuple(changes),
        added_edges=tuple(e for ends, e in new.edges.items() if not _same(moved.get(ends), e)),
        removed_edges=tuple(e for ends, e in moved.items() if not _same(new.edges.get(ends), e)),
        results=tuple(results),
    )


def _without_equals(graph: LineageGraph, keep: Collection[str]) -> LineageGraph:
    """Remove parents that were not used but have bytes equal to one that was."""
    equals = {
        mfid
        for node in graph.nodes.values()
        for mfid, used in equal_parents(node.record).items()
        if used in graph and mfid not in keep
    }
    return graph.subgraph(graph.nodes.keys() - equals) if equals else graph


def _successors(old: LineageGraph, new: LineageGraph, counterparts: Mapping[str, str]) -> dict[str, str]:
    """Return {old id: new id}: by id, by `counterparts`, then of datasets with different ids in the same slot."""
    known = {mfid: mfid for mfid in old.nodes if mfid in new}
    known |= {before: after for before, after in counterparts.items() if before not in new and after not in old}
    return known | _in_same_slots(old, new, known)


def _in_same_slots(old: LineageGraph, new: LineageGraph, known: Mapping[str, str]) -> dict[str, str]:
    """Return {old id: new id} of datasets with different ids in the same slot, without those already `known`."""
    known_new = set(known.values())
    removed = [node for mfid, node in old.nodes.items() if mfid not in known]
    added = [node for mfid, node in new.nodes.items() if mfid not in known_new]
    pairs: dict[str, str] = {}
    removed_ids = {node.id for node in removed}
    for node in added:
        before = text(provenance(node.record).get("supersedes"))
        if before in removed_ids and before not in pairs:
            pairs[before] = node.id
    for slots_of in (
        lambda node: slot_keys(node.record),
        lambda node: [(node.kind, node.step, text(provenance(node.record).get("output")), node.name)],
    ):
        removed_by_slot = _by_unique_slot((node for node in removed if node.id not in pairs), slots_of)
        paired = set(pairs.values())
        for slot, node in _by_unique_slot((node for node in added if node.id not in paired), slots_of).items():
            if slot in removed_by_slot and removed_by_slot[slot].id not in pairs:
                pairs[removed_by_slot[slot].id] = node.id
    return pairs


def _by_unique_slot(nodes: Iterable[Node], slots_of: Callable[[Node], Iterable[Slot]]) -> dict[Slot, Node]:
    """Return the nodes by slot, without those that share one."""
    by_slot: dict[Slot, list[Node]] = {}
    for node in nodes:
        for slot in slots_of(node):
            by_slot.setdefault(slot, []).append(node)
    return {slot: members[0] for slot, members in by_slot.items() if len(members) == 1 and members[0].kind != "hidden"}


def returned_changes(old: Node, new: Node) -> Iterator[Change]:
    """Yield the changed values that a step returned, nested ones by their path."""
    if not (old.step or new.step) or old.record == new.record:
        return
    before, after = (flattened(returned_values(node.record)) for node in (old, new))
    yield from _differing(old, new, before, after)


def _changes(old: Node, new: Node, successor: Mapping[str, str]) -> Iterator[Change]:
    if old == new and old.record == new.record:
        return
    renamed = successor if old.id != new.id else NONE
    in_both = used_files(old.record).keys() & used_files(new.record).keys()
    yield from _differing(old, new, _fields(old, in_both, renamed), _fields(new, in_both, NONE))


def _differing(old: Node, new: Node, before: JsonObject, after: JsonObject) -> Iterator[Change]:
    for name in dict.fromkeys([*before, *after]):
        was, now = before.get(name), after.get(name)
        if not is_same_value(name, was, now) and (was == was or now == now):  # NaN stays NaN
            yield Change(old.id, new.id, name, was, now)


def _fields(node: Node, in_both: Collection[str], successor: Mapping[str, str]) -> JsonObject:
    """Return the compared fields: each parameter, each fact about the parents, the code, each input, each file's
    SHA-256, and the node's own fields.

    An input with a successor counts as the successor, whose own changes are listed separately. Used files are compared
    if their dataset is used `in_both`.
    """
    fields: JsonObject = {}
    recipe = mapping(provenance(node.record).get("recipe"))
    fields |= {f"params.{name}": value for name, value in mapping(recipe.get("params")).items()}
    for role, parents in mapping(recipe.get("facts")).items():
        for number, values in enumerate(parents, 1):
            prefix = f"facts.{role}" if len(parents) == 1 else f"facts.{role}[{number}]"
            fields |= {f"{prefix}.{name}": value for name, value in flattened(values).items()}
    fields["code"] = activity_code(node.record)
    for role, mfids in used_roles(node.record).items():
        fields[f"inputs.{role}"] = tuple(sorted(successor.get(mfid, mfid) for mfid in mfids))
    for mfid, files in used_files(node.record).items():
        if mfid in in_both:
            fields |= {f"used.{mfid}.{name}": sha256 for name, sha256 in files.items()}
    fields |= {f"files.{name}": sha256 for name, sha256 in generated_files(node.record).items()}
    own = ("kind", "name", "measurement", "data_type", "project", "step")
    fields |= {name: getattr(node, name) for name in own}
    # Whether a result is current depends on the moment, not on the result.
    fields["state"] = node.state if node.state in (INCOMPLETE, WITHDRAWN) else "complete"
    return fields


def _same(edge: Edge | None, other: Edge) -> bool:
    return edge is not None and edge.relationship == other.relationship


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
            for child in graph.children(node.id):
                named = used_files(graph.nodes[child].record).get(node.id)
                if not named or sha256 in named.values():
                    starts.append((node.id, child))
    affected = {child for _, child in starts}
    for node in graph.nodes.values():
        uses = any(sha256 in files.values() for files in used_files(node.record).values())
        starts += [(node.id, node.id)] if uses and node.id not in affected else []
    return _impact(graph, starts)


def impact_of_code(graph: LineageGraph, fingerprint: str) -> Impact:
    """Find all that code of a fingerprint (64 hex digits, as in records) made, and all descendants."""
    made = (node.id for node in graph.nodes.values() if activity_code(node.record) == fingerprint)
    return _impact(graph, [(mfid, mfid) for mfid in made])


def impact_of_instrument(
    graph: LineageGraph, instrument: str, *, since: datetime | None = None, until: datetime | None = None
) -> Impact:
    """Find all descendants of data that an instrument took between two moments, both included, or without a time."""
    affected = (
        mfid
        for mfid, at in taken(graph, instrument)
        if at is None or ((since is None or at >= since) and (until is None or at <= until))
    )
    return _impact(graph, [(mfid, child) for mfid in affected for child in graph.children(mfid)])


def taken(graph: LineageGraph, instrument: str) -> Iterator[tuple[str, datetime | None]]:
    """Yield the data that an instrument took, with their time if it is known."""
    for node in graph.nodes.values():
        if instrument in instruments(node.record) and not node.step:
            yield node.id, measured_at(mapping(node.record))


def _impact(graph: LineageGraph, starts: Iterable[Start]) -> Impact:
    """Collect the datasets to redo from these starts and their descendants, breadth first; never samples."""
    causes: dict[str, str] = {}
    for cause, mfid in starts:
        causes.setdefault(mfid, cause)
    below: networkx.DiGraph[str] = networkx.DiGraph(graph.nx.edges)
    below.add_edges_from(("", mfid) for mfid in causes)
    came_from = {child: parent for parent, child in networkx.bfs_edges(below, "")} if causes else {}
    return Impact(tuple(mfid for mfid in came_from if graph.nodes[mfid].kind != "sample"), causes, came_from)
