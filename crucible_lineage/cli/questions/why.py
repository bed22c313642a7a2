"""`why`: how a dataset came to be, or why a step of a pipeline would run."""

from __future__ import annotations

import click

from crucible_lineage.cli.options import (
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_result,
    wants_json,
)
from crucible_lineage.cli.runs.plans import print_plan
from crucible_lineage.cli.runs.run import SET, parse_overrides
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.bind.model import require_names
from crucible_lineage.pipeline.plan.plan import FRESH, PipelinePlan
from crucible_lineage.pipeline.plan.planner import make_plan
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.queries.explain import explain
from crucible_lineage.session import Session


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
    elif not wants_json() and any(step.state != FRESH for step in chosen.steps):
        step = bound.steps[name.partition("[")[0]]
        parents = all(other.state == FRESH for other in planned.steps if other.step in step.needs)
        click.echo(f"make it: {next_command('run', pipeline, *(['--from', step.name] if parents else []))}")
