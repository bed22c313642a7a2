"""A plan as people read it: a line for each step, the causes beneath, many instances of a step folded into one line."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby

import click

from crucible_lineage.cli.options import print_json
from crucible_lineage.pipeline.plan.plan import FRESH, PipelinePlan, StepPlan

__all__ = ["print_plan", "size_text", "time_text"]

MARKS = {"fresh": "=", "missing": "+", "stale": "~", "incomplete": "!", "blocked": "x"}
MOST_INSTANCES = 6  # more of one step are folded
MOST_CAUSES = 8


def print_plan(planned: PipelinePlan, *, as_json: bool) -> None:
    """The plan, on stdout."""
    if as_json:
        print_json(planned.to_json())
        return
    width = max((len(step.name) for step in planned.steps), default=0)
    width = min(width, 40)
    for _, group in groupby(planned.steps, key=lambda step: step.step):
        instances = list(group)
        if len(instances) <= MOST_INSTANCES:
            shown: Sequence[str] = ()
            for step in instances:
                _print_step(step, width, shown)
                shown = step.code_diff or shown
        else:
            _print_folded(instances, width)
    if not planned.steps:
        click.echo("there is nothing to do: no dataset is there that the steps could be made for")
    _print_estimate(planned)


def _print_step(step: StepPlan, width: int, shown: Sequence[str]) -> None:
    """`shown` is a difference of code that need not be repeated."""
    ids = ", ".join(mfid for mfid in step.datasets.values() if mfid)
    click.echo(f"{MARKS[step.state]} {step.name:{width}}  {step.state:10}  {ids}".rstrip())
    _print_causes(step.causes, () if step.code_diff == shown else step.code_diff, width)


def _print_folded(instances: Sequence[StepPlan], width: int) -> None:
    name = instances[0].step
    for state in MARKS:
        those = [step for step in instances if step.state == state]
        if not those:
            continue
        click.echo(f"{MARKS[state]} {name:{width}}  {state:10}  {len(those)} of {len(instances)} instances")
        if state != FRESH:
            causes = dict.fromkeys(cause.partition(" (since ")[0] for step in those for cause in step.causes)
            diff = next((step.code_diff for step in those if step.code_diff), ())
            _print_causes(tuple(causes), diff, width)


def _print_causes(causes: Sequence[str], diff: Sequence[str], width: int) -> None:
    for cause in causes[:MOST_CAUSES]:
        click.echo(f"  {'':{width}}  because {cause}")
    if len(causes) > MOST_CAUSES:
        click.echo(f"  {'':{width}}  and {len(causes) - MOST_CAUSES} causes more")
    for line in diff:
        click.echo(f"  {'':{width}}    {line}")


def _print_estimate(planned: PipelinePlan) -> None:
    known = [step.estimate for step in planned.steps if step.state != FRESH and step.estimate.seconds is not None]
    todo = sum(step.state != FRESH for step in planned.steps)
    if known:
        seconds = time_text(sum(estimate.seconds or 0 for estimate in known))
        size = size_text(sum(estimate.bytes or 0 for estimate in known))
        part = "" if len(known) == todo else f" for the {len(known)} of {todo} that were made before"
        click.echo(f"about {seconds} of work and {size} of results{part}, going by earlier runs")


def time_text(seconds: float) -> str:
    """A duration, as people say it."""
    if seconds < 100:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def size_text(size: float) -> str:
    """A number of bytes, as people say it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" or size >= 10 else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"
