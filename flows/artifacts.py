"""What a run leaves in Prefect's UI: the lineage as a picture, and a table of the outputs with their ids."""

from __future__ import annotations

from prefect.artifacts import create_markdown_artifact, create_table_artifact

from crucible_lineage.lineage.draw.formats import render_mermaid
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session

__all__ = ["leave_artifacts"]


def leave_artifacts(result: RunResult, session: Session) -> None:
    """The run has the artifacts `lineage` and `outputs`."""
    rows = [
        {"step": step, "outcome": result.outcomes[step], "output": output, "dataset": mfid}
        for step, outputs in result.datasets.items()
        for output, mfid in outputs.items()
    ]
    create_table_artifact(table=rows, key="outputs", description=f"Datasets of pipeline {result.pipeline}")
    last = rows[-1]["dataset"]
    diagrams = render_mermaid(fetch_lineage(session, last).around(last))
    text = "\n\n".join(f"```mermaid\n{diagram}\n```" for diagram in diagrams)
    create_markdown_artifact(markdown=text, key="lineage", description=f"Lineage of {last}")
