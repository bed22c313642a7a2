"""Findings of `check` and `verify` on the terminal: one way to print and count them, one rule for the exit code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.exit_codes import FAILURE
from crucible_lineage.cli.printing import coloured
from crucible_lineage.lineage.checks import Finding, has_errors, worst_first
from crucible_lineage.lineage.labels import plain

COLOURS = {"error": "red", "warning": "yellow"}
FINDINGS_SHOWN = 10  # of one kind, to a person

ALL = click.option("--all", "every", is_flag=True, help=f"Print every finding, and not {FINDINGS_SHOWN} of a kind.")


def print_findings(name: str, findings: Sequence[Finding], looked_at: str, *, every: bool) -> None:
    """The findings on stdout, the worst first, and how many there are of each kind in what was looked at."""
    for line in _lines(worst_first(findings), None if every else FINDINGS_SHOWN):
        click.echo(line)
    kinds = Counter((finding.severity, finding.check) for finding in worst_first(findings))
    counts = (
        ", ".join(f"{amount(count, severity)}: {check}" for (severity, check), count in kinds.items()) or "no findings"
    )
    click.echo(f"{name}: {counts}; looked at {looked_at}")


def exit_code(findings: Sequence[Finding]) -> int:
    """1 if one of the findings is an error; warnings and notices are told only."""
    return FAILURE if has_errors(findings) else 0


def in_colour(severity: str, stream: TextIO | None = None) -> str:
    """The word for how bad it is, in colour where there is any (standard output, unless another stream is named)."""
    return coloured(severity, COLOURS[severity], stream) if severity in COLOURS else severity


def _lines(findings: Sequence[Finding], most: int | None) -> Iterator[str]:
    seen: Counter[tuple[str, str]] = Counter()
    for finding in findings:
        kind = finding.severity, finding.check
        seen[kind] += 1
        if most is None or seen[kind] <= most:
            yield f"{in_colour(finding.severity)}: {finding.check}: {' '.join(finding.ids)}"
            yield f"  {plain(finding.message)}"
            if finding.command:
                yield f"  way out: {finding.command}"
    for (severity, check), count in seen.items():
        if most is not None and count > most:
            yield f"{in_colour(severity)}: {check}: {count - most} more; --all prints them"
