"""`init`: a working pipeline to start from, with a module of steps, measured values and a test."""

from __future__ import annotations

import re
import shlex
from importlib.resources import files
from importlib.util import find_spec
from pathlib import Path

import click

from crucible_lineage.cli.options import json_option, print_result
from crucible_lineage.errors import InputError
from crucible_lineage.ids import PROJECT_ID_RULE, is_project_id

FILES = {
    "pipeline.yaml": "pipeline.yaml",
    "mysteps.py": "mysteps.py.txt",
    "test_mysteps.py": "test_mysteps.py.txt",
    "data/monday.csv": "monday.csv",
    "data/tuesday.csv": "tuesday.csv",
}
FILLED_IN = ("pipeline.yaml", "prefect.yaml")


@click.command("init")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path), default=Path())
@click.option("--project", help="The project of the results; by default, the folder's name.")
@click.option("--prefect", is_flag=True, help="Also write a prefect.yaml, which runs it every night.")
@json_option
def init_command(folder: Path, project: str | None, prefect: bool) -> None:
    """Write a working pipeline into FOLDER (by default this one): declaration, steps, measured values and a test.

    Existing files are not overwritten. With --prefect, an existing pipeline.yaml gets a prefect.yaml.
    """
    if project is not None and not is_project_id(project):
        raise InputError(f"no project can be called {project!r}: {PROJECT_ID_RULE}")
    name = _valid_name(folder)
    sources = dict(FILES)
    if prefect and (folder / "pipeline.yaml").exists():
        from crucible_lineage.pipeline.declare.load import load_pipeline  # imports pydantic, which --help does not need

        declared = load_pipeline(folder / "pipeline.yaml")
        name, project, sources = declared.pipeline, declared.project, {}
    if prefect:
        sources["prefect.yaml"] = "prefect.yaml"
    if existing := [path for path in sources if (folder / path).exists()]:
        raise InputError(f"init {folder.absolute()}: {existing[0]} already exists; name another folder")
    for path, source in sources.items():
        text = files("crucible_lineage.cli").joinpath("new", source).read_text(encoding="utf-8")
        text = text.replace("PIPELINE", name).replace("PROJECT", project or name) if path in FILLED_IN else text
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="utf-8")
    written = [str(folder / path) for path in sources]
    following = [shlex.join(["cd", str(folder)])] if folder.absolute() != Path.cwd() else []
    following += ["prefect deploy --all"] if prefect else ["crucible-lineage run pipeline.yaml"]
    following += ["python -m pytest"] if find_spec("pytest") and not prefect else []
    lines = [*(f"wrote {target}" for target in written), *(f"next: {command}" for command in following)]
    print_result({"files": written, "pipeline": name, "project": project or name}, lines)


def _valid_name(folder: Path) -> str:
    """Turn the folder's name into one that is valid for a pipeline and a project."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", folder.absolute().name).strip("-_")[:25]
    return name if re.match(r"[A-Za-z]", name) and len(name) >= 3 else "my-pipeline"
