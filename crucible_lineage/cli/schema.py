"""`schema`: the JSON Schema of pipeline files, so that editors complete and check them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from crucible_lineage.cli.options import print_json
from crucible_lineage.pipeline.declare.json_schema import MODELINE, pipeline_schema

__all__ = ["schema_command"]


@click.command("schema")
@click.option("-o", "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it to this file.")
def schema_command(output: Path | None) -> None:
    """Print the JSON Schema of pipeline files, or write it to a file and say what to put first in a pipeline."""
    if output is None:
        print_json(pipeline_schema())
        return
    output.write_text(json.dumps(pipeline_schema(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    click.echo("put this line first into a pipeline file beside it, and your editor completes and checks:", err=True)
    click.echo(MODELINE.format(path=f"./{output.name}"))
