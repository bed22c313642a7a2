"""Artifacts, assets and events by which Prefect shows our runs: lineages, datasets and steps.

Automations can be built on the events. Crucible, not Prefect, is the record of what was made: an open Prefect
server keeps events for a week and has no view of assets; Prefect Cloud draws them.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextvars import copy_context
from typing import Any
from urllib.parse import quote, urlsplit

from prefect.artifacts import create_markdown_artifact
from prefect.assets import Asset, AssetProperties
from prefect.context import AssetContext, FlowRunContext, TaskRunContext
from prefect.events import emit_event

from crucible_lineage.ask.lineages import fetch_lineages
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.graph import LineageGraph
from crucible_lineage.lineage.labels import plain, title
from crucible_lineage.lineage.svg import render_svg
from crucible_lineage.pipeline.job.job import Job
from crucible_lineage.pipeline.run.result import FAILED, StepEvent
from crucible_lineage.refs import DatasetRef
from crucible_lineage.registration.payload import NewDataset, Payload
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

MOST_ROWS = 200
MOST_LINEAGES = 20  # of unconnected datasets in one picture; each takes one request

FACILITY = "crucible.lbl.gov"
EXPLORER = "https://crucible.lbl.gov/explore"  # as the official client has it


def lineage_artifact(
    graph: LineageGraph, focus: str | None, session: Session, *, key: str = "lineage", notes: Sequence[str] = ()
) -> None:
    """Add an artifact with the lineage's picture and table to the current run; do nothing outside a run."""
    if FlowRunContext.get() is None and TaskRunContext.get() is None:
        return
    picture = base64.b64encode(render_svg(graph, focus).encode()).decode()
    subject = focus or amount(len(graph), "dataset")
    text = f"![Lineage of {subject}](data:image/svg+xml;base64,{picture})\n\n{markdown_table(_rows(graph, session))}"
    text += "".join(f"\n\n**{plain(note)}**" for note in notes)
    create: Any = create_markdown_artifact
    create(markdown=text, key=key, description=f"Lineage of {subject}", _sync=True)


def lineage_of(mfids: Sequence[str], session: Session) -> LineageGraph:
    """Fetch the lineages of these datasets as one graph, connected or not; of very many, the last ones."""
    return fetch_lineages(session, reversed(mfids), most=MOST_LINEAGES)


def markdown_table(rows: Iterable[dict[str, str]]) -> str:
    """Format rows as a Markdown table, with the columns of the first row."""
    all_rows = list(rows)
    if not all_rows:
        return ""
    columns = list(all_rows[0])
    lines = [columns, ["---"] * len(columns), *([_cell(row[name]) for name in columns] for row in all_rows[:MOST_ROWS])]
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    omitted = len(all_rows) - MOST_ROWS
    return text if omitted <= 0 else f"{text}\n\nand {omitted} more"


def _rows(graph: LineageGraph, session: Session) -> Iterable[dict[str, str]]:
    parents: dict[str, list[str]] = {}
    for edge in graph.edges.values():
        parents.setdefault(edge.target, []).append(edge.source)
    for mfid, node in graph.nodes.items():
        if node.kind == "hidden":
            continue
        page = dataset_page(session, mfid, node.project) if node.kind == "dataset" else ""
        parent_titles = ", ".join(title(graph.nodes[parent]) for parent in parents.get(mfid, ()))
        yield {
            "dataset": title(node),
            "id": f"[{mfid}]({page})" if page else f"`{mfid}`",
            "measurement": node.measurement,
            "state": node.state,
            "made from": parent_titles,
        }


def _cell(text: str) -> str:
    return plain(text).replace("|", "\\|").replace("\n", " ")


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


def tell_materialized(job: Job, outputs: Mapping[str, DatasetRef]) -> None:
    """Emit events for a materialized step and its datasets, each an asset derived from its parents."""
    pipeline = (job.pipeline or {}).get("name", "")
    _tell_made(pipeline, job.project, job.name, [part.dataset.mfid for part in job.used], outputs)


def telling_arrived() -> Callable[[Payload], None]:
    """Return a function that emits these events, for the calling flow run, for results delivered after their task."""
    context = copy_context()
    return lambda payload: context.copy().run(_tell_arrived, payload)


def _tell_arrived(payload: Payload) -> None:
    records = {new.mfid: record for new in payload.datasets if (record := new.record.as_step)}
    outputs = {records[new.mfid].output: new for new in payload.datasets if new.mfid in records}
    for record in list(records.values())[:1]:  # all outputs of a step have these in common
        pipeline, run = record.pipeline, record.activity.run
        task_run_id = run.task_run_id if run else None
        _tell_made(
            pipeline.name if pipeline else "", payload.project, payload.step, record.parents, outputs, task_run_id
        )


def _tell_made(
    pipeline: str,
    project: str,
    step: str,
    used: Sequence[str],
    outputs: Mapping[str, DatasetRef | NewDataset],
    task_run_id: str | None = None,
) -> None:
    parents = list(dict.fromkeys(used))[:MOST_RELATED]
    related_run = [{"prefect.resource.id": f"prefect.task-run.{task_run_id}", "prefect.resource.role": "task-run"}]
    emit_event(
        "crucible.step.materialized",
        resource=_step_resource(pipeline, project, step),
        related=[
            *_related((dataset.mfid for dataset in outputs.values()), "output"),
            *_related(parents, "input"),
            *(related_run if task_run_id else ()),
        ],
    )
    for output, dataset in outputs.items():
        payload = {"project": project, "pipeline": pipeline, "step": step, "output": output}
        tell_asset(dataset, parents, payload)


def tell_asset(dataset: DatasetRef | NewDataset, parents: Sequence[str], payload: Mapping[str, str]) -> None:
    """Emit the event that a dataset was made, as an asset derived from its parents."""
    asset = Asset(key=_asset_key(dataset.mfid), properties=AssetProperties(name=dataset.name[:200]))
    emit_event(
        "prefect.asset.materialization.succeeded",
        resource=AssetContext.asset_as_resource(asset),
        related=[
            *(AssetContext.asset_as_related(Asset(key=_asset_key(parent))) for parent in parents[:MOST_RELATED]),
            AssetContext.related_materialized_by("crucible-lineage"),
        ],
        payload=dict(payload),
    )


def tell_failed(pipeline: str, project: str, event: StepEvent) -> None:
    """Emit an event with the error of a step, if it failed."""
    if event.outcome == FAILED:
        resource = _step_resource(pipeline, project, event.step)
        emit_event("crucible.step.failed", resource=resource, payload={"error": event.detail})


def _step_resource(pipeline: str, project: str, name: str) -> dict[str, str]:
    step = name.partition("[")[0]
    return {
        "prefect.resource.id": f"crucible.step.{pipeline}.{step}",
        "prefect.resource.name": name,
        "pipeline": pipeline,
        "project_id": project,
        "step": step,
    }


def _related(mfids: Iterable[str], role: str) -> list[JsonObject]:
    return [{"prefect.resource.id": dataset_resource_id(mfid), "prefect.resource.role": role} for mfid in mfids]


def _asset_key(mfid: str) -> str:
    return f"crucible://dataset/{mfid}"
