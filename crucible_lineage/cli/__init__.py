"""The command line. A command opens a session, calls the library once and prints; it is imported when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import Any

import click

from crucible_lineage import __version__
from crucible_lineage.errors import nearest

__all__ = ["main"]

# Command -> (module, what `--help` says). Known here, so that `--help` and `--version` import no command.
COMMANDS = {
    "init": ("init", "Write a working pipeline, its steps and a test into a folder, to begin with."),
    "demo": ("demo", "Run the Raman calibration on measured spectra: raw to analyzed, with its lineage."),
    "run": ("runs.run", "Run a pipeline: make what is not there yet, and register it."),
    "plan": ("runs.run", "Say what a run would do, and why. Changes nothing."),
    "check": ("questions.check", "Check pipeline files, or a dataset's lineage; exit code 2 if a file has a fault."),
    "log": ("runs.log", "Print what a step printed: with a dataset's id, or its name, also if it failed."),
    "why": ("questions.why", "Tell how a dataset came to be, or why a step of a pipeline would run."),
    "list": ("catalogue.listing", "List what holds now in a project: current results and measured data."),
    "show": ("catalogue.show", "Show a dataset: its state, what its step returned, its files, parents and children."),
    "get": ("catalogue.get", "Get the files of datasets, each checked by its hash."),
    "table": ("catalogue.table", "Put the results of a step into a table: parameters, returned values, ancestors."),
    "runs": ("catalogue.runs", "List the runs of pipelines; `runs diff` says what differs between two."),
    "rerun": ("runs.rerun", "Make a dataset again with what is current, or all that is stale in a project."),
    "push": ("operation.push", "Deliver what is made here; with --to, bring a whole project to another Crucible."),
    "pull": ("operation.pull", "Bring datasets, or what a pipeline takes, here from a service, for work offline."),
    "schema": ("schema", "Print the JSON Schema of pipeline files, for editors."),
    "lineage": ("questions.lineage", "Show where a dataset comes from and what was made of it."),
    "diff": ("questions.diff", "Say what differs between two datasets, or two runs, and all that they come from."),
    "impact": (
        "questions.impact",
        "List what must be redone because a dataset, file, code or instrument was wrong.",
    ),
    "bundle": ("questions.bundle", "Put a dataset and all that it was made from into one file that checks itself."),
    "register": ("register", "Register files: measured ones, or a result made by hand with its parents."),
    "set": ("correct", "Correct fields and metadata of a dataset, or of many by a table, with who, when and why."),
    "rename": ("correct", "Give a dataset another name."),
    "link": ("correct", "Make a dataset the parent of another one."),
    "unlink": ("correct", "Take a link between two datasets away."),
    "sample": ("correct", "Add a sample, rename it, or say what was measured on it."),
    "replace": ("correct", "Register files in the stead of measured data: measured or exported again."),
    "delete": ("correct", "Ask for a dataset to be deleted, and say what was made of it."),
    "verify": ("questions.verify", "Compare a dataset or a project with its provenance: ids, links, files."),
    "deploy": (
        "operation.deploy",
        "Let pipelines run by themselves on Prefect, by a schedule or on an event.",
    ),
    "serve-pipelines": ("operation.deploy", "The same from one process, for a lab without a Prefect worker."),
    "watch": ("operation.watch", "Tell Prefect of new datasets, and register files that arrive in a folder."),
    "status": ("operation.status", "Say what ran here and how it ended, what is parked, and how much room it takes."),
    "clean": ("operation.clean", "Free room on the disk: what failed steps left, and copies that can be made again."),
    "backup": ("operation.backup", "Copy the embedded Crucible into a folder, also while it runs."),
    "restore": ("operation.backup", "Bring a backup back, and say what is younger than the copy."),
    "mcp": ("operation.mcp", "Answer the questions of an assistant (Model Context Protocol); changes nothing."),
    "serve": ("operation.serve", "Run the embedded Crucible for other programs."),
}


class _Commands(click.Group):
    as_json = False

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
            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], COMMANDS)}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self.as_json = "--json" in args  # also where the rest of them cannot be read
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            is_ours = not isinstance(error, click.ClickException) or self.as_json  # click tells its own to people
            if isinstance(error, click.exceptions.Exit | click.Abort) or not is_ours:
                raise
            if isinstance(error, OSError):
                from crucible_lineage.cli.unread import is_unread, to_nobody

                if is_unread(sys.stdout):
                    to_nobody(sys.stdout)
                    sys.exit(1)
            from crucible_lineage.cli.ending import report_error

            code = report_error(error, as_json=self.as_json)
        sys.exit(code)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crucible-lineage")
def main() -> None:
    """Processing pipelines whose every result is registered in Crucible, exactly once, with its story.

    Crucible is the service named by CRUCIBLE_API_URL and CRUCIBLE_API_KEY (or by the official client's configuration);
    without them, an embedded one in the data folder.
    """
