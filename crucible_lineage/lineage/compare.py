"""What differs between two lineages: datasets and links added and removed, and the fields that changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.records import activity_code, generated_files, provenance, text

__all__ = ["Change", "Difference", "diff"]


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


def diff(old: LineageGraph, new: LineageGraph) -> Difference:
    """The difference of two lineages.

    Datasets are paired by id. Of the others a new one is paired with the old one that it supersedes, or else with the
    only one that the same step made under the same name: a rerun with another parameter then reads as that parameter
    changed, not as two unrelated datasets.
    """
    successor = {mfid: mfid for mfid in old.nodes if mfid in new} | _successors(old, new)
    taken = set(successor.values())
    changes = (c for before, after in successor.items() for c in _changes(old.nodes[before], new.nodes[after]))
    moved = {(successor.get(s, s), successor.get(t, t)): edge for (s, t), edge in old.edges.items()}
    return Difference(
        added=tuple(node for mfid, node in new.nodes.items() if mfid not in taken),
        removed=tuple(node for mfid, node in old.nodes.items() if mfid not in successor),
        changed=tuple(changes),
        added_edges=tuple(e for ends, e in new.edges.items() if not _same(moved.get(ends), e)),
        removed_edges=tuple(e for ends, e in moved.items() if not _same(new.edges.get(ends), e)),
    )


def _successors(old: LineageGraph, new: LineageGraph) -> dict[str, str]:
    """{old id: new id} of datasets with different ids that stand in the same place."""
    gone = [node for mfid, node in old.nodes.items() if mfid not in new]
    come = [node for mfid, node in new.nodes.items() if mfid not in old]
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


def _changes(old: Node, new: Node) -> Iterator[Change]:
    before, after = _fields(old), _fields(new)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(old.id, new.id, name, before.get(name), after.get(name))


def _fields(node: Node) -> dict[str, Any]:
    """What is compared: the node's own fields, each parameter, the code, and each file's SHA-256."""
    own = ("kind", "name", "measurement", "data_type", "project", "state", "step")
    fields: dict[str, Any] = {name: getattr(node, name) for name in own}
    recipe = provenance(node.record).get("recipe")
    params = recipe.get("params") if isinstance(recipe, dict) else None
    for name, value in params.items() if isinstance(params, dict) else ():
        fields[f"params.{name}"] = value
    fields["code"] = activity_code(node.record)
    for name, sha256 in generated_files(node.record).items():
        fields[f"files.{name}"] = sha256
    return fields


def _same(one: Edge | None, other: Edge) -> bool:
    return one is not None and one.relationship == other.relationship
