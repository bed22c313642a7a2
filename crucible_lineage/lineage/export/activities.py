"""What a lineage tells to others: activities with what they used and made, agents, files. All exports are made of it.

Whatever the reader may not see is called `hidden-N` here, and what is not in the graph is not mentioned: an export that
says nothing but what stands here leaks nothing.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import UTC
from typing import Any

from crucible_lineage.ids import EMBEDDED_USER, canonical_json
from crucible_lineage.lineage.draw.formats import public_ids
from crucible_lineage.lineage.export.sharing import shareable
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.model import Edge, Node
from crucible_lineage.lineage.records import mapping, mappings, provenance, text
from crucible_lineage.lineage.rights import Rights, rights_of
from crucible_lineage.times import utc

Record = Mapping[str, Any]
_ACTIVITIES = uuid.UUID("9d0a8a37-6a0e-5d5c-9f0f-3d8d4f1f7b60")  # our own namespace, so that ids are the same each time


@dataclass(frozen=True)
class StoredFile:
    """A file of a dataset. `path` is where its bytes are in an export that has them, with `/`, else empty."""

    name: str
    sha256: str = ""
    size: int | None = None
    path: str = ""


@dataclass(frozen=True)
class Use:
    """A dataset and the role in which an activity used it; for a calibration, the certificate that chose it."""

    role: str
    mfid: str
    certificate: Record | None = field(default=None, compare=False)


@dataclass(frozen=True)
class ExportedAgent:
    """Who did it: an account at Crucible. `id` is an ORCID or an MFID, or empty where neither is known."""

    id: str
    name: str
    is_service: bool = False


@dataclass(frozen=True)
class ExportedActivity:
    """One execution of a step, or what a person did by hand; `made` are datasets by the name of the output.

    Times are ISO 8601 in UTC, or empty where the record has none.
    """

    id: str
    step: str
    function: str = ""
    code: str = ""
    source: str = ""
    git: Record | None = None
    started: str = ""
    ended: str = ""
    params: Record | None = None
    used: tuple[Use, ...] = ()
    made: tuple[Use, ...] = ()
    agent: ExportedAgent | None = None
    software: Record | None = None
    pipeline: str = ""
    run: str = ""
    by_hand: bool = False
    note: str = ""
    program: Record | None = None
    declared: Record | None = None

    @property
    def resources(self) -> Record:
        """Return the declared cluster resources."""
        return mapping((self.declared or {}).get("resources"))


@dataclass(frozen=True)
class ExportedLineage:
    """Nodes and edges under the names they have outside, what happened, and the files of each dataset."""

    nodes: Mapping[str, Node]
    edges: tuple[Edge, ...]
    activities: tuple[ExportedActivity, ...]
    files: Mapping[str, tuple[StoredFile, ...]]
    rights: Mapping[str, Rights] = field(default_factory=dict)

    @property
    def makers(self) -> Mapping[str, ExportedActivity]:
        """The activity that made each dataset, where one is recorded."""
        return {made.mfid: activity for activity in self.activities for made in activity.made}


def exported(
    graph: LineageGraph,
    files: Mapping[str, Sequence[StoredFile]] | None = None,
    projects: Mapping[str, Rights] | None = None,
) -> ExportedLineage:
    """Return the story of a graph with records.

    `files` says more of a dataset's files than its record does, `projects` what holds for data of projects, by ID.
    """
    graph = shareable(graph)
    names = public_ids(graph)
    nodes = {names[mfid]: _shown(node, names[mfid]) for mfid, node in graph.nodes.items()}
    edges = tuple(Edge(names[e.source], names[e.target], e.relationship) for e in graph.edges.values())
    known = {**{mfid: tuple(_recorded_files(node.record)) for mfid, node in nodes.items()}, **(files or {})}
    listed = {mfid: tuple(found) for mfid, found in known.items() if found and mfid in nodes}
    rights = {mfid: rights_of(node.record, projects or {}) for mfid, node in nodes.items() if node.kind == "dataset"}
    return ExportedLineage(nodes, edges, tuple(_activities(nodes, nodes.keys())), listed, rights)


def instant(moment: str, timespec: str = "auto") -> str:
    """An ISO 8601 time in UTC, empty for what is none; a time without a zone counts as UTC."""
    try:
        return utc(moment).astimezone(UTC).isoformat(timespec=timespec)
    except ValueError:
        return ""


def is_orcid(text: str) -> bool:
    """True if `text` has the form of an ORCID."""
    return re.fullmatch(r"\d{4}-\d{4}-\d{4}-\d{3}[\dX]", text, re.ASCII) is not None


def _shown(node: Node, name: str) -> Node:
    if node.kind == "hidden":
        return Node(name, "hidden", HIDDEN_NAME)
    return replace(node, id=name, name=node.name or node.id)


def _activities(nodes: Mapping[str, Node], outside: Set[str]) -> Iterator[ExportedActivity]:
    """One for each execution: the outputs of one execution are made by one activity."""
    found: dict[str, ExportedActivity] = {}
    for mfid, node in nodes.items():
        if activity := _activity(node, outside):
            made = Use(text(provenance(node.record).get("output")) or "out", mfid)
            known = found.setdefault(activity.id, activity)
            found[activity.id] = replace(known, made=(*known.made, made))
    return iter(found.values())


def _activity(node: Node, outside: Set[str]) -> ExportedActivity | None:
    record = provenance(node.record)
    done = mapping(record.get("activity"))
    if not done:
        return None
    code, run = mapping(done.get("code")), mapping(done.get("run"))
    used = tuple(
        Use(text(entry.get("role")), mfid, mapping(mapping(entry.get("chosen")).get("certificate")) or None)
        for entry in mappings(record.get("used"))
        if (mfid := text(entry.get("mfid"))) in outside
    )
    activity = ExportedActivity(
        id="",
        step=text(done.get("step")) or text(done.get("kind")),
        function=text(done.get("function")),
        code=text(code.get("fingerprint")),
        source=text(code.get("source")),
        git=mapping(code.get("git")) or None,
        started=instant(text(done.get("started"))),
        ended=instant(text(done.get("ended"))),
        params=mapping(mapping(record.get("recipe") or record).get("params")),
        used=used,
        agent=_agent(mapping(record.get("agent"))),
        software=mapping(record.get("software")) or None,
        pipeline=text(mapping(record.get("pipeline")).get("name")),
        run=text(run.get("run_id")),
        by_hand="step" not in done,
        note=text(done.get("note")),
        program=mapping(code.get("program")) or None,
        declared=mapping(done.get("declared")) or None,
    )
    return replace(activity, id=_activity_id(activity, node.id))


def _activity_id(activity: ExportedActivity, mfid: str) -> str:
    """The same for all outputs of one execution; without its times, nothing says that two were made together."""
    identity: list[Any] = [activity.function, activity.code, activity.started, activity.ended, activity.run]
    if not (activity.started and activity.ended):
        identity.append(mfid)
    identity += [dict(activity.params or {}), [[use.role, use.mfid] for use in activity.used]]
    return str(uuid.uuid5(_ACTIVITIES, canonical_json(identity).decode("utf-8", "backslashreplace")))


def _agent(record: Record) -> ExportedAgent | None:
    name = text(record.get("username")) or text(record.get("local_user"))
    mfid = text(record.get("unique_id"))
    if mfid == EMBEDDED_USER:  # nobody in particular
        name, mfid = text(record.get("local_user")) or "somebody", ""
    return ExportedAgent(mfid, name or mfid, record.get("is_service_account") is True) if name or mfid else None


def _recorded_files(record: Record | None) -> Iterator[StoredFile]:
    generated = list(mappings(provenance(record).get("generated"))) or list(mappings(mapping(record).get("files")))
    for entry in generated:
        name = text(entry.get("name")) or text(entry.get("filename"))
        size = entry.get("size")
        if name:
            sha256 = text(entry.get("sha256")) or text(entry.get("sha256_hash"))
            yield StoredFile(name, sha256, size if isinstance(size, int) else None)
