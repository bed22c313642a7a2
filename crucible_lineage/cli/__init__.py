"""The command line. A command opens a session, calls the library once and prints; it is imported when it is used."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any, cast

import click

from crucible_lineage import __version__
from crucible_lineage.collector import collector_frozen
from crucible_lineage.errors import InputError, nearest

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

__all__ = ["main"]

# Section -> command -> (module, what `--help` says). Known here, so that `--help` and `--version` import no command.
SECTIONS = {
    "Getting started": {
        "init": ("init", "Write a working pipeline, its steps and a test into a folder."),
        "demo": ("demo", "Run the Raman calibration on measured spectra, raw to analyzed, with its lineage."),
    },
    "Daily use": {
        "check": ("questions.check", "Check pipeline files, or a lineage. Exit code 2 if a file has a fault."),
        "plan": ("runs.run", "Preview a run: what it would do, and why. Changes nothing."),
        "run": ("runs.run", "Run a pipeline: make what is missing, and register it."),
        "rerun": ("runs.rerun", "Make a dataset again from current inputs, or all that is stale in a project."),
        "register": ("correct", "Register files: measured ones, or a result made manually, with its parents."),
        "list": ("catalogue.listing", "List measured data and current results."),
        "show": ("catalogue.show", "Show a dataset: state, values, files, parents, children; with --log its log."),
        "get": ("catalogue.show", "Download the files of datasets, each checked by its hash."),
        "table": ("catalogue.table", "Tabulate the results of a step with parameters and ancestors."),
        "runs": ("catalogue.listing", "List the runs of pipelines."),
        "trend": ("catalogue.table", "Follow a number that a step returns over the time of measurement."),
        "why": ("questions.why", "Explain how a dataset came to be, or why a step would run."),
        "lineage": ("questions.lineage", "Show what a dataset comes from, and what was made from it."),
        "diff": ("questions.diff", "Compare two datasets, or two runs, with all that they come from."),
        "impact": ("questions.impact", "List what a wrong dataset, file, code or instrument affects."),
        "reproduce": ("questions.verify", "Make results again from what is kept, and compare number by number."),
        "verify": ("questions.verify", "Compare datasets with their provenance: ids, links, files."),
    },
    "Corrections": {
        "set": ("correct", "Correct fields and metadata of a dataset, or of many from a CSV table."),
        "rename": ("correct", "Rename a dataset."),
        "link": ("correct", "Link a dataset to a parent."),
        "unlink": ("correct", "Remove the link between two datasets."),
        "sample": ("correct", "Add a sample, rename it, or link it to datasets."),
        "replace": ("correct", "Register files that replace measured data: measured or exported again."),
        "delete": ("correct", "Request the deletion of a dataset, and list what was made from it."),
    },
    "Statements": {
        "hold": ("statements", "Stop what would be made from datasets, an instrument's data, or by code."),
        "unhold": ("statements", "Lift a hold. Computes nothing."),
        "sign": ("statements", "Sign results; a candidate with all its signatures is current."),
        "certify": ("certify", "Certify a calibration for an instrument and a time."),
        "decertify": ("certify", "End the validity of a calibration, and list what used it."),
        "calibration": ("certify", "Show which calibrations are certified for data."),
        "campaign": ("campaign", "Try other calibrations, compare, and make them current by one statement."),
        "statements": ("statements", "List what is stated about results, by whom, and whether it is in force."),
        "trust": ("statements", "Let statements of another project or account count in a project."),
    },
    "Sharing": {
        "push": ("operation.copying", "Deliver what waits here; with --to, copy a project to another Crucible."),
        "pull": ("operation.copying", "Copy datasets, or the inputs of a pipeline, here from a service."),
        "bundle": ("questions.lineage", "Pack a dataset and all that it was made from into one file."),
    },
    "Operation": {
        "status": ("operation.status", "Show the last runs, what is parked or waits, and the space in use."),
        "deploy": ("operation.watch", "Run pipelines on Prefect, on a schedule or when data arrive."),
        "watch": ("operation.watch", "Report new datasets to Prefect, and register files that arrive in a folder."),
        "serve": ("operation.serve", "Serve the embedded Crucible to other programs."),
        "project": ("operation.project", "List projects, create one, and add members."),
        "mcp": ("operation.serve", "Answer the questions of an assistant (Model Context Protocol)."),
        "doctor": ("operation.status", "Try on a scratch project what a Crucible does, and what that means."),
        "evict": (
            "operation.backup",
            "Free room in the embedded Crucible: what was made again elsewhere, byte for byte.",
        ),
        "clean": ("operation.backup", "Free disk space: leftovers of failed steps, and copies."),
        "backup": ("operation.backup", "Copy the embedded Crucible into a folder, also while it runs."),
        "restore": ("operation.backup", "Restore a backup, and list what is younger than the copy."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


GROUP = "crucible_lineage.commands"  # entry points: a name, and where its click command is


def _commands_of_others() -> dict[str, EntryPoint]:
    """Return the commands of other packages. They are looked for where ours do not do, and loaded when used."""
    from importlib.metadata import entry_points

    return {entry.name: entry for entry in entry_points(group=GROUP) if entry.name not in COMMANDS}


def _loaded(other: EntryPoint) -> click.Command:
    """Load the command of another package. Raises InputError, which names it, if that fails."""
    try:
        return cast("click.Command", other.load())
    except Exception as error:
        package = f" of {other.dist.name}" if other.dist else ""
        raise InputError(f"command {other.name!r}{package} cannot be loaded from {other.value}: {error}") from error


class _Commands(click.Group):
    as_json = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return [*COMMANDS, *_commands_of_others()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            other = _commands_of_others().get(cmd_name)
            return _loaded(other) if other else None
        with collector_frozen():
            module = importlib.import_module(f"crucible_lineage.cli.{COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, f"{cmd_name.replace('-', '_')}_command")
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, COMMANDS))  # one column for all sections
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])
        if others := _commands_of_others():
            with formatter.section("Other packages"):
                formatter.write_dl([(name.ljust(width), entry.value) for name, entry in others.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        # click matches near names by loading every command; a plain look-up is enough and loads one.
        if args and args[0] not in COMMANDS and args[0] not in (others := _commands_of_others()):
            ctx.fail(f"there is no command {args[0]!r}; {nearest(args[0], [*COMMANDS, *others])}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self.as_json = "--json" in args  # also where the rest of them cannot be read
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        if not self.as_json:
            return self._invoked(ctx)
        from crucible_lineage.cli.printing import only_result

        with only_result():
            return self._invoked(ctx)

    def _invoked(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            is_ours = not isinstance(error, click.ClickException) or self.as_json  # click tells its own to people
            if isinstance(error, click.exceptions.Exit | click.Abort) or not is_ours:
                raise
            if isinstance(error, OSError):
                from crucible_lineage.cli.printing import is_unread, result_stream, to_nobody

                if is_unread(result_stream()):
                    to_nobody(result_stream())
                    sys.exit(1)
            from crucible_lineage.cli.exit_codes import report_error

            code = report_error(error, as_json=self.as_json)
        sys.exit(code)


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crucible-lineage")
def main() -> None:
    """Run processing pipelines; register every result in Crucible exactly once, with its provenance.

    Crucible is the service named by CRUCIBLE_API_URL and CRUCIBLE_API_KEY (or by the official client's configuration);
    without them, an embedded one in the data folder.
    """
