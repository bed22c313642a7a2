"""`plan`: a line for each step, the causes beneath, and many instances of a step folded into one line."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, ClassVar

from crucible_lineage.ask.answer import Answer, Coloured, next_command
from crucible_lineage.ask.question import AFTER, NOT_PAGE, Overrides, argument, option, question, read_pair
from crucible_lineage.errors import shortened
from crucible_lineage.lineage.labels import first_lines, plain
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.yaml import parse_document
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline, require_names
from crucible_lineage.pipeline.plan.partners import chosen_text
from crucible_lineage.pipeline.plan.plan import FRESH, STALE, PipelinePlan, StepPlan
from crucible_lineage.pipeline.plan.planner import by_project, make_plan
from crucible_lineage.session import Session
from crucible_lineage.text.amounts import amount

COLOURS = {"fresh": "green", "missing": "cyan", "stale": "yellow", "incomplete": "yellow", "blocked": "red"}
COLOURS |= dict.fromkeys(("superseded", "doubtful", "candidate"), "yellow")
MARKS = {"fresh": "=", "missing": "+", "stale": "~", "incomplete": "!", "blocked": "x"}
MARKS |= dict.fromkeys(("superseded", "doubtful", "candidate"), "!")
MOST_INSTANCES = 6  # more of one step are folded
MOST_CAUSES = 8
TAB = 4  # blanks, in code

Forced = Annotated[Sequence[str], option("Rerun this step, and keep the earlier result.", "--force", metavar="STEP")]
AsOf = Annotated[
    str, option("Choose calibrations certified until then; a date means the end of that day.", metavar="TIME")
]


@dataclass(frozen=True)
class PlanAnswer(Answer):
    """The plan of a pipeline. `above` are steps that are not shown, but may be causes of the others."""

    pipeline: str
    planned: PipelinePlan
    above: tuple[StepPlan, ...] = ()
    end: str = ""
    is_alarm: bool = False  # nobody vouches for a statement of the project
    json_keys: ClassVar = " ".join(f"{name}=planned.{name}" for name in PipelinePlan.json_keys.split())

    @property
    def steps(self) -> tuple[StepPlan, ...]:
        """The instances of the steps, in an order in which they can run."""
        return self.planned.steps

    @property
    def is_fresh(self) -> bool:
        """Whether nothing would be made."""
        return self.planned.is_fresh

    def __repr__(self) -> str:
        states = Counter(step.state for step in self.steps)
        return f"<plan of {self.pipeline}: {', '.join(f'{count} {state}' for state, count in states.items())}>"

    def lines(self) -> Iterator[str]:
        """Yield the steps, what they follow from, and notes."""
        planned = self.planned
        yield from _steps(planned.steps)
        if not planned.steps:
            yield "nothing to do: no dataset matches the inputs of the steps"
        printed = {step.name for step in planned.steps}
        yield from _roots(planned, {step.name: step.code_diff for step in self.above if step.name not in printed})
        yield from filter(None, [undeclared_text(planned.undeclared)])
        yield from notes_text(planned.notes)
        yield from first_lines(map(str, planned.differences), MOST_CAUSES, "and {} more differences, in plan --json")
        if planned.differences:
            yield "`set MFID FIELD=VALUE` changes a value at Crucible, `set --step STEP` that of a step's results"
        yield from filter(None, [self.end])


@dataclass(frozen=True)
class ProjectPlans(Answer):
    """The plans of a pipeline by the projects of its data."""

    projects: Mapping[str, PlanAnswer]

    @property
    def is_alarm(self) -> bool:  # type: ignore[override]
        return any(plan.is_alarm for plan in self.projects.values())

    def lines(self) -> Iterator[str]:
        for project, answer in self.projects.items():
            yield f"project {project}:"
            yield from (f"  {line}" for line in answer.lines())


@question("plan", announced=AFTER, doors=NOT_PAGE)
def plan(
    session: Session, pipeline: Annotated[str, argument()], *, overrides: Overrides = (), forced: Forced = (),
    as_of: AsOf = "",
) -> PlanAnswer | ProjectPlans:  # fmt: skip
    """Show for each step of the file PIPELINE whether its result exists, and if not, why."""
    bound = bind_file(located(pipeline), session.store, parse_overrides(overrides))
    plans = {
        one.spec.project: PlanAnswer(
            one.name, make_plan(one, session, forced, as_of), is_alarm=bool(session.effects.unvouched(one.spec.project))
        )
        for one in by_project(bound, session)
    }
    return _answer(bound, plans)


def _answer(bound: BoundPipeline, plans: Mapping[str, PlanAnswer]) -> PlanAnswer | ProjectPlans:
    return plans[bound.spec.project] if bound.spec.project in plans else ProjectPlans(plans)


def why_step(session: Session, name: str, pipeline: str, overrides: Sequence[str]) -> PlanAnswer | ProjectPlans:
    """Explain why a step of a pipeline file would run."""
    bound = bind_file(located(pipeline), session.store, parse_overrides(overrides))
    plans = {one.spec.project: make_plan(one, session) for one in by_project(bound, session)}
    require_names(bound, [name], [step.name for planned in plans.values() for step in planned.steps])
    found = {project: planned for project, planned in plans.items() if _named(name, planned)}
    return _answer(bound, {project: _why(bound, name, planned, pipeline) for project, planned in found.items()})


def _named(name: str, planned: PipelinePlan) -> tuple[StepPlan, ...]:
    return tuple(step for step in planned.steps if name in (step.name, step.step))


def _why(bound: BoundPipeline, name: str, planned: PipelinePlan, pipeline: str) -> PlanAnswer:
    """Return the part of a plan about a step or instance, with the command that makes it."""
    chosen = replace(planned, steps=_named(name, planned), undeclared=(), differences=(), notes=())
    end = "up to date: the result was made by this code from these parameters and inputs" if chosen.is_fresh else ""
    if not chosen.is_done:
        step = bound.steps[name.partition("[")[0]]
        parents = all(other.exists for other in planned.steps if other.step in step.needs)
        end = f"make it: {next_command('run', pipeline, *(['--from', step.name] if parents else []))}"
    return PlanAnswer(bound.name, chosen, planned.steps, end)


def parse_overrides(values: Sequence[str]) -> dict[str, object]:
    """Return {"step.param": value} from texts STEP.PARAM=VALUE, whose values are read as in YAML."""
    overrides: dict[str, object] = {}
    for text in values:
        name, value = read_pair("--set", text, "NAME=VALUE, as in --set axis.degree=4", may_be_empty=True)
        overrides[name] = parse_document(value, f"--set {name}").data if value.strip() else ""
    return overrides


def notes_text(notes: Sequence[str]) -> Iterator[str]:
    """Return notes about files, in lines."""
    return first_lines(notes, MOST_CAUSES, "and {} more notes, in plan --json")


def undeclared_text(slots: Sequence[str]) -> str:
    """Return a line that names current results of steps that are no longer declared; empty if there are none."""
    return f"no longer declared, left unchanged: {shortened(slots, MOST_CAUSES)}" if slots else ""


def _steps(steps: Sequence[StepPlan]) -> Iterator[str]:
    """Yield the steps with their causes. A hold that concerns several is said once, beneath them."""
    width = min(max((len(plain(step.name)) for step in steps), default=0), 40)
    held = Counter(hold for step in steps for hold in set(map(hold_in, step.causes)) if hold)
    often = {hold: count for hold, count in held.items() if count > 1}
    if often:
        steps = [
            replace(step, causes=tuple(cause for cause in step.causes if hold_in(cause) not in often)) for step in steps
        ]
    for _, group in groupby(steps, key=lambda step: step.step):
        instances = list(group)
        if len(instances) > MOST_INSTANCES:
            yield from _folded(instances, width)
            continue
        shown: Sequence[str] = ()
        for step in instances:
            yield from _step_lines(step, width, shown)
            shown = step.code_diff or shown
    yield from (f"{count} steps are held: {hold}" for hold, count in often.items())


def hold_in(cause: str) -> str:
    """Return the hold that a cause names, as it is said of the dataset itself; empty if it names none."""
    hold = cause.rpartition("comes from ")[2].replace(", which is on hold", " is on hold", 1)
    return hold if " is on hold " in hold else ""


def _roots(planned: PipelinePlan, diffs: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """Yield the root causes that other steps follow from. `diffs` are code changes that are not shown yet."""
    follow = [step for step in planned.steps if step.state == STALE and any(_above(step))]
    roots = list(dict.fromkeys(root for step in follow for root in _above(step)))
    if not roots:
        return
    yield f"{len(follow)} {'step follows' if len(follow) == 1 else 'steps follow'} from:"
    lines, shown = list(_grouped(roots)), set[Sequence[str]]()
    for line, instance in lines[:MOST_CAUSES]:
        yield f"  {line}"
        diff = diffs.get(instance, ())
        for changed in () if diff in shown else diff:
            yield f"    {changed.expandtabs(TAB)}"
        shown.add(diff)
    if len(lines) > MOST_CAUSES:
        yield f"  and {len(lines) - MOST_CAUSES} more"


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


def _step_lines(step: StepPlan, width: int, shown: Sequence[str]) -> Iterator[str]:
    """Yield a step with its causes. `shown` is a code difference that need not be repeated."""
    ids = ", ".join(mfid for mfid in step.datasets.values() if mfid)
    line = f"{MARKS[step.state]} {plain(step.name):{width}}  {step.state:10}"
    yield Coloured(COLOURS[step.state], line if ids else line.rstrip(), f"  {ids}" if ids else "")
    yield from _cause_lines(step.causes, () if step.code_diff == shown else step.code_diff, width)
    for note in first_lines(step.notes, MOST_CAUSES, "and {} more, in plan --json"):
        yield f"  {'':{width}}  {note}"


def _folded(instances: Sequence[StepPlan], width: int) -> Iterator[str]:
    name = instances[0].step
    for state in MARKS:
        selected = [step for step in instances if step.state == state]
        if not selected:
            continue
        shown = f"{MARKS[state]} {name:{width}}  {state:10}"
        yield Coloured(COLOURS[state], shown, f"  {len(selected):,} of {amount(len(instances), 'instance')}")
        if state != FRESH:
            causes = dict.fromkeys(cause.partition(" (since ")[0] for step in selected for cause in step.causes)
            diff = next((step.code_diff for step in selected if step.code_diff), ())
            yield from _cause_lines(tuple(causes), diff, width)
    for note in _choices_by_time(instances):
        yield f"  {'':{width}}  {note}"


def _choices_by_time(instances: Sequence[StepPlan]) -> Iterator[str]:
    """Yield for each role how many instances chose an input by time, and the greatest distance."""
    roles = dict.fromkeys(role for step in instances for role in step.choices)
    for role in roles:
        chosen = [(choice, step.name) for step in instances for choice in step.choices.get(role, ())]
        if certified := [choice for choice, _ in chosen if "certificate" in choice]:
            names = sorted({choice["name"] for choice in certified})
            yield f"{role}: {amount(len(certified), 'instance')} by certificate, with {shortened(names, MOST_CAUSES)}"
            continue
        farthest, name = max(chosen, key=lambda choice: choice[0]["seconds"])
        text = f"the farthest {farthest['name']} for {name}, {chosen_text(farthest)}"
        yield f"{role}: {len(chosen)} chosen by time, {text}"


def _cause_lines(causes: Sequence[str], diff: Sequence[str], width: int) -> Iterator[str]:
    for cause in first_lines((f"because {cause}" for cause in causes), MOST_CAUSES, "and {} more causes"):
        yield f"  {'':{width}}  {cause}"
    for line in diff:
        yield f"  {'':{width}}    {line.expandtabs(TAB)}"
