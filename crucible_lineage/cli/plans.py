"""Print a plan: a line for each step, the causes beneath, and many instances of a step folded into one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import groupby

import click

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.cli.options import print_json, wants_json
from crucible_lineage.cli.printing import coloured
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.labels import first_lines, plain
from crucible_lineage.pipeline.plan.partners import chosen_text
from crucible_lineage.pipeline.plan.plan import FRESH, STALE, PipelinePlan, StepPlan

COLOURS = {"fresh": "green", "missing": "cyan", "stale": "yellow", "incomplete": "yellow", "blocked": "red"}
COLOURS |= dict.fromkeys(("doubtful", "candidate"), "yellow")
MARKS = {"fresh": "=", "missing": "+", "stale": "~", "incomplete": "!", "blocked": "x"}
MARKS |= dict.fromkeys(("doubtful", "candidate"), "!")
MOST_INSTANCES = 6  # more of one step are folded
MOST_CAUSES = 8
TAB = 4  # blanks, in code


def print_plan(planned: PipelinePlan, *, above: Iterable[StepPlan] = ()) -> None:
    """Print the plan on stdout. `above` are steps that are not printed, but may be causes of the others."""
    if wants_json():
        print_json(planned.to_json())
        return
    width = max((len(plain(step.name)) for step in planned.steps), default=0)
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
        click.echo("nothing to do: no dataset matches the inputs of the steps")
    printed = {step.name for step in planned.steps}
    _print_roots(planned, {step.name: step.code_diff for step in above if step.name not in printed})
    if undeclared := undeclared_text(planned.undeclared):
        click.echo(plain(undeclared))
    for line in (*notes_text(planned.notes), *differences_text(planned)):
        click.echo(plain(line))
    _print_estimate(planned)


def notes_text(notes: Sequence[str]) -> list[str]:
    """Return notes about files, in lines."""
    return list(first_lines(notes, MOST_CAUSES, "and {} more notes, in plan --json"))


def differences_text(planned: PipelinePlan) -> list[str]:
    """Return the differences between declared files and Crucible, and how to resolve them."""
    lines = list(first_lines(map(str, planned.differences), MOST_CAUSES, "and {} more differences, in plan --json"))
    if lines:
        lines.append("`set MFID FIELD=VALUE` changes a value at Crucible, `set --step STEP` that of a step's results")
    return lines


def undeclared_text(slots: Sequence[str]) -> str:
    """Return a line that names current results of steps that are no longer declared; empty if there are none."""
    return f"no longer declared, left unchanged: {shortened(slots, MOST_CAUSES)}" if slots else ""


def _print_roots(planned: PipelinePlan, diffs: Mapping[str, Sequence[str]]) -> None:
    """Print the root causes that other steps follow from. `diffs` are code changes that are not shown yet."""
    follow = [step for step in planned.steps if step.state == STALE and any(_above(step))]
    roots = list(dict.fromkeys(root for step in follow for root in _above(step)))
    if not roots:
        return
    click.echo(f"{len(follow)} {'step follows' if len(follow) == 1 else 'steps follow'} from:")
    lines, shown = list(_grouped(roots)), set[Sequence[str]]()
    for line, instance in lines[:MOST_CAUSES]:
        click.echo(plain(f"  {line}"))
        diff = diffs.get(instance, ())
        for changed in () if diff in shown else diff:
            click.echo(plain(f"    {changed.expandtabs(TAB)}"))
        shown.add(diff)
    if len(lines) > MOST_CAUSES:
        click.echo(f"  and {len(lines) - MOST_CAUSES} more")


def _above(step: StepPlan) -> list[str]:
    """Return the causes that lie in other steps."""
    return [root for root in step.roots if not root.startswith(f"{step.name}: ")]


def _grouped(roots: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each cause once, with one instance that has it. Several instances of a step are counted."""
    groups: dict[tuple[str, str], list[str]] = {}
    for root in roots:
        instance, _, cause = root.partition(": ")
        groups.setdefault((instance.partition("[")[0], cause), []).append(instance)
    for (step, cause), instances in groups.items():
        yield (
            f"{instances[0] if len(instances) == 1 else f'{step} ({len(instances)} instances)'}: {cause}",
            instances[0],
        )


def _print_step(step: StepPlan, width: int, shown: Sequence[str]) -> None:
    """Print a step with its causes. `shown` is a code difference that need not be repeated."""
    ids = ", ".join(mfid for mfid in step.datasets.values() if mfid)
    line = f"{MARKS[step.state]} {plain(step.name):{width}}  {step.state:10}"
    click.echo(_in_colour(step.state, line if ids else line.rstrip()) + (f"  {ids}" if ids else ""))
    _print_causes(step.causes, () if step.code_diff == shown else step.code_diff, width)
    for note in first_lines(step.notes, MOST_CAUSES, "and {} more, in plan --json"):
        click.echo(plain(f"  {'':{width}}  {note}"))


def _in_colour(state: str, text: str) -> str:
    return coloured(text, COLOURS[state])


def _print_folded(instances: Sequence[StepPlan], width: int) -> None:
    name = instances[0].step
    for state in MARKS:
        selected = [step for step in instances if step.state == state]
        if not selected:
            continue
        shown = _in_colour(state, f"{MARKS[state]} {name:{width}}  {state:10}")
        click.echo(f"{shown}  {len(selected):,} of {amount(len(instances), 'instance')}")
        if state != FRESH:
            causes = dict.fromkeys(cause.partition(" (since ")[0] for step in selected for cause in step.causes)
            diff = next((step.code_diff for step in selected if step.code_diff), ())
            _print_causes(tuple(causes), diff, width)
    for note in _choices_by_time(instances):
        click.echo(plain(f"  {'':{width}}  {note}"))


def _choices_by_time(instances: Sequence[StepPlan]) -> Iterator[str]:
    """Yield for each role how many instances chose an input by time, and the greatest distance."""
    roles = dict.fromkeys(role for step in instances for role in step.choices)
    for role in roles:
        chosen = [(one, step.name) for step in instances for one in step.choices.get(role, ())]
        if certified := [one for one, _ in chosen if "certificate" in one]:
            names = sorted({one["name"] for one in certified})
            yield f"{role}: {amount(len(certified), 'instance')} by certificate, with {shortened(names, MOST_CAUSES)}"
            continue
        farthest, name = max(chosen, key=lambda choice: choice[0]["seconds"])
        text = f"the farthest {farthest['name']} for {name}, {chosen_text(farthest)}"
        yield f"{role}: {len(chosen)} chosen by time, {text}"


def _print_causes(causes: Sequence[str], diff: Sequence[str], width: int) -> None:
    for cause in first_lines((f"because {cause}" for cause in causes), MOST_CAUSES, "and {} more causes"):
        click.echo(plain(f"  {'':{width}}  {cause}"))
    for line in diff:
        click.echo(plain(f"  {'':{width}}    {line.expandtabs(TAB)}"))


def _print_estimate(planned: PipelinePlan) -> None:
    known = [step.estimate for step in planned.steps if not step.exists and step.estimate.seconds is not None]
    todo = sum(not step.exists for step in planned.steps)
    if known:
        seconds = time_text(sum(estimate.seconds or 0 for estimate in known))
        size = size_text(sum(estimate.bytes or 0 for estimate in known))
        part = "" if len(known) == todo else f" for the {len(known)} of {todo} that were made before"
        click.echo(f"about {seconds} of work and {size} of results{part}, based on earlier runs")
