"""Checks of a lineage graph. Each finds one kind of fault, the ids concerned, and the command that repairs it."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import networkx

from crucible_lineage.collector import collector_paused
from crucible_lineage.ids import derive_mfid, is_mfid, mfid_bytes, mfid_time
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.model import DERIVED, KNOWN_RELATIONSHIPS, MEASURED, PART, Node
from crucible_lineage.lineage.records import (
    generated_files,
    given_metadata,
    lists_all_used,
    provenance,
    recipe_digest,
    recorded_project,
    text,
    used_files,
    used_mfids,
)

Severity = Literal["error", "warning", "notice"]
SEVERITIES: tuple[Severity, ...] = get_args(Severity)  # worst first

# Every kind of finding, of `check` and of `verify`, with its meaning. The reference is generated from this table.
MEANINGS: Mapping[str, str] = {
    "cache-damaged": "a copy in the cache of this data folder does not match its hash",
    "changed-recipe": "the id does not follow from the recipe in the record",
    "changed-record": "the record contradicts its recipe or its own hash",
    "cycle": "datasets descend from themselves",
    "dangling-parent": "a parent does not exist or is not visible to you",
    "declared-twice": "several files declare a pipeline of this name; each keeps its results",
    "duplicate-recipe": "the same work has two ids",
    "file-added": "Crucible lists a file that was not registered",
    "file-changed": "Crucible lists a file with another hash than the registered one",
    "file-damaged": "the bytes do not match the hash, or cannot be read (with `--bytes`)",
    "file-missing": "a registered file is not listed",
    "held-twice": "several results are current in one slot",
    "incomplete": "a registration was not finished, or is in progress; the pipeline or `rerun MFID` finishes it",
    "input-changed": "a parent no longer has the file that this was made from",
    "made-of-superseded": "a current result has a superseded parent",
    "metadata-changed": "registered scientific metadata were edited or removed",
    "mismatch": "error: the record names a parent without an `is_derived_from` link; warning: a link that the record "
    "does not name",
    "missing-dataset": "a parent, or a registered dataset, is gone without a reviewed deletion",
    "not-ingested": "a file could not be read, or not by the requested ingestor",
    "older-than-parent": "the id is older than that of a parent",
    "orphan": "the dataset looks derived, but has no parent; candidates are proposed",
    "record-damaged": "the record does not fit the schema or its version, or its attached file is lost or changed",
    "record-missing": "the id was derived from a recipe, but there is no record",
    "self-link": "a dataset is linked to itself",
    "unknown-relationship": "a link has a type that Crucible does not know; a notice if it has no type",
    "withdrawn-holder": "deletion of the current result was requested, so an earlier one shows as current",
    "wrong-project": "the dataset is in another project than its record says, or than all its parents",
}


@dataclass(frozen=True)
class Finding:
    """One fault: `ids` are the nodes concerned, `command` repairs it or shows more (empty if there is none).

    `ids` may include nodes hidden from the reader; `message` does not name these.
    """

    check: str
    severity: Severity
    ids: tuple[str, ...]
    message: str
    command: str = ""

    def to_json(self) -> dict[str, object]:
        """Return the finding for `--json`."""
        fields = {"class": self.check, "severity": self.severity, "mfids": list(self.ids)}
        return {**fields, "message": self.message, "command": self.command}


def worst_first(findings: Iterable[Finding]) -> list[Finding]:
    """Sort findings by severity; those of equal severity stay in the order in which they were found."""
    return sorted(findings, key=lambda finding: SEVERITIES.index(finding.severity))


@dataclass(frozen=True)
class Findings:
    """Findings, worst first; subclasses add how much was examined."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether no finding is an error, only a warning or notice."""
        return not any(finding.severity == "error" for finding in self.findings)

    def to_json(self) -> dict[str, object]:
        """Return the findings for `--json`."""
        return {"ok": self.ok, **vars(self), "findings": [finding.to_json() for finding in self.findings]}


def link_command(parent: str, child: str) -> str:
    """Return the command that links a child to its parent, or corrects the type of their link."""
    return f"crucible link -p {parent} -c {child} --relationship-type is_derived_from"


def check(graph: LineageGraph) -> list[Finding]:
    """Find all faults of a graph, in the order of `CHECKS`."""
    with collector_paused():
        return [finding for find in CHECKS.values() for finding in find(graph)]


