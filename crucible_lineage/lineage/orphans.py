"""Datasets that look derived but have no parent, and which parents the records suggest."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from crucible_lineage.ids import is_mfid
from crucible_lineage.lineage.graph import LineageGraph, in_turns
from crucible_lineage.lineage.model import PART, Node
from crucible_lineage.lineage.records import OWN_KEYS, generated_files, provenance, text, used_files

__all__ = ["Orphan", "orphans"]

_PROCESSED = re.compile(
    r"\b(analy[sz]ed|analysis|background[- ]subtracted|calibrated|corrected|derived|filtered|fit|fitted|normali[sz]ed"
    r"|processed|reconstructed|reconstruction|reduced|segmented|smoothed)\b",
    re.IGNORECASE,
)
_EXTENSION = re.compile(r"\s*(\([^()]*\)|\[[^\[\]]*\])\s*$|[\s_-]+\w+$")
_MFID = re.compile(r"\b[0-9a-hjkmnp-tv-z]{26}\b")
_MOST_PROPOSALS = 5  # more are no help to who has to choose


@dataclass(frozen=True)
class Orphan:
    """A dataset without the parent it seems to have: `parents` are (id, evidence), the best evidence first."""

    id: str
    reason: str
    parents: tuple[tuple[str, str], ...]


def orphans(graph: LineageGraph) -> Iterator[Orphan | None]:
    """The datasets that look derived and have no parent dataset, in the graph's order; None as from `in_turns`."""
    suspects = []
    for node in in_turns(graph):
        if node is None:
            yield None
        elif reason := _reason(graph, node):
            suspects.append((node, reason))
    if not suspects:
        return
    index = _Index(graph)
    for node, reason in suspects:
        proposed: dict[str, str] = {}
        below = graph.descendants(node.id) | {node.id}
        for parent, evidence in _proposals(index, node):
            if parent in graph.nodes and parent not in below:
                proposed.setdefault(parent, evidence)
        yield Orphan(node.id, reason, tuple(proposed.items())[:_MOST_PROPOSALS])


class _Index:
    """The datasets by name, by SHA-256 of a file, and, where they look raw, by session in the order of their ids."""

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
        """The session of a dataset and the raw datasets taken in it just before, the latest first."""
        session = text((node.record or {}).get("session_name"))
        found = self.sessions.get(session, [])
        at = bisect_left(found, node.id[:10])
        return session, found[max(0, at - _MOST_PROPOSALS) : at][::-1]


def _reason(graph: LineageGraph, node: Node) -> str:
    """Return why a parentless dataset looks derived, or an empty text.

    What a dataset is part of may be where it comes from (a file that was taken apart), but not if more is known.
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
            return f"its {label} says {word.group().lower()!r}"
    return ""


def _proposals(index: _Index, node: Node) -> Iterator[tuple[str, str]]:
    """(id, evidence) of possible parents, from what the records say to what their names suggest."""
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
    """`Si (calibrated) fit` -> `Si (calibrated)`, `Si`: what is left as endings are taken off."""
    while (shorter := _EXTENSION.sub("", name)) != name and shorter:
        name = shorter
        yield name


def _mentioned(record: Mapping[str, object] | None) -> Iterator[str]:
    """The MFIDs in the values of the scientific metadata, our own provenance left out."""
    metadata = (record or {}).get("scientific_metadata")
    waiting = [value for key, value in metadata.items() if key not in OWN_KEYS] if isinstance(metadata, dict) else []
    while waiting:
        match waiting.pop():
            case str() as found:
                yield from filter(is_mfid, _MFID.findall(found))
            case dict() as inner:
                waiting.extend(inner.values())
            case list() as inner:
                waiting.extend(inner)
