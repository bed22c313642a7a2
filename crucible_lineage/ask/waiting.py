"""Results that wait for delivery or were damaged meanwhile, and files that Crucible could not read, in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from crucible_lineage.ask.answer import next_command
from crucible_lineage.core.journal import ResultRow
from crucible_lineage.lineage.labels import first_lines
from crucible_lineage.registration.outbox import SetAside
from crucible_lineage.text.amounts import amount
from crucible_lineage.text.times import time_shown

MOST_LINES = 20


def waiting_lines(waiting: Sequence[ResultRow]) -> Iterator[str]:
    """Yield the results that wait for delivery, since when, and why."""
    if not waiting:
        return
    datasets = amount(sum(len(row.mfids) for row in waiting), "dataset")
    yield f"not at Crucible yet: {datasets}, made and kept here since {time_shown(min(row.made for row in waiting))}"
    more = f"  ... and {amount(len(waiting) - MOST_LINES, 'more step')}"
    yield from first_lines(map(_waiting_text, waiting), MOST_LINES, more)
    yield f"to deliver them: {next_command('push')}, or run the same command again; nothing is made twice"


def _waiting_text(row: ResultRow) -> str:
    word = "refused" if row.refused else "waits"
    tried = f", tried {row.tries} times" if row.tries > 1 else ""
    reason = f": {row.error.splitlines()[0]}" if row.error else ""
    return f"  {', '.join(row.mfids)}  {row.step} ({row.project}) {word}{tried}{reason}"


def lines_of_others(rows: Sequence[ResultRow]) -> Iterator[str]:
    """Yield how many results of other accounts wait in this data folder. Only those accounts can deliver them."""
    for account, number in sorted(Counter(row.account for row in rows).items()):
        results = "1 result waits" if number == 1 else f"{number} results wait"
        yield f"not at Crucible yet: {results} for account {account}; only that account can deliver"


def damaged_lines(damaged: Sequence[SetAside]) -> Iterator[str]:
    """Yield the payloads that were damaged while they waited, and what to do about them."""
    for set_aside in damaged:
        result = f"{set_aside.step} ({set_aside.project})" if set_aside.step else "a result"
        yield f"damaged while it waited: {set_aside.name}  {result}: {set_aside.error}; kept in {set_aside.folder}"
    if damaged:
        command = next_command("data", "clean", "--damaged", "MFID")
        yield f"run the pipeline again to remake it, then remove the damaged one: {command}"


def unread_lines(unread: Sequence[str]) -> Iterator[str]:
    """Yield the files that Crucible could not read."""
    more = f"not ingested: {amount(len(unread) - MOST_LINES, 'more file')}"
    yield from (f"note: {line}" for line in first_lines(unread, MOST_LINES, more))
