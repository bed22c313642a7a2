"""`demo`: the Raman calibration, from measured files to a table of band positions, with its lineage."""

from __future__ import annotations

import csv
import io
import sys
from importlib.util import find_spec
from pathlib import Path

import click

from crucible_lineage.cli.options import (
    announced_session,
    crucible_options,
    json_option,
    print_json,
    wants_json,
)
from crucible_lineage.cli.questions.lineage import write_picture
from crucible_lineage.cli.runs.engines import RunRequest, run_with_engine
from crucible_lineage.cli.runs.progress import Progress
from crucible_lineage.cli.runs.run import exit_code
from crucible_lineage.disk import private_folder
from crucible_lineage.errors import InputError
from crucible_lineage.lineage import render_tree
from crucible_lineage.lineage.labels import plain_lines
from crucible_lineage.pipeline.bind.cached import bind_file
from crucible_lineage.pipeline.run.result import RunResult
from crucible_lineage.pipeline.spec.inputs import located
from crucible_lineage.queries.graph.fetch import fetch_lineage
from crucible_lineage.session import Session

PIPELINE = "package:crucible_lineage.deployments/pipelines/raman.yaml"


@click.command("demo")
@crucible_options
@click.option("--engine", type=click.Choice(["prefect", "local"]), default="prefect", show_default=True)
@click.option(
    "--project", help="The project of the results.  [default: demo-raman, which an embedded Crucible creates]"
)
@json_option
def demo_command(engine: str, project: str | None) -> None:
    """Calibrate a measured Raman spectrum and check its bands: three raw files, three steps, one lineage.

    Running it again changes nothing.
    """
    for package in ("numpy", "scipy", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(f"the demo needs {package}; install it with: pip install 'crucible-lineage[demo]'")
    with announced_session() as session:
        pipeline = bind_file(_declaration(project, session), session.store)
        with Progress(list(pipeline.steps), silent=wants_json()) as progress:
            result = run_with_engine(engine, RunRequest(pipeline), session, progress.listen, 2, progress.stop)
        if not result.ok:
            for step in result.errors:
                click.echo(plain_lines(f"error: {result.error_line(step)}"), err=True)
            sys.exit(exit_code(result))
        _report(result, session)


def _declaration(project: str | None, session: Session) -> Path:
    """Return the demo's declaration, or a copy for another project, which is stored beside the pictures."""
    declared = located(PIPELINE)
    if project is None:
        return declared
    path = private_folder(session.settings.data / "demo") / "raman.yaml"
    text = declared.read_text(encoding="utf-8")
    path.write_text(text.replace("project: demo-raman", f"project: {project}", 1), encoding="utf-8")
    return path


def _report(result: RunResult, session: Session) -> None:
    mfids = {name: found[0] for name, found in result.inputs.items()}
    mfids |= {step: outputs["out"] for step, outputs in result.datasets.items()}
    graph = fetch_lineage(session, mfids["bands"], thumbnails=True)
    pictures = {kind: session.settings.data / "demo" / f"lineage.{kind}" for kind in ("svg", "html")}
    for kind, path in pictures.items():
        write_picture(graph, mfids["bands"], path, kind)
    table = _band_table(session, mfids["bands"])
    if wants_json():
        lineage = {kind: str(path) for kind, path in pictures.items()}
        print_json({"datasets": mfids, "executed": result.executed, "lineage": lineage, "bands": table})
        return
    click.echo(f"\n{render_tree(graph, mfids['bands'])}\n")
    _print_table(table)
    click.echo(f"\nlineage as a picture: {pictures['svg']}\nlineage to explore:   {pictures['html']}")
    if not result.executed:
        click.echo("everything is up to date; nothing was run")


def _band_table(session: Session, mfid: str) -> list[dict[str, object]]:
    """Return the registered table of band positions."""
    files = session.client.datasets.list_files(mfid)
    (table,) = (file for file in files if file.filename == "bands.csv")
    text = session.client.files.download_bytes(table).decode()
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]


def _print_table(table: list[dict[str, object]]) -> None:
    names = list(table[0])
    click.echo("polystyrene bands, in cm-1 (reference: ASTM E1840)")
    click.echo("  " + "  ".join(f"{name.removesuffix('_cm1'):>12}" for name in names))
    for row in table:
        click.echo("  " + "  ".join(f"{row[name]:12.2f}" for name in names))
