"""`check`: pipeline files, before anything runs; and lineages, of datasets or of whole projects."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from crucible_lineage.amounts import amount
from crucible_lineage.cli.exit_codes import BAD_INPUT, FAILURE
from crucible_lineage.cli.findings import ALL, in_colour, print_findings
from crucible_lineage.cli.options import (
    announce,
    chosen_settings,
    crucible_options,
    dataset_id,
    json_option,
    open_session,
    print_json,
)
from crucible_lineage.cli.printing import coloured
from crucible_lineage.errors import CrucibleError, Fault, InputError
from crucible_lineage.ids import is_mfid
from crucible_lineage.json_types import JsonObject
from crucible_lineage.lineage.labels import nodes_text, plain_lines
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.bind.model import BoundPipeline
from crucible_lineage.pipeline.declare.load import ingestor_faults, named_ingestors
from crucible_lineage.pipeline.spec.pipeline import PipelineSpec


@click.command("check")
@click.argument("targets", nargs=-1, metavar="[FILE|MFID]...")
@crucible_options
@click.option("--project", "projects", multiple=True, help="Check the lineage of all datasets of this project.")
@click.option("--refresh", is_flag=True, help="Download the whole project again, not only what changed.")
@ALL
@click.option("--schema", "shows_schema", is_flag=True, help="Print the JSON Schema of pipeline files, for editors.")
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="With --schema: write it to this file."
)
@json_option
def check_command(
    targets: tuple[str, ...],
    projects: tuple[str, ...],
    refresh: bool,
    shows_schema: bool,
    output: Path | None,
    every: bool,
    as_json: bool,
) -> None:
    """Check pipeline FILEs: every fault with file, line and column. Check the lineage of the dataset MFID, or of a
    project: wrong links, incomplete datasets and missing parents, each with the command that repairs it.

    Exit code 2 if a file has a fault, 1 if a lineage has an error. Changes nothing.
    """
    if shows_schema:
        if targets or projects:
            raise InputError("--schema prints the schema and checks nothing; leave files, MFIDs and --project out")
        _show_schema(output)
        return
    if output is not None:
        raise InputError("--output goes with --schema")
    if not targets and not projects:
        raise InputError("give a pipeline file, the MFID of a dataset, or --project")
    datasets = [name for name in targets if _names_dataset(name)]
    files = _checked_files([Path(name) for name in targets if name not in datasets], quiet=as_json)
    lineages: JsonObject = {}
    if datasets or projects:
        # Checking a file needs no graph and no client.
        from crucible_lineage.queries.check import check_dataset, check_projects

        with open_session() as session:
            announce(session)
            mfids = [dataset_id(session, name, projects) for name in datasets]
            lineages |= {mfid: check_dataset(session, mfid) for mfid in mfids}
            if projects:
                lineages[", ".join(projects)] = check_projects(session, projects, refresh=refresh)
    if as_json:
        print_json({"files": files, "lineages": {name: found.to_json() for name, found in lineages.items()}})
    else:
        for name, found in lineages.items():
            print_findings(
                name,
                found.findings,
                f"{nodes_text(found.nodes)}, {amount(found.edges, 'link')}",
                every=every,
            )
    if any(file["faults"] for file in files):
        sys.exit(BAD_INPUT)
    sys.exit(0 if all(found.ok for found in lineages.values()) else FAILURE)


def _show_schema(output: Path | None) -> None:
    """Print the JSON Schema of pipeline files, or write it to a file and print the modeline that refers to it."""
    from crucible_lineage.pipeline.declare.json_schema import MODELINE, pipeline_schema

    if output is None:
        print_json(pipeline_schema())
        return
    output.write_text(json.dumps(pipeline_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo("start a pipeline file beside it with this line, and your editor completes and checks it:", err=True)
    click.echo(MODELINE.format(path=f"./{output.name}"))


def _names_dataset(name: str) -> bool:
    """Return False for a name that is, or looks like, a file: by its ending, or a folder in it."""
    looks_like_file = Path(name).suffix.lower() in (".yaml", ".yml", ".crux") or os.sep in name or Path(name).exists()
    return is_mfid(name) or not looks_like_file


def _checked_files(files: Sequence[Path], *, quiet: bool) -> list[JsonObject]:
    """Check each pipeline file. Unless `quiet`, print the faults of each at once."""
    makes_projects = chosen_settings().embedded
    checked = []
    first_of: dict[str, Path] = {}
    for file in files:
        bound, faults = _bound(file, makes_projects=makes_projects)
        pipeline = bound.name if bound else _declared_name(file)
        if pipeline and (first := first_of.setdefault(pipeline, file)) != file:
            faults.append(_same_name(file, pipeline, first))
        if not quiet:
            for fault in faults:
                click.echo(f"{in_colour('error', sys.stderr)}: {plain_lines(str(fault))}", err=True)
            if bound and not faults:
                no_faults = coloured("no faults", "green")
                click.echo(f"{file}: pipeline {bound.name}, {amount(len(bound.steps), 'step')}, {no_faults}")
        name = bound.name if bound and not faults else None
        checked.append({"file": str(file), "pipeline": name, "faults": [fault.to_json() for fault in faults]})
    return checked


def _bound(file: Path, *, makes_projects: bool) -> tuple[BoundPipeline | None, list[Fault]]:
    bound, faults = None, []
    try:
        bound = bind_file(file)
        faults = list(bound.faults)
    except InputError as error:
        faults = list(error.faults)
    if makes_projects:
        # Otherwise an unchanged pipeline does not import the reader.
        from crucible_lineage.pipeline.declare.load import project_fault, read_declaration

        with suppress(InputError):  # already among the faults
            faults += filter(None, [project_fault(read_declaration(file))])
    spec = bound.spec if bound else _readable(file)
    if spec and spec.schedule:
        from crucible_lineage.flows.deploying import schedule_fault  # imports Prefect, which validates the schedule

        faults += filter(None, [schedule_fault(spec)])
    if spec and (named := named_ingestors(spec)):
        faults += _ingestor_faults(file, sorted(set(named.values())))
    return bound, sorted(faults, key=lambda fault: (fault.file != str(file), fault.line or 0, fault.column or 0))


def _readable(file: Path) -> PipelineSpec | None:
    """Read what is valid of a declaration that has faults."""
    from crucible_lineage.pipeline.declare.load import read_declaration

    try:
        return read_declaration(file).spec
    except InputError:
        return None


def _declared_name(file: Path) -> str | None:
    """Return the pipeline name in a declaration that has faults; None if it has none."""
    from crucible_lineage.pipeline.declare.yaml import read_document

    try:
        data = read_document(file).data
    except InputError:
        return None
    name = data.get("pipeline") if isinstance(data, dict) else None
    return name if isinstance(name, str) else None


def _ingestor_faults(file: Path, named: Sequence[str]) -> list[Fault]:
    """Return faults for ingestors that this Crucible does not have; print a note if it cannot be asked."""
    from crucible_lineage.pipeline.declare.load import read_declaration

    try:
        known = _ingestors()
    except CrucibleError as error:
        note = f"{file}: could not check that the ingestors {', '.join(named)} exist: {error}"
        click.echo(plain_lines(f"note: {note}"), err=True)
        return []
    return ingestor_faults(read_declaration(file), known)


def _ingestors() -> tuple[str, ...]:
    """Return the ingestors of the chosen Crucible, without starting the embedded one."""
    if chosen_settings().embedded:
        from crucible_lineage.server.ingest.ingestors import ingestor_names

        return tuple(ingestor_names())
    with open_session() as session:
        return session.client.ingestions.ingestors()


def _same_name(file: Path, name: str, first: Path) -> Fault:
    """Return the fault of a name that two files declare: their results would be current side by side."""
    from crucible_lineage.pipeline.declare.yaml import read_document

    message = f"pipeline {name!r} is also declared in {first}; rename one of them"
    return read_document(file).fault(("pipeline",), message)
