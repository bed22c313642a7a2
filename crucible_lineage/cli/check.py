"""`check`: pipeline files, before anything runs."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from crucible_lineage.cli.options import BAD_INPUT, reports_errors
from crucible_lineage.errors import InputError
from crucible_lineage.pipeline.bind import bind_file

__all__ = ["check_command"]


@click.command("check")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@reports_errors
def check_command(files: tuple[Path, ...]) -> None:
    """Check pipeline FILES: every fault with file, line and column; exit code 2 if there is one."""
    faults = 0
    for file in files:
        try:
            bound = bind_file(file)
        except InputError as error:
            faults += len(error.findings)
            for finding in error.findings:
                click.echo(f"error: {finding}", err=True)
        else:
            click.echo(f"{file}: pipeline {bound.name}, {len(bound.steps)} steps, no faults")
    sys.exit(BAD_INPUT if faults else 0)
