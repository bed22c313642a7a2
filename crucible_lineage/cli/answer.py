"""`answer`: make what people and programs request of datasets, until Ctrl-C."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Annotated

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import Jobs, act
from crucible_lineage.cli.engines import LOCAL, run_with_engine
from crucible_lineage.cli.progress import Progress
from crucible_lineage.core.journal import COMPLETE, RequestRow
from crucible_lineage.errors import FAILURE, INTERRUPTED, TRANSIENT, UNREACHABLE
from crucible_lineage.lineage.labels import plain
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.pipeline.requests import (
    FAILED,
    SOON_S,
    WAITING,
    Pipelines,
    Taken,
    answer,
    lines,
    queued,
    requests_of,
    stored,
)
from crucible_lineage.pipeline.run.result import RunResult, StepChoice
from crucible_lineage.session import Session
from crucible_lineage.settings import JOBS_AT_ONCE

LINES = "-"  # in place of a queue: standard input
BROKER = "CRUCIBLE_LINEAGE_QUEUE"
SOON = StepChoice(patience_s=SOON_S, is_request=True)


@act("answer", has_json=False)
def answer_command(
    session: Session, pipelines: Annotated[Sequence[str], argument("PIPELINE...")], *,
    queue: Annotated[
        str | None, option(
            "Take requests from this RabbitMQ (or CRUCIBLE_LINEAGE_QUEUE), or - for lines of JSON on standard input; "
            "by default from the embedded Crucible.", metavar="amqp://...",
        )
    ] = None,
    every_s: Annotated[
        float, option("How often to look.", "--every", metavar="SECONDS", kind=click.FloatRange(0.1))
    ] = 5.0,
    once: Annotated[bool, option("Answer the requests that wait, and exit.")] = False,
    jobs: Jobs = JOBS_AT_ONCE,
) -> Done:  # fmt: skip
    """Answer requests for results: run the pipelines whose `request:` names them, each for one dataset.

    A request is acknowledged when its results are at Crucible; equal requests have one result. One that cannot be
    answered is parked with the reason, in the queue whose name ends with -failed, or as failed at the embedded
    Crucible. While Crucible or the queue is away, requests wait. `status` lists them.

    With --once, exit code 1 if a request failed, 3 if one waits.
    """
    found = Pipelines([bind_file(located(file), session.store) for file in pipelines], session)
    source = _source(found, session, queue or os.environ.get(BROKER))
    click.echo(f"{session.settings.describe()}\nanswering {', '.join(found.by_kind)}", err=True)
    is_stopped, ended = False, list[str]()

    def run(bound: BoundPipeline) -> RunResult:
        nonlocal is_stopped
        with Progress(list(bound.steps), silent=True) as progress:
            result = run_with_engine(LOCAL, bound, session, progress, jobs, choice=SOON)
        is_stopped |= result.stopped
        return result

    while True:
        try:
            for request, end in source():
                ended.append(_end(request if request.state == FAILED else answer(request, found, run), end))
                if ended[-1] == WAITING:
                    break
        except TRANSIENT as error:
            click.echo(plain(f"waiting: {str(error).partition(chr(10))[0]}"), err=True)
            ended.append(WAITING)
        if is_stopped:
            return Done({}, (), INTERRUPTED)
        if once or queue == LINES:
            code = FAILURE if FAILED in ended else UNREACHABLE if WAITING in ended else 0
            return Done({}, [] if ended else ["no request waits"], code)
        time.sleep(every_s)


def _source(found: Pipelines, session: Session, queue: str | None) -> partial[Iterator[Taken]]:
    """Return what yields the requests that wait."""
    kinds = list(found.by_kind)
    if queue == LINES:
        return partial(lines, sys.stdin, kinds)
    if queue:
        names = {requests_of(bound).queue or kind: kind for kind, bound in found.by_kind.items()}
        return partial(queued, queue, names)
    return partial(stored, session, kinds)


def _end(ended: RequestRow, end: Callable[[RequestRow], None]) -> str:
    """Acknowledge or park a request, and print how it ended."""
    end(ended)
    what = f"{ended.kind} of {ended.dataset}" if ended.kind else "a message"
    detail = ", ".join(ended.results) if ended.state == COMPLETE else ended.reason
    click.echo(plain(f"{what}: {ended.state}: {detail}"), err=True)
    return ended.state
