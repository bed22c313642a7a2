"""What differs between two lineages: datasets and links added and removed, and the fields that changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.records import (
    activity_code,
    generated_files,
    provenance,
    text,
    used_files,
    used_roles,
)

__all__ = ["Change", "Difference", "diff"]

NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Change:
    """One field of a dataset that differs; `old_id` and `new_id` differ where one dataset took another's place."""

    old_id: str
    new_id: str
    field: str
    old: Any
    new: Any


@dataclass(frozen=True)
class Difference:
    """What one lineage has and the other has not. A falsy one says that nothing differs."""

    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    changed: tuple[Change, ...]
    added_edges: tuple[Edge, ...]
    removed_edges: tuple[Edge, ...]

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed, self.added_edges, self.removed_edges))


def diff(old: LineageGraph, new: LineageGraph, counterparts: Mapping[str, str] = NONE) -> Difference:
    """The difference of two lineages.

    Datasets are paired by id, then as `counterparts` ({old id: new id}) says. Of the others a new one is paired with
    the old one that it supersedes, or else with the only one that the same step made under the same name: a rerun with
    another parameter then reads as that parameter changed, not as two unrelated datasets. Changes come from the roots
    down, so that what caused others stands before them.
    """
    successor = {mfid: mfid for mfid in old.nodes if mfid in new}
    successor |= {before: after for before, after in counterparts.items() if before not in new and after not in old}
    successor |= _successors(old, new, successor)
    taken = set(successor.values())
    changes = (
        change
        for before, after in sorted(successor.items(), key=_upstream_first(old))
        for change in _changes(old.nodes[before], new.nodes[after], successor)
    )
    moved = {(successor.get(s, s), successor.get(t, t)): edge for (s, t), edge in old.edges.items()}
    return Difference(
        added=tuple(node for mfid, node in new.nodes.items() if mfid not in taken),
        removed=tuple(node for mfid, node in old.nodes.items() if mfid not in successor),
        changed=tuple(changes),
        added_edges=tuple(e for ends, e in new.edges.items() if not _same(moved.get(ends), e)),
        removed_edges=tuple(e for ends, e in moved.items() if not _same(new.edges.get(ends), e)),
    )


def _upstream_first(graph: LineageGraph) -> Callable[[tuple[str, str]], int]:
    """Sorts pairs of ids by the generation of the first."""
    place = {mfid: number for number, generation in enumerate(graph.generations()) for mfid in generation}
    return lambda pair: place.get(pair[0], len(place))


def _successors(old: LineageGraph, new: LineageGraph, known: Mapping[str, str]) -> dict[str, str]:
    """{old id: new id} of datasets with different ids that stand in the same place, but for those already known."""
    taken = set(known.values())
    gone = [node for mfid, node in old.nodes.items() if mfid not in known]
    come = [node for mfid, node in new.nodes.items() if mfid not in taken]
    pairs: dict[str, str] = {}
    gone_ids = {node.id for node in gone}
    for node in come:
        before = text(provenance(node.record).get("supersedes"))
        if before in gone_ids and before not in pairs:
            pairs[before] = node.id
    paired = set(pairs.values())
    before_at = _alone(node for node in gone if node.id not in pairs)
    for place, node in _alone(node for node in come if node.id not in paired).items():
        if place in before_at:
            pairs[before_at[place].id] = node.id
    return pairs


def _alone(nodes: Iterable[Node]) -> dict[tuple[str, ...], Node]:
    """The nodes by their place (step, output, name), those that share a place left out."""
    places: dict[tuple[str, ...], list[Node]] = {}
    for node in nodes:
        place = (node.kind, node.step, text(provenance(node.record).get("output")), node.name)
        places.setdefault(place, []).append(node)
    return {place: found[0] for place, found in places.items() if len(found) == 1 and found[0].kind != "hidden"}


def _changes(old: Node, new: Node, successor: Mapping[str, str]) -> Iterator[Change]:
    if old == new and old.record == new.record:
        return
    renamed = successor if old.id != new.id else NONE
    in_both = used_files(old.record).keys() & used_files(new.record).keys()
    before, after = _fields(old, in_both, renamed), _fields(new, in_both, NONE)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(old.id, new.id, name, before.get(name), after.get(name))


def _fields(node: Node, in_both: Collection[str], successor: Mapping[str, str]) -> dict[str, Any]:
    """What is compared: the node's own fields, each parameter, the code, each input, and each file's SHA-256.

    An input that has a successor counts as that: what became of it is told where it stands. The files that were used
    are compared where they are of a dataset that is used `in_both`.
    """
    own = ("kind", "name", "measurement", "data_type", "project", "state", "step")
    fields: dict[str, Any] = {name: getattr(node, name) for name in own}
    recipe = provenance(node.record).get("recipe")
    params = recipe.get("params") if isinstance(recipe, dict) else None
    for name, value in params.items() if isinstance(params, dict) else ():
        fields[f"params.{name}"] = value
    fields["code"] = activity_code(node.record)
    for role, mfids in used_roles(node.record).items():
        fields[f"inputs.{role}"] = tuple(sorted(successor.get(mfid, mfid) for mfid in mfids))
    for mfid, files in used_files(node.record).items():
        if mfid in in_both:
            fields |= {f"used.{mfid}.{name}": sha256 for name, sha256 in files.items()}
    for name, sha256 in generated_files(node.record).items():
        fields[f"files.{name}"] = sha256
    return fields


def _same(one: Edge | None, other: Edge) -> bool:
    return one is not None and one.relationship == other.relationship
