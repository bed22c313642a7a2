"""`why` explains how a dataset was made, from its provenance record; `diff` compares two datasets or two runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer
from crucible_lineage.ask.lineages import fetch_lineage, fetch_projects, named_projects, with_whole_records
from crucible_lineage.ask.names import find_mfid, visible_projects
from crucible_lineage.ask.plans import PlanAnswer, ProjectPlans, why_step
from crucible_lineage.ask.question import BEFORE, NOT_PAGE, Overrides, Projects, argument, question
from crucible_lineage.ask.runs import find_run
from crucible_lineage.ask.view import existing, visible_names
from crucible_lineage.core.datasets import fetch_datasets
from crucible_lineage.errors import ForbiddenError, InputError, NotFoundError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.compare import Change, Difference, diff, returned_changes
from crucible_lineage.lineage.graph import LineageGraph, with_record
from crucible_lineage.lineage.labels import detail, first_lines, nodes_text, plain, short_id, title
from crucible_lineage.lineage.model import CANDIDATE, CURRENT, WITHDRAWN, Edge, Node
from crucible_lineage.lineage.records import parents_as_used, used_mfids
from crucible_lineage.lineage.text import shown_edges
from crucible_lineage.pipeline.plan.corrections import corrections
from crucible_lineage.pipeline.plan.differences import code_diff, differences
from crucible_lineage.pipeline.plan.facts import facts_in
from crucible_lineage.pipeline.plan.partners import chosen_text
from crucible_lineage.pipeline.plan.planner import earlier_result
from crucible_lineage.provenance.record import read_record, unreadable
from crucible_lineage.provenance.schema import FilesRecord, ManualActivity, StatementActivity, StepRecord
from crucible_lineage.refs import DERIVED, relation_text
from crucible_lineage.registration.read import whole_record
from crucible_lineage.remake.attempts import data_files
from crucible_lineage.session import Session
from crucible_lineage.standing.standings import Standing, standing_of
from crucible_lineage.statements.statements import About
from crucible_lineage.text.amounts import amount, change_text, time_text
from crucible_lineage.text.times import moment_text, time_shown


@dataclass(frozen=True, repr=False)
class Explanation(Answer):
    """The explanation of a dataset in `paragraphs` of lines; `record` is their source, if there is one."""

    mfid: str
    name: str
    paragraphs: tuple[tuple[str, ...], ...]
    record: StepRecord | FilesRecord | None
    entry: Standing
    is_text = True
    json_keys: ClassVar = (
        "mfid name state=entry.state superseded_by=entry.superseded_by story=paragraphs record=document"
    )

    def __repr__(self) -> str:
        return f"<explanation of {self.mfid}: {self.name}, {self.entry.state}>"

    def lines(self) -> Iterator[str]:
        for at, paragraph in enumerate(self.paragraphs):
            yield from ("",) if at else ()
            yield from (line.expandtabs(4) for line in paragraph)

    @property
    def document(self) -> JsonObject | None:
        """The record as it is stored."""
        return self.record.document() if self.record else None


INCOMPLETE = "is INCOMPLETE: its registration was not finished; run the pipeline again"
FACTS_HEADING = "Facts about parents at that time"


@question("why")
def why(
    session: Session, dataset: Annotated[str, argument("WHAT")],
    pipeline: Annotated[str | None, argument(doors=NOT_PAGE)] = None, *, overrides: Overrides = (),
) -> Explanation | PlanAnswer | ProjectPlans:  # fmt: skip
    """Explain how the dataset WHAT was made, or why the step WHAT of the file PIPELINE would run."""
    if pipeline is not None:
        return why_step(session, dataset, pipeline, overrides)
    try:
        mfid = find_mfid(session, dataset)
    except InputError as error:
        raise InputError(f"{error}\nfor a step, name its pipeline too: why {dataset} pipeline.yaml") from error
    return explain(session, mfid)


def explain(session: Session, mfid: str) -> Explanation:
    """Explain how a dataset was made. Raises InputError if it does not exist or is hidden from this key."""
    dataset = existing(session, mfid)
    name = dataset.dataset_name or mfid
    record = read_record(dataset.scientific_metadata)
    entry = standing_of(session, dataset)
    opening, origin = [f"{name} ({mfid})"], list[Iterator[str]]()
    if record is None:
        reason = unreadable(dataset.scientific_metadata)
        problem = f"its provenance record cannot be read: {reason}" if reason else "it has no provenance record"
        note = "How it was made is unknown; it was registered by another program or manually."
        opening.append(f"{problem}. {note}")
    else:
        record = whole_record(session.client, mfid, record)
        opening += [] if record.is_complete else [INCOMPLETE]
        opening += _of_step(record) if isinstance(record, StepRecord) else _of_files(record)
        linked = [link.unique_id for link in dataset.links or () if link.direction == "source"]
        equal = parents_as_used(dataset.model_dump(), dict.fromkeys([*record.parents, *linked]))
        origin = [
            _parents(record, _names(session, record.parents), equal),
            *(_params(record), _facts(record), _circumstances(record), _succession(session, mfid, record)),
        ]
    status = _status(entry, _names(session, entry.superseded_by))
    made = [f"  {correction}" for correction in corrections(dataset.scientific_metadata)]
    paragraphs = tuple(filter(None, map(tuple, (opening, status, *origin, ["Corrections", *made] if made else ()))))
    return Explanation(mfid, name, paragraphs, record, entry)


def _names(session: Session, mfids: Sequence[str]) -> dict[str, str]:
    unseen = dict.fromkeys(mfids, "a dataset that was deleted, or is hidden from this key")
    return unseen | visible_names(session.client, mfids)


def _status(entry: Standing, names: Mapping[str, str]) -> Iterator[str]:
    """Yield whether the dataset is current, withdrawn, doubtful or superseded."""
    if entry.state == CURRENT:
        yield "Current"
    if entry.state == WITHDRAWN:
        yield "Withdrawn: its deletion was requested"
    if entry.doubt is not None:
        yield f"{'Candidate' if entry.state == CANDIDATE else 'Doubtful'}: {entry.doubt.message(entry.mfid)}"
    for mfid in entry.superseded_by:
        yield f"Superseded by {names[mfid]} ({mfid})" + (f", since {time_shown(entry.since)}" if entry.since else "")


def _of_files(record: FilesRecord) -> Iterator[str]:
    if isinstance(record.activity, StatementActivity):
        about = About.from_json(record.recipe["about"])
        yield f"states {record.recipe['verb']}" + (f" of {about}" if str(about) else "") + f" on {record.activity.when}"
        return
    files = ", ".join(file.name for file in record.files)
    note = record.activity.note if isinstance(record.activity, ManualActivity) else None
    made = "was made manually from its parents" if record.used else "was measured"
    yield f"{made}, from the files {files}" + (f": {note}" if note else "")


def _of_step(record: StepRecord) -> Iterator[str]:
    code, git = record.activity.code, record.activity.code.git
    output = "" if record.output == "out" else f"output {record.output!r} of "
    within = f" of pipeline {record.pipeline.name}" if record.pipeline else ""
    attempt = f", attempt {record.attempt + 1}" if record.attempt else ""
    yield f"is {output}step {record.declared_step!r}{within}{attempt}, made by {record.activity.function}"
    commit = f", git {git.commit[:12]}{' with uncommitted changes' if git.dirty else ''}" if git else ""
    yield f"with code {code.fingerprint[:12]}{commit}"
    for gap in record.activity.gaps or ():
        yield f"made without {gap}"
    if code.read:
        yield f"it read undeclared files, which are not part of the recipe: {', '.join(code.read)}"
    if code.not_covered:
        yield f"not covered by this fingerprint: {', '.join(code.not_covered)}"


def _parents(
    record: StepRecord | FilesRecord, names: Mapping[str, str], equal: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    if record.used:
        yield "Made from"
    for used in record.used:
        files = ", ".join(file.name for file in used.files or ())
        yield f"  {used.role}: {names[used.mfid]} ({used.mfid})" + (f", {files}" if files else "")
        if others := equal.get(used.mfid):
            yield f"    equal bytes now: {', '.join(others)}"
        if used.chosen:
            yield f"    chosen by time: {chosen_text(used.chosen.model_dump(by_alias=True))}"


def _params(record: StepRecord | FilesRecord) -> Iterator[str]:
    params = record.recipe.get("params") or {}
    if params:
        yield "Parameters"
    for name, value in params.items():
        yield f"  {name} = {json.dumps(value, ensure_ascii=False)}"


def _facts(record: StepRecord | FilesRecord) -> Iterator[str]:
    facts = facts_in(record.recipe)
    if facts is not None:
        yield FACTS_HEADING
    for role, parents in (facts or {}).items():
        for parent in parents:
            shown = {name: value for name, value in parent.to_json().items() if value and name not in ("name", "files")}
            yield f"  {role}: {parent.name}, {json.dumps(shown, ensure_ascii=False)}"


def _circumstances(record: StepRecord | FilesRecord) -> Iterator[str]:
    who = record.agent.username or record.agent.local_user or record.agent.unique_id or "somebody"
    if not isinstance(record, StepRecord):
        yield f"By {who}"
        return
    activity, software = record.activity, record.software
    started, ended = datetime.fromisoformat(activity.started), datetime.fromisoformat(activity.ended)
    yield f"By {who} on {moment_text(started)}, in {time_text((ended - started).total_seconds())}"
    packages = ", ".join(f"{name} {version}" for name, version in software.packages.items())
    yield f"On Python {software.python}, {software.platform}, with {packages}"
    if activity.run:
        yield f"In run {activity.run.run_id} ({activity.run.engine})"


def _succession(session: Session, mfid: str, record: StepRecord | FilesRecord) -> Iterator[str]:
    before = record.supersedes
    if not before or not isinstance(record, StepRecord):
        return
    yield f"Replaces {before}"
    try:
        earlier = read_record(session.client.datasets.get(before, include_metadata=True).scientific_metadata)
    except (ForbiddenError, NotFoundError):
        yield "  which was deleted, or is hidden from this key"
        return
    if not isinstance(earlier, StepRecord):
        yield "  whose record cannot be read"
        return
    complete = whole_record(session.client, before, earlier)
    then, now = (earlier_result(mfid, step_record, {}) for mfid, step_record in ((before, complete), (mfid, record)))
    if found := differences(then, now):
        yield from (f"  {difference}" for difference in found)
    else:
        lines = moved(session, before, mfid)
        yield f"  forced rerun: {NOT_DETERMINISTIC if lines else 'same values and bytes'}"
        yield from (f"    {line}" for line in lines)
    if complete.recipe.get("code") != record.recipe.get("code"):
        yield from (f"    {line}" for line in code_diff(then, now))


NOT_DETERMINISTIC = "the step is not deterministic: the same code, parameters and inputs gave other results"
MAX_NAMED = 8  # numbers, and files


def moved(session: Session, before: str, after: str) -> list[str]:
    """Return the differences between two results of one recipe: returned numbers, then files; empty if there are none.

    Raises CrucibleError if one of them cannot be read.
    """
    records = fetch_datasets(session.client, [before, after]).found
    if len(records) < 2:
        return []
    was, now = (with_record(Node(mfid), records[mfid]) for mfid in (before, after))
    changes = map(result_text, returned_changes(was, now))
    old, new = (data_files(session, mfid, records[mfid]) for mfid in (before, after))
    names = (name for name in sorted({*old, *new}) if old.get(name) != new.get(name))
    ends = {(False, True): "is new", (True, False): "is gone"}
    files = (f"file {name} {ends.get((name in old, name in new), 'has other bytes')}" for name in names)
    return [
        *first_lines(changes, MAX_NAMED, "and {} values more"), *first_lines(files, MAX_NAMED, "and {} files more")
    ]  # fmt: skip


@dataclass(frozen=True, repr=False)
class LineageComparison(Answer):
    """Two lineages and their differences; as text, a line for each difference."""

    old: LineageGraph
    new: LineageGraph
    difference: Difference
    json_keys: ClassVar = (
        "same results=difference.results added=difference.added removed=difference.removed "
        "changed=difference.changed added_links removed_links"
    )

    def __repr__(self) -> str:
        found = self.difference
        counts = (amount(len(found.results), "returned value"), amount(len(found.changed), "cause"))
        return f"<difference: {', '.join(counts)}>" if found else "<no difference>"

    def lines(self) -> Iterator[str]:
        found = self.difference
        for ends, results in changes_by_dataset(found.results):
            yield f"results   {self._changed(*ends)}"
            yield from (f"  {result_text(change)}" for change in results)
        yield from (f"removed   {_described(node)}" for node in found.removed)
        yield from (f"added     {_described(node)}" for node in found.added)
        for ends, changes in changes_by_dataset(found.changed):
            yield from (f"changed   {self._changed(*ends)}", *(f"  {self._change(change)}" for change in changes))
        yield from (f"unlinked  {_link(self.old, edge)}" for edge in found.removed_edges)
        yield from (f"linked    {_link(self.new, edge)}" for edge in found.added_edges)
        if not found:
            yield f"no difference, in {nodes_text(len(self.old))}"

    @property
    def hidden(self) -> set[str]:  # type: ignore[override]
        """The datasets in records that this key cannot see."""
        return {
            mfid
            for graph in (self.old, self.new)
            for node in graph.nodes.values()
            for mfid in used_mfids(node.record)
            if mfid not in graph or mfid in graph.hidden
        }

    def _changed(self, before: str, after: str) -> str:
        new = plain(self.new.label(after))
        return new if before == after else f"{plain(self.old.label(before))} -> {new}"

    def _change(self, change: Change) -> str:
        if not change.field.startswith("inputs."):
            return plain(f"{change.field}: {change_text(change.old, change.new, _shown)}")
        before, after = (  # the successors of inputs are only in the new lineage
            ", ".join((self.new if mfid in self.new else self.old).label(mfid) for mfid in value or ()) or "nothing"
            for value in (change.old, change.new)
        )
        return plain(f"{change.field}: {before} -> {after}")

    @property
    def same(self) -> bool:
        """Whether nothing differs."""
        return not self.difference

    @property
    def added_links(self) -> list[Edge]:
        """The links that only the new lineage has."""
        return shown_edges(self.new, self.difference.added_edges)

    @property
    def removed_links(self) -> list[Edge]:
        """The links that only the old lineage has."""
        return shown_edges(self.old, self.difference.removed_edges)


@question("diff", announced=BEFORE)
def compare(
    session: Session, old: Annotated[str, argument()], new: Annotated[str, argument()], *, projects: Projects = ()
) -> LineageComparison:
    """Show the differences between the datasets OLD and NEW, including their ancestors: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that differs.

    OLD and NEW may also be two runs, named by the id, or its beginning, of a run or a Prefect flow run.
    """
    try:
        datasets = find_mfid(session, old, projects), find_mfid(session, new, projects)
    except InputError as no_dataset:
        try:
            return compare_runs(session, old, new, projects or visible_projects(session))
        except InputError as no_run:
            raise InputError(f"{no_dataset}\n{no_run}") from no_run
    return compare_datasets(session, *datasets)


def compare_datasets(session: Session, old: str, new: str) -> LineageComparison:
    """Compare two datasets and their ancestors. Raises InputError if one does not exist."""
    before = fetch_lineage(session, old)
    after = before if new in before else fetch_lineage(session, new)
    earlier = with_whole_records(session, before.derivations().around(old, direction="ancestors"))
    later = with_whole_records(session, after.derivations().around(new, direction="ancestors"))
    return LineageComparison(earlier, later, diff(earlier, later, {old: new}))


def compare_runs(session: Session, old: str, new: str, projects: Sequence[str]) -> LineageComparison:
    """Compare what two runs of these projects made or reused, with the parents.

    Runs are named as for `find_run`. Raises InputError if there is no such run, or it has no visible dataset.
    """
    copies = {project: session.mirror.snapshot(project) for project in projects}
    runs = {run: find_run(session, run, copies) for run in (old, new)}
    for run, found in runs.items():
        if not found:
            raise InputError(f"compare run {run}: {named_projects(projects)} has no dataset that it made or used")
    relied = runs[old] | runs[new]
    graph = fetch_projects(session, [project for project, copy in copies.items() if relied & copy.records.keys()])
    earlier, later = (with_whole_records(session, graph.with_parents(runs[run])) for run in (old, new))
    return LineageComparison(earlier, later, diff(earlier, later))


MOST_VALUE = 60  # characters


def changes_by_dataset(changes: Iterable[Change]) -> Iterator[tuple[tuple[str, str], list[Change]]]:
    """Yield the changes of each pair of datasets, with their ids."""
    for ends, group in groupby(changes, key=lambda change: (change.old_id, change.new_id)):
        yield ends, list(group)


def result_text(change: Change) -> str:
    """Return a returned value that differs, in words."""
    by = "" if change.by is None else f" ({change.by:+.6g})"
    return plain(f"{change.field}: {change_text(change.old, change.new, _shown)}{by}")


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    if value in (None, ""):
        return "nothing"
    most = 12 if len(text) == 64 and text.isalnum() else MOST_VALUE  # of a SHA-256, the beginning
    return text if len(text) <= most else f"{text[:most]}…"


def _described(node: Node) -> str:
    mfid = "" if node.kind == "hidden" else short_id(node.id)
    return "  ".join(filter(None, (title(node), mfid, detail(node))))


def _link(graph: LineageGraph, edge: Edge) -> str:
    ends = f"{graph.label(edge.source)} -> {graph.label(edge.target)}"
    return plain(f"{ends}  {relation_text(edge.relationship) or DERIVED}")
