"""`campaign`: try other calibrations over years of data, compare, and make them current by one statement."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount, size_text, time_text
from crucible_lineage.cli.options import (
    JOBS,
    announce,
    announced_session,
    chosen_project,
    crucible_options,
    dataset_id,
    json_option,
    next_command,
    open_session,
    print_json,
    print_result,
    read_fields,
    read_pair,
    wants_json,
)
from crucible_lineage.errors import InputError

if TYPE_CHECKING:
    from crucible_lineage.pipeline.campaign import Campaign, CampaignPlan
    from crucible_lineage.pipeline.plan.bound import BoundPipeline
    from crucible_lineage.queries.campaigns import Comparison
    from crucible_lineage.session import Session

PIPELINE = click.option(
    "--pipeline", "file", metavar="FILE", help="The pipeline file; by default the one it was made for."
)
PROJECT = click.option("--project", metavar="P", help="Its project; optional if there is only one.")
WHY = click.option("--why", required=True, help="Why, in your own words.")
BY = click.option("--stratify", metavar="FIELDS", default="", help="As in instrument,month or metadata.NAME.")


@click.group("campaign")
def campaign_command() -> None:
    """Try other calibrations over all data, compare with what is current, and switch by one statement."""


@campaign_command.command("new")
@click.argument("name")
@click.argument("pipeline")
@click.option("--replace", "replaced", multiple=True, required=True, metavar="INPUT=DATASET", help="Repeatable.")
@click.option("--since", required=True, metavar="TIME", help="For data measured at that time or later (UTC).")
@click.option("--until", default="", metavar="TIME", help="For data measured before that time.")
@click.option(
    "--for", "fields", multiple=True, metavar="FIELD=VALUE", help="For which data; by default those of its instrument."
)
@click.option(
    "--require", default="", metavar="CONDITION", help='Condition of the promotion, as in "abs(median(d.peak)) < 1".'
)
@WHY
@crucible_options
@json_option
def new_command(
    name: str,
    pipeline: str,
    replaced: tuple[str, ...],
    since: str,
    until: str,
    fields: tuple[str, ...],
    require: str,
    why: str,
) -> None:
    """State campaign NAME of a pipeline, and show what it would make. Nothing current changes."""
    from crucible_lineage.pipeline.campaign import find_campaign, new_campaign

    with open_session() as session:
        bound = _bind(session, pipeline)
        read = [read_pair("--replace", text, "INPUT=DATASET, as in --replace axis=0sh4qk") for text in replaced]
        pairs = [(input_name, dataset_id(session, text.strip())) for input_name, text in read]
        selected = read_fields(fields) if fields else None
        new_campaign(
            session, bound, name, pairs, since, until, fields=selected, require=require, why=why, file=pipeline
        )  # fmt: skip
        campaign = find_campaign(session, bound.spec.project, name)
        _print_plan(session, bound, campaign)


@campaign_command.command("list")
@PROJECT
@crucible_options
@json_option
def list_command(project: str | None) -> None:
    """List the campaigns of a project."""
    from crucible_lineage.pipeline.campaign import campaigns_in

    with announced_session() as session:
        found = campaigns_in(session, chosen_project(session, project))
    lines = [
        f"{one.name}  {one.state}{f' since {one.promoted[:10]}' if one.promoted else ''}  "
        f"pipeline {one.pipeline}, {one.statement.attribution}"
        for one in found
    ]
    print_result({"campaigns": [one.to_json() for one in found]}, [*lines, amount(len(found), "campaign")])


@campaign_command.command("run")
@click.argument("name")
@click.option(
    "--canary", "count", type=click.IntRange(1), help="Only for this number of datasets, spread over the strata."
)
@BY
@click.option(
    "--max-hours", type=click.FloatRange(min=0, min_open=True), help="Stop after this time; run it again to continue."
)
@JOBS
@click.option("--dry-run", is_flag=True, help="Show what would be made.")
@click.option("--quiet", "-q", is_flag=True, help="Print failures only.")
@PIPELINE
@PROJECT
@crucible_options
@json_option
def run_command(
    name: str,
    count: int | None,
    stratify: str,
    max_hours: float | None,
    jobs: int,
    dry_run: bool,
    quiet: bool,
    file: str | None,
    project: str | None,
) -> None:
    """Make the missing candidates of campaign NAME. Nothing current changes; run it again to continue.

    Exit codes are those of `run`.
    """
    from crucible_lineage.cli.engines import RunRequest, run_with_engine
    from crucible_lineage.cli.progress import Progress
    from crucible_lineage.cli.run import exit_code, print_summary
    from crucible_lineage.pipeline.campaign import canary, plan_campaign
    from crucible_lineage.pipeline.run.result import StepChoice

    with open_session() as session:
        if not quiet:
            announce(session)
        campaign, bound = _find(session, name, file, project)
        if dry_run:
            _print_plan(session, bound, campaign)
            return
        plan = plan_campaign(session, bound, campaign)
        chosen = canary(plan, count, _fields(stratify)) if count else plan.affected
        if not chosen:
            raise InputError(f"campaign {name} changes nothing: no data use one of its calibrations")
        request = RunRequest(bound, choice=StepChoice(only=chosen, campaign=campaign.mfid))
        shown = Progress(list(bound.steps), quiet=quiet, silent=wants_json(), verbose=False, jobs=jobs)
        with shown as progress:
            timer = threading.Timer(max_hours * 3600, progress.stop.request) if max_hours else None
            if timer:
                timer.daemon = True
                timer.start()
            result = run_with_engine("local", request, session, progress.listen, jobs, progress.stop)
            if timer:
                timer.cancel()
    if wants_json():
        print_json(result.to_json())
    else:
        print_summary(result, quiet=quiet)
    sys.exit(exit_code(result))


@campaign_command.command("compare")
@click.argument("name")
@BY
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a page: .html.")
@PIPELINE
@PROJECT
@crucible_options
@json_option
def compare_command(name: str, stratify: str, output: Path | None, file: str | None, project: str | None) -> None:
    """Compare the candidates of campaign NAME with current results: paired differences of every returned number.

    Exit code 1 if the campaign's condition is not met.
    """
    if output is not None and output.suffix != ".html":
        raise InputError(f"-o {output}: a comparison is written as .html")
    with announced_session() as session:
        campaign, bound = _find(session, name, file, project)
        found = _compare(session, bound, campaign, _fields(stratify))
        pages = (session.settings.api_url or "").partition("/api/")[0].rstrip("/")
    if output is not None:
        output.write_text(comparison_page(found, pages), encoding="utf-8")
    print_result(found.to_json(), [*_comparison_lines(found), *([str(output)] if output else [])])
    sys.exit(1 if found.gate else 0)


@campaign_command.command("approve")
@click.argument("name")
@WHY
@PROJECT
@crucible_options
@json_option
def approve_command(name: str, why: str, project: str | None) -> None:
    """Approve campaign NAME. It cannot be promoted without this signature."""
    from crucible_lineage.pipeline.campaign import approve, find_campaign

    with open_session() as session:
        outcome = approve(session, find_campaign(session, chosen_project(session, project), name), why)
    by = outcome.statement.who or outcome.statement.by
    print_result(outcome.to_json(), [f"campaign {name} is approved by {by}"])


@campaign_command.command("promote")
@click.argument("name")
@WHY
@PIPELINE
@PROJECT
@crucible_options
@json_option
def promote_command(name: str, why: str, file: str | None, project: str | None) -> None:
    """Make the candidates of campaign NAME current, and its calibrations valid. Computes nothing.

    Refused unless everything is made, the campaign is approved, and its condition is met.
    """
    from crucible_lineage.pipeline.campaign import promote

    with open_session() as session:
        campaign, bound = _find(session, name, file, project)
        gate = _compare(session, bound, campaign, ()).gate if campaign.require else ""
        outcome, plan = promote(session, bound, campaign, gate, why)
    count, undo = len(plan.affected), next_command("campaign", "roll-back", name, "--why", "WHY")
    done = f"campaign {name} is promoted: {amount(count, 'result')} {'is' if count == 1 else 'are'} current"
    print_result(outcome.to_json(), [done, f"statement {outcome.statement.mfid}; to undo it: {undo}"])


@campaign_command.command("roll-back")
@click.argument("name")
@WHY
@PROJECT
@crucible_options
@json_option
def roll_back_command(name: str, why: str, project: str | None) -> None:
    """Undo the promotion of campaign NAME: earlier results become current again. Computes nothing."""
    from crucible_lineage.pipeline.campaign import find_campaign, roll_back

    with open_session() as session:
        revoked = roll_back(session, find_campaign(session, chosen_project(session, project), name), why)
    done = f"campaign {name} is rolled back: the results from before its promotion are current again"
    print_result({"revoked": [one.to_json() for one in revoked]}, [done])


def comparison_page(found: Comparison, pages: str = "") -> str:
    """Return the comparison as a page with a figure for each number.

    `pages` is the address of the Crucible's pages, which the datasets link to.
    """
    from crucible_lineage.queries.trend import series_svg

    title = escape(f"Campaign {found.campaign.name}")
    parts = [
        "<!doctype html>",
        f'<html lang="en"><meta charset="utf-8"><title>{title}</title>',
        "<style>body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#111}"
        "table{border-collapse:collapse}td,th{padding:.2rem .8rem .2rem 0;text-align:left;border-bottom:1px solid #ddd}"
        "td.n,th.n{text-align:right}.bad{color:#B00020}svg{max-width:100%;height:auto}</style>",
        f"<h1>{title}</h1>",
        f"<p>{escape(found.campaign.statement.why)}</p>",
        f"<p>{amount(found.pairs, 'pair')}; without a current result: {found.unpaired}; not made: {found.left}.</p>",
    ]
    if found.campaign.require:
        verdict = f'<span class="bad">not met: {escape(found.gate)}</span>' if found.gate else "met"
        parts.append(f"<p>Required: <code>{escape(found.campaign.require)}</code>, {verdict}.</p>")
    parts.append('<table><tr><th>Number<th class="n">Pairs<th class="n">Median<th class="n">Spread</tr>')
    for effect in found.effects:
        cells = f'<td class="n">{len(effect.pairs)}<td class="n">{effect.median:.4g}<td class="n">{effect.spread:.4g}'
        parts.append(f"<tr><td>{escape(f'{effect.step}.{effect.number}')}{cells}</tr>")
    parts.append("</table>")
    for effect in found.effects:
        parts.append(f"<h2>{escape(f'{effect.step}.{effect.number}')}</h2>")
        if len(set(effect.differences)) < 2:
            parts.append(f"<p>{effect.median:.6g} in {'all pairs' if len(effect.pairs) > 1 else 'the only pair'}.</p>")
        else:
            parts.append(series_svg([effect.series], f"{effect.step} {effect.number}"))
        if effect.by_stratum:
            parts.append('<table><tr><th>Stratum<th class="n">Pairs<th class="n">Median</tr>')
            for label, (count, median) in effect.by_stratum.items():
                parts.append(f'<tr><td>{escape(label)}<td class="n">{count}<td class="n">{median:.4g}</tr>')
            parts.append("</table>")
        if effect.outliers:
            parts.append('<table><tr><th>Outlier<th class="n">Difference<th>Old<th>New</tr>')
            for outlier in effect.outliers:
                links = f"<td>{_link(outlier.old, pages)}<td>{_link(outlier.new, pages)}"
                cells = f'<td class="n">{outlier.point.value:.4g}{links}'
                parts.append(f"<tr><td>{escape(outlier.instance)}{cells}</tr>")
            parts.append("</table>")
    return "\n".join([*parts, "</html>"]) + "\n"


def _link(mfid: str, pages: str) -> str:
    return f'<a href="{escape(pages)}/datasets/{mfid}"><code>{mfid}</code></a>' if pages else f"<code>{mfid}</code>"


def _comparison_lines(found: Comparison) -> Iterator[str]:
    yield f"{amount(found.pairs, 'pair')}; without a current result: {found.unpaired}; not made: {found.left}"
    for effect in found.effects:
        statistics = f"median {effect.median:.6g}, spread {effect.spread:.3g}"
        yield f"{effect.step}.{effect.number}: {len(effect.pairs)} differences, {statistics}"
        for label, (count, median) in effect.by_stratum.items():
            yield f"  {label}: {count}, median {median:.6g}"
        for outlier in effect.outliers:
            yield f"  outlier  {outlier.instance}: {outlier.point.value:.6g}, {outlier.old} -> {outlier.new}"
    if found.campaign.require:
        yield f"required: {found.campaign.require}: {found.gate or 'met'}"


def _print_plan(session: Session, bound: BoundPipeline, campaign: Campaign) -> None:
    from crucible_lineage.pipeline.campaign import plan_campaign

    plan = plan_campaign(session, bound, campaign)
    seconds, size = plan.cost(session.journal.took(bound.name))
    counts = {"results": len(plan.affected), "made": len(plan.done), "left": len(plan.todo)}
    document = {**campaign.to_json(), **counts, "seconds": seconds, "bytes": size, "blocked": plan.blocked}
    print_result(document, _planned(campaign, plan, seconds, size))


def _planned(campaign: Campaign, plan: CampaignPlan, seconds: float, size: int) -> Iterator[str]:
    affected = amount(len(plan.affected), "affected result")
    yield f"campaign {campaign.name} ({campaign.state}): {affected}"
    cost = f", about {time_text(seconds)} of work and {size_text(size)}" if seconds else ""
    yield f"  made: {len(plan.done)}; to be made: {len(plan.todo)}{cost}; blocked: {len(plan.blocked)}"
    for name, reason in list(plan.blocked.items())[:3]:
        yield f"  {name} is blocked: {reason}"


def _compare(session: Session, bound: BoundPipeline, campaign: Campaign, by: tuple[str, ...]) -> Comparison:
    from crucible_lineage.pipeline.campaign import plan_campaign
    from crucible_lineage.queries.campaigns import compare_campaign

    return compare_campaign(campaign, plan_campaign(session, bound, campaign), by)


def _find(session: Session, name: str, file: str | None, project: str | None) -> tuple[Campaign, BoundPipeline]:
    from crucible_lineage.pipeline.campaign import find_campaign

    if file:
        bound = _bind(session, file)
        return find_campaign(session, project or bound.spec.project, name), bound
    campaign = find_campaign(session, chosen_project(session, project), name)
    if not Path(campaign.file).is_file():
        raise InputError(f"campaign {name} was made for {campaign.file}, which does not exist; name it with --pipeline")
    return campaign, _bind(session, campaign.file)


def _bind(session: Session, file: str) -> BoundPipeline:
    from crucible_lineage.pipeline.declare.inputs import located
    from crucible_lineage.pipeline.plan.bind import bind_file

    return bind_file(located(file), session.store)


def _fields(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
