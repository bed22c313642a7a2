"""`init`: a working pipeline to start from; `demo`: the Raman calibration, from measured files to a table of bands."""

from __future__ import annotations

import csv
import io
import re
import shlex
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import click

from crucible_lineage.ask.answer import Done
from crucible_lineage.ask.lineage import Lineage
from crucible_lineage.ask.lineages import fetch_lineage
from crucible_lineage.ask.question import BEFORE, argument, option
from crucible_lineage.cli.asking import act
from crucible_lineage.cli.engines import run_with_engine
from crucible_lineage.cli.printing import wants_json
from crucible_lineage.cli.progress import Progress
from crucible_lineage.cli.run import exit_code
from crucible_lineage.errors import InputError
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id
from crucible_lineage.lineage.text import render_tree
from crucible_lineage.machine.disk import private_folder
from crucible_lineage.pipeline.declare.inputs import located
from crucible_lineage.pipeline.plan.bind import bind_file
from crucible_lineage.session import Session

FILES = {
    "pipeline.yaml": "pipeline.yaml",
    "mysteps.py": "mysteps.py.txt",
    "test_mysteps.py": "test_mysteps.py.txt",
    "data/monday.csv": "monday.csv",
    "data/tuesday.csv": "tuesday.csv",
}


@act("init", has_crucible=False)
def init_command(
    folder: Annotated[Path, argument(kind=click.Path(file_okay=False, path_type=Path))] = Path(), *,
    project: Annotated[str | None, option("The project of the results; by default, the folder's name.")] = None,
) -> Done:  # fmt: skip
    """Write a working pipeline into FOLDER (by default this one): declaration, steps, measured values and a test.

    Existing files are not overwritten. `deploy` makes the pipeline run by itself.
    """
    if project is not None and not is_project_id(project):
        raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}")
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().name).strip("-_")[:25]
    name = name if re.match(r"[A-Za-z]", name) and len(name) >= 3 else "my-pipeline"  # valid for a project, too
    if existing := [path for path in FILES if (folder / path).exists()]:
        raise InputError(f"init {folder.absolute()}: {existing[0]} already exists; name another folder")
    for path, source in FILES.items():
        text = files("crucible_lineage.cli").joinpath("new", source).read_text(encoding="utf-8")
        text = text.replace("PIPELINE", name).replace("PROJECT", project or name) if path == "pipeline.yaml" else text
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    written = [str(folder / path) for path in FILES]
    following = [shlex.join(["cd", str(folder)])] if folder.absolute() != Path.cwd() else []
    following += ["crucible-lineage run pipeline.yaml", *(["python -m pytest"] if find_spec("pytest") else [])]
    lines = [*(f"wrote {target}" for target in written), *(f"next: {command}" for command in following)]
    return Done({"files": written, "pipeline": name, "project": project or name}, lines)


PIPELINE = "package:crucible_lineage.deployments/pipelines/raman.yaml"


@act("demo", announced=BEFORE)
def demo_command(
    session: Session, *,
    engine: Annotated[str, option("", choices=("prefect", "local"))] = "prefect",
    project: Annotated[
        str | None, option("The project of the results.  [default: demo-raman, which an embedded Crucible creates]")
    ] = None,
) -> Done:  # fmt: skip
    """Calibrate a measured Raman spectrum and check its bands: three raw files, three steps, one lineage.

    Running it again changes nothing.
    """
    for package in ("numpy", "scipy", "matplotlib"):
        if find_spec(package) is None:
            raise InputError(f"the demo needs {package}; install it with: pip install 'crucible-lineage[demo]'")
    path = located(PIPELINE)
    if project is not None:  # a copy for another project, beside the pictures
        text = path.read_text(encoding="utf-8").replace("project: demo-raman", f"project: {project}", 1)
        path = private_folder(session.settings.data / "demo") / "raman.yaml"
        path.write_text(text, encoding="utf-8")
    pipeline = bind_file(path, session.store)
    with Progress(list(pipeline.steps), silent=wants_json()) as progress:
        result = run_with_engine(engine, pipeline, session, progress, 2)
    if not result.ok:
        return Done(result, (), exit_code(result), [f"error: {result.error_line(step)}" for step in result.errors])
    mfids = {name: found[0] for name, found in result.inputs.items()}
    mfids |= {step: outputs["out"] for step, outputs in result.datasets.items()}
    graph = fetch_lineage(session, mfids["bands"], thumbnails=True)
    pictures = {kind: session.settings.data / "demo" / f"lineage.{kind}" for kind in ("svg", "html")}
    for kind, path in pictures.items():
        Lineage(graph, mfids["bands"], kind, path).written()
    (stored,) = (file for file in session.client.datasets.list_files(mfids["bands"]) if file.filename == "bands.csv")
    text = session.client.files.download_bytes(stored).decode()
    table = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(io.StringIO(text))]
    names = list(table[0])
    bands = ["polystyrene bands, in cm-1 (reference: ASTM E1840)"]
    bands.append("  " + "  ".join(f"{name.removesuffix('_cm1'):>12}" for name in names))
    bands += ["  " + "  ".join(f"{row[name]:12.2f}" for name in names) for row in table]
    document = {"datasets": mfids, "executed": result.executed, "lineage": pictures, "bands": table}
    tree = ["", *render_tree(graph, mfids["bands"]), ""]
    written = ["", f"lineage as a picture: {pictures['svg']}", f"lineage to explore:   {pictures['html']}"]
    end = [] if result.executed else ["everything is up to date; nothing was run"]
    return Done(document, [*tree, *bands, *written, *end])
