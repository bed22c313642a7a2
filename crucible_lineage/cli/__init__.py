"""The command line. A command opens a session, calls the library once and prints. Its module is imported on use."""

from __future__ import annotations

import importlib
import sys
from typing import Any, cast

import click

from crucible_lineage import __version__
from crucible_lineage.errors import (
    FAILURE,
    INTERRUPTED,
    InputError,
    nearest,
    nearest_word,
)
from crucible_lineage.machine.process import collector_frozen

__all__ = ["main"]

ASKED = "asking"  # made from the signature of its question

# Section -> command -> (module, help). Listed here so that `--help` and `--version` import no command.
SECTIONS = {
    "Getting started": {
        "init": ("start", "Write a working pipeline, its steps and a test into a folder."),
        "demo": ("start", "Run the Raman calibration on measured spectra, raw to analyzed, with its lineage."),
    },
    "Daily use": {
        "check": ("check", "Check pipeline files. Exit code 2 if one has a fault."),
        "plan": (ASKED, "Preview a run: what it would do, and why. Changes nothing."),
        "run": ("run", "Run a pipeline: make what is missing, and register it."),
        "rerun": ("run", "Remake a dataset from current inputs, or everything stale in a project."),
        "register": ("correct", "Register files: measured ones, or a result made manually, with its parents."),
        "list": (ASKED, "List measured data and current results."),
        "show": (ASKED, "Show a dataset: state, values, files, parents, children; with --log its log."),
        "get": ("get", "Download the files of datasets, each checked by its hash."),
        "table": (ASKED, "Tabulate the results of a step, with ancestors."),
        "runs": (ASKED, "List the runs of pipelines."),
        "why": (ASKED, "Explain how a dataset came to be, or why a step would run."),
        "lineage": (ASKED, "Show what a dataset comes from, and what was made from it."),
        "diff": (ASKED, "Compare two datasets or two runs, including their ancestors."),
        "impact": (ASKED, "List what a wrong dataset, file, code or instrument affects."),
        "reproduce": ("run", "Remake results from their recorded sources, and compare number by number."),
        "verify": (ASKED, "Compare datasets with their provenance: ids, links, files."),
    },
    "Corrections": {
        "set": ("correct", "Correct fields, metadata, parents and samples of datasets."),
        "delete": ("correct", "Request the deletion of a dataset, and list what was made from it."),
    },
    "Statements": {
        "hold": ("statements", "Stop steps that would use datasets, an instrument's data, or code."),
        "sign": ("statements", "Sign results; a candidate with all its signatures is current."),
        "certify": ("statements", "Certify a calibration for an instrument and a time."),
        "lift": ("statements", "Lift a hold, flag, signature or certificate, and say what follows."),
        "statements": (ASKED, "List statements about results: who made them, and whether they are in force."),
    },
    "Operation": {
        "status": (ASKED, "Show the last runs, waiting results, and disk space in use."),
        "push": ("run", "Deliver results that were made while Crucible was away."),
        "deploy": ("watch", "Run pipelines on Prefect, on a schedule or when data arrive."),
        "answer": ("answer", "Answer requests for results of datasets."),
        "watch": ("watch", "Report new datasets to Prefect, and register files that arrive in a folder."),
        "serve": ("serve", "Serve the embedded Crucible to other programs."),
        "project": ("project", "List projects, create one, add members, and trust the statements of others."),
        "mcp": ("serve", "Answer the questions of an assistant (Model Context Protocol)."),
        "doctor": ("doctor", "Test a Crucible on a scratch project, and explain the consequences."),
        "data": ("serve", "Free disk space; copy the embedded Crucible, and restore a copy."),
    },
}
COMMANDS = {name: command for section in SECTIONS.values() for name, command in section.items()}


