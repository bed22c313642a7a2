"""What the steps of a run returned: the numbers, beside the ids of what was made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import click

from crucible_lineage.cli.colour import terminal_width
from crucible_lineage.cli.options import next_command
from crucible_lineage.errors import LineageError
from crucible_lineage.pipeline.run.result import EXECUTED, MOST_RETURNED, RunResult
from crucible_lineage.session import Session

__all__ = ["Returned", "print_returned", "returned_by"]

MOST_DATASETS = MOST_RETURNED  # that are shown: the last ones
MOST_VALUE = 60  # characters

Returned = dict[tuple[str, str], tuple[str, Mapping[str, Any]]]


def returned_by(session: Session, result: RunResult) -> Returned:
    """{(step, output): (MFID, what the step returned)} of the last datasets that a run made and delivered."""
    waiting = {mfid for one in result.waiting for mfid in one.mfids}
    made = [
        (step, output, mfid)
        for step, outputs in result.datasets.items()
        for output, mfid in outputs.items()
        if result.outcomes.get(step) == EXECUTED and mfid not in waiting
    ][-MOST_DATASETS:]
    if not made:
        return {}
    known = {mfid: values for step, output, mfid in made
             if (values := result.returned.get(step, {}).get(output)) is not None}  # fmt: skip
    known |= _asked(session, {mfid for *_, mfid in made if mfid not in known})
    return {(step, output): (mfid, known[mfid]) for step, output, mfid in made if mfid in known}


def _asked(session: Session, mfids: set[str]) -> dict[str, Mapping[str, object]]:
    """Return the values of datasets that another process or machine made."""
    if not mfids:
        return {}
    # A run that knows it itself needs none of it.
    from crucible_lineage.core.datasets import fetch_datasets
    from crucible_lineage.lineage.records import returned_values

    try:
        return {mfid: returned_values(record) for mfid, record in fetch_datasets(session.client, mfids).found.items()}
    except LineageError:  # the run is over and well; that it cannot be told about is no fault of it
        return {}


def print_returned(returned: Returned, executed: int) -> None:
    """A line for each dataset: the step, the id, and the values that it returned."""
    for line in _lines(returned):
        click.echo(line)
    if returned and executed > len(returned):
        step = next(reversed(returned))[0].partition("[")[0]
        click.echo(f"more of them: {next_command('table', '--step', step)}")


def _lines(returned: Returned) -> Iterator[str]:
    if not returned:
        return
    from crucible_lineage.lineage.labels import plain
    from crucible_lineage.lineage.values import told_value

    names = {key: key[0] if key[1] == "out" else f"{key[0]}.{key[1]}" for key in returned}
    widest = max(map(len, names.values()), default=0)
    for key, (mfid, values) in returned.items():
        said = "  ".join(f"{plain(name)} {told_value(name, value, MOST_VALUE)}" for name, value in values.items())
        line = f"{names[key]:{widest}}  {mfid}  {said}".rstrip()
        room = max(terminal_width() * 2, 120)
        yield line if len(line) <= room else f"{line[: room - 1]}…"
