"""Pages that compare two datasets, returned values first, and that show the findings of `verify` for a project."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from starlette.responses import RedirectResponse, Response

from crucible_lineage.amounts import alike
from crucible_lineage.errors import InputError
from crucible_lineage.lineage import Change, Finding, LineageGraph, Node
from crucible_lineage.lineage.labels import HIDDEN_NAME, short_hash, value_text
from crucible_lineage.queries.catalogue.reference import find_mfid
from crucible_lineage.queries.diff import LineageComparison, changes_by_dataset, compare_datasets
from crucible_lineage.queries.verify.verify import Verification, verify_project
from crucible_lineage.web.reader import Reader, SignIn
from crucible_lineage.web.rendering import named_mfids, redacted, rendered

MOST_CHANGES = 300  # on the page; `diff` prints them all
KINDS = (("params.", "parameter"), ("facts.", "fact about a parent"), ("code", "code"), ("inputs.", "input"),
         ("used.", "file of an input"), ("files.", "file"))  # fmt: skip


MOST = 200  # on the page; the command prints them all
WAIT_S = 1.5  # then the page says that the check is running, and refreshes itself
ASK_AGAIN_S = 2


@dataclass(frozen=True)
class _Line:
    """One difference. `by` is the change of a number."""

    kind: str
    name: str
    old: str
    new: str
    by: str = ""


@dataclass(frozen=True)
class _Pair:
    """A dataset and its counterpart in the other lineage, by id and name, with the differences."""

    old: tuple[str, str]
    new: tuple[str, str]
    lines: tuple[_Line, ...]


def compare(reader: Reader) -> Response:
    """Show the differences between two datasets and their ancestors, or a form if not both are named."""
    named = {name: reader.parameter(name) or "" for name in ("old", "new")}
    if not all(named.values()):
        return rendered("compare.html", reader.name, asked=named, problem="")
    with reader.sign_in.session() as session:
        try:
            old, new = (find_mfid(session, named[name]) for name in ("old", "new"))
            found = compare_datasets(session, old, new)
        except InputError as error:
            return rendered("compare.html", reader.name, 400, asked=named, problem=str(error))
    hidden = _hidden(found.old) | _hidden(found.new)
    difference = found.difference
    changed = [
        one for one in difference.changed if not (hidden and one.field.startswith("facts."))
    ]  # they name parents
    return rendered(
        "compare.html",
        reader.name,
        asked={"old": old, "new": new},
        old=_end(found.old, old),
        new=_end(found.new, new),
        results=_pairs(found, difference.results, hidden),
        changed=_pairs(found, changed[:MOST_CHANGES], hidden),
        more=len(changed[MOST_CHANGES:]),
        removed=list(map(_named, difference.removed)),
        added=list(map(_named, difference.added)),
        links=len(difference.added_edges) + len(difference.removed_edges),
        same=not difference,
        datasets=len(found.new),
    )


def _hidden(graph: LineageGraph) -> set[str]:
    """Return the datasets in records that this reader cannot see."""
    named = (named_mfids(node.record) for node in graph.nodes.values() if node.record)
    return {mfid for mfids in named for mfid in mfids if mfid not in graph or mfid in graph.hidden}


def _end(graph: LineageGraph, mfid: str) -> tuple[str, str]:
    return _named(graph.nodes.get(mfid, Node(mfid, "hidden")))


def _named(node: Node) -> tuple[str, str]:
    """Return the id and the name of a node; for a hidden one no id, and that it is hidden."""
    return (node.id, node.name or node.id) if node.visible_id else ("", HIDDEN_NAME)


def _pairs(found: LineageComparison, changes: Sequence[Change], hidden: Collection[str]) -> list[_Pair]:
    pairs = []
    for (old, new), group in changes_by_dataset(changes):
        lines = sorted((_line(found, change, hidden) for change in group), key=lambda line: _order(line.kind))
        pairs.append(_Pair(_end(found.old, old), _end(found.new, new), tuple(lines)))
    return pairs


def _line(found: LineageComparison, change: Change, hidden: Collection[str]) -> _Line:
    is_result = change in found.difference.results
    kind, name = ("returned value", change.field) if is_result else _kind(found, change.field)
    old, new = (redacted(_text(found, change.field, value), hidden) for value in alike(change.old, change.new))
    return _Line(kind, redacted(name, hidden), old, new, "" if change.by is None else f"{change.by:+.6g}")


def _kind(found: LineageComparison, field: str) -> tuple[str, str]:
    for prefix, kind in KINDS:
        if field.startswith(prefix):
            name = field.removeprefix(prefix) if prefix != "code" else ""
            if prefix == "used.":
                mfid, _, file = name.partition(".")
                name = f"{found.label(mfid)}: {file}"
            return kind, name
    return "record", field


def _order(kind: str) -> int:
    kinds = ["returned value", *(kind for _, kind in KINDS)]
    return kinds.index(kind) if kind in kinds else len(kinds)


def _text(found: LineageComparison, field: str, value: Any) -> str:
    if value in (None, "", ()):
        return ""
    if field.startswith("inputs."):
        return ", ".join(map(found.label, value))
    if isinstance(value, str):
        return value_text(short_hash(value))
    return value_text(value)


def findings(reader: Reader) -> Response:
    """Show the findings of a project, worst first. A large project is checked in the background."""
    project = reader.project
    work = partial(_verify, reader.sign_in, project.project_id)
    if "again" in reader.request.query_params:
        reader.sign_in.checks.of(project.unique_id, work, restart=True)
        return RedirectResponse(reader.request.url.path, 303)
    check = reader.sign_in.checks.of(project.unique_id, work)
    if not check.done_within(WAIT_S):
        page = rendered("checking.html", reader.name, project=project, begun=check.begun.isoformat())
        page.headers["Refresh"] = str(ASK_AGAIN_S)
        return page
    verified = check.result.result()
    return rendered(
        "findings.html",
        reader.name,
        project=project,
        verified=verified,
        findings=[_redacted_finding(finding, verified.hidden) for finding in verified.findings[:MOST]],
        total=len(verified.findings),
        counts=Counter(finding.severity for finding in verified.findings),
        begun=check.begun.isoformat(),
        hidden_name=HIDDEN_NAME,
    )


def _verify(sign_in: SignIn, project: str) -> Verification:
    with sign_in.session() as session:
        return verify_project(session, project)


def _redacted_finding(finding: Finding, hidden: Collection[str]) -> Finding:
    return replace(
        finding,
        ids=tuple(redacted(mfid, hidden) for mfid in finding.ids),
        message=redacted(finding.message, hidden),
        command=redacted(finding.command, hidden),
    )
