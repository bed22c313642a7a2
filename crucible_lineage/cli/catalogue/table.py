"""`table`: the results of a step with their ancestors; `trend`: a returned number over the time of measurement."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import (
    announce,
    announced_session,
    chosen_project,
    crucible_options,
    json_option,
    open_session,
    print_json,
    print_result,
    wants_json,
)
from crucible_lineage.cli.printing import CSV, PROJECT, in_columns, not_listed, print_csv
from crucible_lineage.errors import InputError
from crucible_lineage.lineage.labels import plain

if TYPE_CHECKING:
    from crucible_lineage.queries.trend import Series, Trend

WIDTH, HEIGHT, LEFT, RIGHT, TOP = 900, 190, 84, 20, 34
COLOURS = {"code": "#0072B2", "calibration": "#009E73", "hold": "#D55E00"}
MOST_BEYOND = 10  # listed points


@click.command("table")
@crucible_options
@PROJECT
@click.option("--step", required=True, metavar="S", help="The step whose results are the rows.")
@click.option("--pipeline", metavar="N", help="Only results of this pipeline.")
@click.option("--where", metavar="CONDITION", help='As in "params.degree > 2 and results.rms < 0.5".')
@click.option("--field", "fields", multiple=True, metavar="NAME", help="One more column; repeatable.")
@click.option("--by", multiple=True, metavar="NAME", help="A row for each value of this column; repeatable.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write the table: .csv, .parquet or .json."
)
@click.option("--all", "every", is_flag=True, help="Include superseded and incomplete results, with their state.")
@click.option("--doubtful", is_flag=True, help="Include results on hold and their descendants, with their state.")
@click.option("--refresh", is_flag=True, help="Download the whole project again, not only what changed.")
@CSV
@json_option
def table_command(
    project: str | None,
    step: str,
    pipeline: str | None,
    where: str | None,
    fields: tuple[str, ...],
    by: tuple[str, ...],
    output: Path | None,
    every: bool,
    doubtful: bool,
    refresh: bool,
    as_csv: bool,
) -> None:
    """Print a row for each current result of a step: its parameters (params.NAME), returned values (results.NAME),
    instrument and sample.

    \b
    --where, --field and --by also accept
      name, timestamp, created, measurement, run, who   of the result itself
      metadata.NAME                                     including metadata from its files
      STEP.results.NAME, ROLE.instrument, ...           of an ancestor, by its step or the role it was used in
      raw.metadata.NAME                                 of the measured data that it comes from

    With --by, print the count, and mean, standard deviation, minimum and maximum of each number.
    """
    from crucible_lineage.queries.table import make_table, require_target, write_table

    if output is not None:
        require_target(output)
    with open_session() as session:
        if not as_csv:
            announce(session)
        found = make_table(
            session,
            chosen_project(session, project),
            step,
            pipeline=pipeline,
            where=where,
            fields=fields,
            by=by,
            every=every,
            doubtful=doubtful,
            refresh=refresh,
        )
    if output is not None:
        write_table(found, output)
    if wants_json():
        print_json(found.to_json())
    elif as_csv:
        print_csv(found.columns, found.rows)
    elif output is not None:
        click.echo(f"{output}: {amount(len(found), 'row')}, {amount(len(found.columns), 'column')}")
    else:
        click.echo("\n".join(in_columns(found.columns, found.rows)))
        click.echo(amount(len(found), "row") + not_listed(found.others))


@click.command("trend")
@click.argument("step")
@click.argument("column")
@crucible_options
@PROJECT
@click.option("--pipeline", metavar="N", help="Only results of this pipeline.")
@click.option("--by", metavar="NAME", help="A series for each value of this column, as in --by instrument.")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write a picture: .svg.")
@json_option
def trend_command(
    step: str,
    column: str,
    project: str | None,
    pipeline: str | None,
    by: str | None,
    output: Path | None,
) -> None:
    """Show COLUMN (results.rms) of the current results of STEP over the time of measurement.

    Limits are robust: the median, and three times the scaled median absolute deviation. Changes of the code, of
    calibrations, and holds are marked. Exit code 1 if the last value of a series is outside its limits.
    """
    from crucible_lineage.queries.trend import trend_of

    if output is not None and output.suffix != ".svg":
        raise InputError(f"-o {output}: a trend is written as .svg")
    with announced_session() as session:
        found = trend_of(session, chosen_project(session, project), step, column, by=by, pipeline=pipeline)
    if output is not None:
        output.write_text(trend_svg(found), encoding="utf-8")
    print_result(found.to_json(), [*_trend_lines(found), *([str(output)] if output else [])])
    if any(one.alarm for one in found.series):
        raise SystemExit(1)


def _trend_lines(found: Trend) -> Iterator[str]:
    for series in found.series:
        limits = (
            f", limits {series.low:.6g} to {series.high:.6g}"
            if series.low is not None and series.high is not None
            else ""
        )
        first, last = series.points[0].time, series.points[-1].time
        span = f"{first:%Y-%m-%d} to {last:%Y-%m-%d}"
        name = f"{series.label}: " if series.label else ""
        yield f"{name}{len(series.points)} values, {span}, median {series.median:.6g}{limits}"
        beyond = [point for point in series.points if point.beyond and not point.doubtful]
        for point in beyond[-MOST_BEYOND:]:
            yield f"  beyond  {point.time:%Y-%m-%d %H:%M}  {point.value:.6g}  {point.mfid}"
        if len(beyond) > MOST_BEYOND:
            yield f"  and {len(beyond) - MOST_BEYOND} earlier"
        for mark in series.marks:
            yield f"  {mark.kind}  {mark.time:%Y-%m-%d %H:%M}  {mark.text}"
        if series.alarm:
            yield f"  the last value, {series.points[-1].value:.6g}, is beyond the limits"
    if found.left_out:
        yield f"left out: {found.left_out} without this number or a time of measurement"


def trend_svg(found: Trend) -> str:
    """Return a picture with one band for each series."""
    height = (HEIGHT + TOP) * len(found.series) + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'font-family="system-ui, sans-serif" font-size="11" fill="#111111">',
        '<rect width="100%" height="100%" fill="#FFFFFF"/>',
    ]
    for number, one in enumerate(found.series):
        parts += _band(one, f"{found.step} {found.column}", number * (HEIGHT + TOP) + TOP)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _band(series: Series, title: str, top: float) -> Iterator[str]:
    values = [point.value for point in series.points]
    shown = [*values, *(limit for limit in (series.low, series.high) if limit is not None)]
    least, most = min(shown), max(shown)
    margin = (most - least) * 0.08 or abs(most) * 0.1 or 1.0
    least, most = least - margin, most + margin
    times = [*(point.time for point in series.points), *(mark.time for mark in series.marks)]
    first, span = min(times), (max(times) - min(times)).total_seconds() or 1.0

    def x(time: datetime) -> float:
        return LEFT + (time - first).total_seconds() / span * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return top + (most - value) / (most - least) * (HEIGHT - 40)

    bottom = top + HEIGHT - 40
    from xml.sax.saxutils import escape  # imports urllib, which only a picture needs

    heading = escape(plain(" · ".join(filter(None, (series.label, title)))))
    yield f'<text x="{LEFT}" y="{top - 10:.0f}" font-weight="600">{heading}</text>'
    if series.low is not None and series.high is not None:
        band = f'y="{y(series.high):.1f}" height="{max(0.5, y(series.low) - y(series.high)):.1f}"'
        yield f'<rect x="{LEFT}" width="{WIDTH - LEFT - RIGHT}" {band} fill="#EAF2F8"/>'
    middle = y(series.median)
    yield f'<path d="M{LEFT},{middle:.1f}H{WIDTH - RIGHT}" stroke="#7A7A7A" stroke-dasharray="4 3"/>'
    yield f'<path d="M{LEFT},{top}V{bottom}H{WIDTH - RIGHT}" fill="none" stroke="#6B6B6B"/>'
    for value in dict.fromkeys((series.median, *(limit for limit in (series.low, series.high) if limit is not None))):
        yield f'<text x="{LEFT - 6}" y="{y(value) + 4:.1f}" text-anchor="end" fill="#5A5A5A">{value:.4g}</text>'
    for mark in series.marks:
        colour, at = COLOURS[mark.kind], x(mark.time)
        tooltip = escape(plain(f"{mark.time:%Y-%m-%d} {mark.text}"))
        yield (
            f'<g stroke="{colour}"><title>{tooltip}</title><path d="M{at:.1f},{top}V{bottom}"/>'
            f'<text x="{at + 3:.1f}" y="{top + 9}" font-size="9" fill="{colour}" stroke="none">{mark.kind}</text></g>'
        )
    for point in series.points:
        fill = "#D55E00" if point.beyond else "#0072B2"
        look = f'fill="#FFFFFF" stroke="{fill}"' if point.doubtful else f'fill="{fill}"'
        tooltip = f"{point.time:%Y-%m-%d %H:%M} {point.value:.6g} {point.mfid}"
        tooltip += " doubtful" if point.doubtful else ""
        centre = f'cx="{x(point.time):.1f}" cy="{y(point.value):.1f}" r="3.2"'
        yield f"<circle {centre} {look}><title>{tooltip}</title></circle>"
    for time, anchor in ((min(times), "start"), (max(times), "end")):
        position = f'x="{x(time):.1f}" y="{bottom + 14:.1f}" text-anchor="{anchor}"'
        yield f'<text {position} fill="#5A5A5A">{time:%Y-%m-%d}</text>'
