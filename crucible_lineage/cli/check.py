"""`check`: pipeline files, before anything runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import click

from crucible_lineage.ask.answer import Coloured, Done
from crucible_lineage.ask.question import argument, option
from crucible_lineage.cli.asking import act, chosen_settings, open_session
from crucible_lineage.errors import BAD_INPUT, CrucibleError, Fault, InputError
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.declare.load import (
    Declaration,
    ingestor_faults,
    named_ingestors,
    project_fault,
    read_declaration,
)
from crucible_lineage.pipeline.declare.pipeline import pipeline_schema
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.pipeline.plan.bound import BoundPipeline
from crucible_lineage.server.ingest import ingestor_names
from crucible_lineage.text.amounts import amount


@act("check")
def check_command(
    files: Annotated[Sequence[str], argument("FILE...")] = (),
    shows_schema: Annotated[bool, option("Print the JSON Schema of pipeline files, for editors.", "--schema")] = False,
) -> Done:  # fmt: skip
    """Check pipeline FILEs: print every fault with file, line and column. Exit code 2 if there is one.

    Changes nothing. `verify` compares datasets with their records.
    """
    if shows_schema:
        if files:
            raise InputError("--schema prints the schema and checks nothing; leave files out")
        schema = pipeline_schema()
        return Done(schema, json.dumps(schema, indent=1, ensure_ascii=False).splitlines())
    if not files:
        raise InputError("give a pipeline file")
    checked = list(_checked_files([located(name) for name in files]))
    lines = (
        Coloured("green", "no faults", before=f"{file.file}: pipeline {file.pipeline}, {amount(file.steps, 'step')}, ")
        for file in checked
        if not file.faults
    )
    errors = [Coloured("red", "error", f": {fault}") for file in checked for fault in file.faults]
    return Done({"files": checked}, lines, BAD_INPUT if errors else 0, errors)


@dataclass(frozen=True)
class CheckedFile:
    """A pipeline file with its faults, and the number of its steps; `pipeline` is None if there are faults."""

    file: str
    pipeline: str | None
    faults: tuple[Fault, ...]
    steps: int
    json_keys: ClassVar = "file pipeline faults"


def _checked_files(files: Sequence[Path]) -> Iterator[CheckedFile]:
    first_of: dict[str, Path] = {}
    for file in files:
        declared = None
        with suppress(InputError):  # binding says why it is unreadable
            declared = read_declaration(file)
        bound, faults = _bound(file, declared)
        pipeline = bound.name if bound else declared and declared.document.data.get("pipeline")
        if declared and isinstance(pipeline, str) and (first := first_of.setdefault(pipeline, file)) != file:
            message = f"pipeline {pipeline!r} is also declared in {first}; rename one of them"
            faults.append(declared.document.fault(("pipeline",), message))
        name = bound.name if bound and not faults else None
        yield CheckedFile(str(file), name, tuple(faults), len(bound.steps) if bound else 0)


def _bound(file: Path, declared: Declaration | None) -> tuple[BoundPipeline | None, list[Fault]]:
    bound, faults = None, list[Fault]()
    try:
        bound = bind_file(file)
    except InputError as error:
        faults += error.faults
    spec = bound.spec if bound else declared and declared.spec
    if declared and chosen_settings().embedded:  # which makes projects
        faults += filter(None, [project_fault(declared)])
    if spec and spec.schedule:
        from crucible_lineage.flows.deploying import schedule_fault  # imports Prefect, which validates the schedule

        faults += filter(None, [schedule_fault(spec)])
    if declared and spec and (named := named_ingestors(spec)):
        try:
            if chosen_settings().embedded:  # need not be started
                names = tuple(ingestor_names())
            else:
                with open_session() as session:
                    names = session.client.ingestions.ingestors()
            faults += ingestor_faults(declared, names)
        except CrucibleError as error:
            unknown = ", ".join(sorted(set(named.values())))
            note = f"note: {file}: could not check that the ingestors {unknown} exist: {error}"
            click.echo(plain_lines(note), err=True)
    return bound, sorted(faults, key=lambda fault: (fault.file != str(file), fault.line or 0, fault.column or 0))