def cycles(graph: LineageGraph) -> Iterator[Finding]:
    """Find one cycle in each group of datasets that descend from themselves, as a path from its smallest id."""
    knots = (knot for knot in networkx.strongly_connected_components(graph.nx) if len(knot) > 1)
    for knot in sorted(map(sorted, knots)):
        within, start = graph.nx.subgraph(knot), knot[0]
        ways = (networkx.shortest_path(within, child, start) for child in sorted(within.succ[start]) if child != start)
        path = (start, *min(ways, key=len))
        yield Finding(
            "cycle",
            "error",
            path,
            f"these descend from themselves: {' -> '.join(graph.label(mfid) for mfid in path)}; "
            "check which link is the wrong way round",
            f"crucible unlink {path[-2]} {path[-1]}",
        )


def self_links(graph: LineageGraph) -> Iterator[Finding]:
    """Find datasets that are linked to themselves."""
    for source, target in graph.edges:
        if source == target:
            message = f"{graph.label(source)} is linked to itself"
            yield Finding("self-link", "error", (source,), message, f"crucible unlink {source} {source}")


def dangling_parents(graph: LineageGraph) -> Iterator[Finding]:
    """Find parents in links or provenance records that are hidden from the reader, or do not exist."""
    if not graph.hidden:
        return
    pairs = dict.fromkeys(ends for ends in graph.edges if ends[0] in graph.hidden)
    for node in graph.nodes.values():
        pairs |= dict.fromkeys((mfid, node.id) for mfid in used_mfids(node.record) if mfid in graph.hidden)
    for source, target in pairs:
        message = f"a parent of {graph.label(target)} is not visible to you or does not exist"
        yield Finding("dangling-parent", "warning", (source, target), message, f"crucible get {target}")


def mismatches(graph: LineageGraph) -> Iterator[Finding]:
    """Find derived datasets whose links to parents differ from the parents in their provenance.

    Links of type `is_part_of` do not count, nor do hidden parents, whose links are unknown. A long record may name only
    some of its parents: then no link is superfluous.
    """
    for node in graph.nodes.values():
        if not provenance(node.record):
            continue
        links = {mfid: graph.edges[mfid, node.id].relationship for mfid in graph.parents(node.id)}
        used = dict.fromkeys(used_mfids(node.record))
        for mfid in used:
            if mfid not in graph.hidden and links.get(mfid, PART) == PART:
                yield _missing_link(graph, mfid, node.id, is_part=mfid in links)
        for mfid, relationship in links.items():
            if mfid not in used and relationship not in (MEASURED, PART) and lists_all_used(node.record):
                message = f"{graph.label(node.id)} is linked to {graph.label(mfid)}, which its provenance does not name"
                yield Finding("mismatch", "warning", (mfid, node.id), message, f"crucible unlink {mfid} {node.id}")


def older_than_parent(graph: LineageGraph) -> Iterator[Finding]:
    """Find children whose id is older than their parent's.

    A part may be older than its collection, and a sample is often registered after its measurements.
    """
    for (source, target), edge in graph.edges.items():
        # The first ten symbols contain the 48 time bits; comparing them first avoids decoding nearly every pair.
        if (
            target[:10] < source[:10]
            and edge.relationship not in (MEASURED, PART)
            and _are_datasets(graph, source, target)
        ):
            child, parent = mfid_time(target), mfid_time(source)
            if child < parent:
                message = (
                    f"{graph.label(target)} of {child:%Y-%m-%d %H:%M:%S} UTC is older than its parent "
                    f"{graph.label(source)} of {parent:%Y-%m-%d %H:%M:%S} UTC; check which was derived from the other"
                )
                yield Finding("older-than-parent", "warning", (source, target), message, f"crucible get {target}")


def _are_datasets(graph: LineageGraph, *mfids: str) -> bool:
    return all(is_mfid(mfid) and graph.nodes[mfid].kind != "sample" for mfid in mfids)


def unknown_relationships(graph: LineageGraph) -> Iterator[Finding]:
    """Find links without a relationship type, or with one that Crucible does not know."""
    for (source, target), edge in graph.edges.items():
        if edge.relationship in KNOWN_RELATIONSHIPS:
            continue
        ends = f"the link from {graph.label(source)} to {graph.label(target)}"
        command = link_command(source, target)
        if not edge.relationship:
            message = f"{ends} does not say what it means"
            yield Finding("unknown-relationship", "notice", (source, target), message, command)
        else:
            message = f"{ends} is of type {edge.relationship!r}, but must be {DERIVED} or {PART}"
            yield Finding("unknown-relationship", "warning", (source, target), message, command)


