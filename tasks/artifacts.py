"""What runs leave in Prefect's interfaces: the lineage as a picture that both of them show, with a table of names."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from prefect.artifacts import create_markdown_artifact
from prefect.context import FlowRunContext, TaskRunContext

from crucible_lineage.amounts import amount
from crucible_lineage.lineage import LineageGraph
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.session import Session

__all__ = ["dataset_page", "lineage_artifact", "markdown_table"]


MOST_ROWS = 200


FACILITY = "crucible.lbl.gov"
EXPLORER = "https://crucible.lbl.gov/explore"  # as the official client has it


def lineage_artifact(
    graph: LineageGraph, focus: str | None, session: Session, *, key: str = "lineage", notes: Sequence[str] = ()
) -> None:
    """The run that goes on here has this artifact. Without a run there is nothing to hang it on, and none is made."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    picture = base64.b64encode(render_svg(graph, focus).encode()).decode()
    named = focus or amount(len(graph), "dataset")
    text = f"![Lineage of {named}](data:image/svg+xml;base64,{picture})\n\n{markdown_table(_rows(graph, session))}"
    text += "".join(f"\n\n**{plain(note)}**" for note in notes)
    create: Any = create_markdown_artifact
    create(markdown=text, key=key, description=f"Lineage of {named}", _sync=True)


def linked(session: Session, mfid: str, project: str = "") -> str:
    """The dataset's id in Markdown, as a link where its page has an address."""
    page = dataset_page(session, mfid, project)
    return f"[{mfid}]({page})" if page else f"`{mfid}`"


def markdown_table(rows: Iterable[dict[str, str]]) -> str:
    """The rows as a Markdown table; the columns are those of the first."""
    listed = list(rows)
    if not listed:
        return ""
    columns = list(listed[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row[name]) for name in columns] for row in listed[:MOST_ROWS])]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    left = len(listed) - MOST_ROWS
    return text if left <= 0 else f"{text}\n\nand {left} more"


def _rows(graph: LineageGraph, session: Session) -> Iterable[dict[str, str]]:
    parents: dict[str, list[str]] = {}
    for edge in graph.edges.values():
        parents.setdefault(edge.target, []).append(edge.source)
    for mfid, node in graph.nodes.items():
        if node.kind == "hidden":
            continue
        above = ", ".join(title(graph.nodes[parent]) for parent in parents.get(mfid, ()))
        yield {
            "dataset": title(node),
            "id": linked(session, mfid, node.project) if node.kind == "dataset" else f"`{mfid}`",
            "measurement": node.measurement,
            "state": node.state,
            "made from": above,
        }


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|").replace("\n", " ")


def dataset_page(session: Session, mfid: str, project: str = "") -> str:
    """The address of the dataset's page, empty where there is none: an embedded Crucible has no lasting address.

    `CRUCIBLE_GRAPH_EXPLORER_URL` names another explorer, as for the official client.
    """
    if session.settings.api_url is None:
        return ""
    parts = urlsplit(session.settings.api_url)
    explorer = os.environ.get("CRUCIBLE_GRAPH_EXPLORER_URL") or (EXPLORER if parts.hostname == FACILITY else "")
    if explorer:
        base = explorer.rstrip("/")
        return f"{base}/{quote(project)}/datasets/{mfid}" if project else ""
    return f"{parts.scheme}://{parts.netloc}/datasets/{mfid}"
