"""`why`: how a dataset came to be; `diff`: what differs; `impact`: what a wrong dataset, file or code affects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime, time

import click

from crucible_lineage.amounts import amount
from crucible_lineage.ask.candidates import compare_candidates
from crucible_lineage.ask.diff import LineageComparison, compare_datasets, compare_runs
from crucible_lineage.ask.explain import explain
from crucible_lineage.ask.impact import RedoList, code_impact, dataset_impact, file_impact, instrument_impact
from crucible_lineage.ask.names import visible_projects
from crucible_lineage.cli.options import (
    announced_session,
    chosen_project,
    chosen_projects,
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_result,
    wants_json,
)
from crucible_lineage.cli.plans import print_plan
from crucible_lineage.cli.run import SET, parse_overrides
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import HIDDEN_NAME
from crucible_lineage.lineage.model import SUPERSEDED
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import require_names
from crucible_lineage.pipeline.plan.plan import PipelinePlan
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.session import Session
from crucible_lineage.times import utc


@click.command("why")
@click.argument("target", metavar="WHAT")
@click.argument("pipeline", required=False)
@crucible_options
@SET
@json_option
def why_command(
    target: str,
    pipeline: str | None,
    overrides: tuple[str, ...],
) -> None:
    """Explain how the dataset WHAT was made, or why the step WHAT of the file PIPELINE would run."""
    with open_session() as session:
        if pipeline is not None:
            _why_step(target, pipeline, session, overrides)
            return
        try:
            mfid = dataset_id(session, target)
        except InputError as error:
            raise InputError(f"{error}\nfor a step, name its pipeline too: why {target} pipeline.yaml") from error
        explanation = explain(session, mfid)
    print_result(explanation.to_json(), str(explanation).split("\n"))


def _why_step(name: str, pipeline: str, session: Session, overrides: tuple[str, ...]) -> None:
    bound = bind_file(located(pipeline), session.store, parse_overrides(overrides))
    planned = make_plan(bound, session)
    require_names(bound, [name], [step.name for step in planned.steps])
    chosen = PipelinePlan(tuple(step for step in planned.steps if name in (step.name, step.step)))
    print_plan(chosen, above=planned.steps)
    if not wants_json() and chosen.is_fresh:
        click.echo("up to date: the result was made by this code from these parameters and inputs")
    elif not wants_json() and not chosen.is_done:
        step = bound.steps[name.partition("[")[0]]
        parents = all(other.exists for other in planned.steps if other.step in step.needs)
        click.echo(f"make it: {next_command('run', pipeline, *(['--from', step.name] if parents else []))}")


@click.command("diff")
@click.argument("datasets", metavar="OLD NEW", nargs=-1)
@click.option("--try", "trial", metavar="NAME", help="Instead, the candidates of a try and what is current.")
@crucible_options
@click.option("--project", "projects", multiple=True, help="Where to look for them; repeatable.")
@json_option
def diff_command(datasets: tuple[str, ...], trial: str | None, projects: tuple[str, ...]) -> None:
    """Show the differences between the datasets OLD and NEW, including their ancestors: first the values that steps
    returned, then datasets added, removed and changed, each with the parameter, code, input or file that differs.

    OLD and NEW may also be two runs, named by the id, or its beginning, of a run or a Prefect flow run. With --try,
    show the differences of every number that steps return, over all candidates of the try.
    """
    if len(datasets) != (0 if trial else 2):
        raise InputError("diff: name two datasets or two runs, or a try with --try")
    with announced_session() as session:
        if trial:
            project = chosen_project(session, next(iter(projects), None))
            compared = compare_candidates(session, project, trial)
            print_result(compared.to_json(), compared.lines())
            return
        old, new = datasets
        found = _compare(session, old, new, projects)
    print_result(found.to_json(), found.lines())


def _compare(session: Session, old: str, new: str, projects: Sequence[str]) -> LineageComparison:
    """Compare two datasets, or two runs if they are not datasets."""
    try:
        datasets = dataset_id(session, old, projects), dataset_id(session, new, projects)
    except InputError as no_dataset:
        try:
            return compare_runs(session, old, new, projects or visible_projects(session))
        except InputError as no_run:
            raise InputError(f"{no_dataset}\n{no_run}") from no_run
    return compare_datasets(session, *datasets)


@click.command("impact")
@click.argument("mfid", required=False)
@crucible_options
@click.option("--file-sha256", metavar="HASH", help="A file that was wrong, by its SHA-256.")
@click.option("--code", metavar="FINGERPRINT", help="Code that was wrong, by its fingerprint or its beginning.")
@click.option("--instrument", metavar="NAME", help="An instrument that was wrong, by name, slug or MFID.")
@click.option(
    "--since",
    metavar="TIME",
    help="With --instrument: data measured at that time or later (ISO 8601; UTC unless a zone is given).",
)
@click.option("--until", metavar="TIME", help="With --instrument: data measured until then; a date includes that day.")
@click.option(
    "--project",
    "projects",
    multiple=True,
    help="Where to look; by default, the folder's, or the only one.",
)
@click.option("--all", "every", is_flag=True, help="Include superseded results.")
@json_option
def impact_command(
    mfid: str | None,
    file_sha256: str | None,
    code: str | None,
    instrument: str | None,
    since: str | None,
    until: str | None,
    projects: tuple[str, ...],
    every: bool,
) -> None:
    """List what must be redone because the dataset MFID, a file, code, or an instrument for a time was wrong, each
    dataset with the chain that leads to it. Superseded results are only counted. Changes nothing.
    """
    if sum(cause is not None for cause in (mfid, file_sha256, code, instrument)) != 1:
        raise InputError("give one cause: an MFID, --file-sha256, --code, or --instrument")
    if instrument is None and (since or until):
        raise InputError("--since and --until go with --instrument")
    span = _time_option("--since", since, time.min), _time_option("--until", until, time.max)

    def query(session: Session) -> RedoList:
        if mfid is not None:
            return dataset_impact(session, dataset_id(session, mfid, projects))
        searched = chosen_projects(session, projects)
        if file_sha256 is not None:
            return file_impact(session, file_sha256, searched)
        if code is not None:
            return code_impact(session, code, searched)
        return instrument_impact(session, str(instrument), searched, since=span[0], until=span[1])

    with announced_session() as session:
        found = query(session)
    print_result(found.to_json(every=every), _report(found, every))


def _time_option(option: str, value: str | None, of_day: time) -> datetime | None:
    """Return the time in UTC, its default zone; for a date, the time `of_day` on that day."""
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise InputError(f"{option} {value!r} is not a time; write 2026-03-01 or 2026-03-01T09:30:00+01:00") from None
    if len(value) <= len("2026-03-01"):
        moment = datetime.combine(moment, of_day)
    return utc(moment)


def _report(found: RedoList, every: bool) -> Iterator[str]:
    graph, superseded = found.graph, len(found.superseded)
    if found.deletion is not None:
        yield f"{found.deletion.text}; according to the records, these were made from it:"
    steps: Counter[str] = Counter()
    for mfid in found.impact.ids if every else found.redo:
        node = graph.nodes[mfid]
        if node.state != SUPERSEDED:
            steps[node.step or "made manually or elsewhere"] += 1
        chain = " -> ".join(graph.label(one) for one in found.impact.chain(mfid)[:-1])
        state = "  superseded" if node.state == SUPERSEDED else ""
        yield (node.visible_id or f"({HIDDEN_NAME})") + state
        yield f"  {node.name}" if not chain else f"  {node.name}, by way of {chain}"
    counts = ", ".join(f"{count} {step}" for step, count in steps.most_common())
    more = f"; {superseded} more {'is' if superseded == 1 else 'are'} superseded" if superseded else ""
    if steps:
        yield f"{amount(len(found.redo), 'dataset')} to redo: {counts}{more}"
    else:
        yield f"nothing to redo: nothing {'current ' if superseded else ''}comes from it{more}"
    if count := len(found.untimed):
        measured = f"{amount(count, 'dataset')} {'was' if count == 1 else 'were'}"
        yield f"{measured} measured at an unknown time; results made from {'it' if count == 1 else 'them'} are included"
