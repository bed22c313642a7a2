"""The lineage of a dataset as tasks: checked, and drawn."""

from __future__ import annotations

from pathlib import Path

from crucible_lineage.errors import RunError
from crucible_lineage.lineage.draw.svg import render_svg
from crucible_lineage.lineage.graph import Direction
from crucible_lineage.queries.check import LineageCheck, check_dataset
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.tasks.api.calls import api_task
from crucible_lineage.tasks.artifacts import lineage_artifact
from crucible_lineage.tasks.sessions import Crucible, session_for

__all__ = ["check_lineage", "render_lineage"]


@api_task("check lineage of {dsid}")
def check_lineage(dsid: str, *, raise_on_error: bool = True, crucible: Crucible | None = None) -> LineageCheck:
    """Check all that the dataset is connected with: links, records, cycles, orphans, with ways out.

    RunError if something found is an error, unless `raise_on_error` is False.
    """
    found = check_dataset(session_for(crucible), dsid)
    if raise_on_error and not found.ok:
        errors = [finding for finding in found.findings if finding.severity == "error"]
        way_out = f"\nto mend it: {errors[0].command}" if errors[0].command else ""
        raise RunError(f"the lineage of {dsid} has {len(errors)} errors; the first: {errors[0].message}{way_out}")
    return found


@api_task("draw lineage of {dsid}")
def render_lineage(
    dsid: str,
    path: str | Path | None = None,
    *,
    depth: int | None = None,
    direction: Direction = "both",
    key: str = "lineage",
    crucible: Crucible | None = None,
) -> str:
    """The lineage of the dataset as SVG, written to `path` too if one is given; and an artifact `key` of the run.

    The artifact shows the picture and a table of the datasets with links to their pages.
    """
    session = session_for(crucible)
    graph = fetch_lineage(session, dsid).around(dsid, depth, direction)
    picture = render_svg(graph, dsid)
    lineage_artifact(graph, dsid, session, key=key)
    if path is not None:
        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(picture, encoding="utf-8")
    return picture
