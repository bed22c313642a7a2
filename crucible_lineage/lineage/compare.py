"""Differences between two lineages: datasets and links added and removed, and the fields that changed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import CURRENT, SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import (
    activity_code,
    equal_parents,
    generated_files,
    place_keys,
    provenance,
    returned_values,
    text,
    used_files,
    used_roles,
)

Place = tuple[str, ...]
NONE: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True)
class Change:
    """One field of a dataset that differs; `old_id` and `new_id` differ where one dataset took another's place."""

    old_id: str
    new_id: str
    field: str
    old: Any
    new: Any

    @property
    def by(self) -> float | None:
        """Return how much a number has grown; None for what is no number."""
        if any(isinstance(value, bool) or not isinstance(value, int | float) for value in (self.old, self.new)):
            return None
        return float(self.new - self.old)


@dataclass(frozen=True)
class Difference:
    """Differences between two lineages; falsy if there are none.

    `results` are the values that steps returned, by their names, the last ones first; `changed` is everything else.
    """

    added: tuple[Node, ...]
    removed: tuple[Node, ...]
    changed: tuple[Change, ...]
    added_edges: tuple[Edge, ...]
    removed_edges: tuple[Edge, ...]
    results: tuple[Change, ...] = ()

    def __bool__(self) -> bool:
        return any((self.added, self.removed, self.changed, self.added_edges, self.removed_edges, self.results))


def diff(old: LineageGraph, new: LineageGraph, counterparts: Mapping[str, str] = NONE) -> Difference:
    """The difference of two lineages.

    Datasets are paired by id, then as `counterparts` ({old id: new id}) says. Of the others a new one is paired with
    the old one that it supersedes, or that is a result of the same, or else with the only one that the same step made
    under the same name: a rerun with another parameter then reads as that parameter changed, not as two unrelated
    datasets. A parent whose bytes a result could have been made of as well is left out, unless the other lineage has
    it too. Changes come from the roots down, so that what caused others stands before them.
    """
    asked = {*counterparts, *counterparts.values()}
    old, new = _without_equals(old, asked.union(new.nodes)), _without_equals(new, asked.union(old.nodes))
    successor = {mfid: mfid for mfid in old.nodes if mfid in new}
    successor |= {before: after for before, after in counterparts.items() if before not in new and after not in old}
    successor |= _successors(old, new, successor)
    taken = set(successor.values())
    pairs = [(old.nodes[one], new.nodes[other]) for one, other in sorted(successor.items(), key=_upstream_first(old))]
    changes = (change for before, after in pairs for change in _changes(before, after, successor))
    results = (change for before, after in reversed(pairs) for change in _returned(before, after))
    moved = {(successor.get(s, s), successor.get(t, t)): edge for (s, t), edge in old.edges.items()}
    return Difference(
        added=tuple(node for mfid, node in new.nodes.items() if mfid not in taken),
        removed=tuple(node for mfid, node in old.nodes.items() if mfid not in successor),
        changed=tuple(changes),
        added_edges=tuple(e for ends, e in new.edges.items() if not _same(moved.get(ends), e)),
        removed_edges=tuple(e for ends, e in moved.items() if not _same(new.edges.get(ends), e)),
        results=tuple(results),
    )


def _without_equals(graph: LineageGraph, kept: Collection[str]) -> LineageGraph:
    """The lineage without parents that were not used, and would have been the same as one that was."""
    equals = {
        mfid
        for node in graph.nodes.values()
        for mfid, was in equal_parents(node.record).items()
        if was in graph and mfid not in kept
    }
    return graph.subgraph(graph.nodes.keys() - equals) if equals else graph


def _upstream_first(graph: LineageGraph) -> Callable[[tuple[str, str]], int]:
    """Sorts pairs of ids by the generation of the first."""
    place = {mfid: number for number, generation in enumerate(graph.generations()) for mfid in generation}
    return lambda pair: place.get(pair[0], len(place))