def incomplete(graph: LineageGraph) -> Iterator[Finding]:
    """Find datasets whose registration was begun and not finished."""
    for node in graph.nodes.values():
        if node.state == "incomplete":
            message = f"{graph.label(node.id)} is incomplete: its registration was begun and not finished"
            # Repeating the registration finishes it, since a recipe has one id.
            run = "crucible-lineage run PIPELINE.yaml"
            command = run if node.step else f"crucible-lineage register FILES --project {node.project or 'PROJECT'}"
            yield Finding("incomplete", "error", (node.id,), message, command)


def duplicate_recipes(graph: LineageGraph) -> Iterator[Finding]:
    """Find groups of datasets with the same recipe: the same work was registered more than once."""
    by_digest: defaultdict[str, list[str]] = defaultdict(list)
    for node in graph.nodes.values():
        if digest := recipe_digest(node.record):
            by_digest[digest].append(node.id)
    for mfids in by_digest.values():
        if len(mfids) > 1:
            names = ", ".join(graph.label(mfid) for mfid in mfids)
            message = (
                f"{len(mfids)} datasets record the same recipe: {names}; keep one and request deletion of the others"
            )
            yield Finding(
                "duplicate-recipe", "warning", tuple(mfids), message, f"crucible deletion request {mfids[-1]}"
            )


def changed_recipes(graph: LineageGraph) -> Iterator[Finding]:
    """Find datasets whose derived id does not follow from their recorded recipe: one of the two was edited."""
    for node in graph.nodes.values():
        recipe = provenance(node.record).get("recipe")
        if isinstance(recipe, dict) and is_mfid(node.id) and mfid_bytes(node.id)[6] >> 4 == 8:
            try:
                matches = derive_mfid(recipe, node.id) == node.id
            except (TypeError, ValueError):  # not JSON that a recipe may contain
                matches = False
            if not matches:
                message = (
                    f"{graph.label(node.id)} records a recipe that its id was not made from: the record was edited"
                )
                yield Finding("changed-recipe", "error", (node.id,), message, f"crucible-lineage verify {node.id}")


def orphans(graph: LineageGraph) -> Iterator[Finding]:
    """Find datasets that look derived and have no parent, with the parents that records suggest."""
    suspects = []
    for node in graph.nodes.values():
        if reason := _reason(graph, node):
            suspects.append((node, reason))
    if not suspects:
        return
    index = _Index(graph)
    for node, reason in suspects:
        proposed: dict[str, str] = {}
        excluded = graph.descendants(node.id) | {node.id}
        for parent, evidence in _proposals(index, node):
            if parent in graph.nodes and parent not in excluded:
                proposed.setdefault(parent, evidence)
        parents = list(proposed)[:_MOST_PROPOSALS]
        named = " or ".join(f"{graph.label(parent)} ({proposed[parent]})" for parent in parents)
        suggestion = f"its parent may be {named}" if named else "nothing in the graph suggests a parent"
        message = f"{graph.label(node.id)} looks derived ({reason}) and has no parent; {suggestion}"
        command = link_command(parents[0], node.id) if parents else ""
        yield Finding("orphan", "warning", (node.id, *parents), message, command)


def wrong_projects(graph: LineageGraph) -> Iterator[Finding]:
    """Find datasets outside their recorded project, and derived ones in a project without any of their parents.

    The parts of a collection may be in several projects.
    """
    for node in graph.nodes.values():
        if node.kind != "dataset":
            continue
        recorded = recorded_project(node.record)
        if recorded and recorded.casefold() != node.project.casefold():
            location = f"project {node.project}" if node.project else "no project"
            message = (
                f"{graph.label(node.id)} was made in project {recorded} according to its record, but is in {location}"
            )
            yield Finding("wrong-project", "warning", (node.id,), message, f"crucible get {node.id}")
            continue
        if not node.project:
            continue
        parents = [mfid for mfid in graph.parents(node.id) if graph.edges[mfid, node.id].relationship != PART]
        projects = {graph.nodes[mfid].project for mfid in parents if graph.nodes[mfid].kind == "dataset"} - {""}
        if projects and node.project not in projects:
            others = ", ".join(sorted(projects))
            message = f"{graph.label(node.id)} is in project {node.project}, its parents are in {others}"
            yield Finding("wrong-project", "warning", (node.id,), message, f"crucible get {node.id}")


CHECKS: dict[str, Callable[[LineageGraph], Iterator[Finding]]] = {
    "cycle": cycles,
    "self-link": self_links,
    "dangling-parent": dangling_parents,
    "mismatch": mismatches,
    "older-than-parent": older_than_parent,
    "unknown-relationship": unknown_relationships,
    "incomplete": incomplete,
    "duplicate-recipe": duplicate_recipes,
    "changed-recipe": changed_recipes,
    "orphan": orphans,
    "wrong-project": wrong_projects,
}


