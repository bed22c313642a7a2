"""`check`: pipeline files, before anything runs; and lineages, of datasets or of whole projects."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from crucible_lineage.cli.options import (
    BAD_INPUT,
    FAILURE,
    crucible_options,
    json_option,
    open_session,
    print_json,
    reports_errors,
)
from crucible_lineage.errors import InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.pipeline.bind.model import bind_file

__all__ = ["check_command"]

FEW = 10  # findings of one kind that a person is shown


@click.command("check")
@click.argument("what", nargs=-1, metavar="[FILE|MFID]...")
@crucible_options
@click.option("--project", "projects", multiple=True, help="Check the lineage of all datasets of this project.")
@click.option("--refresh", is_flag=True, help="Download the project anew, and not only what changed.")
@click.option("--all", "every", is_flag=True, help=f"Print every finding, and not {FEW} of a kind.")
@json_option
@reports_errors
def check_command(
    what: tuple[str, ...],
    data: Path | None,
    url: str | None,
    api_key: str | None,
    projects: tuple[str, ...],
    refresh: bool,
    every: bool,
    as_json: bool,
) -> None:
    """Check pipeline FILEs: every fault with file, line and column. Check the lineage of the dataset MFID, or of a
    project: what is linked wrongly, incomplete, or lacks a parent, each with the command that mends it.

    Exit code 2 if a file has a fault, 1 if a lineage has an error. Changes nothing.
    """
    if not what and not projects:
        raise InputError("give a pipeline file, the MFID of a dataset, or --project")
    files = [_checked_file(Path(name), quiet=as_json) for name in what if not is_mfid(name)]
    mfids = [name for name in what if is_mfid(name)]
    lineages: dict[str, Any] = {}
    if mfids or projects:
        # Who checks a file needs no graph and no client, and does not wait for them.
        from crucible_lineage.queries.check import check_dataset, check_projects

        with open_session(data, url, api_key) as session:
            if not as_json:
                click.echo(session.settings.describe())
            lineages |= {mfid: check_dataset(session, mfid) for mfid in mfids}
            if projects:
                lineages[", ".join(projects)] = check_projects(session, projects, refresh=refresh)
    if as_json:
        print_json({"files": files, "lineages": {name: found.to_json() for name, found in lineages.items()}})
    else:
        for name, found in lineages.items():
            for line in _report(name, found, None if every else FEW):
                click.echo(line)
    if any(file["faults"] for file in files):
        sys.exit(BAD_INPUT)
    sys.exit(0 if all(found.ok for found in lineages.values()) else FAILURE)


def _checked_file(file: Path, *, quiet: bool) -> dict[str, Any]:
    """What was found in a pipeline file, printed as it is found unless `quiet`."""
    try:
        bound = bind_file(file)
    except InputError as error:
        if not quiet:
            for finding in error.findings:
                click.echo(f"error: {finding}", err=True)
        return {"file": str(file), "pipeline": None, "faults": [str(finding) for finding in error.findings]}
    if not quiet:
        click.echo(f"{file}: pipeline {bound.name}, {len(bound.steps)} steps, no faults")
    return {"file": str(file), "pipeline": bound.name, "faults": []}


def _report(name: str, found: Any, most: int | None) -> Iterator[str]:
    """The findings, the worst first, `most` of a kind; and what was looked at."""
    from crucible_lineage.lineage.labels import plain  # with what imports the graph

    told: dict[tuple[str, str], int] = {}
    for finding in found.findings:
        kind = finding.severity, finding.check
        told[kind] = told.get(kind, 0) + 1
        if most is None or told[kind] <= most:
            yield f"{finding.severity}: {finding.check}: {' '.join(finding.ids)}"
            yield f"  {plain(finding.message)}"
            if finding.command:
                yield f"  way out: {finding.command}"
    for (severity, check), count in told.items():
        if most is not None and count > most:
            yield f"{severity}: {check}: {count - most} more; --all prints them"
    counts = ", ".join(f"{count} {severity}s: {check}" for (severity, check), count in told.items()) or "no findings"
    yield f"{name}: {counts}; looked at {found.nodes} datasets and samples, {found.edges} links"
