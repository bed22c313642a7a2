"""Print and count the findings of `check` and `verify`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TextIO

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.printing import coloured
from crucible_lineage.lineage.checks import Finding, Severity, worst_first
from crucible_lineage.lineage.labels import plain

COLOURS = {"error": "red", "warning": "yellow"}
FINDINGS_SHOWN = 10  # of one kind

ALL = click.option("--all", "every", is_flag=True, help=f"Print every finding, not only {FINDINGS_SHOWN} of each kind.")


def print_findings(name: str, findings: Sequence[Finding], scope: str, *, every: bool) -> None:
    """Print the findings on stdout, worst first, and their number by kind."""
    ordered = worst_first(findings)
    kinds = Counter((finding.severity, finding.check) for finding in ordered)
    for line in _lines(ordered, kinds, len(ordered) if every else FINDINGS_SHOWN):
        click.echo(line)
    counts = (
        ", ".join(f"{amount(count, severity)}: {check}" for (severity, check), count in kinds.items()) or "no findings"
    )
    click.echo(f"{name}: {counts}; looked at {scope}")


def in_colour(severity: str, stream: TextIO | None = None) -> str:
    """Return the severity, in colour if the stream (by default standard output) shows colours."""
    return coloured(severity, COLOURS[severity], stream) if severity in COLOURS else severity


def _lines(findings: Sequence[Finding], kinds: Mapping[tuple[Severity, str], int], most: int) -> Iterator[str]:
    shown: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        shown[finding.severity, finding.check] += 1
        if shown[finding.severity, finding.check] <= most:
            yield f"{in_colour(finding.severity)}: {finding.check}: {plain(' '.join(finding.ids))}"
            yield f"  {plain(finding.message)}"
            if finding.command:
                yield plain(f"  way out: {finding.command}")
    for (severity, check), count in kinds.items():
        if count > most:
            yield f"{in_colour(severity)}: {check}: {count - most} more; --all prints them"