def _missing_link(graph: LineageGraph, parent: str, child: str, *, is_part: bool) -> Finding:
    current = "the link between them is is_part_of" if is_part else "there is no link between them"
    message = f"{graph.label(child)} was made from {graph.label(parent)}, but {current}"
    command = link_command(parent, child)
    return Finding("mismatch", "error", (parent, child), message, command)


_PROCESSED = re.compile(
    r"\b(analy[sz]ed|analysis|background[- ]subtracted|calibrated|corrected|derived|filtered|fit|fitted|normali[sz]ed"
    r"|processed|reconstructed|reconstruction|reduced|segmented|smoothed)\b",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\s*(\([^()]*\)|\[[^\[\]]*\])\s*$|[\s_-]+\w+$")
_MFID = re.compile(r"\b[0-9a-hjkmnp-tv-z]{26}\b")
_MOST_PROPOSALS = 5  # more would not help to choose


class _Index:
    """Datasets by name, by SHA-256 of a file, and (those that look raw) by session in the order of their ids."""

    def __init__(self, graph: LineageGraph) -> None:
        self.names: defaultdict[str, list[str]] = defaultdict(list)
        self.files: defaultdict[str, list[str]] = defaultdict(list)
        self.sessions: defaultdict[str, list[str]] = defaultdict(list)
        for node in sorted(graph.nodes.values(), key=lambda node: node.id):
            if node.kind == "dataset":
                self.names[node.name].append(node.id)
                for sha256 in filter(None, generated_files(node.record).values()):
                    self.files[sha256].append(node.id)
                session = text((node.record or {}).get("session_name"))
                if session and not _PROCESSED.search(f"{node.data_type} {node.name}"):
                    self.sessions[session].append(node.id)

    def before_in_session(self, node: Node) -> tuple[str, list[str]]:
        """Return the session of a dataset and the raw datasets taken in it just before, latest first."""
        session = text((node.record or {}).get("session_name"))
        taken = self.sessions.get(session, [])
        position = bisect_left(taken, node.id[:10])
        return session, taken[max(0, position - _MOST_PROPOSALS) : position][::-1]


def _reason(graph: LineageGraph, node: Node) -> str:
    """Return why a dataset without a parent looks derived; empty if it does not.

    A dataset's collection may be its origin (a file that was split), but only if nothing else is known.
    """
    if node.kind != "dataset":
        return ""
    links = [graph.edges[mfid, node.id] for mfid in graph.parents(node.id) if graph.nodes[mfid].kind != "sample"]
    if any(link.relationship != PART for link in links):
        return ""
    if provenance(node.record).get("used"):
        return "its provenance names what was used"
    if links:
        return ""
    for label, value in (("data type", node.data_type), ("measurement", node.measurement), ("name", node.name)):
        if word := _PROCESSED.search(value):
            return f"its {label} contains {word.group().lower()!r}"
    return ""


def _proposals(index: _Index, node: Node) -> Iterator[tuple[str, str]]:
    """Yield (id, evidence) of possible parents, from recorded facts to similar names."""
    for mfid, used in used_files(node.record).items():
        yield mfid, "its provenance names it"
        for name, sha256 in used.items():
            for owner in index.files.get(sha256, [])[:_MOST_PROPOSALS]:
                yield owner, f"it has the file {name} that was used"
    for mfid in _mentioned(node.record):
        yield mfid, "its scientific metadata mentions it"
    for name in _shorter_names(node.name):
        for mfid in index.names.get(name, [])[:_MOST_PROPOSALS]:
            yield mfid, "its name is extended"
    session, before = index.before_in_session(node)
    for mfid in before:
        yield mfid, f"it was taken before in the same session, {session}"


def _shorter_names(name: str) -> Iterator[str]:
    """Yield a name with endings removed: `Si (calibrated) fit` -> `Si (calibrated)`, `Si`."""
    while (shorter := _EXTENSION.sub("", name)) != name and shorter:
        name = shorter
        yield name


def _mentioned(record: Mapping[str, object] | None) -> Iterator[str]:
    """Yield the MFIDs in the values of the scientific metadata, without our own provenance."""
    waiting = list(given_metadata(record).values())
    while waiting:
        match waiting.pop():
            case str() as content:
                yield from filter(is_mfid, _MFID.findall(content))
            case dict() as inner:
                waiting.extend(inner.values())
            case list() as inner:
                waiting.extend(inner)
