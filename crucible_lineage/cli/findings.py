"""Print and count the findings of `check` and `verify`, and derive the exit code from them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.printing import coloured
from crucible_lineage.lineage.checks import Finding, worst_first
from crucible_lineage.lineage.labels import plain

COLOURS = {"error": "red", "warning": "yellow"}
FINDINGS_SHOWN = 10  # of one kind

ALL = click.option("--all", "every", is_flag=True, help=f"Print every finding, not only {FINDINGS_SHOWN} of each kind.")


def print_findings(name: str, findings: Sequence[Finding], scope: str, *, every: bool) -> None:
    """Print the findings on stdout, worst first, and their number by kind."""
    for line in _lines(worst_first(findings), None if every else FINDINGS_SHOWN):
        click.echo(line)
    kinds = Counter((finding.severity, finding.check) for finding in worst_first(findings))
    counts = (
        ", ".join(f"{amount(count, severity)}: {check}" for (severity, check), count in kinds.items()) or "no findings"
    )
    click.echo(f"{name}: {counts}; looked at {scope}")


def in_colour(severity: str, stream: TextIO | None = None) -> str:
    """Return the severity, in colour if the stream (by default standard output) shows colours."""
    return coloured(severity, COLOURS[severity], stream) if severity in COLOURS else severity


def _lines(findings: Sequence[Finding], most: int | None) -> Iterator[str]:
    counts: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        kind = finding.severity, finding.check
        counts[kind] += 1
        if most is None or counts[kind] <= most:
            yield f"{in_colour(finding.severity)}: {finding.check}: {plain(' '.join(finding.ids))}"
            yield f"  {plain(finding.message)}"
            if finding.command:
                yield plain(f"  way out: {finding.command}")
    for (severity, check), count in counts.items():
        if most is not None and count > most:
            yield f"{in_colour(severity)}: {check}: {count - most} more; --all prints them"
