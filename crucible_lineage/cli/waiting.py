"""Print results that wait for delivery; the option --patience."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.options import next_command
from crucible_lineage.core.journal import ResultRow
from crucible_lineage.lineage.labels import first_lines, plain, plain_lines
from crucible_lineage.registration.outbox import SetAside
from crucible_lineage.times import seconds_in, time_shown

MOST_LINES = 20


class _Duration(click.ParamType):  # type: ignore[type-arg]
    """Seconds, or a number with a unit, from s to w."""

    name = "TIME"

    def convert(self, value: object, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return seconds_in(str(value))
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


PATIENCE = click.option(
    "--patience",
    type=_Duration(),
    default="3m",
    show_default=True,
    help="How long to wait for Crucible if it is away, at the start (if necessary) and at the "
    "end; 0: not at all. Results then wait on this machine.",
)


def print_waiting(waiting: Sequence[ResultRow]) -> None:
    """Print the results that wait for delivery, since when, and why."""
    if not waiting:
        return
    number = sum(len(one.mfids) for one in waiting)
    since = min(one.made for one in waiting)
    datasets = amount(number, "dataset")
    click.echo(f"not at Crucible yet: {datasets}, made and kept here since {time_shown(since)}", err=True)
    more = f"  ... and {amount(len(waiting) - MOST_LINES, 'more step')}"
    for line in first_lines(map(_waiting_text, waiting), MOST_LINES, more):
        click.echo(plain(line), err=True)
    command = next_command("push")
    click.echo(f"to deliver them: {command}, or run the same command again; nothing is made twice", err=True)


def _waiting_text(one: ResultRow) -> str:
    word = "refused" if one.refused else "waits"
    tried = f", tried {one.tries} times" if one.tries > 1 else ""
    reason = f": {one.error.splitlines()[0]}" if one.error else ""
    return f"  {', '.join(one.mfids)}  {one.step} ({one.project}) {word}{tried}{reason}"


def print_others(rows: Sequence[ResultRow]) -> None:
    """Print how many results of other accounts wait in this data folder. Only those accounts can deliver them."""
    for account, number in sorted(Counter(row.account for row in rows).items()):
        results = "1 result waits" if number == 1 else f"{number} results wait"
        who = f"account {account}; only that account can deliver"
        click.echo(plain(f"not at Crucible yet: {results} for {who}"), err=True)


def print_set_aside(damaged: Sequence[SetAside]) -> None:
    """Print the payloads that were damaged while they waited, and what to do about them."""
    for one in damaged:
        result = f"{one.step} ({one.project})" if one.step else "a result"
        reason = f"{one.error}; kept in {one.folder}"
        click.echo(plain_lines(f"damaged while it waited: {one.name}  {result}: {reason}"), err=True)
    if damaged:
        command = next_command("data", "clean", "--damaged", "MFID")
        click.echo(f"run the pipeline again to remake it, then remove the damaged one: {command}", err=True)


def print_not_ingested(lines: Sequence[str]) -> None:
    """Print the files that Crucible could not read, one a line."""
    for line in first_lines(lines, MOST_LINES, f"not ingested: {amount(len(lines) - MOST_LINES, 'more file')}"):
        click.echo(plain(f"note: {line}"), err=True)
