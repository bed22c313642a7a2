"""`mcp`: questions of assistants, answered on standard input and output."""

from __future__ import annotations

from pathlib import Path

import click

from crucible_lineage.cli.options import crucible_options, open_session
from crucible_lineage.lineage.extra import missing_library

__all__ = ["mcp_command"]


@click.command("mcp")
@crucible_options
@click.option(
    "--folder",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    default=Path(),
    help="Where the pipelines are that may be planned; by default this folder.",
)
def mcp_command(folder: Path) -> None:
    """Answer an assistant over the Model Context Protocol: search, show, lineage, why, diff, impact, table, plan.

    It can change nothing, and sees what the key in use may see. An assistant starts it itself; its configuration names
    this command. Needs the extra `mcp`.
    """
    try:
        from crucible_lineage.assistant.serving import serve_questions  # the SDK takes a second, and is an extra
    except ImportError as error:
        raise missing_library("what an assistant asks for", "mcp", "mcp") from error
    from crucible_lineage.assistant.tools import Questions

    with open_session() as session:
        serve_questions(Questions(session, folder))