class _Commands(click.Group):
    as_json = False

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 (click's signature)
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in COMMANDS:
            return None
        with collector_frozen():
            module = importlib.import_module(f"crucible_lineage.cli.{COMMANDS[cmd_name][0]}")
            made = module.command_of(cmd_name) if COMMANDS[cmd_name][0] == ASKED else None
        return cast("click.Command", made or getattr(module, f"{cmd_name}_command"))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        width = max(map(len, COMMANDS))  # one column for all sections
        for section, commands in SECTIONS.items():
            with formatter.section(section):
                formatter.write_dl([(name.ljust(width), text) for name, (_, text) in commands.items()])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        # click matches near names by loading every command; a plain look-up is enough and loads one.
        if args and args[0] not in COMMANDS:
            is_near = nearest_word(args[0], COMMANDS)
            known = nearest(args[0], COMMANDS) if is_near else "to list them: crucible-lineage --help"
            ctx.fail(f"there is no command {args[0]!r}; {known}")
        return super().resolve_command(ctx, args)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        self.as_json = "--json" in args  # even if the other arguments are invalid
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> object:
        if not self.as_json:
            return self._invoke(ctx)
        from crucible_lineage.cli.printing import only_result

        with only_result():
            return self._invoke(ctx)

    def _invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except (Exception, KeyboardInterrupt) as error:
            is_ours = not isinstance(error, click.ClickException) or self.as_json  # click prints its own as text
            if isinstance(error, click.exceptions.Exit | click.Abort) or not is_ours:
                raise
            if isinstance(error, OSError):
                from crucible_lineage.cli.printing import discard, is_unread, result_stream

                if is_unread(result_stream()):
                    discard(result_stream())
                    sys.exit(FAILURE)
            code = _report(error, as_json=self.as_json)
        sys.exit(code)


def _report(error: BaseException, *, as_json: bool) -> int:
    """Print the error that ended a command, and return the exit code.

    The traceback of an unforeseen error is stored in a file, which the message names.
    """
    # A command that succeeds needs none of these.
    import json

    from crucible_lineage.cli.asking import data_folder
    from crucible_lineage.cli.printing import coloured, result_stream
    from crucible_lineage.errors import CrucibleError, RunError, StepError
    from crucible_lineage.lineage.labels import plain_lines
    from crucible_lineage.machine.disk import storage_error
    from crucible_lineage.pipeline.logs import record_fault

    if isinstance(error, OSError):
        error = storage_error(error) or error
    code = INTERRUPTED if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", None)
    if code is None:
        error, code = RunError(record_fault(error, data_folder())[0]), FAILURE
    message = error.format_message() if isinstance(error, click.ClickException) else str(error)
    if as_json:  # docs/commands.schema.json has its shape
        described: dict[str, object] = {"kind": type(error).__name__, "message": message, "exit_code": code}
        if isinstance(error, InputError):
            described["faults"] = [fault.to_json() for fault in error.faults]
        if isinstance(error, CrucibleError):
            described |= {"status": error.status, "mfid": error.mfid}
        if isinstance(error, StepError):
            described |= {"step": error.step, "log": error.log}
        click.echo(json.dumps({"error": described}, indent=2, ensure_ascii=False), file=result_stream())
    messages = [str(fault) for fault in error.faults] if isinstance(error, InputError) else [message]
    word = coloured("error", "red", sys.stderr)
    lines = [f"{word}: {plain_lines(text)}" for text in messages]
    if isinstance(error, InputError) and "nothing was changed" not in str(error):
        lines.append("nothing was changed")
    if isinstance(error, KeyboardInterrupt):
        lines = ["stopped; finished results are kept; run the same command again to continue"]
    for line in lines:
        click.echo(line, err=True)
    return code


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="crucible-lineage")
def main() -> None:
    """Run processing pipelines; register every result in Crucible exactly once, with its provenance.

    Crucible is the service named by CRUCIBLE_API_URL and CRUCIBLE_API_KEY (or by the official client's configuration);
    without them, an embedded one in the data folder.
    """
