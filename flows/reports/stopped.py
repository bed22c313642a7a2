"""What a flow run says that is ended from outside, by Prefect or a signal: what was made of it, and what was not."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from prefect.artifacts import create_markdown_artifact
from prefect.logging import get_run_logger

from crucible_lineage.pipeline.run.result import (
    EXECUTED,
    FAILED,
    LEFT_OUT,
    REUSED,
    SKIPPED,
    STOPPED,
    Listener,
    StepEvent,
)
from crucible_lineage.tasks.artifacts import markdown_table

__all__ = ["telling_what_was_made"]

ENDINGS = (EXECUTED, REUSED, FAILED, STOPPED, SKIPPED, LEFT_OUT)
WAY_OUT = "what is made stays: retry this run, or start another one, and it goes on from there"


@contextmanager
def telling_what_was_made(pipeline: str, listener: Listener) -> Iterator[Listener]:
    """A listener for the run in this block, which `listener` hears, too.

    If the flow run is ended meanwhile, its log and its artifact `stopped` say what was made. Prefect's worker gives a
    cancelled run a state with a message of its own.
    """
    ended: dict[str, StepEvent] = {}

    def listen(event: StepEvent) -> None:
        if event.outcome in ENDINGS:
            ended[event.step] = event
        listener(event)

    try:
        yield listen
    except Exception:
        raise
    except BaseException:  # what ends the process
        _tell(pipeline, ended)
        raise


def _tell(pipeline: str, ended: dict[str, StepEvent]) -> None:
    counts = Counter(event.outcome for event in ended.values())
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ENDINGS if counts[outcome]) or "nothing was begun"
    get_run_logger().warning("pipeline %s was stopped: %s; %s", pipeline, told, WAY_OUT)
    rows = [{"step": name, "outcome": event.outcome, "": event.detail} for name, event in ended.items()]
    text = f"pipeline {pipeline} was stopped: {told}; {WAY_OUT}\n\n{markdown_table(rows)}"
    create_markdown_artifact(markdown=text, key="stopped", description=f"{pipeline}: {told}", _sync=True)  # type: ignore[call-arg]