def _successors(old: LineageGraph, new: LineageGraph, known: Mapping[str, str]) -> dict[str, str]:
    """{old id: new id} of datasets with different ids that stand in the same place, but for those already known."""
    taken = set(known.values())
    removed = [node for mfid, node in old.nodes.items() if mfid not in known]
    come = [node for mfid, node in new.nodes.items() if mfid not in taken]
    pairs: dict[str, str] = {}
    removed_ids = {node.id for node in removed}
    for node in come:
        before = text(provenance(node.record).get("supersedes"))
        if before in removed_ids and before not in pairs:
            pairs[before] = node.id
    for places in (_filled, _named):
        before_at = _alone((node for node in removed if node.id not in pairs), places)
        paired = set(pairs.values())
        for place, node in _alone((node for node in come if node.id not in paired), places).items():
            if place in before_at and before_at[place].id not in pairs:
                pairs[before_at[place].id] = node.id
    return pairs


def _alone(nodes: Iterable[Node], slots_of: Callable[[Node], Iterable[Place]]) -> dict[Place, Node]:
    """The nodes by their places, those left out that share one."""
    places: dict[Place, list[Node]] = {}
    for node in nodes:
        for place in slots_of(node):
            places.setdefault(place, []).append(node)
    return {place: found[0] for place, found in places.items() if len(found) == 1 and found[0].kind != "hidden"}


def _filled(node: Node) -> Iterable[Place]:
    return ((key,) for key in place_keys(node.record))


def _named(node: Node) -> Iterable[Place]:
    yield (node.kind, node.step, text(provenance(node.record).get("output")), node.name)


def _returned(old: Node, new: Node) -> Iterator[Change]:
    """The values that a step returned, those within others by their path."""
    if not (old.step or new.step) or old.record == new.record:
        return
    before, after = (dict(_values(returned_values(node.record))) for node in (old, new))
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(old.id, new.id, name, before.get(name), after.get(name))


def _values(returned: Mapping[str, object], above: str = "") -> Iterator[tuple[str, object]]:
    for name, value in returned.items():
        if isinstance(value, Mapping) and value:
            yield from _values(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value


def _changes(old: Node, new: Node, successor: Mapping[str, str]) -> Iterator[Change]:
    if old == new and old.record == new.record:
        return
    renamed = successor if old.id != new.id else NONE
    in_both = used_files(old.record).keys() & used_files(new.record).keys()
    before, after = _fields(old, in_both, renamed), _fields(new, in_both, NONE)
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            yield Change(old.id, new.id, name, before.get(name), after.get(name))


def _fields(node: Node, in_both: Collection[str], successor: Mapping[str, str]) -> dict[str, object]:
    """Return what is compared: each parameter, each fact about the parents that the step got, the code, each input,
    each file's SHA-256, and the node's own fields.

    An input that has a successor counts as that: what became of it is told where it stands. The files that were used
    are compared where they are of a dataset that is used `in_both`.
    """
    fields: dict[str, Any] = {}
    recipe = provenance(node.record).get("recipe")
    params = recipe.get("params") if isinstance(recipe, dict) else None
    for name, value in params.items() if isinstance(params, dict) else ():
        fields[f"params.{name}"] = value
    facts = recipe.get("facts") if isinstance(recipe, dict) else None
    for role, known in facts.items() if isinstance(facts, dict) else ():
        for number, one in enumerate(known, 1):
            where = f"facts.{role}" if len(known) == 1 else f"facts.{role}[{number}]"
            fields |= {f"{where}.{name}": value for name, value in _values(one)}
    fields["code"] = activity_code(node.record)
    for role, mfids in used_roles(node.record).items():
        fields[f"inputs.{role}"] = tuple(sorted(successor.get(mfid, mfid) for mfid in mfids))
    for mfid, files in used_files(node.record).items():
        if mfid in in_both:
            fields |= {f"used.{mfid}.{name}": sha256 for name, sha256 in files.items()}
    for name, sha256 in generated_files(node.record).items():
        fields[f"files.{name}"] = sha256
    own = ("kind", "name", "measurement", "data_type", "project", "step")
    fields |= {name: getattr(node, name) for name in own}
    # Whether a result holds is a fact about now, and not about the result.
    fields["state"] = "complete" if node.state in (CURRENT, SUPERSEDED) else node.state
    return fields


def _same(one: Edge | None, other: Edge) -> bool:
    return one is not None and one.relationship == other.relationship
