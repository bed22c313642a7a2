"""The command line. A command opens a session, calls the library once and prints; it is imported when it is used."""

from __future__ import annotations

import importlib
from typing import Any

import click

from crucible_lineage import __version__

__all__ = ["main"]

# Command -> (module, what `--help` says). Known here, so that `--help` and `--version` import no command.
COMMANDS = {
    "demo": ("demo", "Run the Raman calibration on measured spectra: raw to analyzed, with its lineage."),
    "run": ("runs.run", "Run a pipeline: make what is not there yet, and register it."),
    "plan": ("runs.run", "Say what a run would do, and why. Changes nothing."),
    "check": ("questions.check", "Check pipeline files, or a dataset's lineage; exit code 2 if a file has a fault."),
    "why": ("questions.why", "Tell how a dataset came to be, or why a step of a pipeline would run."),
    "rerun": ("runs.rerun", "Make a dataset again with what is current, or all that is stale in a project."),
    "schema": ("schema", "Print the JSON Schema of pipeline files, for editors."),
    "lineage": ("questions.lineage", "Show where a dataset comes from and what was made of it."),
    "diff": ("questions.diff", "Say what differs between two datasets, or two runs, and all that they come from."),
    "impact": (
        "questions.impact",
        "List what must be redone because a dataset, a file, code or an instrument was wrong.",
    ),
    "bundle": ("questions.bundle", "Put a dataset and all that it was made from into one file that checks itself."),
    "register": ("register", "Register files: measured ones, or a result made by hand with its parents."),
    "verify": ("questions.verify", "Compare a dataset or a project with its provenance: ids, links, files."),
    "deploy": (
        "operation.deploy",
        "Let pipelines run by themselves on Prefect, as they declare: by a schedule, on an event.",
    ),
    "serve-pipelines": ("operation.deploy", "The same from one process, for a lab without a Prefect worker."),
    "watch": ("operation.watch", "Tell Prefect of new datasets, and register files that arrive in a folder."),
    "status": ("operation.status", "Say what ran here, what failed, and what is parked because it failed too often."),
    "serve": ("operation.serve", "Run the embedded Crucible for other programs."),
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"crucible_lineage.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        # click matches near names by loading every command; a plain look-up is enough and loads one.
        if args and args[0] not in COMMANDS:
            ctx.fail(f"there is no command {args[0]!r}; there are: {', '.join(COMMANDS)}")
        return super().resolve_command(ctx, args)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crucible-lineage")
def main() -> None:
    """Processing pipelines whose every result is registered in Crucible, exactly once, with its story.

    Crucible is the service named by CRUCIBLE_API_URL and CRUCIBLE_API_KEY (or by the official client's configuration);
    without them, an embedded one in the data folder.
    """
