"""`check`: pipeline files, before anything runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.exit_codes import BAD_INPUT
from crucible_lineage.cli.options import (
    chosen_settings,
    crucible_options,
    json_option,
    open_session,
    print_json,
    wants_json,
)
from crucible_lineage.cli.printing import coloured
from crucible_lineage.errors import CrucibleError, Fault, InputError
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.load import (
    Declaration,
    ingestor_faults,
    named_ingestors,
    project_fault,
    read_declaration,
)
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline


@click.command("check")
@click.argument("files", nargs=-1, metavar="FILE...")
@crucible_options
@click.option("--schema", "shows_schema", is_flag=True, help="Print the JSON Schema of pipeline files, for editors.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="With --schema: write it to this file."
)
@json_option
def check_command(files: tuple[str, ...], shows_schema: bool, output: Path | None) -> None:
    """Check pipeline FILEs: print every fault with file, line and column. Exit code 2 if there is one.

    Changes nothing. `verify` compares datasets with their records.
    """
    if shows_schema:
        if files:
            raise InputError("--schema prints the schema and checks nothing; leave files out")
        _show_schema(output)
        return
    if output is not None:
        raise InputError("--output goes with --schema")
    if not files:
        raise InputError("give a pipeline file")
    checked = _checked_files([located(name) for name in files], quiet=wants_json())
    if wants_json():
        print_json({"files": checked})
    if any(file["faults"] for file in checked):
        sys.exit(BAD_INPUT)


def _show_schema(output: Path | None) -> None:
    """Print the JSON Schema of pipeline files, or write it to a file and print the modeline that refers to it."""
    from crucible_lineage.pipeline.declare.schema import MODELINE, pipeline_schema

    if output is None:
        print_json(pipeline_schema())
        return
    output.write_text(json.dumps(pipeline_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo("start a pipeline file beside it with this line, and your editor completes and checks it:", err=True)
    click.echo(MODELINE.format(path=f"./{output.name}"))


def _checked_files(files: Sequence[Path], *, quiet: bool) -> list[JsonObject]:
    """Check each pipeline file. Unless `quiet`, print the faults of each at once."""
    makes_projects = chosen_settings().embedded
    checked = []
    first_of: dict[str, Path] = {}
    for file in files:
        declared = _declaration(file)
        bound, faults = _bound(file, declared, makes_projects=makes_projects)
        pipeline = bound.name if bound else declared and declared.document.data.get("pipeline")
        if declared and isinstance(pipeline, str) and (first := first_of.setdefault(pipeline, file)) != file:
            message = f"pipeline {pipeline!r} is also declared in {first}; rename one of them"
            faults.append(declared.document.fault(("pipeline",), message))
        if not quiet:
            for fault in faults:
                click.echo(f"{coloured('error', 'red', sys.stderr)}: {plain_lines(str(fault))}", err=True)
            if bound and not faults:
                no_faults = coloured("no faults", "green")
                click.echo(f"{file}: pipeline {bound.name}, {amount(len(bound.steps), 'step')}, {no_faults}")
        name = bound.name if bound and not faults else None
        checked.append({"file": str(file), "pipeline": name, "faults": [fault.to_json() for fault in faults]})
    return checked


def _declaration(file: Path) -> Declaration | None:
    """Read a declaration with its faults; None if it is unreadable."""
    try:
        return read_declaration(file)
    except InputError:
        return None


def _bound(
    file: Path, declared: Declaration | None, *, makes_projects: bool
) -> tuple[BoundPipeline | None, list[Fault]]:
    bound = None
    try:
        bound = bind_file(file)
        faults = []
    except InputError as error:
        faults = list(error.faults)
    spec = bound.spec if bound else declared and declared.spec
    if declared and makes_projects:
        faults += filter(None, [project_fault(declared)])
    if spec and spec.schedule:
        from crucible_lineage.flows.deploying import schedule_fault  # imports Prefect, which validates the schedule

        faults += filter(None, [schedule_fault(spec)])
    if declared and spec and (named := named_ingestors(spec)):
        faults += _ingestor_faults(file, declared, sorted(set(named.values())))
    return bound, sorted(faults, key=lambda fault: (fault.file != str(file), fault.line or 0, fault.column or 0))


def _ingestor_faults(file: Path, declared: Declaration, named: Sequence[str]) -> list[Fault]:
    """Return faults for ingestors that this Crucible does not have; print a note if it cannot be asked."""
    try:
        return ingestor_faults(declared, _ingestors())
    except CrucibleError as error:
        note = f"{file}: could not check that the ingestors {', '.join(named)} exist: {error}"
        click.echo(plain_lines(f"note: {note}"), err=True)
        return []


def _ingestors() -> tuple[str, ...]:
    """Return the ingestors of the chosen Crucible, without starting the embedded one."""
    if chosen_settings().embedded:
        from crucible_lineage.server.ingest import ingestor_names

        return tuple(ingestor_names())
    with open_session() as session:
        return session.client.ingestions.ingestors()
