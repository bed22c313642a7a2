"""Artifacts, assets and events by which Prefect shows our runs: lineages, datasets and steps.

Automations can be built on the events. Crucible, not Prefect, is the record of what was made: an open Prefect
server keeps events for a week and has no view of assets; Prefect Cloud draws them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, urlsplit

from prefect.artifacts import create_markdown_artifact
from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext, FlowRunContext, TaskRunContext
from prefect.events import emit_event

from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import NewDataset
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

MOST_ROWS = 200
MOST_LINEAGES = 20  # of unconnected datasets in one picture; each takes one request

FACILITY = "crucible.lbl.gov"
ASSET = "crucible://dataset/"  # the key of an asset, before the id of the dataset
EXPLORER = "https://crucible.lbl.gov/explore"  # as the official client has it


def lineage_artifact(
    graph: LineageGraph, focus: str | None, session: Session, *, key: str = "lineage", notes: Sequence[str] = ()
) -> None:
    """Add an artifact with the lineage's picture and table to the current run; do nothing outside a run."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    picture = base64.b64encode(render_svg(graph, focus).encode()).decode()
    subject = focus or amount(len(graph), "dataset")
    rows = []
    for mfid, node in graph.nodes.items():
        if node.kind != "hidden":
            page = dataset_page(session, mfid, node.project) if node.kind == "dataset" else ""
            rows.append(
                {
                    "dataset": title(node),
                    "id": f"[{mfid}]({page})" if page else f"`{mfid}`",
                    "measurement": node.measurement,
                    "state": node.state,
                    "made from": ", ".join(title(graph.nodes[parent]) for parent in graph.parents(mfid)),
                }
            )
    text = f"![Lineage of {subject}](data:image/svg+xml;base64,{picture})\n\n{markdown_table(rows)}"
    text += "".join(f"\n\n**{plain(note)}**" for note in notes)
    create: Any = create_markdown_artifact
    create(markdown=text, key=key, description=f"Lineage of {subject}", _sync=True)


def lineage_of(mfids: Sequence[str], session: Session) -> LineageGraph:
    """Fetch the lineages of these datasets as one graph, connected or not; of very many, the last ones."""
    return fetch_lineage(session, *reversed(mfids), most=MOST_LINEAGES)


def markdown_table(rows: Iterable[dict[str, str]]) -> str:
    """Format rows as a Markdown table, with the columns of the first row."""
    all_rows = list(rows)
    if not all_rows:
        return ""
    columns = list(all_rows[0])
    lines = [columns, ["---"] * len(columns)]
    for row in all_rows[:MOST_ROWS]:
        lines.append([plain(row[name]).replace("|", "\\|").replace("\n", " ") for name in columns])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    omitted = len(all_rows) - MOST_ROWS
    return text if omitted <= 0 else f"{text}\n\nand {omitted} more"


def dataset_page(session: Session, mfid: str, project: str = "") -> str:
    """Return the address of the dataset's page; empty for an embedded Crucible, which has no lasting address.

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


MOST_RELATED = 50  # an event may relate to a hundred resources; Prefect adds its own


def dataset_resource_id(mfid: str) -> str:
    """Return the name that events have for a dataset."""
    return f"crucible.dataset.{mfid}"


def tell_made(
    pipeline: str,
    project: str,
    step: str,
    used: Sequence[str],
    outputs: Mapping[str, DatasetRef | NewDataset],
    task_run_id: str | None = None,
) -> None:
    """Emit an event for each dataset of a step that was made: an asset derived from its parents, made by the step.

    A task run that has ended is named by its id; Prefect itself relates events to the current one.
    """
    made_by = [{**step_resource(pipeline, project, step), "prefect.resource.role": "step"}]
    if task_run_id:
        made_by.append({"prefect.resource.id": f"prefect.task-run.{task_run_id}", "prefect.resource.role": "task-run"})
    for output, dataset in outputs.items():
        payload = {"project": project, "pipeline": pipeline, "step": step, "output": output}
        tell_asset(dataset, list(dict.fromkeys(used)), payload, made_by)


def tell_asset(
    dataset: DatasetRef | NewDataset,
    parents: Sequence[str],
    payload: Mapping[str, str],
    made_by: Sequence[dict[str, str]] = (),
) -> None:
    """Emit the event that a dataset was made, as an asset derived from its parents."""
    asset = Asset(key=f"{ASSET}{dataset.mfid}", properties=AssetProperties(name=dataset.name[:200]))
    emit_event(
        "prefect.asset.materialization.succeeded",
        resource=AssetContext.asset_as_resource(asset),
        related=[
            *(AssetContext.asset_as_related(Asset(key=f"{ASSET}{parent}")) for parent in parents[:MOST_RELATED]),
            AssetContext.related_materialized_by("crucible-lineage"),
            *made_by,
        ],
        payload=dict(payload),
    )


def step_resource(pipeline: str, project: str, name: str) -> dict[str, str]:
    """Return the resource that events have for a step, of all its instances."""
    step = name.partition("[")[0]
    return {
        "prefect.resource.id": f"crucible.step.{pipeline}.{step}",
        "prefect.resource.name": name,
        "pipeline": pipeline,
        "project_id": project,
        "step": step,
    }
