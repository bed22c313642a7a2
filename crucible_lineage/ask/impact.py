"""What must be redone when a dataset, a file, code or an instrument turns out to be wrong, or is deleted."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Done, next_command
from crucible_lineage.ask.lineages import fetch_lineage, fetch_projects, named_projects
from crucible_lineage.ask.names import NOT_LISTED, Deletion, deletion_of, find_mfid, find_project
from crucible_lineage.ask.question import BEFORE, Projects, argument, option, question
from crucible_lineage.errors import InputError, refused_as_input, shortened
from crucible_lineage.lineage.compare import (
    Impact,
    impact_of_code,
    impact_of_dataset,
    impact_of_file,
    impact_of_instrument,
    taken,
)
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.model import SUPERSEDED, Edge, Node
from crucible_lineage.lineage.records import activity_code, generated_files, instruments, used_mfids
from crucible_lineage.session import Session
from crucible_lineage.statements.stating import time_given
from crucible_lineage.text.amounts import amount

MOST_NAMED = 10  # alternatives named in errors
MOST_DEPENDENT = 5


@dataclass(frozen=True)
class Affected:
    """A dataset to redo, with the chain of datasets from the cause; None for those that this key cannot see."""

    node: Node
    chain: tuple[str | None, ...]
    json_keys: ClassVar = "mfid=node.visible_id name=node.name step=node.step state=node.state chain"


@dataclass(frozen=True)
class RedoList(Answer):
    """What must be redone, with the lineage that shows why.

    `untimed` are data of the instrument without a time of measurement, which are included. `deletion` is that of the
    dataset in question. With `every`, superseded datasets are listed too.
    """

    graph: LineageGraph
    impact: Impact
    untimed: tuple[str, ...] = ()
    deletion: Deletion | None = None
    every: bool = False
    json_keys: ClassVar = "redo=affected superseded deletion of_unknown_time"

    @property
    def redo(self) -> tuple[str, ...]:
        """The datasets to redo, without superseded ones."""
        return tuple(mfid for mfid in self.impact.ids if self.graph.nodes[mfid].state != SUPERSEDED)

    @property
    def superseded(self) -> tuple[str, ...]:
        """The superseded datasets that come from the cause."""
        return tuple(mfid for mfid in self.impact.ids if self.graph.nodes[mfid].state == SUPERSEDED)

    @property
    def listed(self) -> tuple[str, ...]:
        """The datasets that are listed."""
        return self.impact.ids if self.every else self.redo

    @property
    def affected(self) -> list[Affected]:
        """The listed datasets, each with the chain that leads to it."""
        nodes, chain = self.graph.nodes, self.impact.chain
        return [Affected(nodes[mfid], tuple(nodes[above].visible_id for above in chain(mfid))) for mfid in self.listed]

    @property
    def of_unknown_time(self) -> list[str]:
        """The data of the instrument without a known time that this key can see."""
        return [mfid for mfid in self.untimed if self.graph.nodes[mfid].visible_id]

    def lines(self) -> Iterator[str]:
        graph, superseded = self.graph, len(self.superseded)
        if self.deletion is not None:
            yield f"{self.deletion.text}; according to the records, these were made from it:"
        steps: Counter[str] = Counter()
        for mfid in self.listed:
            node = graph.nodes[mfid]
            if node.state != SUPERSEDED:
                steps[node.step or "made manually or elsewhere"] += 1
            chain = " -> ".join(graph.label(above) for above in self.impact.chain(mfid)[:-1])
            state = "  superseded" if node.state == SUPERSEDED else ""
            yield (node.visible_id or f"({HIDDEN_NAME})") + state
            yield f"  {node.name}" if not chain else f"  {node.name}, by way of {chain}"
        counts = ", ".join(f"{count} {step}" for step, count in steps.most_common())
        more = f"; {superseded} more {'is' if superseded == 1 else 'are'} superseded" if superseded else ""
        if steps:
            yield f"{amount(len(self.redo), 'dataset')} to redo: {counts}{more}"
        else:
            yield f"nothing to redo: nothing {'current ' if superseded else ''}comes from it{more}"
        if count := len(self.untimed):
            measured = f"{amount(count, 'dataset')} {'was' if count == 1 else 'were'}"
            made = f"results made from {'it' if count == 1 else 'them'} are included"
            yield f"{measured} measured at an unknown time; {made}"


def _one_cause(
    dataset: str | None = None, file_sha256: str | None = None, code: str | None = None, instrument: str | None = None,
    since: str | None = None, until: str | None = None, **_: object,
) -> None:  # fmt: skip
    if sum(cause is not None for cause in (dataset, file_sha256, code, instrument)) != 1:
        raise InputError("give one cause: an MFID, --file-sha256, --code, or --instrument")
    _interval(since, until)


@question("impact", announced=BEFORE, check=_one_cause)
def impact(
    session: Session, dataset: Annotated[str | None, argument("[MFID]")] = None, *,
    file_sha256: Annotated[str | None, option("A file that was wrong, by its SHA-256.", metavar="HASH")] = None,
    code: Annotated[
        str | None, option("Code that was wrong, by its fingerprint or its beginning.", metavar="FINGERPRINT")
    ] = None,
    instrument: Annotated[
        str | None, option("An instrument that was wrong, by name, slug or MFID.", metavar="NAME")
    ] = None,
    since: Annotated[
        str | None, option(
            "With --instrument: data measured at that time or later (ISO 8601; UTC unless a zone is given).",
            metavar="TIME", needs="instrument",
        )
    ] = None,
    until: Annotated[
        str | None, option(
            "With --instrument: data measured until then; a date includes that day.", metavar="TIME",
            needs="instrument",
        )
    ] = None,
    projects: Projects = (), every: Annotated[bool, option("Include superseded results.", "--all")] = False,
) -> RedoList:  # fmt: skip
    """List what must be redone because the dataset MFID, a file, code, or an instrument for a time was wrong, each
    dataset with the chain that leads to it. Superseded results are only counted. Changes nothing.
    """
    within = list(projects) or ([find_project(session, None)] if dataset is None else [])
    if dataset is not None:
        found = dataset_impact(session, find_mfid(session, dataset, projects))
    elif file_sha256 is not None:
        found = file_impact(session, file_sha256, within)
    elif code is not None:
        found = code_impact(session, code, within)
    else:
        first, last = _interval(since, until)
        found = instrument_impact(session, str(instrument), within, since=first, until=last)
    return replace(found, every=every)


def _interval(since: str | None, until: str | None) -> tuple[datetime | None, datetime | None]:
    first = time_given("--since", since) if since else None
    last = time_given("--until", until, is_end=True) if until else None
    if first and last and first > last:
        raise InputError(f"impact: --since {since} is after --until {until}")
    return first, last


def dataset_impact(session: Session, mfid: str) -> RedoList:
    """Return what comes from a dataset or a sample; for a deleted dataset, what records name as made from it."""
    try:
        graph = fetch_lineage(session, mfid)
    except InputError:
        deletion = deletion_of(session, mfid)
        if deletion is None or not deletion.project:
            raise
        # Its own links are deleted, too.
        graph = fetch_projects(session, [deletion.project])
        children = [node.id for node in graph.nodes.values() if mfid in used_mfids(node.record)]
        nodes = {mfid: Node(mfid, name=deletion.name, project=deletion.project), **graph.nodes}
        edges = {(mfid, child): Edge(mfid, child) for child in children}
        graph = LineageGraph(nodes.values(), {**edges, **graph.edges}.values())
        return RedoList(graph, impact_of_dataset(graph, mfid), deletion=deletion)
    return RedoList(graph, impact_of_dataset(graph, mfid))


def file_impact(session: Session, sha256: str, projects: Sequence[str]) -> RedoList:
    """Return what comes from a file in any dataset of the projects. InputError if none has or used it."""
    if not re.fullmatch("[0-9a-f]{64}", sha256):
        raise InputError(f"{sha256!r} is not a SHA-256 hash (64 digits, 0 to 9 and a to f)")
    graph = fetch_projects(session, projects)
    try:
        owners = {str(file.dataset_mfid) for file in session.client.files.iter(sha256_hash=sha256)} & graph.nodes.keys()
    except NOT_LISTED:  # the service does not list files by hash
        owners = set()
    impact = impact_of_file(graph, sha256, owners)
    generated = (sha256 in generated_files(node.record).values() for node in graph.nodes.values())
    if not impact.ids and not owners and not any(generated):
        raise InputError(f"no dataset of {named_projects(projects)} has or used a file with SHA-256 {sha256}")
    return RedoList(graph, impact)


def code_impact(session: Session, fingerprint: str, projects: Sequence[str]) -> RedoList:
    """Return what code made, named by its fingerprint or a unique beginning, and what comes from that."""
    graph = fetch_projects(session, projects)
    made_by = {code: node.step for node in graph.nodes.values() if (code := activity_code(node.record))}
    matching = {fingerprint} & made_by.keys() or {code for code in made_by if code.startswith(fingerprint)}
    if len(matching) != 1 or not fingerprint:
        codes = [f"{code} ({made_by[code]})" for code in (matching or made_by)]
        state = f"no dataset was made by {fingerprint!r}"
        state = f"{len(matching)} fingerprints begin with {fingerprint!r}" if matching else state
        raise InputError(f"find what code made in {named_projects(projects)}: {state}; {_alternatives(codes)}")
    return RedoList(graph, impact_of_code(graph, *matching))


def instrument_impact(
    session: Session,
    instrument: str,
    projects: Sequence[str],
    *,
    since: datetime | None = None,
    until: datetime | None = None,
) -> RedoList:
    """Return what comes from the data that an instrument (name, slug or MFID) measured in a closed interval."""
    graph = fetch_projects(session, projects)
    names = dict.fromkeys(name for node in graph.nodes.values() for name in sorted(instruments(node.record)))
    if instrument not in names:
        state = f"no dataset of {named_projects(projects)} names it; {_alternatives(names)}"
        raise InputError(f"find what comes from instrument {instrument!r}: {state}")
    untimed = tuple(mfid for mfid, at in taken(graph, instrument) if at is None) if since or until else ()
    return RedoList(graph, impact_of_instrument(graph, instrument, since=since, until=until), untimed)


def _alternatives(names: Collection[str]) -> str:
    return f"there are: {shortened(sorted(names), MOST_NAMED)}" if names else "there are none"


@dataclass(frozen=True)
class RequestedDeletion:
    """A request for the deletion of a dataset, with its number and the datasets made from it."""

    mfid: str
    request: int
    made_of_it: tuple[str, ...]


def request_deletion(session: Session, mfid: str, why: str, *, even_if_used: bool) -> Done:
    """Request the deletion of a dataset: it is hidden at once, and deleted when an administrator has agreed.

    Report its number and the datasets made from it. Raises InputError if something was made from it, unless
    `even_if_used`, or if its deletion was requested before.
    """
    dependent = dataset_impact(session, mfid).redo
    if dependent and not even_if_used:
        made = f"{amount(len(dependent), 'dataset')} made from it: {shortened(dependent, MOST_DEPENDENT)}"
        way_out = f"look at them ({next_command('impact', mfid)}), or add --yes"
        raise InputError(f"delete {mfid}: {made}. Nothing was changed; {way_out}")
    with refused_as_input():
        request = session.client.datasets.delete(mfid, why or None)
    session.mirror.forget([mfid])
    line = f"{mfid}: deletion requested; made from it and kept: {amount(len(dependent), 'dataset')}"
    return Done(RequestedDeletion(mfid, request.id, dependent), [line])
